"""Training on attacked images."""

from typing import Any

import lightning as L

from mnist_cnn.analysis.robustness.attacks import pgd
from mnist_cnn.data.loader import generator


class AdversarialTraining(L.Callback):
    """Trains on what PGD makes of each batch, in place of the batch.

    A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018,
    section 2, https://arxiv.org/abs/1706.06083. A step takes `steps` more passes through the
    network. The network is attacked in eval mode, so that these passes move no statistics of a
    batch normalisation and drop nothing out; the batch itself, which a loader may hand out again,
    stays as it is.

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
        (x, y), net = batch, pl_module.net
        modes = {layer: layer.training for layer in net.modules()}  # frozen layers are in eval mode
        net.eval()
        g = generator(self.seed, trainer.global_step, trainer.global_rank)
        attacked = pgd(net, x, y, self.epsilon, g, self.steps)
        for layer, mode in modes.items():
            layer.training = mode
        self.hook = net.register_forward_pre_hook(lambda net, images: (attacked,))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.hook.remove()
