"""What `self.log` and torchmetrics gather in an epoch, which Lightning leaves out of checkpoints.

Private API of Lightning, as of release 2.6.6, and of torchmetrics, as of release 1.9.
"""

import builtins
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultMetric,
    _Sync,
)
from torch import Tensor
from torchmetrics import Metric, MetricCollection

CPU = torch.device("cpu")
# fields of _Metadata that are plain values
PLAIN = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)


def logged(trainer: L.Trainer) -> dict[str, Any]:
    """Return this process's sums of what the epoch has logged, and the metrics of callbacks."""
    results = trainer.fit_loop.epoch_loop._results
    connector = trainer._logger_connector
    return {
        "sums": {key: packed(item) for key, item in results.items() if not item.has_reset},
        "callback_metrics": move_data_to_device(connector._callback_metrics, CPU),
        "logged_metrics": move_data_to_device(connector._logged_metrics, CPU),
    }


def restore_logged(trainer: L.Trainer, state: dict[str, Any], mid_epoch: bool) -> None:
    """Restore what `logged` returned, not before the first batch of the rest of the epoch.

    In an epoch's first batch `self.log` resets its sums; the next batch must not count as first.
    """
    results = trainer.fit_loop.epoch_loop._results
    connector: Any = trainer._logger_connector
    device = trainer.strategy.root_device
    results.clear()
    for key, item in state["sums"].items():
        results[key] = unpacked(trainer, item)
    connector._callback_metrics = move_data_to_device(state["callback_metrics"], device)
    connector._logged_metrics = move_data_to_device(state["logged_metrics"], device)
    connector._first_loop_iter = True if mid_epoch else None


def count_exactly(trainer: L.Trainer) -> None:
    """Make the sample counts of means over all processes floating-point, after a batch.

    Lightning averages the counts as it averages the sums, and rounds the average of integers down:
    33 and 32 samples would be weighted as 32 and 32.
    """
    if trainer.world_size == 1 or trainer._results is None:
        return
    for item in trainer._results.values():
        if item.is_tensor and item.meta.is_mean_reduction and item.meta.sync.should:
            item.cumulated_batch_size = torch.as_tensor(item.cumulated_batch_size).double()


def packed(item: Any) -> dict[str, Any]:
    sync, meta = item.meta.sync, item.meta
    state: dict[str, Any] = {
        "meta": {name: getattr(meta, name) for name in PLAIN},
        "reduce_fx": [meta.reduce_fx.__module__, meta.reduce_fx.__name__],
        "sync": {"_should": sync.should, "rank_zero_only": sync.rank_zero_only, "_op": sync.op},
        "updates": item._update_count,
        "is_tensor": item.is_tensor,
    }
    if isinstance(item._forward_cache, Tensor):
        state["last"] = item._forward_cache.cpu()
    if item.is_tensor:  # else the metric itself has it
        state["device"] = item.value.device.type
        state["value"] = item.value.cpu()
        if meta.is_mean_reduction:
            state["samples"] = torch.as_tensor(item.cumulated_batch_size).cpu()
    return state


def unpacked(trainer: L.Trainer, state: dict[str, Any]) -> Any:
    library, name = state["reduce_fx"]  # torch.max and max count as different
    reduce_fx = getattr(builtins if library == "builtins" else torch, name)
    meta = _Metadata(**state["meta"], reduce_fx=reduce_fx)
    meta.sync = _Sync(fn=trainer.strategy.reduce, **state["sync"])
    item: Any = _ResultMetric(meta, state["is_tensor"])
    if state["is_tensor"]:
        device = "cpu" if state["device"] == "cpu" else trainer.strategy.root_device
        item.value = state["value"].to(device)
        if "samples" in state:
            item.cumulated_batch_size = state["samples"].to(device)
        item.to(device)
    else:
        item.value = trainer.lightning_module.get_submodule(meta.metric_attribute or "")
    item._update_count = state["updates"]
    item._forward_cache = state.get("last")
    return item


def metric_state(metric: Metric) -> dict[str, Any]:
    """Return the state of a torchmetrics metric in this process, as plain values."""
    state = move_data_to_device(metric.metric_state, CPU)
    return {"updates": metric._update_count, "state": state}


def restore_metric(metric: Any, state: dict[str, Any]) -> None:
    for key, value in move_data_to_device(state["state"], metric.device).items():
        setattr(metric, key, value)
    metric._update_count, metric._computed = state["updates"], None


def metric_states(module: L.LightningModule) -> dict[str, Any]:
    """Return the states of a module's torchmetrics metrics, by name."""
    for part in module.modules():
        if isinstance(part, MetricCollection):
            part.items()  # copies a shared state to all metrics; until then only one has it
    named = module.named_modules()
    return {name: metric_state(part) for name, part in named if isinstance(part, Metric)}


def restore_metrics(module: L.LightningModule, states: dict[str, Any]) -> None:
    """Restore what `metric_states` returned, into the metrics that are still there."""
    found = dict(module.named_modules())
    for name in found.keys() & states.keys():
        restore_metric(found[name], states[name])
