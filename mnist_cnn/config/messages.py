"""Sentences for mistakes: `key must be X, got Y`, and how an extra is installed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


def must_be(key: str, allowed: str, value: Any) -> str:
    """The sentence for a wrong value."""
    return f"{key} must be {allowed}, got {shown(value)}"


def sentences(error: "ValidationError", part: str = "") -> list[str]:
    """Return a sentence for each wrong value that pydantic found.

    Args:
        part: the key of what was validated, where it is a part of the configuration.
    """
    found = []
    for fault in error.errors():
        key = ".".join(map(str, (part, *fault["loc"]))).lstrip(".")
        if fault["type"] == "value_error":  # a rule of ours, which names the keys itself
            text = str(fault["ctx"]["error"])
        elif fault["type"] == "missing":
            text = f"{key} must be given"
        else:  # `Input should be greater than 0`, `String should match ...`
            wanted = re.sub(r"^\w+ should", "must", fault["msg"])
            wanted = re.sub(r" or instance of \w+$", "", wanted)
            text = f"{key} {wanted}, got {shown(fault['input'])}"
        found.append(text)
    return list(dict.fromkeys(found))


def either(options: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) if value != "" else "''"


def install(extra: str) -> str:
    """The command that installs an extra of a clone; of a wheel the extra's name."""
    # this project's own name an index may know as somebody else's
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():
        return f'pip install -e "{clone}[{extra}]"'
    return f"the extra {extra} of this package"
