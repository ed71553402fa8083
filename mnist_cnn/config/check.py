"""Checks a configuration before anything is written: its values, then what does not go together."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from mnist_cnn.config import schema
from mnist_cnn.config.compose import CONF, better, plain
from mnist_cnn.config.instantiate import (
    CHECKPOINTS,
    COMMANDS,
    allow,
    class_name,
    is_custom,
    not_allowed,
)
from mnist_cnn.config.messages import either, must_be, shown
from mnist_cnn.config.schema import Group

# the parts whose schema does not depend on their class
TRAIN: dict[str, type[Group]] = {
    "": schema.Train,
    "objective": schema.Objective,
    "trainer": schema.Trainer,
    "optimizer": schema.Optimizer,
    "callbacks.early_stopping": schema.EarlyStopping,
    "callbacks.checkpoint": schema.Checkpoint,
    "callbacks.nan": schema.Periodic,
    "callbacks.history": schema.Custom,
    "callbacks.progress": schema.ProgressBar,
    "callbacks.averaging": schema.Averaging,
}
TRAINER = CONF / "trainer" / "auto.yaml"
MONITORS = ("early_stopping", "checkpoint")  # callbacks that look at a metric
OF_MODULE = ("model", "optimizer", "scheduler", "loss", "metrics")  # a checkpoint holds them


def check(cfg: DictConfig, entry: str = "train") -> None:
    """Checks what conf/<entry>.yaml composed to.

    Raises:
        ValueError: one line; for each wrong value its key, what is wrong with it and what it is.
    """
    targets = plain(cfg, "targets") or []
    allow([t for t in targets if isinstance(t, str)] if isinstance(targets, list) else [])
    if entry == "train":
        check_metrics(cfg)  # first: of an unknown metric no mode is known either
    faults = []
    for part, group in schemas(cfg, entry).items():
        faults += wrong_values(cfg, part, group)
    # without interpolations: a search's callback refers to the job, which has not started
    written: Any = OmegaConf.to_container(cfg)
    for part in (*OF_MODULE, "data", "trainer", "callbacks", "logger"):
        allowlist = CHECKPOINTS if part in OF_MODULE else COMMANDS
        faults += not_allowed(written.get(part), part, allowlist)
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    if not is_custom(cfg.data):
        check_data(cfg.data)
    if entry == "train":
        check_trainer(cfg)
        check_validation(cfg)
        check_modes(cfg)
        if cfg.loss and cfg.label_smoothing:
            allowed = "0 where loss is set"
            raise ValueError(must_be("label_smoothing", allowed, cfg.label_smoothing))


def schemas(cfg: DictConfig, entry: str) -> dict[str, type[Group]]:
    """The schema of each part of a configuration."""
    custom = is_custom(cfg.data)
    parts: dict[str, type[Group]] = {"": schema.Evaluate} if entry != "train" else {**TRAIN}
    parts["data"] = schema.Custom if custom else schema.Data
    if entry == "train":
        ours = str(plain(cfg, "model._target_")).startswith("mnist_cnn.model.")
        parts["model"] = schema.Network if ours else schema.Custom
        if cfg.data.get("augment") and not custom:
            parts["data.augment"] = schema.Augment
        if plain(cfg, "scheduler._target_") is not None:
            parts["scheduler"] = schema.Schedule
    return parts


def wrong_values(cfg: DictConfig, part: str, group: type[Group]) -> list[str]:
    """A sentence for each value of a part that its schema does not allow, in pydantic's words."""
    # of the whole its own keys only: what the other parts interpolate is not checked yet
    values = plain(cfg, part) if part else {k: plain(cfg, k) for k in group.model_fields}
    optional = part.startswith("callbacks.") and part != "callbacks.history"
    if values is None and optional:
        return []
    if not isinstance(values, dict):
        return [must_be(part, "keys and values", values)]
    if values.get("_target_") != getattr(group, "of", values.get("_target_")):
        return []
    return faults_of(part, group, values)


def faults_of(part: str, group: type[Group], values: Mapping[str, Any]) -> list[str]:
    try:
        group.model_validate(values)
    except ValidationError as e:
        reasons: dict[str, list[str]] = {}
        for fault in e.errors():  # of alternatives each has one
            reasons.setdefault(str(fault["loc"][0]), []).append(fault["msg"])
        return [
            f"{part}.{key}: ".lstrip(".")
            + " or ".join(dict.fromkeys(said))
            + (f", got {shown(values[key])}" if key in values else "")
            for key, said in reasons.items()
        ]
    return []


def check_values(part: str, group: type[Group], values: Mapping[str, Any]) -> None:
    """Raises ValueError for values of a part of the configuration that its schema refuses."""
    if faults := faults_of(part, group, values):
        raise ValueError("; ".join(faults))


def check_data(data: DictConfig) -> None:
    """Raises ValueError for a fold or a split that a set does not have."""
    check_fold(data.val_fraction, data.fold)
    check_split(data.get("split", "rows"), data.name, data.val_fraction)


def check_fold(val_fraction: float, fold: int) -> None:
    """Raises ValueError where the training file has no slice `fold` of that size."""
    # no set has more images; in binary, 1 / 0.2 need not reach 5
    folds = int(min(1 / val_fraction, 60_000) + 1e-9) if val_fraction else 1
    if not 0 <= fold < folds:
        allowed = f"0 to {folds - 1} with data.val_fraction={val_fraction}"
        raise ValueError(must_be("data.fold", allowed, fold))


def check_split(split: str, name: str, val_fraction: float) -> None:
    """Raises ValueError where a set's writers are not known, or do not make folds of that size."""
    if split != "rows" and val_fraction and name != "mnist":
        raise ValueError(must_be("data.split", f"rows with data={name}", split))
    if split == "writers_by_series" and val_fraction not in (0, 0.5):
        allowed = "0.5 with data.split=writers_by_series, which has two folds"
        raise ValueError(must_be("data.val_fraction", allowed, val_fraction))


def check_trainer(cfg: DictConfig) -> None:
    """Raises ValueError for values of the trainer that do not go with others."""
    trainer = cfg.trainer
    if not str(trainer.strategy).startswith("ddp"):
        for key in ("devices", "num_nodes"):
            if isinstance(number := trainer[key], int) and number > 1:
                raise ValueError(must_be(f"trainer.{key}", "1 without trainer=ddp", number))
    if trainer.max_time == "00:00:00:00":
        raise ValueError(must_be("trainer.max_time", "at least 00:00:00:01", trainer.max_time))
    if trainer.max_epochs <= (clean := cfg.data.get("clean_epochs", 0)):
        allowed = f"less than trainer.max_epochs={trainer.max_epochs}"
        raise ValueError(must_be("data.clean_epochs", allowed, clean))


def check_validation(cfg: DictConfig) -> None:
    """Raises ValueError where something waits for a validation that does not take place."""
    val_fraction = None if is_custom(cfg.data) else cfg.data.val_fraction
    if val_fraction != 0 and cfg.trainer.limit_val_batches:
        return
    metrics = {
        f"callbacks.{name}": str(plain(cfg, f"callbacks.{name}.monitor") or "")
        for name in ("early_stopping", "prune")
    }
    if class_name(cfg.scheduler) == "ReduceLROnPlateau":
        metrics["scheduler"] = cfg.objective.metric
    if waiting := [f"{key} ({metric})" for key, metric in metrics.items() if "val/" in metric]:
        key = "trainer.limit_val_batches" if val_fraction != 0 else "data.val_fraction"
        raise ValueError(
            f"{key} must be > 0 for {' and '.join(waiting)}, got 0; or set "
            "callbacks=no_early_stopping and another scheduler, such as one_cycle"
        )


def check_metrics(cfg: DictConfig) -> None:
    """Raises ValueError for a metric that is not logged, or whose name is taken."""
    metrics = plain(cfg, "metrics")
    users = list(metrics) if isinstance(metrics, dict) else []
    for name in ("loss", "acc"):
        if name in users:
            raise ValueError(f"metrics.{name}: a metric of this name is logged already")
    names = ("loss", "acc", *users)
    logged = [f"{stage}/{name}" for stage in ("train", "val") for name in names]
    for key in ("objective.metric", *(f"callbacks.{name}.monitor" for name in MONITORS)):
        metric = plain(cfg, key)
        if metric not in logged and (metric is not None or key == "objective.metric"):
            raise ValueError(must_be(key, either(logged), metric))


def check_modes(cfg: DictConfig) -> None:
    """Raises ValueError where min or max does not fit the metric that it is about."""
    metrics = dict.fromkeys(("objective", "scheduler"), cfg.objective.metric)
    metrics |= {f"callbacks.{n}": plain(cfg, f"callbacks.{n}.monitor") for n in MONITORS}
    for part, metric in metrics.items():
        mode, known = plain(cfg, f"{part}.mode"), better(str(metric))
        if known and mode in ("min", "max") and mode != known:
            raise ValueError(must_be(f"{part}.mode", f"{known} for {metric}", mode))


def inexact_options(cfg: DictConfig) -> list[str]:
    """The options of a run with which it is not promised to be resumed exactly."""
    usual: dict[str, tuple[Any, ...]] = {
        "strategy": ("auto", "ddp"),
        "fast_dev_run": (False,),
        "val_check_interval": (None, 1.0),
        "reload_dataloaders_every_n_epochs": (0,),
    }
    values = plain(cfg, "trainer")
    found = [f"trainer.{key}" for key, exact in usual.items() if values[key] not in exact]
    found += [f"trainer.{key}" for key in set(values) - set(OmegaConf.load(TRAINER))]
    if (plain(cfg, "callbacks.checkpoint") or {}).get("_target_") != schema.Checkpoint.of:
        found.append("callbacks.checkpoint")
    return found
