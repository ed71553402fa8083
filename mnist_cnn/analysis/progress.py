"""A bar of progress."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich import progress

from mnist_cnn import terminal

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str) -> Iterable[T]:
    """Iterates over the items, with a bar on stderr where that is a terminal."""
    console = terminal.console(stderr=True, soft_wrap=False)
    hidden = not console.is_terminal
    return progress.track(items, what, console=console, transient=True, disable=hidden)
