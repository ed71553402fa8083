"""Where the configuration lies, what its values may be, and how an entry starts from it."""

import difflib
import fnmatch
import importlib.metadata
import itertools
import logging
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mnist_cnn.command import SIGPIPE, USER_ERRORS, tolerate_encoding

# inside an installed package, or beside the package in a clone
CONF = next(
    path
    for path in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
    if path.is_dir()
)

COMPOSING = threading.Lock()  # Hydra keeps what it composes with in one place of the process

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=1, le=60_000)]  # no split of any set has more images
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a layer; model.build counts what they make up
Limit = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal["train/loss", "train/acc", "val/loss", "val/acc"]
Mode = Literal["min", "max"]
Interval = Literal["epoch", "step"]  # a schedule is stepped after each
Target = Annotated[str, Field(pattern=r"^\w+(\.\w+)+$", examples=["lightning.Trainer"])]


# The only code that a configuration may call by `_target_`: add your own package here.
TARGETS = ["mnist_cnn.*", "lightning.*", "optuna.samplers.*", "optuna.pruners.*"]

# what asks a program to stop; clusters announce the end of a job by one of the last two
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class Interrupted(BaseException):
    """A signal asked the program to stop: `number` says which, `hint` how to go on."""

    def __init__(self, number: int, hint: str = ""):
        closed = number == SIGPIPE
        what = "output closed" if closed else f"interrupted by {signal.Signals(number).name}"
        super().__init__(f"{what}; {hint}".removesuffix("; "))
        self.number = number


class Group(BaseModel):
    """A part of the configuration; `_target_`, where there is one, is left to Hydra."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Open(Group):
    """A part that takes keys of its own beside the ones that are checked here."""

    model_config = ConfigDict(extra="allow")


class Seen(Group):
    """What must be known of the data that a network was trained on."""

    name: Literal["mnist", "fashion_mnist", "kmnist", "qmnist"]
    mean: Share
    std: Annotated[float, Field(gt=0, le=1)]
    val_fraction: Annotated[float, Field(ge=0, lt=1)]
    fold: Annotated[int, Field(ge=0)]


class Data(Seen):
    target: Target = Field(alias="_target_")
    root: str
    source: Literal["auto", "bundled", "download"]
    mirror: str | None
    batch_size: Batch
    eval_batch_size: Batch
    shuffle: bool
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    augment: dict[str, Any]
    clean_epochs: Annotated[int, Field(ge=0)]


class Evaluated(Data):
    """An evaluation's data: a null of these is each network's own."""

    mean: Share | None  # type: ignore[assignment]
    std: Annotated[float, Field(gt=0, le=1)] | None  # type: ignore[assignment]


class Augment(Group):
    degrees: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=14)]
    scale: Annotated[float, Field(ge=0, le=0.9)]
    stretch: Annotated[float, Field(ge=0, le=0.9)]
    shear: Annotated[float, Field(ge=0, le=60)]
    elastic: Annotated[float, Field(ge=0, le=5)]
    thickness: Share
    blur: Share
    gamma: Annotated[float, Field(ge=0, le=3)]
    strike: Share
    flourish: Share


class Named(Open):
    name: str


class Schedule(Named):
    interval: Interval = "epoch"


class CNN(Group):
    name: Literal["CNN"]
    channels: Annotated[list[Width], Field(min_length=2, max_length=2)]
    hidden: Width
    dropout: BelowOne


class MLP(Group):
    name: Literal["MLP"]
    hidden: Width
    dropout: BelowOne


class FastCNN(Group):
    name: Literal["FastCNN"]
    channels: Annotated[list[Width], Field(min_length=2, max_length=2)]
    hidden: Width


class VGG(Group):
    name: Literal["VGG"]
    stages: Annotated[
        list[Annotated[list[Width], Field(min_length=1, max_length=8)]],
        Field(min_length=1, max_length=4),
    ]
    channel_dropout: BelowOne
    dropout: BelowOne


class Adam(Group):
    name: Literal["Adam", "AdamW"]
    lr: Positive
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)]
    eps: Positive
    weight_decay: NotNegative
    fused: bool


class SGD(Group):
    name: Literal["SGD"]
    lr: Positive
    momentum: BelowOne
    nesterov: bool
    weight_decay: NotNegative
    fused: bool


class NoSchedule(Group):
    name: None


class Plateau(Group):
    name: Literal["ReduceLROnPlateau"]
    interval: Literal["epoch"]
    mode: Mode
    factor: Annotated[float, Field(gt=0, lt=1)]
    patience: Annotated[int, Field(ge=0)]
    threshold: NotNegative
    threshold_mode: Literal["rel", "abs"]
    min_lr: NotNegative


class OneCycle(Group):
    name: Literal["OneCycleLR"]
    interval: Interval
    max_lr: Positive
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    anneal_strategy: Literal["cos", "linear"]
    cycle_momentum: bool
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


class Cosine(Group):
    name: Literal["CosineAnnealingLR"]
    interval: Interval
    eta_min: NotNegative


class EarlyStopping(Open):
    monitor: Metric
    mode: Mode
    patience: Annotated[int, Field(ge=0)]
    min_delta: NotNegative
    check_finite: bool
    strict: bool


class Checkpoint(Open):
    monitor: Metric
    mode: Mode
    every_seconds: Positive | None
    every_steps: Count | None


class Finite(Open):
    every_steps: Count


class History(Open):
    pass


class ProgressBar(Open):
    refresh_seconds: Positive
    quiet: bool


class Summary(Open):
    max_depth: Annotated[int, Field(ge=-1)]


class Averaging(Open):
    decay: BelowOne
    update_every_n_steps: Count


class Logger(Open):
    save_dir: str
    name: str
    version: str | int | None


class TensorBoard(Logger):
    default_hp_metric: bool
    purge_step: Annotated[int, Field(ge=0)] | None


class Profiler(Open):
    target: Target = Field(alias="_target_")
    dirpath: str | None = None
    filename: str | None = None


class Trainer(Group):
    target: Target = Field(alias="_target_")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    strategy: Literal["auto", "ddp"]
    devices: Count | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1)]
    num_nodes: Count
    use_distributed_sampler: Literal[False]
    precision: Literal[
        "32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "transformer-engine"
    ]
    max_epochs: Count
    min_epochs: Count | None
    max_steps: Literal[-1] | Count
    max_time: (
        Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$", examples=["00:01:30:00"])] | None
    )
    limit_train_batches: Limit
    limit_val_batches: Limit
    limit_test_batches: Limit
    check_val_every_n_epoch: Count
    num_sanity_val_steps: Annotated[int, Field(ge=0)]
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"]
    accumulate_grad_batches: Count
    deterministic: bool
    benchmark: bool
    detect_anomaly: bool
    profiler: Literal["simple", "advanced", "pytorch"] | Profiler | None
    enable_model_summary: bool
    enable_progress_bar: Literal[False]


class Objective(Group):
    metric: Metric
    mode: Mode


class Train(Open):
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    ckpt_path: Annotated[str, Field(min_length=1)] | None
    force: bool
    test: bool
    label_smoothing: BelowOne
    run_dir: str
    run_name: str


class Evaluate(Open):
    ckpt_path: (
        Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] | None
    )
    split: Literal["test", "val", "train"]
    shifts: Annotated[int, Field(ge=0, le=4)]  # by 4, three of four MNIST digits are cut already
    temperature: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    mistakes: Annotated[int, Field(ge=0)]
    run_dir: str


# Which part of an entry's configuration is held against what. A part may be null where a run can do
# without it; a `name` that is not here is a class of the user's own, whose constructor judges.
PARTS: dict[str, dict[str, type[Group]]] = {
    "train": {
        "": Train,
        "objective": Objective,
        "data": Data,
        "trainer": Trainer,
        "callbacks.early_stopping": EarlyStopping,
        "callbacks.checkpoint": Checkpoint,
        "callbacks.finite": Finite,
        "callbacks.history": History,
        "callbacks.progress": ProgressBar,
        "callbacks.summary": Summary,
        "callbacks.averaging": Averaging,
        "logger.csv": Logger,
        "logger.tensorboard": TensorBoard,
    },
    "evaluate": {"": Evaluate, "data": Evaluated},
}
NAMED: dict[str, dict[str, dict[str | None, type[Group]]]] = {
    "train": {
        "model": {"CNN": CNN, "FastCNN": FastCNN, "MLP": MLP, "VGG": VGG},
        "optimizer": {"Adam": Adam, "AdamW": Adam, "SGD": SGD},
        "scheduler": {
            None: NoSchedule,
            "ReduceLROnPlateau": Plateau,
            "OneCycleLR": OneCycle,
            "CosineAnnealingLR": Cosine,
        },
    },
    "evaluate": {},
}
OPTIONAL = (
    *("callbacks.early_stopping", "callbacks.finite", "callbacks.progress", "callbacks.summary"),
    *("callbacks.averaging", "logger.csv", "logger.tensorboard"),
)


def check(cfg: DictConfig, entry: str = "train") -> None:
    """Holds what conf/<entry>.yaml composed to against what its values may be.

    Raises:
        ValueError: one line; for each wrong value its key, what it must be and what it is.
    """
    parts = dict(PARTS[entry])
    faults: list[str] = []
    if entry == "train" and cfg.data.get("augment"):
        parts["data.augment"] = Augment
    for part, schemas in NAMED[entry].items():
        name = plain(cfg, f"{part}.name")
        own = Schedule if part == "scheduler" else Named
        parts[part] = schemas.get(name if isinstance(name, str) else None, own)
    for part, schema in parts.items():
        # of the whole its own keys only: what the other parts interpolate is not checked yet
        values = plain(cfg, part) if part else {k: plain(cfg, k) for k in schema.model_fields}
        if values is None and part in OPTIONAL:
            continue
        if not isinstance(values, dict):
            keys = f"keys and values ({', '.join(schema.model_fields)})".removesuffix(" ()")
            faults.append(must_be(part, either(files(part)) or keys, values))
            continue
        try:
            schema.model_validate(values)
        except ValidationError as e:
            faults += [sentence(part, schema, values, fault) for fault in e.errors()]
    for part in ("data", "trainer", "callbacks", "logger"):
        faults += forbidden(plain(cfg, part), part)
    if faults:
        raise ValueError("; ".join(dict.fromkeys(faults)))
    if cfg.data.source == "bundled" and cfg.data.name != "mnist":
        raise ValueError(
            must_be("data.source", f"auto or download with data={cfg.data.name}", "bundled")
        )
    if entry == "train" and cfg.trainer.strategy == "auto":
        for key in ("devices", "num_nodes"):
            if isinstance(number := cfg.trainer[key], int) and number > 1:
                raise ValueError(must_be(f"trainer.{key}", "1 without trainer=ddp", number))
    check_fold(cfg.data.val_fraction, cfg.data.fold)
    if entry == "train" and cfg.trainer.max_time == "00:00:00:00":
        allowed = "at least 00:00:00:01"
        raise ValueError(must_be("trainer.max_time", allowed, cfg.trainer.max_time))
    if entry == "train" and not cfg.data.val_fraction:
        waits = {
            f"callbacks.{name}": str(plain(cfg, f"callbacks.{name}.monitor") or "")
            for name in ("early_stopping", "prune")
        }
        if cfg.scheduler.name == "ReduceLROnPlateau":
            waits["scheduler"] = cfg.objective.metric
        waiting = [f"{k} ({metric})" for k, metric in waits.items() if "val/" in metric]
        if waiting:
            raise ValueError(
                f"data.val_fraction must be > 0 for {' and '.join(waiting)}, got 0; or set "
                "callbacks=no_early_stopping and another scheduler, such as one_cycle"
            )
    if entry == "train" and 0 < (cfg.trainer.max_epochs or 0) <= cfg.data.clean_epochs:
        allowed = f"less than trainer.max_epochs={cfg.trainer.max_epochs}"
        raise ValueError(must_be("data.clean_epochs", allowed, cfg.data.clean_epochs))
    if entry == "train":
        check_modes(cfg)


def check_modes(cfg: DictConfig) -> None:
    """Raises ValueError where min or max does not fit the metric that it is about."""
    metrics = {
        "objective": cfg.objective.metric,
        **{f"callbacks.{name}": None for name in ("early_stopping", "checkpoint")},
        "scheduler": cfg.objective.metric,
    }
    for part, metric in metrics.items():
        metric = metric or plain(cfg, f"{part}.monitor")
        mode = plain(cfg, f"{part}.mode")
        if metric and mode in ("min", "max") and mode != better(metric):
            allowed = f"{better(metric)} for {metric}"
            raise ValueError(must_be(f"{part}.mode", allowed, mode))


def better(metric: str) -> str:
    """min for a loss, max for an accuracy."""
    return "max" if metric.endswith("/acc") else "min"


def forbidden(node: Any, key: str) -> list[str]:
    """A sentence for each `_target_` in a part of a configuration that may not be called."""
    if not isinstance(node, dict):
        return []
    faults = [f for name, value in node.items() for f in forbidden(value, f"{key}.{name}")]
    target = node.get("_target_")
    if target is not None and not any(fnmatch.fnmatchcase(str(target), t) for t in TARGETS):
        faults.append(must_be(f"{key}._target_", either(TARGETS), target))
    return faults


def check_here(cfg: DictConfig) -> None:
    """Holds a run's configuration against this machine's devices and the classes that it names.

    Raises:
        ValueError: a device that is not here, a class that does not exist.
    """
    import torch
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    from mnist_cnn.model import build
    from mnist_cnn.module import find_class

    names = {
        **{"auto": True, "cpu": True, "gpu": False},
        **{"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()},
    }
    names["gpu"] = names["cuda"] or names["mps"]
    accelerator, devices = cfg.trainer.accelerator, cfg.trainer.devices
    if not names.get(accelerator):
        here = either([name for name, available in names.items() if available])
        raise ValueError(must_be("trainer.accelerator", f"{here} on this machine", accelerator))
    if OmegaConf.is_list(devices) and (accelerator == "cpu" or not names["gpu"]):
        raise ValueError(must_be("trainer.devices", "a whole number on a CPU", devices))
    with torch.device("meta"):  # no memory, no time
        build(plain(cfg, "model"))
    find_class(torch.optim, torch.optim.Optimizer, "optimizer", cfg.optimizer.name)
    if cfg.scheduler.name is not None:
        schedulers = torch.optim.lr_scheduler
        find_class(schedulers, schedulers.LRScheduler, "scheduler", cfg.scheduler.name)


def plain(cfg: DictConfig, key: str = "") -> Any:
    """The value of a key, or all of cfg, as plain Python values with every interpolation resolved.

    Raises:
        ValueError: a value refers to something that does not exist, or to itself.
    """
    try:
        value = OmegaConf.select(cfg, key) if key else cfg
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError) as e:
        reason = "it refers to itself" if isinstance(e, RecursionError) else str(e)
        raise ValueError(f"{key}: {reason}" if key else reason) from None


def own_folders(argv: Sequence[str]) -> list[str]:
    """The folders that a command line adds to those where configuration is looked for."""
    found = []
    for option, following in itertools.zip_longest(argv, argv[1:]):
        name, _, value = option.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(value or following or "")
        elif name == "hydra.searchpath":
            found += re.findall(r"[^\[\],'\"]+", value)
    return [folder.removeprefix("file://") for folder in found]


def files(group: str) -> list[str]:
    """What group=... can be set to, the user's own files included; empty where it is no group."""
    folders = [CONF, *map(Path, own_folders(sys.argv[1:]))] if group else []
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def check_choices(overrides: Sequence[str]) -> None:
    """Raises ValueError for a group that is given null, a number or the like: Hydra stumbles."""
    for override in overrides:
        group, _, value = override.partition("=")
        if group == "hydra/sweeper":
            searches = " or ".join(f"hparams_search={file}" for file in files("hparams_search"))
            raise ValueError(f"hydra/sweeper must not be set, got {value}; use {searches}")
        names = [name.strip() for name in value.strip("[] ").split(",")]
        odd = [name for name in names if re.fullmatch(r"null|true|false|[\d.+-]+", name, re.I)]
        if odd and (known := files(group)) and not set(odd) <= set(known):
            raise ValueError(must_be(group, either(known), value))


def sentence(part: str, schema: type[Group], values: Mapping[str, Any], fault: Any) -> str:
    """One of pydantic's errors as `key must be X, got Y`."""
    field = str(fault["loc"][0])
    key = f"{part}.{field}".lstrip(".")
    fields = schema.model_json_schema()["properties"]
    if field not in fields:
        return f"{key}: no such key; allowed in {part}: {', '.join(fields)}"
    allowed = either(kinds(fields[field]))
    return must_be(key, allowed, values[field]) if field in values else f"{key} must be {allowed}"


def must_be(key: str, allowed: str, value: Any) -> str:
    """The sentence for a wrong value."""
    return f"{key} must be {allowed}, got {shown(value)}"


def either(options: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) if value != "" else "''"


def kinds(field: dict[str, Any]) -> list[str]:
    """What a field of a JSON schema may be, in words."""
    if "anyOf" in field:
        return [kind for option in field["anyOf"] for kind in kinds(option)]
    if "const" in field:
        return [shown(field["const"])]
    if "enum" in field:
        return field["enum"]
    kind = field.get("type", "object")  # the schema of a part has no type
    kind = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "object": "keys and values",
    }.get(kind, kind)
    if kind == "array":
        low, high = field.get("minItems", 0), field.get("maxItems", math.inf)
        size = "" if high == math.inf else f" of {low}" if low == high else f" of {low} to {high}"
        kind = f"a list{size}, each {either(kinds(field['items']))}"
    bounds = [
        f"{sign} {str(field[bound]).removesuffix('.0')}"  # as some releases of pydantic write 0
        for bound, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if bound in field
    ]
    if "pattern" in field:
        kind += f" like {field['examples'][0]}"
    return [f"{kind} {' and '.join(bounds)}".strip()]


def check_fold(val_fraction: float, fold: int) -> None:
    """Raises ValueError where the training file has no slice `fold` of that size."""
    # no set has more images; in binary, 1 / 0.2 need not reach 5
    folds = int(min(1 / val_fraction, 60_000) + 1e-9) if val_fraction else 1
    if not 0 <= fold < folds:
        allowed = f"0 to {folds - 1} with data.val_fraction={val_fraction}"
        raise ValueError(must_be("data.fold", allowed, fold))


def run_name(overrides: Sequence[str] | None = None) -> str:
    """What a command line overrode (by default that of this run), fit for a folder's name."""
    if overrides is None:
        overrides = HydraConfig.get().overrides.task
    parts = [o.removeprefix("experiment=") for o in overrides if not o.startswith("ckpt_path=")]
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(parts))[:120] or "default"


def next_epoch(ckpt_path: str | None) -> int:
    """The epoch (from 1) that comes after a checkpoint; 0 without a checkpoint."""
    if not ckpt_path:
        return 0
    from mnist_cnn import trained

    return trained.read_checkpoint(ckpt_path)["epoch"] + 1


def install(extra: str) -> str:
    """The command that installs an extra of this project, from a clone or beside a wheel.

    It never names this project, which an index may know as somebody else's.
    """
    clone = Path(__file__).parents[1]
    if (clone / "pyproject.toml").is_file():
        return f'pip install -e "{"." if Path.cwd() == clone else clone}[{extra}]"'
    return f"pip install {' '.join(requirements(extra))}"


def requirements(extra: str) -> list[str]:
    """What an extra of the installed package needs, those of its own extras included."""
    found: list[str] = []
    for line in importlib.metadata.requires("mnist-cnn") or ():
        requirement, _, marker = line.partition(";")
        if re.search(rf"""extra == ['"]{extra}['"]""", marker):
            own = re.fullmatch(r"mnist[-_]cnn\[(.+)\]", requirement.strip())
            for name in own[1].split(",") if own else ():
                found += requirements(name)
            if not own:
                found.append(f'"{requirement.strip()}"')
    return found


OmegaConf.register_resolver("run_name", run_name, replace=True)
OmegaConf.register_resolver("better", better, replace=True)
OmegaConf.register_resolver("next_epoch", next_epoch, replace=True)


def compose(
    overrides: Sequence[str] = (), *, run_dir: str | Path, run_name: str = "", entry: str = "train"
) -> DictConfig:
    """The configuration of `python -m mnist_cnn.<entry> OVERRIDES`, for use from Python.

    Args:
        overrides: as on the command line: ["trainer.max_epochs=2"].
        run_dir: the folder that the run is to fill.
        run_name: its name in TensorBoard, where it is to have one.
        entry: train or evaluate.
    """
    check_choices(overrides)
    cfg = composed(entry, overrides)
    cfg.run_dir = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(run_dir))  # no interpolation
    if entry == "train":
        cfg.run_name = run_name
    return cfg


def composed(entry: str, overrides: Sequence[str], **options: Any) -> DictConfig:
    """hydra.compose on conf/, whatever else this process uses Hydra for, in any thread."""
    with COMPOSING:
        state = GlobalHydra.instance()
        before, state.hydra = state.hydra, None
        try:
            with hydra.initialize_config_dir(str(CONF)):
                return hydra.compose(entry, list(overrides), **options)
        finally:
            GlobalHydra.instance().hydra = before


def make(kind: type, node: DictConfig, **options: Any) -> Any:
    """The object of a class `kind` that a part of the configuration describes by its `_target_`.

    Raises:
        ValueError: it makes something else, or Lightning refuses it, as a device that is not here.
    """
    from hydra.utils import instantiate
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        made = instantiate(node, **options, _convert_="all", _execution_whitelist_=TARGETS)
    except (MisconfigurationException, ImportError) as e:  # no such device; its package is missing
        raise ValueError(e) from e
    if not isinstance(made, kind):
        raise ValueError(must_be("_target_", f"a {kind.__name__}", node.get("_target_")))
    return made


def quiet_lightning() -> None:
    """Silences what Lightning tells a user without need."""
    # which devices there are, and advertising
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # but a profiler's table was asked for
    profilers = logging.getLogger("lightning.pytorch.profilers")
    profilers.setLevel(logging.INFO)
    if not (profilers.handlers or logging.getLogger("lightning.pytorch").handlers):
        profilers.addHandler(logging.StreamHandler())
    # its own use of a torch class that is on its way out
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
    # metrics are sums over all processes already
    warnings.filterwarnings("ignore", r".*sync_dist=True")
    # data.val_fraction=0 leaves no validation images
    warnings.filterwarnings("ignore", r"Total length of `tuple` across ranks is zero")
    # nothing is logged at single steps
    warnings.filterwarnings("ignore", r".*smaller than the logging interval")
    # mixed precision keeps the weights in 32 bits, as the summary has it
    warnings.filterwarnings("ignore", r"Precision .* is not supported by the model summary")


def run(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Calls task with conf/<config_name>.yaml and the command line's overrides, as Hydra does.

    What a user can get wrong ends the program with one line and exit code 1; set HYDRA_FULL_ERROR=1
    to see where it comes from.
    """
    tolerate_encoding()
    entry = hydra.main(str(CONF), config_name, execution_whitelist=TARGETS)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return entry(task)()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra leaves its errors to us

    @entry
    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except BrokenPipeError:
            raise
        except (*USER_ERRORS, InstantiationException) as e:
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # one of an evaluation's
                raise
            sys.exit(one_line(e, config_name))

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    def unraisable(lost: Any) -> None:
        # it came while Python collected garbage, which swallows it: let it come again
        if isinstance(lost.exc_value, Interrupted):
            threading.Timer(0.1, os.kill, (os.getpid(), lost.exc_value.number)).start()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = unraisable
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        check_choices(sys.argv[1:])
        job()
    except BrokenPipeError:
        raise  # for command
    except (*USER_ERRORS, HydraException, OmegaConfBaseException) as e:
        sys.exit(one_line(e, config_name))
    except Interrupted as e:
        print(e, file=sys.stderr)
        sys.exit(128 + e.number)  # by convention
    finally:  # while Python ends there is nobody left to tell
        for number in SIGNALS:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, signal.SIG_DFL)


def one_line(error: BaseException, entry: str = "train") -> str:
    """The error as one line for the user of an entry."""
    text = " ".join(str(error).split())
    if unknown := re.search(r"Could not override '([\w.@/]+)'", text):
        text = no_such_key(unknown[1], error, entry)
    elif bare := re.search(r"string: ([^=]+) out of \[", text):
        text = f"an argument must be key=value, got {bare[1]}"
        if Path(bare[1]).exists():
            text += f"; for the network or the run there, ckpt_path={bare[1]}"
    elif no_file := re.search(r"Could not (?:find|load) '([\w./]+)/([^/']+)'", text):
        group, file = no_file.groups()
        options = getattr(error, "options", None) or files(group)
        text = must_be(group, either(options), file)
    return f"error: {text}"


def no_such_key(key: str, error: BaseException, entry: str) -> str:
    """The sentence for a key that Hydra could not override."""
    # of `scheduler={step_size: 5}` the key inside
    inner = re.search(r"full_key: (\S+)", str(error.__cause__))
    if inner and inner[1].startswith(f"{key}."):
        key = inner[1]
    defaults = OmegaConf.load(CONF / f"{entry}.yaml").defaults
    groups = [group for item in defaults if isinstance(item, DictConfig) for group in item]
    # with the files that were chosen: their keys differ
    given = [text for text in sys.argv[1:] if re.fullmatch(r"[\w/]+=[\w/]+", text)]
    own = (*groups, "hydra/launcher", "hydra/sweeper")
    chosen = [text for text in given if text.partition("=")[0] in own]
    folders = ",".join(f"'{folder}'" for folder in own_folders(sys.argv[1:]))
    whole = composed(entry, [f"hydra.searchpath=[{folders}]", *chosen], return_hydra_config=True)
    node: Any = OmegaConf.to_container(whole)
    # a group of which no file is chosen, such as experiment, is no key of what is composed
    top = key.partition(".")[0]
    if top in groups and top not in node:
        choice = f"{top} must be {either(files(top))}"
        return choice if key == top else f"{key}: no such key; {choice}"
    node = {**node, **{group: node.get(group) for group in groups}}
    known: list[str] = []
    wrong, *deeper = key.split(".")
    while deeper and isinstance(node, dict) and wrong in node:
        known.append(wrong)
        node = node[wrong]
        wrong, *deeper = deeper
    keys = list(map(str, node)) if isinstance(node, dict) else []
    near = difflib.get_close_matches(wrong, keys, n=1)
    part = f" in {'.'.join(known)}" if known else ""
    text = f"{key}: no such key"
    text += f"; did you mean {'.'.join([*known, near[0], *deeper])}?" if near else ""
    text += f"; allowed{part}: {', '.join(keys)}" if keys else ""
    return text + (f"; a key of your own: +{key}=..." if known and top in NAMED[entry] else "")
