"""FewLabels, the LightningModule that learns from few labels and many images without."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from mnist_cnn.data.augment import Augment, check_amounts
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator
from mnist_cnn.metrics import sum_over_ranks
from mnist_cnn.model import frozen
from mnist_cnn.module import Batch, DigitClassifier

BALANCE = 0.05  # step of the classes' offsets, which a class that is never predicted gains
LEAK = 0.005  # fraction of the offsets that each step loses, so that they end at most at 10


class FewLabels(DigitClassifier):
    """A classifier of images, most of which come without a label.

    `net` is a moving average of the weights of `student`, the network in training, which sees
    strongly augmented images. Where the average is confident of what an image without a label
    shows, the student learns that: FixMatch (K. Sohn et al., NeurIPS 2020,
    https://arxiv.org/abs/2001.07685), here with a mean teacher (A. Tarvainen and H. Valpola,
    NeurIPS 2017, https://arxiv.org/abs/1703.01780). Its predictions are those of an optimal
    transport to classes that are equally frequent, whose offsets of the logits are updated at each
    step (A. Genevay et al., NeurIPS 2016, https://arxiv.org/abs/1605.08527). Without them a class
    may be confused with a similar one and vanish. `net` is what is validated, tested, saved and
    loaded.

    A training batch has images (B, 1, 28, 28) and labels (B,), which are -1 for those without, as
    `data.unlabeled` makes them. train/loss and train/acc are of the images with labels;
    train/confident is the fraction of the others whose prediction is learned.

    Args:
        strong: arguments of `augment.Augment` for the images that the student sees.
        threshold: minimum probability of a prediction that is learned, in [0, 1].
        decay: fraction of the average that each batch keeps, in [0, 1); less in the first steps.
        classifier: arguments of `DigitClassifier`.
    """

    def __init__(
        self, *, strong: Mapping[str, float], threshold: float, decay: float, **classifier: Any
    ):
        strong = dict(strong)
        super().__init__(**classifier)
        self.strong, self.threshold, self.decay = Augment(**strong), threshold, decay
        self.student: Any = copy.deepcopy(self.net)
        self.net.requires_grad_(False)
        self.confident: Any = MeanMetric()
        self.offsets: Tensor | None = None  # (K,), added to the logits of predictions

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # untyped
        if stage == "fit" and isinstance(data, ImageDataModule):
            check_amounts("module.strong", self.hparams["strong"], data.shape, data.classes)
        super().setup(stage)
        if stage == "fit":
            self.offsets = None
            self.student.load_state_dict(self.net.state_dict())

    def on_train_start(self) -> None:
        super().on_train_start()
        for layer in frozen(self.student, self.hparams["freeze"] or ()):
            layer.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        known = labels >= 0
        probability, predicted = self.predictions(images[~known]).max(1)
        learned = probability >= self.threshold
        # seeded by the global generator, whose state is in every checkpoint
        chance = generator(int(torch.randint(2**62, ())), device=self.device)
        logits = self.student(self.strong(images, labels, chance))
        of_known, of_others = logits[known], logits[~known]
        loss = self.mean_loss(of_known, labels[known], self.hparams["label_smoothing"])
        of_learned = self.mean_loss(of_others[learned], predicted[learned])
        self.epoch_metrics["train"].add(loss, of_known, labels[known])
        self.confident.update(learned.float())
        self.log("train/confident", self.confident, on_step=False, on_epoch=True)
        counts = torch.tensor([len(of_known), len(of_others)], device=self.device)
        means = sum_over_ranks(counts, self.trainer).clamp(min=1) / self.trainer.world_size
        return loss * (len(of_known) / means[0]) + of_learned * (learned.sum() / means[1])

    @torch.no_grad()
    def predictions(self, images: Tensor) -> Tensor:
        """Return probabilities (B, K) of images, balanced over many steps between the classes."""
        self.net.eval()
        logits = self.net(images).float()  # a sum over steps in bfloat16 would lose small ones
        if self.offsets is None:
            self.offsets = logits.new_zeros(logits.shape[1])
        offsets = self.offsets.to(logits.device)  # a checkpoint's are on the CPU
        found = (logits + offsets).softmax(1)
        total = sum_over_ranks(found.sum(0), self.trainer)
        # without images all offsets grow by the same amount, and their differences shrink
        frequency = total / total.sum().clamp(min=1)
        self.offsets = (1 - LEAK) * offsets - BALANCE * (len(total) * frequency - 1)
        return found

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        steps = self.trainer.global_step
        decay = min(self.decay, steps / (steps + 10))
        pairs = zip(self.net.state_dict().values(), self.student.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["offsets"] = self.offsets

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.offsets = checkpoint["offsets"]
