"""Certified training by interval bound propagation."""

from typing import Any

import lightning as L

from mnist_cnn.analysis.robustness.intervals import Interval
from mnist_cnn.optim import training_length


class CertifiedTraining(L.Callback):
    """Trains on bounds of the network's outputs for bounded changes of each image's pixels.

    S. Gowal et al., On the effectiveness of interval bound propagation for training verifiably
    robust models, 2018 (https://arxiv.org/abs/1810.12715). In place of the logits the loss gets the
    upper bounds of each logit minus that of the label, so train/acc is the fraction of images for
    which no change causes an error. Validation and test use unchanged images.

    Args:
        epsilon: the final maximum change of a pixel, in [0, 1].
        grown: the fraction of the training in which the maximum grows linearly from 0 to epsilon.
    """

    def __init__(self, *, epsilon: float, grown: float):
        self.epsilon, self.grown = epsilon, grown

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        net, labels = pl_module.net, batch[1]
        steps = self.grown and self.grown * training_length(trainer)
        epsilon = self.epsilon * (min(1, trainer.global_step / steps) if steps else 1)
        self.hooks = (
            net.register_forward_pre_hook(lambda net, args: (Interval.around(args[0], epsilon),)),
            net.register_forward_hook(lambda net, args, bounds: bounds.margins(labels)),
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for hook in self.hooks:
            hook.remove()
