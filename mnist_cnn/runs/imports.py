"""Imports of large packages."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Import PyTorch and what uses it without garbage collection, and freeze what is imported.

    Modules live as long as the program: searching them for garbage takes half of the time of
    `import torch, lightning.pytorch`, and again a part of each later collection and of the exit.
    Nothing changes once torch is imported, so that no object of a program is frozen with them.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
