"""How PyTorch hands out memory in deterministic mode, read in torch 2.13.

It is documented, but its module exports no such name to a type checker.
"""

import contextlib
from collections.abc import Iterator

from torch.utils import deterministic


@contextlib.contextmanager
def not_filled() -> Iterator[None]:
    """Inside, new tensors are not first filled with NaN, which takes 5 % of a training step.

    Filling is there to find code that reads memory before it writes there; it changes no result of
    code that does not.
    """
    before = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]
