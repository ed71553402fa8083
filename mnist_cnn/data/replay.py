"""A training loader that resumes within an epoch, around any loader of batches."""

import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from torch.utils.data import DataLoader, IterableDataset

from mnist_cnn.internals.loaders import exchange_loaders, forget_workers, training_loaders
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

    Attributes:
        restore: called when a resumed epoch is at its position, before its first batch.
        between: called between two batches, when the next one is asked for.
    """

    def __init__(self, loader: Any, device: torch.device):
        self.loader, self.device = loader, device
        self.restore: Callable[[], Any] = bool
        self.between: Callable[[], Any] = bool
        self.done = 0  # batches handed out in this epoch
        self.batches: Iterator[Any] = iter(())
        self.cut_short = False  # whether the epoch that is over left some out
        self.begun: dict[str, Any] = {}  # the random states before the first of them
        self.resumed: dict[str, Any] | None = None  # the state to go on from

    def __getattr__(self, name: str) -> Any:
        if "loader" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # a generator: nothing is drawn before the first batch is asked for, when all hooks that
        # come before an epoch have drawn their own
        resumed, self.resumed, self.done = self.resumed, None, 0
        by_itself = has_state(self.loader)
        if not by_itself:
            if resumed:
                set_generators(resumed["begun"]["global"], self.device)
                self.set_own(resumed["begun"]["own"])
            self.begun = {"global": generators(self.device), "own": self.own()}
            if getattr(self.loader, "persistent_workers", False):
                # workers of an earlier epoch have random states that nobody can read
                forget_workers(self.loader)
        self.batches = iter(self.loader)
        if resumed:
            for _ in range(0 if by_itself else resumed["done"]):
                next(self.batches)
            self.done = resumed["done"]
            self.set_own(resumed["own"])
            self.restore()
        for batch in self.batches:
            self.done += 1
            yield batch
            self.between()

    def end_epoch(self) -> None:
        """Set the position between two epochs."""
        if has_state(self.loader) and self.done:
            self.cut_short = self.done != sized_len(self.loader)
            if not self.cut_short:
                next(self.batches, None)  # has none, and tells the loader that its epoch is over
        self.done, self.begun = 0, {}

    def state_dict(self) -> dict[str, Any]:
        state = {"done": self.done, "begun": self.begun, "own": self.own()}
        if has_state(self.loader):
            state |= {"loader": self.loader.state_dict(), "cut_short": self.cut_short}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if has_state(self.loader):
            self.loader.load_state_dict(state["loader"])
            if not state["done"]:
                self.leave_epoch(state["cut_short"])
        self.resumed = state if state["done"] else None
        self.set_own(state["own"])

    def leave_epoch(self, cut_short: bool) -> None:
        """Have a loader whose epoch is over begin the next one at the next `iter`, as it would."""
        if cut_short:  # by trainer.limit_train_batches: it would go on with the rest
            next(iter(self.loader), None)
        else:  # torchdata's draws for its finished iterator now, not in the next epoch
            self.loader.state_dict()

    def own(self) -> dict[str, Any]:
        """The states of the generators that the loader and its parts hold."""
        return {name: get_state(found) for name, found in own_generators(self.loader).items()}

    def set_own(self, states: dict[str, Any]) -> None:
        found = own_generators(self.loader)
        for name in found.keys() & states.keys():
            set_state(found[name], states[name])


def make_resumable(trainer: L.Trainer) -> list[Any]:
    """Put a ReplayLoader around each training loader that has none; return those that cannot be."""
    device = trainer.strategy.root_device
    made = []
    for each in training_loaders(trainer):
        bare = can_replay(each) and not isinstance(each, ReplayLoader)
        made.append(ReplayLoader(each, device) if bare else each)
    exchange_loaders(trainer, made)
    return [each for each in made if not isinstance(each, ReplayLoader)]


def resumable(trainer: L.Trainer) -> list[ReplayLoader]:
    """Return the training loaders that are resumed within an epoch."""
    return [each for each in training_loaders(trainer) if isinstance(each, ReplayLoader)]


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
