"""The versions of this project and of what it stands on."""

import contextlib
import importlib.metadata
import platform

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "numpy", "mnist-cnn")


def versions() -> dict[str, str]:
    """By package; a clone that is not installed has none."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def line() -> str:
    """All of them in one line, this project's first."""
    found = {"mnist-cnn": "not installed", "python": platform.python_version(), **versions()}
    return ", ".join(f"{package} {version}" for package, version in found.items())
