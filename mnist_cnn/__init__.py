"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cnn.config.compose import compose as compose
    from mnist_cnn.data.datamodule import MNISTDataModule as MNISTDataModule
    from mnist_cnn.evaluate import evaluate as evaluate
    from mnist_cnn.module import DigitClassifier as DigitClassifier
    from mnist_cnn.pretrained import load as load
    from mnist_cnn.reading.reader import read_digits as read_digits
    from mnist_cnn.train import train as train

# imported when they are first used: torch takes seconds
PLACES = {
    "DigitClassifier": "module",
    "MNISTDataModule": "data.datamodule",
    "compose": "config.compose",
    "evaluate": "evaluate",
    "load": "pretrained",
    "read_digits": "reading.reader",
    "train": "train",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mnist-cnn")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)


class Package(ModuleType):
    """Here `train` and `evaluate` are the functions, also after their modules are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and PLACES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package

# In `python -m mnist_cnn.COMMAND` alone sys.argv[0] is still "-m" here. Until the command handles
# Ctrl-C itself, the signal ends the program silently, without the traceback of an import.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
