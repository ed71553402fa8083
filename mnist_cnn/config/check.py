"""Checks a configuration before anything is written."""

from collections.abc import Sequence
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from mnist_cnn.config import schema
from mnist_cnn.config.compose import files, plain
from mnist_cnn.config.messages import better, either, must_be, sentence
from mnist_cnn.config.own import TARGETS, allow, forbidden, is_own
from mnist_cnn.config.schema import Group

# Which part of an entry's configuration is held against what. Callbacks and loggers may be null; a
# `name` that is not in NAMED is a class of the user's own, whose constructor judges.
PARTS: dict[str, dict[str, type[Group]]] = {
    "train": {
        "": schema.Train,
        "objective": schema.Objective,
        "data": schema.Data,
        "trainer": schema.Trainer,
        "callbacks.early_stopping": schema.EarlyStopping,
        "callbacks.checkpoint": schema.Checkpoint,
        "callbacks.nan": schema.NaNGuard,
        "callbacks.history": schema.History,
        "callbacks.progress": schema.ProgressBar,
        "callbacks.summary": schema.Summary,
        "callbacks.averaging": schema.Averaging,
        "logger.csv": schema.Logger,
        "logger.tensorboard": schema.TensorBoard,
    },
    "evaluate": {"": schema.Evaluate, "data": schema.Data},
}
# the kinds of a part, which its `name` tells apart
NAMED: dict[str, tuple[type[Group], ...]] = {
    "model": (schema.CNN, schema.FastCNN, schema.MLP, schema.VGG),
    "optimizer": (schema.Adam, schema.SGD),
    "scheduler": (schema.NoSchedule, schema.Plateau, schema.OneCycle, schema.Cosine),
}
DATA = (schema.Data, schema.Arrays, schema.Folder)

MONITORS = ("early_stopping", "checkpoint")  # callbacks that look at a metric


def check(cfg: DictConfig, entry: str = "train") -> None:
    """Holds what conf/<entry>.yaml composed to against what its values may be.

    Raises:
        ValueError: one line; for each wrong value its key, what it must be and what it is.
    """
    targets = plain(cfg, "targets") or []
    allow([t for t in targets if isinstance(t, str)] if isinstance(targets, list) else [])
    if entry == "train":
        check_metrics(cfg)
    faults = [
        fault
        for part, group in schemas(cfg, entry).items()
        for fault in wrong_values(cfg, part, group)
    ]
    # without interpolations: a search's callback refers to the job, which has not started
    written: Any = OmegaConf.to_container(cfg)
    for part in ("data", "trainer", "callbacks", "logger", "loss", "metrics", *NAMED):
        faults += forbidden(written.get(part), part, () if part == "model" else TARGETS)
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    if not is_own(cfg.data):
        check_fold(cfg.data.val_fraction, cfg.data.fold)
        check_split(cfg.data.get("split", "rows"), cfg.data.name, cfg.data.val_fraction)
    if entry == "train":
        check_trainer(cfg)
        check_validation(cfg)
        check_modes(cfg)
        if cfg.loss and cfg.label_smoothing:
            allowed = "0 where loss is set"
            raise ValueError(must_be("label_smoothing", allowed, cfg.label_smoothing))


def names(kind: type[Group]) -> tuple[str | None, ...]:
    """What the `name` of a part of this kind may be."""
    return get_args(kind.model_fields["name"].annotation) or (None,)


def schemas(cfg: DictConfig, entry: str) -> dict[str, type[Group]]:
    """What each part of a configuration is held against, by what it says that it is."""

    def known(part: str, kinds: Sequence[type[Group]], other: type[Group]) -> type[Group]:
        name = plain(cfg, f"{part}.name")
        return next((kind for kind in kinds if name in names(kind)), other)

    parts = dict(PARTS[entry])
    if is_own(cfg.data):
        parts["data"] = schema.Own
    else:
        parts["data"] = known("data", DATA, schema.Data)
        if entry == "train" and cfg.data.get("augment"):
            parts["data.augment"] = schema.Augment
    for part, kinds in NAMED.items() if entry == "train" else ():
        stepped = part == "scheduler"
        if plain(cfg, f"{part}._target_") is not None:
            parts[part] = schema.OwnSchedule if stepped else schema.Own
        else:
            parts[part] = known(part, kinds, schema.Schedule if stepped else schema.Named)
    return parts


def wrong_values(cfg: DictConfig, part: str, group: type[Group]) -> list[str]:
    """A sentence for each value of a part that its schema does not allow."""
    # of the whole its own keys only: what the other parts interpolate is not checked yet
    values = plain(cfg, part) if part else {k: plain(cfg, k) for k in group.model_fields}
    if values is None and part.startswith(("callbacks.", "logger.")) and group != schema.History:
        return []
    if not isinstance(values, dict):
        keys = f"keys and values ({', '.join(group.model_fields)})".removesuffix(" ()")
        return [must_be(part, either(files(part)) or keys, values)]
    if values.get("_target_") != getattr(group, "of", values.get("_target_")):
        return []
    try:
        group.model_validate(values)
    except ValidationError as e:
        return [sentence(part, group, values, fault) for fault in e.errors()]
    return []


def check_trainer(cfg: DictConfig) -> None:
    """Raises ValueError for values of the trainer that do not go with others."""
    if not str(cfg.trainer.strategy).startswith("ddp"):
        for key in ("devices", "num_nodes"):
            if isinstance(number := cfg.trainer[key], int) and number > 1:
                raise ValueError(must_be(f"trainer.{key}", "1 without trainer=ddp", number))
    if cfg.trainer.max_time == "00:00:00:00":
        allowed = "at least 00:00:00:01"
        raise ValueError(must_be("trainer.max_time", allowed, cfg.trainer.max_time))
    if 0 < (cfg.trainer.max_epochs or 0) <= cfg.data.get("clean_epochs", 0):
        allowed = f"less than trainer.max_epochs={cfg.trainer.max_epochs}"
        raise ValueError(must_be("data.clean_epochs", allowed, cfg.data.clean_epochs))


def check_validation(cfg: DictConfig) -> None:
    """Raises ValueError where something waits for a validation that does not take place."""
    val_fraction = None if is_own(cfg.data) else cfg.data.val_fraction
    if val_fraction != 0 and cfg.trainer.limit_val_batches:
        return
    waits = {
        f"callbacks.{name}": str(plain(cfg, f"callbacks.{name}.monitor") or "")
        for name in ("early_stopping", "prune")
    }
    if cfg.scheduler.get("name") == "ReduceLROnPlateau":
        waits["scheduler"] = cfg.objective.metric
    if waiting := [f"{key} ({metric})" for key, metric in waits.items() if "val/" in metric]:
        key = "trainer.limit_val_batches" if val_fraction != 0 else "data.val_fraction"
        raise ValueError(
            f"{key} must be > 0 for {' and '.join(waiting)}, got 0; or set "
            "callbacks=no_early_stopping and another scheduler, such as one_cycle"
        )


def check_metrics(cfg: DictConfig) -> None:
    """Raises ValueError for a metric that is not logged."""
    own_metrics = plain(cfg, "metrics") or {}
    names = ("loss", "acc", *(own_metrics if isinstance(own_metrics, dict) else ()))
    logged = [f"{stage}/{name}" for stage in ("train", "val") for name in names]
    for key in ("objective.metric", *(f"callbacks.{name}.monitor" for name in MONITORS)):
        metric = plain(cfg, key)
        if metric not in logged and (metric is not None or key == "objective.metric"):
            raise ValueError(must_be(key, either(logged), metric))


def check_modes(cfg: DictConfig) -> None:
    """Raises ValueError where min or max does not fit the metric that it is about."""
    metrics = {
        "objective": cfg.objective.metric,
        **{f"callbacks.{name}": None for name in MONITORS},
        "scheduler": cfg.objective.metric,
    }
    for part, metric in metrics.items():
        metric = metric or plain(cfg, f"{part}.monitor")
        mode = plain(cfg, f"{part}.mode")
        if metric and mode in ("min", "max") and mode != (better(metric) or mode):
            allowed = f"{better(metric)} for {metric}"
            raise ValueError(must_be(f"{part}.mode", allowed, mode))


def not_exact(cfg: DictConfig) -> list[str]:
    """The options of a run with which it is not promised to be resumed exactly."""
    usual: dict[str, tuple[Any, ...]] = {
        "strategy": ("auto", "ddp"),
        "fast_dev_run": (False,),
        "val_check_interval": (None, 1.0),
        "reload_dataloaders_every_n_epochs": (0,),
    }
    values = plain(cfg, "trainer")
    odd = [key for key, known in usual.items() if values[key] not in known]
    odd += [key for key in values if key not in (*schema.Trainer.model_fields, "_target_")]
    found = [f"trainer.{key}" for key in odd]
    if (plain(cfg, "callbacks.checkpoint") or {}).get("_target_") != schema.Checkpoint.of:
        found.append("callbacks.checkpoint")
    return found


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
