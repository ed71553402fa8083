"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cnn.config.compose import compose as compose
    from mnist_cnn.data.datamodule import MNISTDataModule as MNISTDataModule
    from mnist_cnn.module import DigitClassifier as DigitClassifier
    from mnist_cnn.pretrained import load as load
    from mnist_cnn.reading.picture import load_picture as load_picture
    from mnist_cnn.reading.reader import read_digits as read_digits

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


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mnist-cnn")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *PLACES]
