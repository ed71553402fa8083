"""Hooks for mkdocs: add the README, the benchmarks and the model card to the site's pages.

Turn links to files that are not pages, such as code, into plain text, as the site does not know the
repository's address.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "benchmarks.md": "benchmarks/README.md",
    "model_card.md": "mnist_cnn/weights/shipped/MODEL_CARD.md",
}
FIGURES = ROOT / "benchmarks"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#]*)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for name, source in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, name, content=text))
    for picture in (FIGURES / "accuracy.png", *sorted((FIGURES / "measurements").glob("*.png"))):
        name = picture.relative_to(FIGURES).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    names = {source: name for name, source in PAGES.items()}

    def link(found: "re.Match[str]") -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        target = re.sub(r"^(\.\./)+", "", target)
        target = names.get(target, target)
        known = not target or "://" in target or files.get_file_from_path(target)
        return f"[{text}]({target}{anchor})" if known else text

    return LINK.sub(link, re.sub(r"\]\((\.\./)*docs/", "](", markdown))
