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

TRAINER = CONF / "trainer" / "auto.yaml"
TUNERS = ("BatchSizeFinder", "LearningRateFinder")
# what is resumed in the middle of their work begins it anew
INEXACT = ("GradientAccumulationScheduler", "StochasticWeightAveraging")
OF_MODULE = ("model", "optimizer", "scheduler", "loss", "metrics")  # a checkpoint holds them


def check(cfg: DictConfig, entry: str = "train") -> None:
    """Check what conf/<entry>.yaml composed to.

    Raises:
        ValueError: one line; for each wrong value its key, what is wrong with it and what it is.
    """
    targets = plain(cfg, "targets") or []
    allow([t for t in targets if isinstance(t, str)] if isinstance(targets, list) else [])
    if entry == "train":
        check_metrics(cfg)  # first: of an unknown metric no mode is known either
    model = schema.Train if entry == "train" else schema.Evaluate
    values = {key: plain(cfg, key) for key in model.model_fields if key != "callbacks"}
    if entry == "train":
        # those alone: a search's callback refers to the job, which has not started
        keys = schema.Callbacks.model_fields
        values["callbacks"] = {key: plain(cfg, f"callbacks.{key}") for key in keys}
    faults = wrong_values("", model, values)
    written: Any = OmegaConf.to_container(cfg)
    for part in (*OF_MODULE, "data", "trainer", "callbacks", "logger"):
        allowlist = CHECKPOINTS if part in OF_MODULE else COMMANDS
        faults += not_allowed(written.get(part), part, allowlist)
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    data = values["data"]
    if not is_custom(data):
        check_fold(data["val_fraction"], data["fold"])
        check_split(data.get("split", "rows"), data["name"], data["val_fraction"])
    if entry == "train":
        for name, node in cfg.callbacks.items():
            if (kind := class_name(node or {})) in TUNERS:
                raise ValueError(must_be(f"callbacks.{name}", "no tuner: none is supported", kind))
        if cfg.loss is None and values["data"].get("negatives"):
            raise ValueError(must_be("loss", "one that knows data.negatives", None))
        check_trainer(values["trainer"], values["data"].get("clean_epochs", 0))
        check_validation(cfg)
        if cfg.loss and cfg.label_smoothing:
            allowed = "0 where loss is set"
            raise ValueError(must_be("label_smoothing", allowed, cfg.label_smoothing))


def wrong_values(part: str, group: type[Group], values: Mapping[str, Any]) -> list[str]:
    """A sentence for each value of a part that its schema does not allow, in pydantic's words."""
    value: Any
    reasons: dict[str, tuple[list[str], Any]] = {}
    try:
        group.model_validate(values)
    except ValidationError as e:
        for fault in e.errors():  # of alternatives each has one
            key, value = part, dict[Any, Any](values)
            for name in fault["loc"]:  # a key, the name of an alternative, or a list's index
                if isinstance(value, dict) and name in value:
                    key, value = f"{key}.{name}", value[name]
            if fault["type"] == "missing":
                key, value = f"{key}.{fault['loc'][-1]}", ...
            reasons.setdefault(key.lstrip("."), ([], value))[0].append(fault["msg"])
    return [
        f"{key}: {' or '.join(dict.fromkeys(said))}"
        + (f", got {shown(value)}" if value is not ... else "")
        for key, (said, value) in reasons.items()
    ]


def check_values(part: str, group: type[Group], values: Mapping[str, Any]) -> None:
    """Raise ValueError for values of a part of the configuration that its schema refuses."""
    if faults := wrong_values(part, group, values):
        raise ValueError("; ".join(faults))


def check_fold(val_fraction: float, fold: int) -> None:
    """Raise ValueError where the training file has no slice `fold` of that size."""
    # no set has more images; in binary, 1 / 0.2 need not reach 5
    folds = int(min(1 / val_fraction, 60_000) + 1e-9) if val_fraction else 1
    if not 0 <= fold < folds:
        allowed = f"0 to {folds - 1} with data.val_fraction={val_fraction}"
        raise ValueError(must_be("data.fold", allowed, fold))


def check_split(split: str, name: str, val_fraction: float) -> None:
    """Raise ValueError where a set's writers are not known, or do not make folds of that size."""
    if split != "rows" and val_fraction and name != "mnist":
        raise ValueError(must_be("data.split", f"rows with data={name}", split))
    if split == "writers_by_series" and val_fraction not in (0, 0.5):
        allowed = "0.5 with data.split=writers_by_series, which has two folds"
        raise ValueError(must_be("data.val_fraction", allowed, val_fraction))


def check_trainer(trainer: Mapping[str, Any], clean_epochs: int) -> None:
    """Raise ValueError for values of the trainer that do not go with others."""
    for key in ("devices", "num_nodes"):
        several = isinstance(trainer[key], int) and trainer[key] > 1
        if several and not str(trainer["strategy"]).startswith("ddp"):
            raise ValueError(must_be(f"trainer.{key}", "1 without trainer=ddp", trainer[key]))
    if trainer["max_time"] == "00:00:00:00":
        raise ValueError(must_be("trainer.max_time", "at least 00:00:00:01", "00:00:00:00"))
    if (epochs := trainer["max_epochs"]) <= clean_epochs:
        allowed = f"less than trainer.max_epochs={epochs}"
        raise ValueError(must_be("data.clean_epochs", allowed, clean_epochs))


def check_validation(cfg: DictConfig) -> None:
    """Raise ValueError where something waits for a validation that does not take place."""
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
    """Raise ValueError for a metric that is not logged, whose name is taken, or of other mode."""
    metrics = plain(cfg, "metrics")
    users = list(metrics) if isinstance(metrics, dict) else []
    for name in ("loss", "acc"):
        if name in users:
            raise ValueError(f"metrics.{name}: a metric of this name is logged already")
    names = ("loss", "acc", *users)
    logged = [f"{stage}/{name}" for stage in ("train", "val") for name in names]
    keys = {"objective": "objective.metric", "scheduler": "objective.metric"}
    keys |= {f"callbacks.{c}": f"callbacks.{c}.monitor" for c in ("early_stopping", "checkpoint")}
    for part, key in keys.items():
        metric, mode = plain(cfg, key), plain(cfg, f"{part}.mode")
        if metric not in logged and (metric is not None or part == "objective"):
            raise ValueError(must_be(key, either(logged), metric))
        known = better(str(metric))
        if known and mode in ("min", "max") and mode != known:
            raise ValueError(must_be(f"{part}.mode", f"{known} for {metric}", mode))


def inexact_options(cfg: DictConfig) -> list[str]:
    """Return the options of a run with which it is not promised to be resumed exactly."""
    usual: dict[str, tuple[Any, ...]] = {
        "strategy": ("auto", "ddp"),
        "fast_dev_run": (False,),
        "val_check_interval": (None, 1.0),
        "reload_dataloaders_every_n_epochs": (0,),
    }
    values = plain(cfg, "trainer")
    found = [f"trainer.{key}" for key, exact in usual.items() if values[key] not in exact]
    found += [f"trainer.{key}" for key in set(values) - set(OmegaConf.load(TRAINER))]
    for name, node in cfg.callbacks.items():
        found += [f"callbacks.{name}"] * (class_name(node or {}) in INEXACT)
    return found
