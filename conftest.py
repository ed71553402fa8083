"""Fixtures of the tests and benchmarks: the data folder, cleanup, faults and a browser."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# before torch is imported: threads of tests that run in parallel would wait for one another
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hydra.core.hydra_config import HydraConfig

from mnist_cnn.config import instantiate

# a shell starts background jobs with SIGINT ignored, and their children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.hookimpl(tryfirst=True)  # before -m selects tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session", autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the data folder of this process and its children, filled from the bundled files."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_CNN_DATA", str(root))
        # of tests that run in parallel, too, on which a run prints a line
        patch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
        yield root


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    instantiate.allow([])
    HydraConfig.instance().cfg = None  # a failed job leaves its own, with its working directory


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Yield a function that sets what checks.faults.KillAt does in this process."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def chosen(point: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        monkeypatch.setenv("FAULT", point)

    yield chosen
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser driven by Playwright; tests that use it are marked `browser`."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--disable-quic"])
        yield browser
        browser.close()
