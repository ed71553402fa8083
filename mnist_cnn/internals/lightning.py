"""Private API of Lightning, as of release 2.6.6.

The loops and their counters, their state in checkpoints, and the texts of warnings. Each has a test
in tests/test_contracts.py that fails if a new release changes it.
"""

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason
from torch.utils import deterministic

# regular expressions of warnings that are of no use to a user
WARNINGS: dict[str, type[Warning]] = {
    # Lightning's own use of a deprecated torch class
    r"isinstance\(treespec, LeafSpec\)": FutureWarning,
    # metrics are sums over all processes already
    "sync_dist=True": Warning,
    # data.val_fraction=0 leaves no validation images
    "Total length of `tuple` across ranks is zero": Warning,
    # nothing is logged at single steps
    "is smaller than the logging interval": Warning,
    # the data module returns the batches that trainer.overfit_batches asks for
    "You requested to overfit but enabled": Warning,
    # mnist_cnn starts its processes by itself, so a run without srun is intended
    "The `srun` command is available": Warning,
    # mixed precision keeps the weights in 32 bits, as the summary assumes
    "Precision .* is not supported by the model summary": Warning,
}


def quiet_lightning() -> None:
    """Silence Lightning's messages and warnings that are of no use to a user."""
    # lists of devices, and advertising
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # but a profiler's table was asked for
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    for text, category in WARNINGS.items():
        warnings.filterwarnings("ignore", f".*{text}", category)


def resumed_mid_epoch(trainer: L.Trainer) -> bool:
    """Return whether the fit that has just started is resumed in the middle of an epoch.

    Lightning calls no on_train_epoch_start for such an epoch.
    """
    return trainer.fit_loop.restarted_mid_epoch


def training_is_over(trainer: L.Trainer) -> bool:
    """Return whether no epoch follows, by the limits on epochs or steps or by early stopping."""
    return trainer.fit_loop.done


def validated_now(trainer: L.Trainer) -> bool:
    """Return whether a validation has just run; call it between two batches of an epoch.

    Lightning would step a plateau schedule twice if it were resumed from there.
    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def close_epoch(trainer: L.Trainer) -> None:
    """Reset the batch counters to the start of an epoch; call it when an epoch is over.

    Lightning resets them when the next epoch starts: resumed from a checkpoint written before that,
    with the counts of the previous epoch, it would skip the next one.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.reset_on_run()
    loop.scheduler_progress.reset_on_run()
    loop.automatic_optimization.optim_progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()


def mid_epoch(trainer: L.Trainer) -> bool:
    """Return whether training is within an epoch, after its first batch and before close_epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0


def correct_counters(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Correct the loops' counters in a checkpoint that is about to be written.

    Between epochs, in on_train_epoch_start, the next epoch counts as ready: a run that is resumed
    from there would not train it.
    """
    if not mid_epoch(trainer):
        for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            counts["ready"] = counts["completed"]


def stopped_early(callback: Callback) -> bool:
    """Return whether a callback is an EarlyStopping that has stopped the training.

    Lightning itself forgets `should_stop` in a resumed run.
    """
    return (
        isinstance(callback, EarlyStopping) and callback.stopping_reason is not Reason.NOT_STOPPED
    )


def stop_by_epochs(callback: Callback) -> None:
    """Make an EarlyStopping on a metric of training look at it once an epoch.

    Where epochs are validated more or less often than once, Lightning looks after each validation:
    several times at the value of the epoch before, or never.
    """
    if (
        isinstance(callback, EarlyStopping)
        and callback._check_on_train_epoch_end is None  # not set by the user
        and not callback.monitor.startswith("val/")
    ):
        callback._check_on_train_epoch_end = True


def leave_memory_uninitialized() -> None:
    """Keep deterministic mode from filling new tensors with NaN, which takes 5 % of a step."""
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not exported


def is_of_compiler(error: Exception) -> bool:
    """Return whether torch.compile raised an error."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
