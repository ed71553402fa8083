"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
import os
import signal
import sys
from typing import Any

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
    "load": "pretrained",
    "load_picture": "reading.picture",
    "read_digits": "reading.reader",
}
__all__ = [*PLACES]


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mnist-cnn")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
