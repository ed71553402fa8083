"""The site builds without a warning, and its Python page lists the public API."""

import pkgutil
import re

import pytest

import mnist_cnn
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


def test_what_the_page_on_python_lists_is_imported_as_it_says():
    page, rest = (DOCS / "api.md").read_text("utf-8").split("\n## By their modules")
    for name in re.findall(r"^::: ([\w.]+)$", rest, re.MULTILINE):
        assert callable(pkgutil.resolve_name(name))
    listed = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE)) - {"model", "custom"}
    listed |= {
        name for names in re.findall(r"members: \[(.*)\]", page) for name in names.split(", ")
    }
    assert listed == set(mnist_cnn.__all__)
