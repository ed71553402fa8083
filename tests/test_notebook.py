"""docs/tutorial.ipynb is the tutorial's page, and works from its first cell to its last."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.process import environment

DOCS = Path(__file__).parents[1] / "docs"


def test_the_notebook_is_the_page(monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.syspath_prepend(str(DOCS))
    notebook = importlib.import_module("make_notebook")
    stored = nbformat.read(notebook.NOTEBOOK, 4)
    expected = notebook.cells(notebook.PAGE.read_text("utf-8"))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in expected]
    assert notebook.NOTEBOOK.stat().st_size < 400_000
    kinds = [
        kind for cell in stored.cells for o in cell.get("outputs", []) for kind in o.get("data", {})
    ]
    assert kinds.count("image/png") >= 4


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    made = tmp_path / "made.ipynb"
    command = [sys.executable, DOCS / "make_notebook.py", made]
    env = environment(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "image/png" in made.read_text("utf-8")
