"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
import os
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cnn.analysis.networks import as_trained
    from mnist_cnn.config.compose import compose
    from mnist_cnn.data.augment import Augment
    from mnist_cnn.data.custom import ArraysDataModule, FolderDataModule
    from mnist_cnn.data.datamodule import ImageDataModule, MNISTDataModule
    from mnist_cnn.data.picture import load_picture
    from mnist_cnn.data.transforms import Transforms
    from mnist_cnn.detection.trained import load_reader
    from mnist_cnn.evaluate import evaluate
    from mnist_cnn.export import export
    from mnist_cnn.module import DigitClassifier
    from mnist_cnn.reading.reader import read_digits
    from mnist_cnn.reading.reading import Reading
    from mnist_cnn.sweeps import resumable
    from mnist_cnn.train import train
    from mnist_cnn.weights.predictor import Trained, load

    __version__: str

__all__ = [
    "ArraysDataModule",
    "Augment",
    "DigitClassifier",
    "FolderDataModule",
    "ImageDataModule",
    "MNISTDataModule",
    "Reading",
    "Trained",
    "Transforms",
    "as_trained",
    "compose",
    "evaluate",
    "export",
    "load",
    "load_picture",
    "load_reader",
    "read_digits",
    "resumable",
    "train",
]

# a command's imports take seconds: until it handles signals, Ctrl-C ends it without a traceback
_program = os.path.basename("".join(sys.argv[:1]))  # -m while Python looks for mnist_cnn.train
_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interrupts and (_program == "-m" or _program.startswith("mnist-cnn-")):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# imported on first use: torch takes seconds
PLACES = {
    "ArraysDataModule": "data.custom",
    "Augment": "data.augment",
    "DigitClassifier": "module",
    "FolderDataModule": "data.custom",
    "ImageDataModule": "data.datamodule",
    "MNISTDataModule": "data.datamodule",
    "Reading": "reading.reading",
    "Trained": "weights.predictor",
    "Transforms": "data.transforms",
    "as_trained": "analysis.networks",
    "compose": "config.compose",
    "evaluate": "evaluate",
    "export": "export",
    "load": "weights.predictor",
    "load_picture": "data.picture",
    "load_reader": "detection.trained",
    "read_digits": "reading.reader",
    "resumable": "sweeps",
    "train": "train",
}


class Package(ModuleType):
    """This package, where `train` stays the function even after `import mnist_cnn.train`.

    Python would set the attribute to the submodule; that one stays in sys.modules, for `from
    mnist_cnn.train import ...`. Likewise hydra.main is the function of hydra/main.py.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mnist-cnn")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
