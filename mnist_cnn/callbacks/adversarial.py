"""Training on attacked images."""

from typing import Any

import lightning as L

from mnist_cnn.analysis.robustness.attacks import pgd
from mnist_cnn.data.loader import generator


class AdversarialTraining(L.Callback):
    """Trains on what PGD makes of each batch, in place of the batch.

    A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018,
    section 2, https://arxiv.org/abs/1706.06083. A step takes `steps` more passes through the
    network.

    Args:
        epsilon: the greatest change of a pixel, in [0, 1].
        steps: of PGD.
        seed: of where PGD starts, which a step of the training determines.
    """

    def __init__(self, *, epsilon: float, steps: int, seed: int = 0):
        self.epsilon, self.steps, self.seed = epsilon, steps, seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        x, y = batch
        g = generator(self.seed, trainer.global_step, trainer.global_rank)
        x.copy_(pgd(pl_module.net, x, y, self.epsilon, g, self.steps))
