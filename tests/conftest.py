"""Real digits for all tests, and short ways to train on a few of them."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# before torch is imported: where tests run in parallel, threads would wait for those of the others
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mnist_cnn.config.compose import compose
from mnist_cnn.train import train
from tests.helpers.process import PATIENCE, environment
from tests.helpers.training import SHORT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run"),
    # a browser has errands of its own
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the data, for this process and the ones it starts; filled from the bundle."""
    root = tmp_path_factory.mktemp("data")
    before = os.environ.get("MNIST_CNN_DATA")
    os.environ["MNIST_CNN_DATA"] = str(root)
    yield root
    os.environ.pop("MNIST_CNN_DATA")
    if before is not None:
        os.environ["MNIST_CNN_DATA"] = before


@pytest.fixture(scope="session", autouse=True)
def processes_hear_ctrl_c() -> Iterator[None]:
    """A shell starts its background jobs deaf to it, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def determinism_is_not_left_behind() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def short_run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Trains a few steps into tmp_path/<name> and returns what results.json holds."""

    def run(name: str = "run", *overrides: str) -> dict[str, Any]:
        return train(compose([*SHORT, *overrides], run_dir=tmp_path / name, run_name=name))

    return run


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets what helpers.faults.KillAt does in this process."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def chosen(point: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        monkeypatch.setenv("FAULT", point)

    yield chosen
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m mnist_cnn.train ARGS` in tmp_path as a process of its own."""

    def run(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-m", "mnist_cnn.train", *args],
            cwd=tmp_path,
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of this machine, driven by Playwright; a test that uses it is marked `browser`."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()
