"""Code and commands from the pages of docs/."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of each fenced block, except for those of Keras."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if not content.startswith("# Keras")]
