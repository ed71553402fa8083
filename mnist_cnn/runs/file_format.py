"""The format version of this project's files, their mark, and values that JSON can represent."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "format_version"  # in checkpoints, weights files and results.json
VERSION = 1


def check_format(content: Mapping[str, Any]) -> None:
    """Raise ValueError for a file of another format version; other programs' files have none."""
    if (found := content.get(KEY, VERSION)) != VERSION:
        raise ValueError(f"{KEY} must be {VERSION}, got {found}: another release wrote it")


def check_replaceable(path: Path, mark: str) -> None:
    """Raise ValueError if a path is a link, or a file without the mark of those that replace it."""
    if path.is_symlink() or (path.exists() and mark.encode() not in path.read_bytes()):
        raise ValueError(f"{path} exists and is not of this command: move or rename it")


def finite(value: Any) -> Any:
    """Replace each number that is not finite by None, as JSON cannot represent it."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
