"""Checks a configuration before anything is written: its values, then what does not go together."""

import math
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from mnist_cnn.config import schema
from mnist_cnn.config.compose import better, plain
from mnist_cnn.config.instantiate import (
    CHECKPOINTS,
    COMMANDS,
    allow,
    class_name,
    is_custom,
    make_data,
    not_allowed,
)
from mnist_cnn.config.messages import either, must_be, shown
from mnist_cnn.runs.folder import flat
from mnist_cnn.runs.ranks import under_torchrun, world_size

IMAGES, CLASSES = 60_000, 10  # of the training file of each set of known size
SMALLEST = 0.8  # of the mean size of a class, below which no fold's smallest class is
FROM_FILES = ("ArraysDataModule", "FolderDataModule")  # sets of the user's own files
UNSUPPORTED = ("BackboneFinetuning", "BatchSizeFinder", "LearningRateFinder")
# parts that a module's constructor may take; a checkpoint holds them
OF_MODULE = ("model", "optimizer", "scheduler", "loss", "metrics")


def check(cfg: DictConfig, entry: str = "train") -> None:
    """Check what conf/<entry>.yaml composed to.

    Raises:
        ValueError: one line; for each wrong value its key, what is wrong with it and what it is.
    """
    written: Any = OmegaConf.to_container(cfg)
    if missing := [key for key, value in flat(written).items() if value == "???"]:
        raise ValueError("; ".join(f"{key} must be given: {key}=..." for key in missing))
    targets = plain(cfg, "targets") or []
    allow([t for t in targets if isinstance(t, str)] if isinstance(targets, list) else [])
    model: type[schema.Part] = schema.Evaluate
    if entry == "train":
        if "trainer" not in cfg:
            raise ValueError("--config-name must be a configuration of a training, as train is")
        check_monitors(cfg)
        model = schema.Train
    faults = wrong_values("", model, {key: plain(cfg, key) for key in model.model_fields})
    for key, (place, group) in schema.OURS.items():
        part = plain(cfg, key)
        if isinstance(part, dict) and str(part.get("_target_")).startswith(place):
            faults += wrong_values(key, group, part)
    for part in (*OF_MODULE, "module", "data", "trainer", "callbacks", "logger"):
        allowlist = CHECKPOINTS if part in OF_MODULE else COMMANDS
        faults += not_allowed(written.get(part), part, allowlist)
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    if not is_custom(cfg.data):
        check_name(cfg.data)
        check_fold(cfg.data.val_fraction, cfg.data.fold)
        check_split(cfg.data.get("split", "rows"), cfg.data.name, cfg.data.val_fraction)
    if entry == "train":
        for name, node in cfg.callbacks.items():
            if (kind := class_name(node or {})) in UNSUPPORTED:
                raise ValueError(f"callbacks.{name}: {kind} is not supported")
        check_limits(cfg.trainer, cfg.data)
        check_trainer(cfg.trainer, cfg.data.get("clean_epochs", 0))
        schedule = cfg.scheduler or {}
        if class_name(schedule) == "ReduceLROnPlateau" and schedule.get("interval") == "step":
            allowed = "epoch with ReduceLROnPlateau, which follows a metric of an epoch"
            raise ValueError(must_be("scheduler.interval", allowed, "step"))


def wrong_values(part: str, group: type[BaseModel], values: Any) -> list[str]:
    """A sentence for each value of a part that its schema does not allow, in pydantic's words."""
    try:
        group.model_validate(values)
    except ValidationError as e:
        return [sentence(part, fault) for fault in e.errors()]
    return []


def sentence(part: str, fault: Any) -> str:
    key = ".".join(map(str, (part, *fault["loc"]))).lstrip(".")
    got = "" if fault["type"] == "missing" else f", got {shown(fault['input'])}"
    return f"{key}: {fault['msg']}{got}"


def check_values(part: str, group: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Raise ValueError for values of a part of the configuration that its schema refuses."""
    if faults := wrong_values(part, group, values):
        raise ValueError("; ".join(faults))


def check_fold(val_fraction: float, fold: int) -> None:
    """Raise ValueError where the training file has no slice `fold` of that size."""
    # in binary, 1 / 0.2 need not reach 5
    folds = int(min(1 / val_fraction, IMAGES) + 1e-9) if val_fraction else 1
    if not 0 <= fold < folds:
        allowed = f"0 to {folds - 1} with data.val_fraction={val_fraction}"
        raise ValueError(must_be("data.fold", allowed, fold))


def check_name(data: DictConfig) -> None:
    """Raise ValueError where the user's files have the name of a public set, or that has another.

    Some figures are given for MNIST alone, by its name.
    """
    if class_name(data) in FROM_FILES and data.name in schema.PUBLIC:
        allowed = f"none of {either(schema.PUBLIC)}, with files of your own"
        raise ValueError(must_be("data.name", allowed, data.name))
    if class_name(data) not in FROM_FILES and data.name not in schema.PUBLIC:
        raise ValueError(must_be("data.name", either(schema.PUBLIC), data.name))


def check_split(split: str, name: str, val_fraction: float) -> None:
    """Raise ValueError where a set's writers are not known, or do not make folds of that size."""
    if split != "rows" and val_fraction and name != "mnist":
        raise ValueError(must_be("data.split", f"rows with data={name}", split))
    if split == "writers_by_series" and val_fraction not in (0, 0.5):
        allowed = "0.5 with data.split=writers_by_series, which has two folds"
        raise ValueError(must_be("data.val_fraction", allowed, val_fraction))


def check_trainer(trainer: DictConfig, clean_epochs: int) -> None:
    """Raise ValueError for values of the trainer that do not go with others."""
    started = {"trainer.devices": trainer.devices, "trainer.num_nodes": trainer.num_nodes}
    for key, count in {**started, "the number of processes": world_size()}.items():
        if isinstance(count, int) and count > 1 and not str(trainer.strategy).startswith("ddp"):
            raise ValueError(must_be(key, "1 without trainer=ddp", count))
    if trainer.num_nodes > 1 and not under_torchrun():
        raise ValueError(must_be("trainer.num_nodes", "1 without torchrun", trainer.num_nodes))
    if (epochs := trainer.max_epochs) <= clean_epochs:
        allowed = f"less than trainer.max_epochs={epochs}"
        raise ValueError(must_be("data.clean_epochs", allowed, clean_epochs))


def check_limits(trainer: DictConfig, data: DictConfig) -> None:
    """Raise ValueError for numbers of images and batches that sets of known size do not have."""
    if is_custom(data) or class_name(data) in FROM_FILES:
        return
    val, test = data.val_fraction, IMAGES if data.name == "qmnist" else IMAGES / 6
    train = IMAGES * (1 - val)
    if data.per_class:
        if CLASSES * data.per_class > train:  # what a class has at most, where all have as many
            allowed = f"at most {int(train / CLASSES)} with data.val_fraction={val}"
            raise ValueError(must_be("data.per_class", allowed, data.per_class))
        if CLASSES * data.per_class > SMALLEST * train:  # only the labels tell
            make_data(data).setup("fit")
        train = CLASSES * data.per_class
    for split, images in {"train": train, "val": IMAGES * val, "test": test}.items():
        share = trainer[f"limit_{split}_batches"]
        size = data.batch_size if split == "train" else data.eval_batch_size
        batches = math.ceil(images / size)
        if isinstance(share, float) and 0 < share * batches < 1:
            allowed = f"at least one of {batches} batches"
            raise ValueError(must_be(f"trainer.limit_{split}_batches", allowed, share))


def monitored(cfg: DictConfig) -> dict[str, str]:
    """Return the metrics that the objective and the callbacks look at, by their keys."""
    callbacks = plain(cfg, "callbacks")
    names = callbacks if isinstance(callbacks, dict) else ()
    keys = ("objective.metric", *(f"callbacks.{name}.monitor" for name in names))
    values = {key: plain(cfg, key) for key in keys}
    return {key: metric for key, metric in values.items() if isinstance(metric, str)}


def check_monitors(cfg: DictConfig) -> None:
    """Raise ValueError for a mode that is unknown or wrong, or a metric that no epoch can have.

    Whether the module logs a metric of this name is seen after the first validation.
    """
    waiting = ["callbacks.early_stopping", "callbacks.prune"]
    if class_name(cfg.scheduler or {}) == "ReduceLROnPlateau":
        waiting.append("objective")
    unvalidated = 0 in (plain(cfg, "data.val_fraction"), plain(cfg, "trainer.limit_val_batches"))
    for key, metric in monitored(cfg).items():
        part = key.rpartition(".")[0]
        node, known = plain(cfg, part), better(metric)
        mode = node.get("mode")
        if "mode" in node and mode not in ([known] if known else ["min", "max"]):
            allowed = known or "min or max"
            raise ValueError(must_be(f"{part}.mode", f"{allowed} for {metric}", mode))
        if unvalidated and part in waiting and metric.startswith("val/"):
            allowed = "of train/ where nothing is validated, as train/loss"
            raise ValueError(must_be(key, allowed, metric))
