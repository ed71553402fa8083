"""What the package needs is declared, and what is missing is asked for by a command that works."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

from mnist_cnn.config import messages

ROOT = Path(__file__).parents[1]


def imported(folder: str) -> set[str]:
    """The packages that the files of a folder import."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names}
    return tops - {"mnist_cnn", "tests", *sys.stdlib_module_names}


def test_every_package_that_is_imported_is_declared():
    declared = re.findall(r'"([A-Za-z][\w-]*)', (ROOT / "pyproject.toml").read_text("utf-8"))
    providers = importlib.metadata.packages_distributions()
    for package in sorted(imported("mnist_cnn") | imported("tests")):
        named = {name.lower().replace("_", "-") for name in providers.get(package, [package])}
        assert named & set(declared), package


def test_tests_share_what_lies_in_helpers_alone():
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    shared = {
        name for text in sources for name in re.findall(r"^(?:from|import) (tests\S*)", text, re.M)
    }
    assert shared
    assert all(name.startswith("tests.helpers.") for name in shared), shared


def test_an_install_hint_is_the_readmes_in_a_clone_and_names_the_packages_beside_a_wheel(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    assert messages.install("photo") == 'pip install -e ".[photo]"'
    monkeypatch.chdir(tmp_path)
    assert messages.install("photo") == f'pip install -e "{ROOT}[photo]"'
    installed = tmp_path / "site-packages" / "mnist_cnn" / "config" / "messages.py"
    monkeypatch.setattr(messages, "__file__", str(installed))
    hint = messages.install("demo")
    assert hint.startswith("pip install ")
    for package in ("uvicorn", "opencv-python-headless", "pillow"):  # of its own extra as well
        assert re.search(rf'"{package}[<>]\S+"', hint)
    assert "mnist" not in hint  # that name may be somebody else's on an index
