"""Consoles and progress bars of Rich."""

from collections.abc import Iterable
from typing import Any, TypeVar

import rich.console
from rich import progress
from rich.text import Text

T = TypeVar("T")


class Console(rich.console.Console):
    """A console on which text, such as the name of a stranger's folder, controls nothing."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), *args, **options)


def console(**options: Any) -> Console:
    """Return a Rich console that prints text as it is: `a[b]` is no markup, `:x:` no emoji.

    It wraps no text, and without a terminal no table row either. Progress bars need
    soft_wrap=False.
    """
    plain = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
    made = Console(**(plain | options))
    if not made.is_terminal:
        made.width = 1000
    return made


def track(items: Iterable[T], what: str) -> Iterable[T]:
    """Iterate over items with a progress bar on stderr, if that is a terminal."""
    screen = console(stderr=True, soft_wrap=False)
    hidden = not screen.is_terminal
    return progress.track(items, what, console=screen, transient=True, disable=hidden)


def printable(text: str) -> str:
    """Replace unprintable characters by `?`, so that text cannot control a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def reason(error: Exception) -> str:
    """Return one printable line for an error, free of a hostile file's control sequences."""
    line = " ".join(str(error).split()) or type(error).__name__
    return printable(line)[:400]
