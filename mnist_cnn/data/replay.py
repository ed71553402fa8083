"""A wrapper that lets any training loader resume within an epoch."""

import random
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from mnist_cnn.internals.loaders import exchange_loaders, forget_workers, training_loaders
from mnist_cnn.runs.generators import generators, set_generators
from mnist_cnn.runs.signals import outlive_stop

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
FEW = 100  # maximum length of a container searched for generators; longer ones hold data
NO_PARTS = (type, types.ModuleType, torch.Tensor)  # not searched for generators


def has_state(loader: Any) -> bool:
    """Return whether a loader resumes by itself, as torchdata's StatefulDataLoader does."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def can_replay(loader: Any) -> bool:
    """Return whether a loader yields the same batches again from the same random states.

    False if it is its own iterator or reads an IterableDataset, which may be a stream.
    """
    if has_state(loader):
        return True
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return not isinstance(loader, Iterator)


class ReplayLoader:
    """Wrapper that resumes a loader within an epoch.

    A loader without `state_dict` is replayed: the random states from the start of the epoch are
    restored, and its first batches are fetched again and dropped, so that the generators in its
    workers advance as well. This costs the time of loading them. Other attributes are the loader's.

    Args:
        loader: loader that yields the same batches again from the same random states, or has a
            `state_dict`.
        device: device of the training, whose generator is restored, too.

    Attributes:
        restore: called when a resumed epoch has reached its position, before its first batch.
        between: called between two batches, when the next one is requested.
    """

    def __init__(self, loader: Any, device: torch.device):
        self.loader, self.device = loader, device
        self.restore: Callable[[], Any] = bool
        self.between: Callable[[], Any] = bool
        self.done = 0  # batches returned in this epoch
        self.batches: Iterator[Any] = iter(())
        self.cut_short = False  # whether the finished epoch left batches out
        self.begun: dict[str, Any] = {}  # the random states at the start of the epoch
        self.resumed: dict[str, Any] | None = None  # the state to resume from

    def __getattr__(self, name: str) -> Any:
        if "loader" not in self.__dict__:  # while being copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # a generator: nothing is drawn before the first batch is requested, after all hooks that
        # run before an epoch have drawn their own
        resumed, self.resumed, self.done = self.resumed, None, 0
        by_itself = has_state(self.loader)
        if not by_itself:
            if resumed:
                set_generators(resumed["begun"]["global"], self.device)
                set_own_states(resumed["begun"]["own"], loader=self.loader)
            own = own_states(loader=self.loader)
            self.begun = {"global": generators(self.device), "own": own}
            if getattr(self.loader, "persistent_workers", False):
                # the random states in workers of an earlier epoch cannot be read
                forget_workers(self.loader)
        self.batches = iter(self.loader)
        if resumed:
            for _ in range(0 if by_itself else resumed["done"]):
                next(self.batches)
            self.done = resumed["done"]
            set_own_states(resumed["own"], loader=self.loader)
            self.restore()
        for batch in self.batches:
            self.done += 1
            yield batch
            self.between()

    def end_epoch(self) -> None:
        """Reset the position after an epoch."""
        if has_state(self.loader) and self.done:
            self.cut_short = self.done != sized_len(self.loader)
            if not self.cut_short:
                next(self.batches, None)  # has none; tells the loader that its epoch is over
        self.done, self.begun = 0, {}

    def state_dict(self) -> dict[str, Any]:
        state = {"done": self.done, "begun": self.begun, "own": own_states(loader=self.loader)}
        if has_state(self.loader):
            state |= {"loader": self.loader.state_dict(), "cut_short": self.cut_short}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if has_state(self.loader):
            self.loader.load_state_dict(state["loader"])
            if not state["done"]:
                self.leave_epoch(state["cut_short"])
        self.resumed = state if state["done"] else None
        set_own_states(state["own"], loader=self.loader)

    def leave_epoch(self, cut_short: bool) -> None:
        """Make a loader whose epoch is over begin the next epoch at the next `iter`."""
        if cut_short:  # by trainer.limit_train_batches: it would continue with the rest
            next(iter(self.loader), None)
        else:  # torchdata's loader draws for its finished iterator now, not in the next epoch
            self.loader.state_dict()


def keep_workers(trainer: L.Trainer) -> None:
    """Have the workers of all loaders outlive a request to stop the training."""
    for each in CombinedLoader([training_loaders(trainer), trainer.val_dataloaders]).flattened:
        if isinstance(each, DataLoader):
            init: Any = each.worker_init_fn
            if getattr(init, "func", None) is not outlive_stop:
                each.worker_init_fn = partial(outlive_stop, init=init)


def make_resumable(trainer: L.Trainer) -> list[Any]:
    """Wrap the training loaders in ReplayLoaders; return those that cannot be wrapped."""
    device = trainer.strategy.root_device
    made = []
    for each in training_loaders(trainer):
        bare = can_replay(each) and not isinstance(each, ReplayLoader)
        made.append(ReplayLoader(each, device) if bare else each)
    exchange_loaders(trainer, made)
    return [each for each in made if not isinstance(each, ReplayLoader)]


def resumable(trainer: L.Trainer) -> list[ReplayLoader]:
    """Return the training loaders that can resume within an epoch."""
    return [each for each in training_loaders(trainer) if isinstance(each, ReplayLoader)]


def own_states(**holders: Any) -> dict[str, Any]:
    """Return the states of the generators held by objects, such as a loader, and their parts."""
    return {name: get_state(found) for name, found in own_generators(**holders).items()}


def set_own_states(states: dict[str, Any], **holders: Any) -> None:
    found = own_generators(**holders)
    for name in found.keys() & states.keys():
        set_state(found[name], states[name])


def own_generators(**holders: Any) -> dict[str, Any]:
    """Return the generators held by objects, such as a loader, and their parts, by path."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def visit(node: Any, path: str) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, GENERATORS):
            found[path] = node
            return
        parts = parts_of(node)
        if len(parts) <= FEW:
            for name, value in parts.items():
                if name != "_iterator":  # of a DataLoader with persistent workers
                    visit(value, f"{path}.{name}")

    for name, holder in holders.items():
        visit(holder, name)
    return found


def parts_of(node: Any) -> Mapping[Any, Any]:
    """Return what an object holds, by name: a method its object, a function what it closes over."""
    if isinstance(node, Mapping):
        return node
    if isinstance(node, list | tuple):
        return dict(enumerate(node)) if len(node) <= FEW else {}
    if isinstance(node, partial):
        return {"func": node.func, "args": node.args, "keywords": node.keywords}
    if isinstance(node, NO_PARTS) or type(node).__module__.startswith("lightning."):
        return {}
    names = {name for kind in type(node).__mro__ for name in getattr(kind, "__slots__", ())}
    names |= {"__self__", "__defaults__", "__kwdefaults__"}
    parts = {name: getattr(node, name, None) for name in sorted(names)}
    cells = getattr(node, "__closure__", None) or ()
    closed = {f"cell{n}": cell.cell_contents for n, cell in enumerate(cells) if is_filled(cell)}
    return {**parts, **closed, **getattr(node, "__dict__", {})}


def is_filled(cell: types.CellType) -> bool:
    """Return whether the variable of a closure has a value yet."""
    return cell != types.CellType()


def get_state(generator: Any) -> Any:
    """Return the state of a generator as plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return plain(generator.get_state(legacy=False))
    return plain(generator.bit_generator.state)


def set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def plain(state: Any) -> Any:
    """Convert the arrays of a dict to lists, as checkpoints loaded with weights_only have none."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
