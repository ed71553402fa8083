"""The states of the random generators of Python, NumPy and PyTorch, as plain values."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def generators(device: torch.device) -> dict[str, Any]:
    algorithm, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    states = {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "cpu": torch.get_rng_state(),
    }
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_generators(states: dict[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    algorithm, keys, *rest = states["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type])


@contextlib.contextmanager
def restored_generators(device: torch.device) -> Iterator[None]:
    """Restore the states of the generators at the end, as of a trial."""
    states = generators(device)
    try:
        yield
    finally:
        set_generators(states, device)


@contextlib.contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators, and restore their states at the end."""
    with restored_generators(device):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
