"""A convolutional network for handwritten digits: train, compare and ship it."""

import importlib
import importlib.metadata
from typing import Any

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
