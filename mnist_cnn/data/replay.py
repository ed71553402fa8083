"""A training loader that resumes within an epoch, around any loader of batches."""

import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mnist_cnn.runs.generators import generators, set_generators

FEW = 100  # elements of a list that may hold generators; longer ones hold data
NO_PARTS = (type, types.ModuleType, torch.Tensor)  # whose attributes are no part of a loader


def has_state(loader: Any) -> bool:
    """Tell whether a loader resumes by itself, as torchdata's StatefulDataLoader does."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def can_replay(loader: Any) -> bool:
    """Tell whether a loader gives the same batches again from the same random states.

    It does not where it is its own iterator or reads an IterableDataset, which may be a stream.
    """
    if has_state(loader):
        return True
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return not isinstance(loader, Iterator)


class ReplayLoader:
    """Resumes a loader within an epoch.

    A loader without `state_dict` is replayed: the random states that it began the epoch with are
    restored, its first batches fetched again and dropped, so that the generators in its workers
    advance as well. That costs the time of loading them. Other attributes are the loader's.

    Args:
        loader: gives the same batches again from the same random states, or has a `state_dict`.
        device: of the training, whose generator is restored, too.
    """

    def __init__(self, loader: Any, device: torch.device):
        self.loader, self.device = loader, device
        self.done = 0  # batches handed out in this epoch
        self.begun: dict[str, Any] = {}  # the random states before the first of them
        self.resumed: dict[str, Any] | None = None  # the state to go on from

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # a generator: nothing is drawn before the first batch is asked for, when all hooks that
        # come before an epoch have drawn their own
        resumed, self.resumed = self.resumed, None
        self.done = 0
        if resumed and not has_state(self.loader):
            self.set_states(resumed["begun"])
        self.begun = {} if has_state(self.loader) else self.states()
        if getattr(self.loader, "persistent_workers", False) and not has_state(self.loader):
            # workers of an earlier epoch have random states that nobody can read
            self.loader._iterator = None
        batches = iter(self.loader)
        if resumed:
            if not has_state(self.loader):
                for _ in range(resumed["done"]):
                    next(batches)
            self.done = resumed["done"]
            self.set_states(resumed["now"])
        for batch in batches:
            self.done += 1
            yield batch

    def end_epoch(self) -> None:
        """Set the position to the start of an epoch."""
        self.done, self.begun = 0, {}

    def state_dict(self) -> dict[str, Any]:
        state = {"done": self.done, "begun": self.begun, "now": self.states()}
        if has_state(self.loader):
            state["loader"] = self.loader.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if has_state(self.loader):
            self.loader.load_state_dict(state["loader"])
            if not state["done"]:
                # torchdata's makes its finished iterator now, and draws for it, not at the first
                # batch of the next epoch
                self.loader.state_dict()
        self.resumed = state if state["done"] else None
        self.set_states(state["now"])

    def states(self) -> dict[str, Any]:
        """The states of all global generators, and of those that the loader and its parts hold."""
        own = {name: get_state(found) for name, found in own_generators(self.loader).items()}
        return {"global": generators(self.device), "own": own}

    def set_states(self, states: dict[str, Any]) -> None:
        set_generators(states["global"], self.device)
        found = own_generators(self.loader)
        for name in found.keys() & states["own"].keys():
            set_state(found[name], states["own"][name])


def own_generators(loader: Any) -> dict[str, Any]:
    """The generators that a loader, its samplers, its data set and their parts hold, by path."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(node: Any, path: str) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, torch.Generator | np.random.Generator | random.Random):
            found[path] = node
            return
        parts: dict[Any, Any] = {}
        if isinstance(node, dict):
            parts = node
        elif isinstance(node, list | tuple):
            parts = dict(enumerate(node)) if len(node) <= FEW else {}
        elif not isinstance(node, NO_PARTS) and not type(node).__module__.startswith("lightning."):
            parts = getattr(node, "__dict__", {})
        if len(parts) <= FEW:
            for name, value in parts.items():
                if name != "_iterator":  # of a DataLoader with persistent workers
                    visit(value, f"{path}.{name}")

    visit(loader, "loader")
    return found


def get_state(generator: Any) -> Any:
    """The state of a generator as plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    return plain(generator.bit_generator.state)


def set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


def plain(state: Any) -> Any:
    """A dict without arrays, of which a checkpoint that loads with weights_only has none."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
