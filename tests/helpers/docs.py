"""What the pages of docs/ tell a reader to write and to run."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block that is no line of Keras."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if not content.startswith("# Keras")]
