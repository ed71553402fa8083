"""What is printed through rich."""

from typing import Any

from rich.console import Console as Console


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


def printable(text: str) -> str:
    """A text without what it could make a terminal do."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
