"""Training on the worst that a change of the images can do."""

from typing import Any

import lightning as L

from mnist_cnn.analysis.robustness.intervals import Interval


class CertifiedTraining(L.Callback):
    """Trains on bounds of what the network makes of each image when its pixels are changed.

    S. Gowal et al., On the effectiveness of interval bound propagation for training verifiably
    robust models, 2018 (https://arxiv.org/abs/1810.12715). In place of the logits the loss gets the
    upper bounds of each logit minus that of the label, so train/acc is the share of images that no
    change makes the network err on. Validation and test are of unchanged images.

    Args:
        epsilon: the greatest change of a pixel, in [0, 1], at the end.
        grown: the share of the training after which it is that, growing linearly from 0.
    """

    def __init__(self, *, epsilon: float, grown: float):
        self.epsilon, self.grown = epsilon, grown

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        net, labels = pl_module.net, batch[1]
        steps = self.grown * float(trainer.estimated_stepping_batches)
        epsilon = self.epsilon * min(1, trainer.global_step / steps)
        self.hooks = (
            net.register_forward_pre_hook(lambda net, args: (Interval.around(args[0], epsilon),)),
            net.register_forward_hook(lambda net, args, bounds: bounds.margins(labels)),
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for hook in self.hooks:
            hook.remove()
