"""The classes that an untrusted file may name, and valid arguments for each."""

import contextlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from mnist_cnn import model
from mnist_cnn.config import instantiate

# by the name of a required argument; optional ones are in OPTIONAL
REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("kernel_size", "out_channels", "output_size", "in_channels"), 2),
    **dict.fromkeys(("num_groups", "groups", "num_heads", "nhead", "num_chunks"), 2),
    **dict.fromkeys(("size", "num_layers", "norm_type", "p", "dim", "step_size", "padding"), 2),
    **dict.fromkeys(("in_features", "out_features", "in1_features", "in2_features"), 3),
    **dict.fromkeys(("upscale_factor", "downscale_factor", "num_classes", "num_labels"), 3),
    **dict.fromkeys(("input_size", "T_max", "T_0", "hidden"), 3),
    **dict.fromkeys(("num_features", "hidden_size", "normalized_shape", "num_embeddings"), 4),
    **dict.fromkeys(("embedding_dim", "embed_dim", "d_model", "num_channels"), 4),
    **dict.fromkeys(("value", "beta", "threshold", "gamma", "dropout", "channel_dropout"), 0.5),
    **dict.fromkeys(("min_recall", "min_precision"), 0.5),
    **dict.fromkeys(("min_specificity", "min_sensitivity"), 0.5),
    **dict.fromkeys(("max_lr", "base_lr", "swa_lr", "mean", "std"), 0.1),
    "bias": False,
    "channels": [2, 2],
    "cutoffs": [2, 3],
    "default_value": torch.zeros(1),
    "defaults": {},
    "fn": "sum",
    "lr_lambda": lambda epoch: 1.0,
    "milestones": [2],
    "mode": "LSTM",
    "n_classes": 5,
    "stages": [[2], [2]],
    "task": "multiclass",
    "unflattened_size": (2, 2),
}
OPTIONAL = {"num_classes": 3, "num_labels": 3, "total_steps": 5, "output_ratio": 0.5}


def allowed_classes() -> dict[str, type]:
    """Return the classes of the allowlist by name."""
    for package in ("torch.nn.modules", "torch.optim", "torchmetrics"):
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            if may_be_named(f"{module.name}."):
                importlib.import_module(module.name)
    places = [m for name, m in sys.modules.items() if may_be_named(f"{name}.")]
    kinds = {each for place in places for each in vars(place).values() if instantiate.is_part(each)}
    kinds.discard(lr_scheduler.LRScheduler)  # abstract
    names = sorted(filter(may_be_named, map(instantiate.home_of, kinds)))
    found = {name: instantiate.locate(name, "model", instantiate.CHECKPOINTS) for name in names}
    assert {model.CNN, nn.Conv2d, SGD} < {*found.values()}
    return found


def may_be_named(name: str) -> bool:
    return instantiate.matches(name, instantiate.CHECKPOINTS)


def names_of(kind: type) -> list[str]:
    """Return the names of a class's arguments."""
    recurrent = nn.LSTM.__mro__[1]  # its signature says *args
    more = ["input_size", "hidden_size", "num_layers"] if issubclass(kind, recurrent) else []
    parameters = inspect.signature(kind).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [*dict.fromkeys([*named, *more])]


def arguments(kind: type) -> dict[str, Any]:
    """Return arguments with which a class can be instantiated."""
    optimizer = SGD([nn.Parameter(torch.zeros(2, 2))], lr=0.1, momentum=0.9)
    made = {
        "params": [nn.Parameter(torch.zeros(2, 2))],
        "optimizer": optimizer,
        "model": nn.Linear(2, 2),
        "schedulers": [lr_scheduler.ConstantLR(optimizer) for _ in range(2)],
    }
    parameters = inspect.signature(kind).parameters
    names = [
        name
        for name in names_of(kind)
        if name not in parameters or parameters[name].default is inspect.Parameter.empty
    ]
    optional = {key: value for key, value in OPTIONAL.items() if key in parameters}
    if "output_size" not in parameters:
        optional.pop("output_ratio", None)
    return {**optional, **{name: ({**REQUIRED, **made})[name] for name in names}}


OF_IMPORTS = (".py", ".pyc", ".so", ".zip")
FORBIDDEN = ("open", "socket.", "subprocess.", "urllib.", "os.system", "os.mkdir", "os.exec")
_asked: list[str] = []  # attempts in the last `isolated`
_hooks: list[Any] = []
_watched = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or not event.startswith(FORBIDDEN):
        return
    place = str(arguments[0])
    # allow imports and reading the versions of packages
    if not (place.endswith(OF_IMPORTS) or ".dist-info" in place):
        _asked.append(f"{event} {arguments}")
        raise PermissionError(_asked[-1])


@contextlib.contextmanager
def isolated() -> Iterator[list[str]]:
    """Forbid connections, files and processes; yield the list of attempts."""
    global _watched
    if _watch not in _hooks:
        sys.addaudithook(_watch)  # permanent: audit hooks cannot be removed
        _hooks.append(_watch)
    _asked.clear()
    _watched = True
    try:
        yield _asked
    finally:
        _watched = False
