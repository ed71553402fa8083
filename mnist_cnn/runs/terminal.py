"""Consoles and progress bars of rich."""

from collections.abc import Iterable
from typing import Any, TypeVar

from rich import progress
from rich.console import Console as Console

T = TypeVar("T")


def console(**options: Any) -> Console:
    """A console of rich that prints text as it is: `a[b]` is no markup, `:x:` no emoji.

    It breaks no line of text, and without a terminal no row of a table either. Progress bars need
    soft_wrap=False.
    """
    plain = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
    made = Console(**(plain | options))
    if not made.is_terminal:
        made.width = 1000
    return made


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """Iterates over the items, with a bar on stderr where that is a terminal."""
    screen = console(stderr=True, soft_wrap=False)
    hidden = not screen.is_terminal
    return progress.track(items, what, console=screen, transient=True, disable=hidden)


def printable(text: str) -> str:
    """A text without what it could make a terminal do."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
