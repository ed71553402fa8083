"""DigitClassifier, the LightningModule: loss, metrics, optimizer, schedule, weights on disk."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from mnist_cnn.config.messages import must_be
from mnist_cnn.config.own import OF_CHECKPOINTS, make
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.metrics import Tally
from mnist_cnn.model import CLASSES, NETWORKS, SHAPE, Normalize, frozen
from mnist_cnn.optim import construct, keep_current, make_schedule, step_schedule
from mnist_cnn.pretrained import build_network, check_finite_weights, read_weights, write_weights

BY_MODULE = sys.maxsize  # the frequency of a schedule that Lightning never steps

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) and labels (B,)

# the tutorial's recipe, as conf/ has it
MODEL = {
    "name": "CNN",
    "channels": [32, 64],
    "hidden": 128,
    "dropout": 0.0,
    "mean": 0.0,
    "std": 1.0,
}
OPTIMIZER = {
    **{"name": "Adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "weight_decay": 0.0},
    "fused": True,
}
SCHEDULER = {
    **{"name": "ReduceLROnPlateau", "interval": "epoch", "mode": "min", "factor": 0.5},
    **{"patience": 1, "threshold": 1e-4, "threshold_mode": "abs", "min_lr": 1e-5},
}


class DigitClassifier(L.LightningModule):
    """A network of model.py, its loss, and how it is optimised.

    All arguments are plain values, so a checkpoint loads with weights_only=True and rebuilds the
    network by itself: `DigitClassifier.load_from_checkpoint(path)`.

    Args:
        model: `name` of a class in model.py and its arguments.
        optimizer: `name` of an Optimizer in torch.optim and its arguments.
        scheduler: `name` of an LRScheduler in torch.optim.lr_scheduler, or None, its arguments, and
            `interval`: it is stepped after each epoch (the default) or each step.
        label_smoothing: share of a training label that is spread over all classes, in [0, 1).
        monitor: the metric that a plateau schedule looks at.
        loss: `_target_` of a torch.nn.Module and its arguments; it makes the mean loss of logits
            (B, 10) and labels (B,). Cross-entropy by default.
        metrics: by name, `_target_` of a torchmetrics.Metric and its arguments; each is logged as
            train/NAME, val/NAME and test/NAME.
        freeze: names of layers, such as conv1, that training leaves as they are: without gradients,
            out of the optimizer, and in eval mode: a batch normalisation there uses its saved
            statistics and keeps them, as in Keras.

    A model, an optimizer or a scheduler may have `_target_` in place of `name`: a class of any
    package, which `config.own.allow` allows.

    Raises:
        ValueError: a name that does not exist, or arguments that do not fit it.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any] = MODEL,
        optimizer: Mapping[str, Any] = OPTIMIZER,
        scheduler: Mapping[str, Any] = SCHEDULER,
        label_smoothing: float = 0.0,
        monitor: str = "val/loss",
        loss: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Mapping[str, Any]] | None = None,
        freeze: Sequence[str] | None = None,
    ):
        super().__init__()
        # plain dicts, for the checkpoint
        model, optimizer, scheduler = dict(model), dict(optimizer), dict(scheduler)
        self.save_hyperparameters()
        # convolutions run about a third faster with the channels innermost
        self.net = build_network(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in frozen(self.net, freeze or ()):
            layer.requires_grad_(False)
        self.loss = loss and make(nn.Module, loss, key="loss", known=OF_CHECKPOINTS)
        self.metrics = [  # no part of the module: they hold nothing between two epochs
            (name, make(Metric, node, key=f"metrics.{name}", known=OF_CHECKPOINTS))
            for name, node in (metrics or {}).items()
        ]
        self.shape: Sequence[int] | None = model.get("shape", SHAPE)  # (C, H, W)
        self.tallies: dict[str, Tally] = {}  # of this epoch, by stage
        self.epochs_are_steps = False  # the loggers' axis; in a run's folder it is epochs
        self.resumed: dict[str, Any] | None = None  # the checkpoint, until the optimizer is made

    @property  # type: ignore[misc]
    def example_input_array(self) -> Any:
        """Image (1, C, H, W), as trainer.precision has the weights; None: not known."""
        if self.shape is None:
            return None
        return torch.zeros(1, *self.shape, dtype=next(self.parameters()).dtype)

    @property
    def lr(self) -> float:
        """The optimizer's learning rate, where Lightning's LearningRateFinder looks for it."""
        return self.hparams["optimizer"]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        self.hparams["optimizer"]["lr"] = value

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of images x (B, 1, 28, 28) in [0, 1]."""
        return self.net(x)

    def setup(self, stage: str) -> None:
        """Fits what is `auto` of the normalisation to the training images of the data module."""
        if isinstance(data := self.trainer.datamodule, ImageDataModule):  # type: ignore[attr-defined]
            check_fits(self.hparams["model"], data)
            self.shape = data.shape
        elif "_target_" in self.hparams["model"]:
            self.shape = getattr(data, "shape", None)
        for layer in self.net.modules():
            if stage == "fit" and isinstance(layer, Normalize) and not layer.fitted:
                if not isinstance(data, ImageDataModule):
                    allowed = "numbers with data that are no ImageDataModule"
                    raise ValueError(must_be("model.mean and model.std", allowed, "auto"))
                layer.fit(*data.pixel_statistics())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.tallied_loss("train", batch, self.hparams["label_smoothing"])
        if (ranks := self.trainer.world_size) > 1:
            # gradients are averaged over the ranks, whose shares of a batch may differ by an image
            loader: Any = self.trainer.train_dataloader
            if hasattr(loader, "size"):
                loss = loss * (len(batch[1]) * ranks / loader.size(batch_idx))
        return loss

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
        if len(labels) and self.loss:
            loss = self.loss(logits, labels)
        elif len(labels):
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        else:
            loss = logits.sum()
        self.tallies[stage].add(loss, logits, labels)
        return loss

    def on_train_start(self) -> None:
        for layer in frozen(self.net, self.hparams["freeze"] or ()):
            layer.eval()

    def on_train_epoch_start(self) -> None:
        self.tallies = {"train": Tally(whole=bool(self.metrics))}

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
        rules = self.trainer.lr_scheduler_configs
        if not rules or rules[0].frequency != BY_MODULE:
            return
        schedule: Any = rules[0].scheduler
        score = self.epoch_metrics().get(self.hparams["monitor"])
        if score is not None or not isinstance(schedule, ReduceLROnPlateau):
            self.lr_scheduler_step(schedule, score)

    def epoch_metrics(self) -> dict[str, float]:
        """The metrics logged in this epoch: Lightning also has those of an earlier validation."""
        return {
            key: float(value)
            for key, value in self.trainer.callback_metrics.items()
            if "val" in self.tallies or not key.startswith("val/")
        }

    def log_tally(self, stage: str) -> None:
        """Logs the exact means over all images of the epoch, on whatever rank they were."""
        totals = torch.tensor(self.tallies[stage].totals(), dtype=torch.float64)
        if self.trainer.world_size > 1:
            totals = self.trainer.strategy.reduce(totals.to(self.device), reduce_op="sum").cpu()
        loss, hits, images = totals.tolist()
        if self.epochs_are_steps:
            # Lightning's count of steps is one off in a resumed run. The test comes after the last
            # epoch, where a resumed run drops it from the logs
            self.log("step", float(self.current_epoch + 1))
        self.log(f"{stage}/loss", torch.tensor(loss / images, dtype=torch.float64))
        self.log(f"{stage}/acc", torch.tensor(hits / images, dtype=torch.float64))
        tally = self.tallies[stage]
        for name, metric in self.metrics:
            metric.to(self.device).reset()
            metric.update(torch.cat(tally.logits), torch.cat(tally.labels))
            self.log(f"{stage}/{name}", metric.compute().double())  # of all processes

    def configure_optimizers(self) -> Any:
        args = dict(self.hparams["optimizer"])
        if args.get("fused") and self.trainer.gradient_clip_val:
            # a fused step unscales the gradients of mixed precision itself, too late to clip them
            args["fused"] = not isinstance(self.trainer.precision_plugin, MixedPrecision)
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = construct(torch.optim, Optimizer, "optimizer", args, trained)
        schedule = make_schedule(optimizer, self)
        if self.resumed:
            keep_current(self.resumed, self.hparams, optimizer, schedule)
            self.resumed = None
        if schedule is None:
            return optimizer
        interval = self.hparams["scheduler"].get("interval", "epoch")
        rule = {"scheduler": schedule, "interval": interval, "monitor": self.hparams["monitor"]}
        if interval == "epoch":
            # Lightning keeps its state, but never comes round to stepping it, as
            # on_train_epoch_end does: it would step before the rate is logged, or after the epoch's
            # checkpoint is written, and not at all in an epoch that was resumed
            rule["frequency"] = BY_MODULE
        return {"optimizer": optimizer, "lr_scheduler": rule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        step_schedule(scheduler, metric)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        with contextlib.suppress(RuntimeError):  # there is no trainer: only the network is loaded
            if self.trainer.training:
                self.resumed = checkpoint  # until configure_optimizers, which comes next

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Writes the network's weights alone, as safetensors.

        The file says which network they belong to (`model`), and whatever is in `about`.
        """
        about = {"model": dict(self.hparams["model"]), **(about or {})}
        write_weights(self.net, about, Path(path))

    def load_weights(self, path: Path | str, strict: bool = True) -> list[str]:
        """Replaces the network's weights, normalisation included, by those of a file.

        Args:
            path: a run's folder, a checkpoint or a weights file, whatever else is in it.
            strict: all weights must fit. Else one must, and those that do not stay as they are.

        Returns:
            A line for each that does not fit: its name, and what differs.

        Raises:
            ValueError: the file has no sound weights, or, if strict, does not fit. The network is
                then as it was.
        """
        weights, own = read_weights(path), self.net.state_dict()
        faults, fitting = [], {}
        for key in own.keys() | weights.keys():
            if key not in weights:
                faults.append(f"{key}: not in the file")
            elif key not in own:
                faults.append(f"{key}: not in the network")
            elif (here := tuple(own[key].shape)) != (there := tuple(weights[key].shape)):
                faults.append(f"{key}: {there} in the file, {here} in the net")
            else:
                fitting[key] = weights[key]
        faults.sort()
        if faults and (strict or not fitting):
            raise ValueError(f"{path} does not fit this network: {'; '.join(faults)}")
        check_finite_weights(fitting)
        self.net.load_state_dict({**own, **fitting})
        return faults


def fitted(model: Mapping[str, Any], data: L.LightningDataModule) -> dict[str, Any]:
    """A model config with the number of classes and the shape of the images of a data set.

    A model or a data set of the user's own, in place of this project's, leaves it as it is.
    """
    if "_target_" in model or not isinstance(data, ImageDataModule):
        return dict(model)
    own = {"classes": len(data.classes), "shape": list(data.shape)}
    usual = {"classes": CLASSES, "shape": list(SHAPE)}
    return {**{key: value for key, value in own.items() if value != usual[key]}, **model}


def check_fits(model: Mapping[str, Any], data: ImageDataModule) -> None:
    """Raises ValueError where a network of this project is for images or classes of another set."""
    if model.get("name") not in NETWORKS:
        return
    classes, shape = len(data.classes), tuple(data.shape)
    if (found := tuple(model.get("shape", SHAPE))) != shape:
        raise ValueError(must_be("model.shape", f"{shape} for data.name={data.name}", found))
    if (number := model.get("classes", CLASSES)) != classes:
        raise ValueError(must_be("model.classes", f"{classes} for data.name={data.name}", number))
