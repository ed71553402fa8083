"""Dependencies are declared, and the hint for a missing one names a working command."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.config import messages

ROOT = Path(__file__).parents[1]


def imported(folder: str) -> set[str]:
    """Return the packages that the files of a folder import."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names}


def test_every_package_that_is_imported_is_declared():
    listed = importlib.metadata.requires("mnist-cnn") or []  # of all extras
    declared = {re.split(r"[^\w.-]", each)[0].lower() for each in listed}
    providers = importlib.metadata.packages_distributions()
    ours = {"mnist_cnn", "hydra_plugins", "tests"}
    for package in sorted((imported("mnist_cnn") | imported("tests")) - ours):
        named = {name.lower().replace("_", "-") for name in providers.get(package, [package])}
        assert named & declared, package


def test_the_package_imports_no_tests_or_benchmarks_and_these_not_each_other():
    assert imported("mnist_cnn").isdisjoint({"tests", "benchmarks"})
    assert "benchmarks" not in imported("tests")
    assert "tests" not in imported("benchmarks")


def test_the_locked_versions_are_those_of_the_records():
    lock = (ROOT / "benchmarks" / "requirements.lock").read_text("utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", lock, re.M))
    record = json.loads((ROOT / "benchmarks" / "article.json").read_text("utf-8"))
    recorded = re.findall(r"'versions': (\{.*?\})", str(record))
    assert recorded
    for text in recorded:
        versions = ast.literal_eval(text)
        for package in versions.keys() - {"python", "mnist-cnn"}:
            assert pins[package] == versions[package]
    assert len(re.findall(r"^[^\s#]+==", lock, re.M)) == len(pins)  # each with a hash
    assert "://" not in lock


def test_an_install_hint_works_in_a_clone_and_names_the_extra_of_a_wheel(tmp_path, monkeypatch):
    assert messages.install("photo") == f'pip install -e "{ROOT}[photo]"'
    installed = tmp_path / "site-packages" / "mnist_cnn" / "config" / "messages.py"
    monkeypatch.setattr(messages, "__file__", str(installed))
    hint = messages.install("demo")
    assert "demo" in hint
    assert "mnist" not in hint  # on an index the name may belong to another package


@pytest.mark.slow
def test_the_examples_of_own_parts_run_on_the_installed_wheel_outside_the_repository(tmp_path):
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(wheel, check=True)
    site, away = tmp_path / "site", tmp_path / "away"
    install = [*pip, "install", "--no-deps", "--target", site, *tmp_path.glob("*.whl")]
    subprocess.run(install, check=True)
    examples = ("test_own_parts.py", "test_library.py")
    shutil.copytree(ROOT / "tests" / "helpers", away / "tests" / "helpers")
    (away / "docs").mkdir()
    tests = (f"tests/{name}" for name in ("__init__.py", *examples))
    for name in ("pyproject.toml", "conftest.py", "docs/extend.md", *tests):
        shutil.copy(ROOT / name, away / name)
    # the package is importable from there alone
    where = "import mnist_cnn; print(mnist_cnn.__file__)"
    options: Any = {"cwd": away, "env": {**os.environ, "PYTHONPATH": str(site)}, "text": True}
    found = subprocess.run([sys.executable, "-c", where], stdout=subprocess.PIPE, **options)
    assert Path(found.stdout.strip()).is_relative_to(site)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, stdout=subprocess.PIPE, **options)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
