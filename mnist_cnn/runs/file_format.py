"""The version of what this project writes: checkpoints, weights files and results.json."""

from collections.abc import Mapping
from typing import Any

KEY = "format_version"
VERSION = 1


def check_format(content: Mapping[str, Any]) -> None:
    """Raise ValueError for a file of another version; other programs' files have none."""
    if (found := content.get(KEY, VERSION)) != VERSION:
        raise ValueError(f"{KEY} must be {VERSION}, got {found}: another release wrote it")
