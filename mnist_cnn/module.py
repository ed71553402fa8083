"""DigitClassifier, the LightningModule: loss, metrics, optimizer, schedule, weights on disk."""

import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.model import build

Batch = tuple[Tensor, Tensor]  # images (B, 1, 28, 28) and labels (B,)
from mnist_cnn.trained import write_weights


class Tally:
    """The outcome of an epoch's batches, left on the device until it is asked for.

    A step only appends to it: adding up would cost each step kernels and, on a GPU, a wait.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []  # mean of each batch
        self.sizes: list[int] = []  # images of each batch
        self.logits: list[Tensor] = []  # (B, 10) of each batch
        self.labels: list[Tensor] = []  # (B,) of each batch
        self.hits = 0  # of the batches before those, where the epoch was interrupted
        self.looked_at = 0  # so many losses are known to be finite

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.losses.append(loss.detach())
        self.sizes.append(len(labels))
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def totals(self, last: int = 0) -> tuple[float, int, int]:
        """Sum of the losses, hits and images, of all batches or of at most so many last ones."""
        last = min(last, len(self.logits))
        sizes = torch.tensor(self.sizes[-last:], dtype=torch.float64)
        losses = torch.stack(self.losses[-last:]).cpu().double()
        hits = 0 if last else self.hits
        if logits := self.logits[-last:]:
            hits += int((torch.cat(logits).argmax(1) == torch.cat(self.labels[-last:])).sum())
        return (losses * sizes).sum().item(), hits, int(sizes.sum())

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted epoch needs to end with the same sums, to the last bit."""
        return {
            "losses": torch.stack(self.losses).cpu(),
            "sizes": self.sizes,
            "hits": self.totals()[1],
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.losses = list(state["losses"].to(device))
        self.sizes, self.hits = list(state["sizes"]), state["hits"]
        self.logits, self.labels = [], []


class DigitClassifier(L.LightningModule):
    """A network of model.py, its loss, and how it is optimised.

    All arguments are plain values, so a checkpoint loads with weights_only=True and rebuilds the
    network by itself: `DigitClassifier.load_from_checkpoint(path)`.

    Args:
        model: `name` of a class in model.py and its arguments.
        optimizer: `name` of an Optimizer in torch.optim and its arguments.
        scheduler: `name` of an LRScheduler in torch.optim.lr_scheduler, or None, and its arguments.
        label_smoothing: share of a training label that is spread over all classes, in [0, 1).
        monitor: the metric that a plateau schedule looks at.

    Raises:
        ValueError: a name that does not exist, or arguments that do not fit it.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        label_smoothing: float,
        monitor: str,
    ):
        super().__init__()
        self.save_hyperparameters()
        # convolutions run about a third faster with the channels innermost
        self.net = build(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.example_input_array = torch.zeros(1, 1, 28, 28)
        self.tallies: dict[str, Tally] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some forty times a step, and nn.Module's own setter
        # first asks whether it is a parameter: 2 % of a step of the article's network
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of normalised images x (B, 1, 28, 28)."""
        return self.net(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.tallied_loss("train", batch, self.hparams["label_smoothing"])
        if (ranks := self.trainer.world_size) > 1:
            # gradients are averaged over the ranks, whose shares of a batch may differ by an image
            loader: Any = self.trainer.train_dataloader
            loss = loss * (len(batch[1]) * ranks / loader.size(batch_idx))
        return loss

    # Lightning looks at the signature in each step, and inspect works it out anew each time, which
    # takes as long as three hooks do
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.judge("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.judge("test", batch)

    def judge(self, stage: str, batch: Batch) -> None:
        # mixed precision is for training: what comes out of it is used in 32 bits
        with torch.autocast(self.device.type, enabled=False):
            self.tallied_loss(stage, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities (B, 10) of the images of a batch."""
        with torch.autocast(self.device.type, enabled=False):
            return self(batch[0]).softmax(1)

    def tallied_loss(self, stage: str, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        # a rank's share of a last batch may be empty: the mean of nothing is 0 here
        if len(labels):
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        else:
            loss = logits.sum()
        self.tallies[stage].add(loss, logits, labels)
        return loss

    def on_train_epoch_start(self) -> None:
        self.tallies["train"] = Tally()

    def on_validation_epoch_start(self) -> None:
        self.tallies["val"] = Tally()

    def on_test_epoch_start(self) -> None:
        self.tallies["test"] = Tally()

    def on_validation_epoch_end(self) -> None:
        self.log_tally("val")

    def on_test_epoch_end(self) -> None:
        self.log_tally("test")

    def on_train_epoch_end(self) -> None:
        self.log_tally("train")
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("lr", torch.tensor(lr, dtype=torch.float64))
        schedule = self.lr_schedulers()
        score = self.trainer.callback_metrics.get(self.hparams["monitor"])
        validated = (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1) == 0
        if isinstance(schedule, ReduceLROnPlateau) and validated and score is not None:
            schedule.step(score.item())

    def log_tally(self, stage: str) -> None:
        """Logs the exact means over all images of the epoch, on whatever rank they were."""
        totals = torch.tensor(self.tallies[stage].totals(), dtype=torch.float64)
        if self.trainer.world_size > 1:
            totals = self.trainer.strategy.reduce(totals.to(self.device), reduce_op="sum").cpu()
        loss, hits, images = totals.tolist()
        # the loggers' axis is epochs; Lightning's count of steps is one off in a resumed run. The
        # test comes after the last, where going on drops it from the logs
        self.log("step", float(self.current_epoch + 1))
        self.log(f"{stage}/loss", torch.tensor(loss / images, dtype=torch.float64))
        self.log(f"{stage}/acc", torch.tensor(hits / images, dtype=torch.float64))

    def configure_optimizers(self) -> Any:
        optimizer = construct(
            torch.optim, Optimizer, "optimizer", self.hparams["optimizer"], self.parameters()
        )
        args = dict(self.hparams["scheduler"])
        if args["name"] is None:
            return optimizer
        if args["name"] in ("OneCycleLR", "CosineAnnealingLR"):
            length = "total_steps" if args["name"] == "OneCycleLR" else "T_max"
            args[length] = int(self.trainer.estimated_stepping_batches)
            if args.get("pct_start", 0) * args[length] == 1:
                args["pct_start"] *= 1 + 1e-9  # torch divides by the length of a warm-up of no step
        schedule = construct(torch.optim.lr_scheduler, LRScheduler, "scheduler", args, optimizer)
        if isinstance(schedule, ReduceLROnPlateau):
            # Lightning keeps its state, but never comes round to stepping it: it would do so after
            # the epoch's checkpoint is written, and not at all in an epoch that was resumed
            rule = {
                "interval": "epoch",
                "frequency": sys.maxsize,
                "monitor": self.hparams["monitor"],
            }
        else:
            rule = {"interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, **rule}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # after the last step there is no next rate: OneCycleLR would go on falling, below zero
        if scheduler.last_epoch + 1 < getattr(scheduler, "total_steps", math.inf):
            scheduler.step()

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Writes the network's weights alone, as safetensors.

        The file says which network they belong to (`model`), and whatever is in `about`.
        """
        about = {"model": dict(self.hparams["model"]), **(about or {})}
        write_weights(self.net, about, Path(path))

    def load_weights(self, path: Path | str) -> None:
        """Replaces the network's weights by those of a safetensors file.

        Raises:
            ValueError: the file is not safetensors, or does not fit: key by key, what differs. The
                network is then as it was.
        """
        try:
            with safe_open(path, "pt") as file:
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as e:
            raise ValueError(f"{path} holds no safetensors weights: {e}") from None
        own = self.net.state_dict()
        faults = [f"{key}: not in the file" for key in own.keys() - weights.keys()]
        faults += [f"{key}: not in the network" for key in weights.keys() - own.keys()]
        faults += [
            f"{key}: {tuple(weights[key].shape)} in the file, {tuple(own[key].shape)} in the net"
            for key in own.keys() & weights.keys()
            if own[key].shape != weights[key].shape
        ]
        if faults:
            raise ValueError(f"{path} does not fit this network: " + "; ".join(sorted(faults)))
        self.net.load_state_dict(weights)


def find_class(module: Any, kind: type, group: str, name: Any) -> type:
    """The subclass `name` of `kind` in a torch module, and nothing else that lies there."""
    cls = getattr(module, str(name), None)
    if not isinstance(cls, type) or not issubclass(cls, kind):
        raise ValueError(
            f"{group}.name must be a subclass of {kind.__name__} in {module.__name__}, got {name}"
        )
    return cls


def construct(module: Any, kind: type, group: str, config: Mapping[str, Any], *args: Any) -> Any:
    """The class `name` of a torch module, called with args and the rest of its config."""
    options = dict(config)
    name = options.pop("name")
    cls = find_class(module, kind, group, name)
    try:
        return cls(*args, **options)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{group}.name={name}: {e}") from None
