"""CharacterDetector, the LightningModule that learns to find characters on made pages."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn import optim
from mnist_cnn.data.pages import Batch, sources
from mnist_cnn.data.synthetic.sheet import SYMBOLS
from mnist_cnn.detection.calibration import calibrate
from mnist_cnn.detection.decode import Character, characters, shared
from mnist_cnn.detection.loss import detection_loss
from mnist_cnn.pretrained import build_network, write_weights

OVERLAP = 0.5  # a character that is found covers so much of the one that is there
CONFIDENT = 0.5  # a character with this score counts as found


class CharacterDetector(L.LightningModule):
    """Finds characters on pages: class and box of each, and ruled lines.

    Logs the parts of the loss, and for validation pages, which are by other writers and fonts:
    val/loss, val/precision and val/recall of characters with their class, and val/error, the sum of
    missed, wrong and invented characters over those that are there.

    Args:
        model: `_target_`, `network.Detector` or one with its maps, and its arguments.
        optimizer: `_target_`, an Optimizer, and its arguments after the parameters.
        scheduler: `_target_`, an LRScheduler that is stepped after each step, and its arguments.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
    ):
        super().__init__()
        model, optimizer, scheduler = dict(model), dict(optimizer), dict(scheduler)
        self.save_hyperparameters()
        net: Any = build_network(model)
        self.net: Any = net.to(memory_format=torch.channels_last)

    def forward(self, ink: Tensor) -> Tensor:
        """Return maps (B, 32, H / 4, W / 4) of ink (B, 1, H, W) in [0, 1]."""
        return self.net(ink)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ink, rules, marks = batch
        parts = detection_loss(self(prepared(ink)), rules.float(), marks)
        loss = torch.stack(list(parts.values())).sum()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(ink))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ink, rules, marks = batch
        with torch.autocast(self.device.type, enabled=False):
            maps = self(prepared(ink))
        parts = detection_loss(maps, rules.float(), marks)
        counts = torch.tensor(
            [counted(one, own) for one, own in zip(maps, marks, strict=True)]
        ).sum(0)
        right, found, there = counts.double()
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(ink)}
        self.log("val/loss", torch.stack(list(parts.values())).sum(), **options)
        self.log(
            "val/precision",
            right / found.clamp(min=1),
            on_epoch=True,
            batch_size=max(1, int(found)),
        )
        self.log(
            "val/recall", right / there.clamp(min=1), on_epoch=True, batch_size=max(1, int(there))
        )
        self.log(
            "val/error",
            (found + there - 2 * right) / there.clamp(min=1),
            on_epoch=True,
            batch_size=max(1, int(there)),
        )

    def on_train_epoch_end(self) -> None:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Write the weights, calibrated on as many made pages of other writers as validate."""
        net = copy.deepcopy(self.net).float().cpu().eval()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # untyped
        calibrate(net, sources("val", data.fold), data.val_pages)
        write_weights(net, {"model": self.hparams["model"], **(about or {})}, Path(path))

    def configure_optimizers(self) -> Any:
        optimizer = optim.make_optimizer(self.hparams["optimizer"], list(self.parameters()))
        steps = self.trainer.estimated_stepping_batches
        schedule = optim.make_schedule(self.hparams["scheduler"], optimizer, lambda: steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        optim.step_schedule(scheduler, metric)


def prepared(ink: Tensor) -> Tensor:
    """Ink in [0, 1] of uint8 pixels (B, 1, H, W)."""
    return (ink.float() / 255).contiguous(memory_format=torch.channels_last)


def counted(maps: Tensor, marks: Tensor) -> tuple[int, int, int]:
    """How many characters of a page are right, were found, and are there.

    Args:
        maps: (32, h, w) of the network.
        marks: (N, 7), as `loss.targets` has them; what is to be passed over counts neither way.
    """
    found = [each for each in characters(maps) if each.score > CONFIDENT]
    there = [(int(row[0]), tuple(row[1:5].tolist())) for row in marks if row[6] > 0]
    passed = [tuple(row[1:5].tolist()) for row in marks if row[6] == 0]
    right, taken, ignored = 0, set(), 0
    for each in found:
        match = best_match(each, there)
        if match is not None and match not in taken:
            taken.add(match)
            right += SYMBOLS[there[match][0]] == each.symbol
        elif any(shared(each.box, box) > OVERLAP for box in passed):
            ignored += 1
    return right, len(found) - ignored, len(there)


def best_match(found: Character, there: list[tuple[int, Any]]) -> int | None:
    covers = [shared(found.box, box) for _, box in there]
    best = max(range(len(covers)), key=covers.__getitem__, default=None)
    return best if best is not None and covers[best] > OVERLAP else None
