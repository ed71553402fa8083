"""docs/tutorial.md: its commands and Python lines run in their order, and print what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.process import environment

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block that is no line of Keras."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if not content.startswith("# Keras")]


@pytest.mark.slow
def test_the_tutorial_works_from_its_first_line_to_its_last(tmp_path):
    script = ["import subprocess"]
    expected = []
    page = blocks(PAGE.read_text("utf-8"))
    for (language, content), (after, printed) in zip(page, [*page[1:], ("", "")], strict=True):
        if language == "python":
            script.append(content)
            expected += [printed] * (after == "")
        elif language == "bash":
            for line in content.replace("python -m", f"{sys.executable} -m").splitlines():
                script.append(f"subprocess.run({line!r}, shell=True, check=True, stdout=2)")
    assert len(expected) == 4
    (tmp_path / "page.py").write_text("\n".join(script))
    env = {**environment(), "OMP_NUM_THREADS": "1"}  # several would wait for other programs
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "".join(expected)
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / picture).is_file()
        assert list(tmp_path.rglob(picture)), f"{picture} is not written by the page's commands"
