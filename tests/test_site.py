"""The site builds without a warning, and its Python page lists the public API."""

import re

import pytest

from tests.helpers.docs import DOCS
from tests.helpers.process import run

pytest.importorskip("mkdocstrings_handlers.python", reason="needs the extra docs")


def test_the_page_on_python_lists_classes_their_methods_and_functions(tmp_path):
    built = run(DOCS.parent, "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path))
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "api" / "index.html").read_text("utf-8")
    names = set(re.findall(r'<h[1-6] id="mnist_cnn\.([\w.]+)"', page))
    shown = {"model.CNN", "model.CNN.forward", "data.datamodule.ImageDataModule.load"}
    shown |= {"module.DigitClassifier.load_weights", "train.train", "data.custom.FolderDataModule"}
    assert shown <= names
    assert not [name for name in names if re.search(r"\._[a-z]", name)]
