"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cnn.config.compose import compose
    from mnist_cnn.data.datamodule import MNISTDataModule
    from mnist_cnn.module import DigitClassifier
    from mnist_cnn.reading.picture import load_picture
    from mnist_cnn.reading.reader import read_digits
    from mnist_cnn.weights.predictor import load

    __version__: str

__all__ = [
    "DigitClassifier",
    "MNISTDataModule",
    "compose",
    "load",
    "load_picture",
    "read_digits",
]

# a command, whose imports take seconds: until it listens to signals, Ctrl-C ends it silently
_program = os.path.basename("".join(sys.argv[:1]))  # -m while Python looks for mnist_cnn.train
_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interrupts and (_program == "-m" or _program.startswith("mnist-cnn-")):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# imported when they are first used: torch takes seconds
PLACES = {
    "DigitClassifier": "module",
    "MNISTDataModule": "data.datamodule",
    "compose": "config.compose",
    "load": "weights.predictor",
    "load_picture": "reading.picture",
    "read_digits": "reading.reader",
}


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mnist-cnn")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
