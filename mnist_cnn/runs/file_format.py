"""What this project writes: its version, and values that JSON has."""

import math
from collections.abc import Mapping
from typing import Any

KEY = "format_version"  # of checkpoints, weights files and results.json
VERSION = 1


def check_format(content: Mapping[str, Any]) -> None:
    """Raise ValueError for a file of another version; other programs' files have none."""
    if (found := content.get(KEY, VERSION)) != VERSION:
        raise ValueError(f"{KEY} must be {VERSION}, got {found}: another release wrote it")


def finite(value: Any) -> Any:
    """Return a value with null for each number that is not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
