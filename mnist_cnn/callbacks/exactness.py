"""Callbacks with which a run is not resumed exactly."""

from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

# in an epoch that is resumed, these of Lightning's begin their work anew or leave it out
INEXACT = ("GradientAccumulationScheduler", "LearningRateMonitor", "StochasticWeightAveraging")
# hooks of single batches: what they gather in an epoch is lost when it is resumed
HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)
STATE = ("state_dict", "on_save_checkpoint")


def is_inexact(callback: Any) -> bool:
    """Tell whether no exact resume is promised with a callback.

    That is so for some of Lightning's, and for a user's that sees single batches and has no state.
    """
    kind = type(callback)
    if kind.__name__ in INEXACT:
        return True
    if kind.__module__.startswith(("lightning.", "mnist_cnn.")):
        return False
    sees = any(is_overridden(hook, callback, Callback) for hook in HOOKS)
    return sees and not any(is_overridden(name, callback, Callback) for name in STATE)
