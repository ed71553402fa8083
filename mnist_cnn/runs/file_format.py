"""The format version of this project's files, their mark, and values that JSON can represent."""

import math
import re
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
    """Raise ValueError if a path exists and is no file that a pattern of bytes is found in."""
    ours = path.is_file() and not path.is_symlink() and re.search(mark.encode(), path.read_bytes())
    if (path.exists() or path.is_symlink()) and not ours:
        raise ValueError(f"{path} exists and is not of this command: move or rename it")


def finite(value: Any) -> Any:
    """Replace each number that is not finite by None, as JSON cannot represent it."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
