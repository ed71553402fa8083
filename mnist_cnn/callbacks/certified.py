"""Certified training by interval bound propagation."""

import copy
from typing import Any

import lightning as L
import torch

from mnist_cnn.analysis.robustness.intervals import Interval
from mnist_cnn.config.messages import must_be
from mnist_cnn.optim import training_length
from mnist_cnn.runs.generators import restored_generators
from mnist_cnn.runs.terminal import reason


class CertifiedTraining(L.Callback):
    """Trains on bounds of the network's outputs for bounded changes of each image's pixels.

    S. Gowal et al., On the effectiveness of interval bound propagation for training verifiably
    robust models, 2018 (https://arxiv.org/abs/1810.12715). In place of the logits the loss gets the
    upper bounds of each logit minus that of the label, so train/acc is the fraction of images for
    which no change causes an error. Validation and test use unchanged images.

    Args:
        epsilon: the final maximum change of a pixel, in [0, 1].
        grown: the fraction of the training in which the maximum grows linearly from 0 to epsilon.

    Raises:
        ValueError: the module has no `net`, or that calls a function whose bounds are not known.
    """

    def __init__(self, *, epsilon: float, grown: float):
        self.epsilon, self.grown = epsilon, grown
        self.tried = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.tried:
            try_bounds(pl_module, batch)
            self.tried = True
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


@torch.no_grad()
def try_bounds(module: Any, batch: Any) -> None:
    """Raise ValueError if there are no bounds of a copy of a module's network for two images."""
    try:
        if not any(p.requires_grad for p in module.net.parameters()):  # as in FewLabels
            raise ValueError("its net is not what is trained")
        with restored_generators(module.device):
            images, labels = (part[:2] for part in batch)
            copy.deepcopy(module.net)(Interval.around(images, 0.1)).margins(labels)
    except Exception as e:  # what is not known of an interval fails in many ways
        network = type(getattr(module, "net", module)).__name__
        wanted = must_be("callbacks.certified", f"null with {network}", "CertifiedTraining")
        raise ValueError(f"{wanted}: {reason(e)}") from e
