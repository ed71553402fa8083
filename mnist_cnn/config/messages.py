"""Sentences for mistakes: `key must be X, got Y`, and how an extra is installed."""

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def must_be(key: str, allowed: str, value: Any) -> str:
    """The sentence for a wrong value."""
    return f"{key} must be {allowed}, got {shown(value)}"


def either(options: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) if value != "" else "''"


def install(extra: str) -> str:
    """The command that installs an extra of this project, from a clone or beside a wheel.

    It never names this project, which an index may know as somebody else's.
    """
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():
        return f'pip install -e "{"." if Path.cwd() == clone else clone}[{extra}]"'
    return f"pip install {' '.join(requirements(extra))}"


def requirements(extra: str) -> list[str]:
    """The requirements of an extra of the installed package, those of its own extras included."""
    found: list[str] = []
    for line in importlib.metadata.requires("mnist-cnn") or ():
        requirement, _, marker = line.partition(";")
        if re.search(rf"""extra == ['"]{extra}['"]""", marker):
            inner = re.fullmatch(r"mnist[-_]cnn\[(.+)\]", requirement.strip())
            for name in inner[1].split(",") if inner else ():
                found += requirements(name)
            if not inner:
                found.append(f'"{requirement.strip()}"')
    return found
