"""Limits on the size of what a configuration describes, checked before it takes memory or time."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MAX_VALUES = 100_000_000  # 400 MB, and with Adam's moments and the gradients 1.6 GB
MAX_CALLS = 20_000  # of PyTorch functions to build a part, in 0.6 s; ResNet-152 takes 5,000
MAX_PARTS = 25_000  # values in a part of the configuration: a layer takes 3 kB besides its weights
MAX_DEPTH = 50


class _Budget(TorchFunctionMode):
    """Raises ValueError after more than MAX_CALLS calls, and for tensors over MAX_VALUES."""

    def __init__(self, key: str):
        super().__init__()
        self.key, self.calls = key, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        if self.calls > MAX_CALLS:  # a number may ask for any number of layers
            raise ValueError(f"{self.key} must have fewer layers, got over {MAX_CALLS:,} calls")
        if isinstance(result, Tensor):
            self.check_values(result.numel())
        return result

    def check_values(self, count: int) -> None:
        if count > MAX_VALUES:
            allowed = f"at most {MAX_VALUES:,} parameters and buffers"
            raise ValueError(f"{self.key} must have {allowed}, got {count:,}")


def check_size(make: Callable[[], Any], key: str) -> None:
    """Check the size of a module, or a list of parts, by making it on the meta device.

    Tensors take no memory there.

    Raises:
        ValueError: it takes over MAX_CALLS calls of PyTorch, its parameters, buffers and metric
            states have over MAX_VALUES values, or it cannot be made.
    """
    budget = _Budget(key)
    with torch.device("meta"), budget:
        made = make()
        parts = made if isinstance(made, list) else [made]
        modules = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        kept = {id(tensor): tensor.numel() for tensor in tensors(modules)}
    budget.check_values(sum(kept.values()))


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors of a module and its submodules, also those not in the state_dict."""
    for each in module.modules():
        for value in vars(each).values():
            kept = value.values() if isinstance(value, Mapping) else [value]
            yield from (one for one in kept if isinstance(one, Tensor))


def check_parts(node: Any, key: str) -> None:
    """Raise ValueError for a part of the configuration with over MAX_PARTS values, or too deep.

    In a checkpoint, a list may contain itself, or repeat another list that repeats a third.
    """
    waiting, count = [(node, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        inner = list(value.values() if isinstance(value, Mapping) else value)
        count += len(inner)
        if count > MAX_PARTS or depth > MAX_DEPTH:
            allowed = f"at most {MAX_PARTS:,} values, and {MAX_DEPTH} levels"
            raise ValueError(f"{key} must have {allowed}, got more")
        waiting += [(each, depth + 1) for each in inner if isinstance(each, Mapping | list | tuple)]
