"""A bar of progress."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich import progress

from mnist_cnn import terminal

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], what: str) -> Iterable[T]:
    """The items, with a bar on stderr while they are gone through, where that is a terminal."""
    console = terminal.console(stderr=True, soft_wrap=False)
    return progress.track(
        items, what, console=console, transient=True, disable=not console.is_terminal
    )
