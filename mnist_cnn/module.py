"""DigitClassifier, the LightningModule: loss, metrics, training, weights on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelPruning
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_cnn import optim
from mnist_cnn.config.compose import tutorial
from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.metrics import EpochMetrics, label_accuracies
from mnist_cnn.model import CLASSES, SHAPE, Normalize, frozen
from mnist_cnn.pretrained import build_network, is_ours, load_into, write_weights
from mnist_cnn.trial import try_step

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) and labels (B,)
USUAL = {"shape": list(SHAPE), "classes": CLASSES}  # of a network of model.py


class DigitClassifier(L.LightningModule):
    """A network of model.py, its loss, and how it is optimised.

    All arguments are plain values, so a checkpoint loads with weights_only=True and rebuilds the
    network by itself: `DigitClassifier.load_from_checkpoint(path)`.

    Args:
        model: `_target_`, a network of model.py or another, and its arguments. Of this and the next
            two None stands for the tutorial's, as conf/ has them.
        optimizer: `_target_`, an Optimizer, and its arguments after the parameters.
        scheduler: `_target_`, an LRScheduler, its arguments after the optimizer, and `interval`: it
            is stepped after each epoch (the default) or each step. Empty: a constant rate.
        label_smoothing: share of a training label that is spread over all classes, in [0, 1).
        monitor: the metric that a plateau schedule looks at.
        loss: `_target_` of a torch.nn.Module and its arguments; it makes the mean loss of logits
            (B, 10) and labels (B,). Cross-entropy by default.
        metrics: by name, `_target_` of a torchmetrics.Metric and its arguments; each is logged as
            train/NAME, val/NAME and test/NAME.
        freeze: names of layers, such as conv1, that training leaves as they are: without gradients,
            out of the optimizer, and in eval mode: a batch normalisation there uses its saved
            statistics and keeps them, as in Keras.

    `config.instantiate` says which classes may be named.

    Raises:
        ValueError: a class that does not exist or is not allowed, or arguments that do not fit it.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        monitor: str = "val/loss",
        loss: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Mapping[str, Any]] | None = None,
        freeze: Sequence[str] | None = None,
    ):
        super().__init__()
        if loss and label_smoothing:
            raise ValueError(
                must_be("module.label_smoothing", "0 where loss is set", label_smoothing)
            )
        if taken := {"loss", "acc"} & set(metrics or ()):
            raise ValueError(f"metrics.{min(taken)}: a metric of this name is logged already")
        if model is None or optimizer is None or scheduler is None:
            model = tutorial("model") if model is None else model
            optimizer = tutorial("optimizer") if optimizer is None else optimizer
            scheduler = tutorial("scheduler") if scheduler is None else scheduler
        # plain dicts, for the checkpoint
        model, optimizer, scheduler = dict(model), dict(optimizer), dict(scheduler)
        self.save_hyperparameters()
        self.net: Any = build_network(model)
        for layer in frozen(self.net, freeze or ()):
            layer.requires_grad_(False)
        self.loss = loss and instantiate_as(nn.Module, loss, key="loss", allowlist=CHECKPOINTS)
        self.metrics: dict[str, Metric] = {  # copied for each epoch
            name: instantiate_as(Metric, node, key=f"metrics.{name}", allowlist=CHECKPOINTS)
            for name, node in (metrics or {}).items()
        }
        self.epoch_metrics: dict[str, EpochMetrics] = {}  # of this epoch, by stage
        self.epoch_schedule: Any = None  # one that is stepped by epoch
        self.resumed: dict[str, Any] | None = None  # its state in a checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of images x (B, 1, 28, 28) in [0, 1]."""
        return self.net(x)

    def setup(self, stage: str) -> None:
        """Fits a normalisation that is `auto` to the training images of the data module."""
        check_fits(self.hparams["model"], self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage != "fit":
            return
        self.epoch_schedule = self.resumed = None
        trainer: Any = self.trainer
        flat = class_name(self.hparams["optimizer"]) == "LBFGS"
        if flat or any(isinstance(callback, ModelPruning) for callback in trainer.callbacks):
            # they view all weights as a row
            self.net.to(memory_format=torch.contiguous_format)
        for layer in self.net.modules():
            if isinstance(layer, Normalize) and not layer.fitted:
                if not isinstance(trainer.datamodule, ImageDataModule):
                    allowed = "numbers with data that are no ImageDataModule"
                    raise ValueError(must_be("model.mean and model.std", allowed, "auto"))
                layer.fit(*trainer.datamodule.pixel_statistics())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.shared_step("train", batch)
        if (ranks := self.trainer.world_size) > 1:
            # gradients are averaged over the ranks, whose shares of a batch may differ by an image
            loader: Any = self.trainer.train_dataloader
            if hasattr(loader, "size"):
                loss = loss * (len(batch[1]) * ranks / loader.size(batch_idx))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.eval_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.eval_step("test", batch)

    def eval_step(self, stage: str, batch: Batch) -> None:
        # mixed precision is for training: what comes out of it is used in 32 bits
        with torch.autocast(self.device.type, enabled=False):
            self.shared_step(stage, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities (B, 10) of the images of a batch."""
        with torch.autocast(self.device.type, enabled=False):
            return self(batch[0]).softmax(1)

    def shared_step(self, stage: str, batch: Batch) -> Tensor:
        images, labels = batch
        smoothing = self.hparams["label_smoothing"] if stage == "train" else 0.0
        logits = self.net(images)
        # a rank's share of a last batch may be empty: the mean of nothing is 0 here
        if len(labels) and self.loss:
            loss = self.loss(logits, labels)
        elif len(labels):
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        else:
            loss = logits.sum()
        self.epoch_metrics[stage].add(loss, logits, labels)
        return loss

    def on_train_start(self) -> None:
        trainer: Any = self.trainer
        # of a user's own data or subclass too little is known
        if isinstance(trainer.datamodule, ImageDataModule) and type(self) is DigitClassifier:
            try_step(self, trainer.datamodule, 2)
            last = trainer.train_dataloader.size(trainer.num_training_batches - 1)
            if (last := last // trainer.world_size) < 2:  # too few for a batch normalisation
                try_step(self, trainer.datamodule, last)
        for layer in frozen(self.net, self.hparams["freeze"] or ()):
            layer.eval()

    def on_train_epoch_start(self) -> None:
        self.epoch_metrics = {"train": EpochMetrics(self.metrics, self.device)}

    def epoch_state_dict(self) -> dict[str, Any]:
        """What a process needs to go on within an epoch."""
        return {"train": self.epoch_metrics["train"].state_dict(), "stages": [*self.epoch_metrics]}

    def load_epoch_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch_metrics = {k: EpochMetrics(self.metrics, self.device) for k in state["stages"]}
        self.epoch_metrics["train"].load_state_dict(state["train"])

    def on_validation_epoch_start(self) -> None:
        self.epoch_metrics["val"] = EpochMetrics(self.metrics, self.device)

    def on_test_epoch_start(self) -> None:
        self.epoch_metrics["test"] = EpochMetrics(self.metrics, self.device)

    def on_validation_epoch_end(self) -> None:
        self.log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self.log_epoch("test")

    def on_train_epoch_end(self) -> None:
        self.log_epoch("train")
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("lr", torch.tensor(lr, dtype=torch.float64))
        # here, once the rate is logged and before the checkpoint of the epoch is written: Lightning
        # would step it earlier or later, and not at all in an epoch that was resumed
        if self.epoch_schedule and not self.trainer.lr_scheduler_configs:  # which SWA brings
            monitor = self.hparams["monitor"]
            # Lightning also has the metrics of an earlier validation
            fresh = "val" in self.epoch_metrics or not monitor.startswith("val/")
            score = self.trainer.callback_metrics.get(monitor) if fresh else None
            self.lr_scheduler_step(self.epoch_schedule, score)

    def log_epoch(self, stage: str) -> None:
        """Logs the exact means over the images of the epoch, on whatever rank they were."""
        totals = torch.tensor(self.epoch_metrics[stage].totals(), dtype=torch.float64)
        if self.trainer.world_size > 1:
            totals = self.trainer.strategy.reduce(totals.to(self.device), reduce_op="sum").cpu()
        loss, images, hits, labelled = totals.tolist()
        self.log(f"{stage}/loss", torch.tensor(loss / images, dtype=torch.float64))
        self.log(f"{stage}/acc", torch.tensor(hits / max(labelled, 1), dtype=torch.float64))
        for name, value in self.epoch_metrics[stage].computed().items():
            self.log(f"{stage}/{name}", value.double())  # of all processes

    def configure_optimizers(self) -> Any:
        args = dict(self.hparams["optimizer"])
        if args.get("fused") and self.trainer.gradient_clip_val:
            # a fused step unscales the gradients of mixed precision itself, too late to clip them
            args["fused"] = not isinstance(self.trainer.precision_plugin, MixedPrecision)
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = optim.make_optimizer(args, trained)
        config, trainer = self.hparams["scheduler"], self.trainer
        if class_name(config) is None:
            return optimizer
        if config.get("interval") == "step":
            schedule = optim.make_schedule(
                config, optimizer, lambda: trainer.estimated_stepping_batches
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        schedule = optim.make_schedule(config, optimizer, lambda: trainer.max_epochs or 0)
        if self.resumed is not None:
            schedule.load_state_dict(self.resumed)
        self.epoch_schedule = schedule
        return optimizer

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        optim.step_schedule(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"] = "net."  # what the names of the network's weights begin with
        if self.epoch_schedule is not None:
            checkpoint["epoch_schedule"] = self.epoch_schedule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.resumed = checkpoint.get("epoch_schedule")
        old, new = checkpoint["hyper_parameters"]["optimizer"], self.hparams["optimizer"]
        changed = {key: value for key, value in new.items() if old.get(key) != value}
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:  # as force=true asks for
                group.update({key: changed[key] for key in changed.keys() & group.keys()})

    def test_results(self) -> dict[str, float]:
        """Results of the test that has ended beside what was logged, by name."""
        return label_accuracies(self.epoch_metrics["test"], self.trainer)

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Writes the network's weights alone, as safetensors, with its config and `about`."""
        write_weights(self.net, {"model": self.hparams["model"], **(about or {})}, Path(path))

    def load_weights(self, path: Path | str, strict: bool = True) -> list[str]:
        """Replaces the network's weights, normalisation included, by those of a file.

        Args:
            path: a run's folder, a checkpoint or a weights file, whatever else is in it.
            strict: all weights must fit. Else one must, and those that do not stay as they are.

        Returns:
            A line for each that does not fit: its name, and what differs.

        Raises:
            ValueError: the file has no sound weights, or, if strict, does not fit; nothing changes.
        """
        return load_into(self.net, path, strict)


def facts(model: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """The arguments of a network of model.py that data decide; none for a user's net or data."""
    if not is_ours(model) or not isinstance(data, ImageDataModule):
        return {}
    return {"shape": list(data.shape), "classes": len(data.classes)}


def fitted(model: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """A model config with the shape of the images and the number of classes of a data set."""
    new = {key: fact for key, fact in facts(model, data).items() if fact != USUAL[key]}
    return {**new, **model}


def check_fits(model: Mapping[str, Any], data: Any) -> None:
    """Raises ValueError where a network of this project is for images or classes of another set."""
    for key, fact in facts(model, data).items():
        if (old := model.get(key, USUAL[key])) != fact:
            raise ValueError(must_be(f"model.{key}", f"{fact} for data.name={data.name}", old))
