"""Callbacks with which a run is not resumed exactly."""

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

# Lightning's callbacks that start over or do nothing in a resumed epoch
INEXACT = ("GradientAccumulationScheduler", "LearningRateMonitor", "StochasticWeightAveraging")
# hooks of single batches: what they collect in an epoch is lost when it is resumed
HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)
STATE = ("state_dict", "on_save_checkpoint")


def is_inexact(callback: Callback) -> bool:
    """Return whether a run with this callback may not be resumed exactly.

    True for some of Lightning's, and for user callbacks with hooks of single batches but no state.
    """
    kind = type(callback)
    if kind.__name__ in INEXACT:
        return True
    if kind.__module__.startswith(("lightning.", "mnist_cnn.")):
        return False
    sees = any(is_overridden(hook, callback, Callback) for hook in HOOKS)
    return sees and not any(is_overridden(name, callback, Callback) for name in STATE)
