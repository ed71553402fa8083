"""Error messages such as `key must be X, got Y`, and the command that installs an extra."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


def must_be(key: str, allowed: str, value: Any) -> str:
    """Return the message for a wrong value."""
    return f"{key} must be {allowed}, got {shown(value)}"


def sentences(error: "ValidationError", part: str = "") -> list[str]:
    """Return a message for each wrong value that pydantic found.

    Args:
        part: the key of what was validated, if that is a part of the configuration.
    """
    found = []
    for fault in error.errors():
        key = ".".join(map(str, (part, *fault["loc"]))).lstrip(".")
        if fault["type"] == "value_error":  # from a validator of this project, which names the keys
            text = str(fault["ctx"]["error"])
        elif fault["type"] == "missing":
            text = f"{key} must be given"
        else:  # `Input should be greater than 0`, `String should match ...`
            wanted = re.sub(r"^\w+ should", "must", fault["msg"])
            wanted = re.sub(r" or instance of \w+$", "", wanted).replace("None", "null")
            text = f"{key} {wanted}, got {shown(fault['input'])}"
        found.append(text)
    return list(dict.fromkeys(found))


def either(options: Sequence[str]) -> str:
    """Join options as in `a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def shown(value: Any) -> str:
    """Format a value as YAML does."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) if value != "" else "''"


def install(extra: str) -> str:
    """Return the command that installs an extra in a clone, or for a wheel the extra's name."""
    # on a package index this project's name may belong to somebody else
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():
        return f'pip install -e "{clone}[{extra}]"'
    return f"the extra {extra} of this package"
