"""The parts of Lightning that are used without its promise, as read in release 2.6.6.

Its loops and their counters, what a checkpoint says of them, and the text of its warnings. Each has
a test in tests/test_contracts.py that fails where a new release changes it.
"""

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason
from torch.utils import deterministic

# parts, as regular expressions, of warnings that tell a user nothing
WARNINGS: dict[str, type[Warning]] = {
    # its own use of a torch class that is on its way out
    r"isinstance\(treespec, LeafSpec\)": FutureWarning,
    # metrics are sums over all processes already
    "sync_dist=True": Warning,
    # data.val_fraction=0 leaves no validation images
    "Total length of `tuple` across ranks is zero": Warning,
    # nothing is logged at single steps
    "is smaller than the logging interval": Warning,
    # the data module hands out the batches that trainer.overfit_batches asks for
    "You requested to overfit but enabled": Warning,
    # a run that was started without it was meant so: mnist_cnn starts its processes by itself
    "The `srun` command is available": Warning,
    # mixed precision keeps the weights in 32 bits, as the summary has it
    "Precision .* is not supported by the model summary": Warning,
}


def quiet_lightning() -> None:
    """Silences what Lightning tells a user without need."""
    # which devices there are, and advertising
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # but a profiler's table was asked for
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    for text, category in WARNINGS.items():
        warnings.filterwarnings("ignore", f".*{text}", category)


def resumed_mid_epoch(trainer: L.Trainer) -> bool:
    """Tell whether the fit that has just started is resumed in the middle of an epoch.

    Lightning calls no on_train_epoch_start for such an epoch.
    """
    return trainer.fit_loop.restarted_mid_epoch


def training_is_over(trainer: L.Trainer) -> bool:
    """Tell whether no epoch follows, by its number, by steps, or because it is stopped early."""
    return trainer.fit_loop.done


def validated_now(trainer: L.Trainer) -> bool:
    """Tell, between two batches of an epoch, whether a validation has come after the former.

    Lightning would step a plateau schedule twice when it is resumed from there.
    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def close_epoch(trainer: L.Trainer) -> None:
    """Sets the counters of batches back to the start of an epoch.

    To be called when an epoch is over. Lightning does so as the next one starts: from a checkpoint
    written before, with the counts of the former epoch, it would skip the next one.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.reset_on_run()
    loop.scheduler_progress.reset_on_run()
    loop.automatic_optimization.optim_progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()


def mid_epoch(trainer: L.Trainer) -> bool:
    """Tell whether a batch of an epoch is done that is not over; after close_epoch it is."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0


def correct_counters(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Corrects what a checkpoint that is about to be written says of the loops.

    Between epochs, in on_train_epoch_start, the next epoch counts as ready: a run that is resumed
    from there would not train it.
    """
    if not mid_epoch(trainer):
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            counts["ready"] = counts["completed"]


def stopped_early(callback: Callback) -> bool:
    """Tell whether this is an EarlyStopping that has asked for the end.

    Lightning itself forgets `should_stop` in a resumed run.
    """
    return (
        isinstance(callback, EarlyStopping) and callback.stopping_reason is not Reason.NOT_STOPPED
    )


def leave_memory_uninitialized() -> None:
    """Have deterministic mode not fill new tensors with NaN, which takes 5 % of a step."""
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not exported


def is_of_compiler(error: Exception) -> bool:
    """Tell whether torch.compile raised an error."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
