"""docs/extend.md: what it says to write trains, is checked, evaluated and swept, as it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.process import environment
from tests.test_tutorial import blocks

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
FEW = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=1", "trainer.max_epochs=2"]


@pytest.mark.slow
def test_own_parts_work_as_the_page_says_in_an_empty_folder(tmp_path):
    beside, _ = PAGE.read_text("utf-8").split("\n## A clone under another name\n")
    commands = []
    for language, content in blocks(beside):
        if language == "bash":
            commands += content.splitlines()
            continue
        name = re.search(r"^# (my_\S+)\n", content, re.MULTILINE)
        assert name, content
        file = tmp_path / name[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(content)
    assert len(commands) > 10
    for command in commands:
        command = command.replace("python -m", f"{sys.executable} -m")
        few = " ".join(FEW) if "mnist_cnn.train" in command else ""
        done = subprocess.run(
            f"{command} {few}",
            shell=True,
            cwd=tmp_path,
            env=environment(OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, command + done.stdout[-2000:] + done.stderr[-2000:]
    assert list(tmp_path.glob("outputs/*/*/metrics.jsonl"))
    (sweep,) = tmp_path.glob("outputs/sweeps/*/*")
    assert len(list(sweep.glob("*/results.json"))) == 4
