"""DigitClassifier, the LightningModule: loss, metrics, training, saved weights."""

from collections.abc import Mapping, Sequence
from functools import partial
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
from mnist_cnn.config.compose import better, tutorial
from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule, class_names
from mnist_cnn.metrics import EpochMetrics, label_accuracies, sum_over_ranks
from mnist_cnn.model import CLASSES, SHAPE, Normalize, frozen
from mnist_cnn.runs.generators import restored_generators
from mnist_cnn.sanity_check import try_step
from mnist_cnn.weights.files import load_into, write_weights
from mnist_cnn.weights.networks import build_network, is_ours

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) and labels (B,)
USUAL = {"shape": list(SHAPE), "classes": CLASSES}  # defaults of the networks in model.py


class DigitClassifier(L.LightningModule):
    """A classifier of images: a network of model.py or another, its loss and its optimizer.

    All arguments are plain values, so a checkpoint loads with weights_only=True and rebuilds the
    network by itself: `DigitClassifier.load_from_checkpoint(path)`.

    Args:
        model: `_target_`, a network of model.py or another, and its arguments. For this and the
            next two arguments None stands for the tutorial's, in conf/.
        optimizer: `_target_`, an Optimizer, and its arguments after the parameters.
        scheduler: `_target_`, an LRScheduler, its arguments after the optimizer, and `interval`:
            `epoch` (the default) or `step`. Empty for a constant learning rate.
        label_smoothing: fraction of a training label that is spread over all classes, in [0, 1).
        monitor: the metric for ReduceLROnPlateau.
        loss: `_target_`, a torch.nn.Module that returns the mean loss of logits (B, K) and labels
            (B,), and its arguments. Cross-entropy by default.
        metrics: by name, `_target_`, a torchmetrics.Metric, and its arguments; each is logged as
            train/NAME, val/NAME and test/NAME.
        freeze: names of layers to freeze, such as conv1: they have no gradients, are not in the
            optimizer, and stay in eval mode, so that batch normalisation uses and keeps its saved
            statistics, as in Keras.

    `config.instantiate` says which classes are allowed.

    Raises:
        ValueError: a class does not exist or is not allowed, or its arguments do not fit.
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
            scheduler = plateau(monitor) if scheduler is None else scheduler
        # plain dicts, for the checkpoint
        model, optimizer, scheduler = dict(model), dict(optimizer), dict(scheduler)
        self.save_hyperparameters()
        self.net: Any = build_network(model)
        for layer in frozen(self.net, freeze or ()):
            layer.requires_grad_(False)
        self.loss = loss and instantiate_as(nn.Module, loss, key="loss", allowlist=CHECKPOINTS)
        self.metrics: dict[str, Metric] = {  # cloned for each epoch
            name: instantiate_as(Metric, node, key=f"metrics.{name}", allowlist=CHECKPOINTS)
            for name, node in (metrics or {}).items()
        }
        self.epoch_metrics: dict[str, EpochMetrics] = {}  # of this epoch, by stage
        self.data_classes: tuple[str, ...] = ()  # names by label of the training data, if known
        self.epoch_schedule: Any = None  # the schedule, if it is stepped by epoch
        self.resumed: dict[str, Any] | None = None  # its state from a checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) for images x (B, C, H, W) in [0, 1]."""
        return self.net(x)

    def setup(self, stage: str) -> None:
        """Fit normalisations that are `auto` to the training images of the data module."""
        check_fits(self.hparams["model"], self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage != "fit":
            return
        self.epoch_schedule = self.resumed = None
        trainer: Any = self.trainer
        self.data_classes = class_names(trainer.datamodule)
        flat = class_name(self.hparams["optimizer"]) == "LBFGS"
        if flat or any(isinstance(callback, ModelPruning) for callback in trainer.callbacks):
            # both flatten all weights with view
            self.to(memory_format=torch.contiguous_format)
        for layer in self.net.modules():
            if isinstance(layer, Normalize) and not layer.fitted:
                if not isinstance(trainer.datamodule, ImageDataModule):
                    allowed = "numbers with data that are no ImageDataModule"
                    raise ValueError(must_be("model.mean and model.std", allowed, "auto"))
                layer.fit(*trainer.datamodule.pixel_statistics())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.shared_step("train", batch)
        if (ranks := self.trainer.world_size) > 1:
            # gradients are averaged over the ranks, whose parts of a batch may differ by an image
            loader: Any = self.trainer.train_dataloader
            if hasattr(loader, "size"):
                loss = loss * (len(batch[1]) * ranks / loader.size(batch_idx))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.eval_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.eval_step("test", batch)

    def eval_step(self, stage: str, batch: Batch) -> None:
        # mixed precision is for training alone: evaluation and later use are in float32
        with torch.autocast(self.device.type, enabled=False):
            self.shared_step(stage, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return probabilities (B, K) for the images of a batch."""
        with torch.autocast(self.device.type, enabled=False):
            return self(batch[0]).softmax(1)

    def shared_step(self, stage: str, batch: Batch) -> Tensor:
        images, labels = batch
        smoothing = self.hparams["label_smoothing"] if stage == "train" else 0.0
        logits = self.net(images)
        if self.data_classes and not self.epoch_metrics[stage].losses:
            self.check_classes(logits)
        loss = self.mean_loss(logits, labels, smoothing)
        self.epoch_metrics[stage].add(loss, logits, labels)
        return loss

    def check_classes(self, logits: Tensor) -> None:
        """Raise ValueError if the data name more or fewer classes than the network tells."""
        wanted, found = (len(logits), len(self.data_classes)), tuple(logits.shape)
        if found != wanted:
            allowed = f"{wanted} for data with the classes {', '.join(self.data_classes)}"
            raise ValueError(must_be("logits", allowed, found))

    def mean_loss(self, logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of logits (B, K) and labels (B,); 0 where there are none."""
        if not len(labels):  # such as a rank's part of the last batch
            return logits.sum()
        if self.loss:
            loss: Tensor = self.loss(logits, labels)
            return loss
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def on_train_start(self) -> None:
        trainer: Any = self.trainer
        # not for a user's own data or subclass, of which too little is known
        if isinstance(trainer.datamodule, ImageDataModule) and type(self) is DigitClassifier:
            with restored_generators(self.device):
                try_step(self, trainer.datamodule, 2)
                loader = trainer.train_dataloader
                if hasattr(loader, "size"):  # of a BatchLoader; a subclass may return another
                    last = loader.size(trainer.num_training_batches - 1) // trainer.world_size
                    if last < 2:  # too few for a batch normalisation
                        try_step(self, trainer.datamodule, last)
        for layer in frozen(self.net, self.hparams["freeze"] or ()):
            layer.eval()

    def on_train_epoch_start(self) -> None:
        self.epoch_metrics = {"train": EpochMetrics(self.metrics, self.device)}

    def epoch_state_dict(self) -> dict[str, Any]:
        """Return the state from which a process resumes within an epoch."""
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
        # step after the rate is logged and before the epoch's checkpoint is written: Lightning
        # would step earlier or later, and not at all in a resumed epoch
        if self.epoch_schedule and not self.trainer.lr_scheduler_configs:  # set by SWA
            monitor = self.hparams["monitor"]
            # Lightning also keeps the metrics of an earlier validation
            fresh = "val" in self.epoch_metrics or not monitor.startswith("val/")
            score = self.trainer.callback_metrics.get(monitor) if fresh else None
            self.lr_scheduler_step(self.epoch_schedule, score)

    def log_epoch(self, stage: str) -> None:
        """Log the exact means over the epoch's images on all ranks.

        With LBFGS they cover every evaluation of a batch.
        """
        if not self.epoch_metrics[stage].losses:
            raise ValueError(must_be(f"{stage}_dataloader", "data with batches", "none"))
        totals = torch.tensor(self.epoch_metrics[stage].totals(), dtype=torch.float64)
        loss, images, hits, labelled = sum_over_ranks(totals, self.trainer).tolist()
        self.log(f"{stage}/loss", torch.tensor(loss / images, dtype=torch.float64))
        self.log(f"{stage}/acc", torch.tensor(hits / max(labelled, 1), dtype=torch.float64))
        for name, value in self.epoch_metrics[stage].computed().items():
            self.log(f"{stage}/{name}", value.cpu().double())  # of all processes

    def configure_optimizers(self) -> Any:
        args = dict(self.hparams["optimizer"])
        if args.get("fused") and self.trainer.gradient_clip_val:
            # with mixed precision a fused step unscales the gradients itself, too late for clipping
            args["fused"] = not isinstance(self.trainer.precision_plugin, MixedPrecision)
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = optim.make_optimizer(args, trained)
        config, trainer = self.hparams["scheduler"], self.trainer
        if class_name(config) is None:
            return optimizer
        interval = config.get("interval", "epoch")
        length = partial(optim.training_length, trainer, interval)
        schedule = optim.make_schedule(config, optimizer, length)
        if interval == "step":
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        if self.resumed is not None:
            schedule.load_state_dict(self.resumed)
        self.epoch_schedule = schedule
        return optimizer

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        optim.step_schedule(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"] = "net."  # prefix of the network's weights
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
        """Return further results of the last test, in addition to those logged, by name."""
        return label_accuracies(self.epoch_metrics["test"], self.trainer)

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Save the network's weights as safetensors, with its config and `about` as metadata."""
        write_weights(self.net, {"model": self.hparams["model"], **(about or {})}, Path(path))

    def load_weights(self, path: Path | str, strict: bool = True) -> list[str]:
        """Load the network's weights, normalisation included, from a file.

        Args:
            path: a run's folder, a checkpoint or a weights file; other content is ignored.
            strict: require all weights to fit; otherwise one must, and the rest are unchanged.

        Returns:
            A line for each weight that does not fit: its name, and what differs.

        Raises:
            ValueError: the file has no valid weights, or they do not fit. Nothing is changed then.
        """
        return load_into(self.net, path, strict)


def plateau(monitor: str) -> dict[str, Any]:
    """Return the tutorial's schedule for a metric; ValueError if its mode is unknown."""
    if (mode := better(monitor)) is None:
        allowed = f"given, with its mode, for monitor={monitor}"
        raise ValueError(must_be("scheduler", allowed, None))
    return tutorial("scheduler", mode)


def facts(model: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Return the arguments of a network of model.py that depend on its data.

    There are none for a user's own network or data.
    """
    if not is_ours(model) or not isinstance(data, ImageDataModule):
        return {}
    return {"shape": list(data.shape), "classes": len(data.classes)}


def fitted(model: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Return a model config with a data set's image shape and number of classes filled in."""
    new = {key: fact for key, fact in facts(model, data).items() if fact != USUAL[key]}
    return {**new, **model}


def check_fits(model: Mapping[str, Any], data: Any) -> None:
    """Raise ValueError if a network of this project does not fit the data's images or classes."""
    for key, fact in facts(model, data).items():
        if (old := model.get(key, USUAL[key])) != fact:
            raise ValueError(must_be(f"model.{key}", f"{fact} for data.name={data.name}", old))
