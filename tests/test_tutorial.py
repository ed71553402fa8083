"""docs/tutorial.md and the notebook made from it work from the first line to the last."""

import importlib
import itertools

import pytest

from tests.helpers.docs import DOCS, blocks
from tests.helpers.process import environment

nbformat = pytest.importorskip("nbformat")
PAGE = (DOCS / "tutorial.md").read_text("utf-8")
SHORTER = {
    "trainer.max_epochs=10 ": "trainer.max_epochs=3 ",
    "trainer.max_epochs=11": "trainer.max_epochs=4",
    "-m experiment=fast": "-m experiment=fast trainer.limit_train_batches=9",
}


def kinds(notebook) -> list[str]:
    """Return the MIME types of the outputs, such as image/png."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [kind for output in outputs for kind in output.get("data", {})]


@pytest.fixture
def make_notebook(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("make_notebook")


def test_the_notebook_is_the_page(make_notebook):
    stored = nbformat.read(make_notebook.NOTEBOOK, 4)
    expected = make_notebook.cells(PAGE)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in expected]
    assert make_notebook.NOTEBOOK.stat().st_size < 400_000
    assert kinds(stored).count("image/png") >= 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_and_prints_what_the_page_says(make_notebook, tmp_path, monkeypatch):
    page = PAGE
    for whole, shorter in SHORTER.items():
        assert whole in page
        page = page.replace(whole, shorter)
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(make_notebook, "PAGE", tmp_path / "page.md")
    for name, value in environment(OMP_NUM_THREADS="1", COLUMNS="110").items():
        monkeypatch.setenv(name, value)  # restores those that the notebook sets
    made = make_notebook.make()
    assert kinds(made).count("image/png") >= 4
    outputs = {cell.source: cell.outputs for cell in made.cells if cell.cell_type == "code"}
    printed = [
        (outputs[content.strip()][0].text, after.strip("\n"))
        for (kind, content), (language, after) in itertools.pairwise(blocks(PAGE))
        if (kind, language) == ("python", "")
    ]
    assert len(printed) == 4
    assert all(text == expected for text, expected in printed)
