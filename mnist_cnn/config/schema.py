"""The values that a configuration may have, as pydantic models of its parts.

A value is checked here where it is cheaper than asking the class that it is for, or where that
class would not say which key is wrong. A default means that the part need not have the key.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]  # of values in [0, 1]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Batch = Annotated[int, Field(ge=1, le=60_000)]  # no split of any set has more images
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a layer; MAX_PARAMETERS bounds their product
Stage = Annotated[list[Width], Field(min_length=1, max_length=8)]
Limit = Count | Annotated[float, Field(gt=0, le=1)]  # a number of batches or a share of them
NoneOrLimit = Whole | Share
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1)]
Mode = Literal["min", "max"]
Suite = Literal["corruptions", "affine", "adversarial", "outliers", "autoattack"]
Target = Annotated[str, Field(pattern=r"^\w+(\.\w+)+$", alias="_target_")]
Later = Annotated[Literal[True], Field(alias="_partial_")]  # made when its first argument is there


class Group(BaseModel):
    """A part of the configuration whose keys are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Open(Group):
    """A part that takes other keys beside the ones that are checked here."""

    model_config = ConfigDict(extra="allow")


class Custom(Open):
    """A part that is made by its `_target_`, whose constructor judges."""

    target: Target


M = TypeVar("M", bound=Group)
# beside Target, M for a class of this project, which other classes need not be like
Either = Annotated[M, Tag("ours")] | Annotated[Custom, Tag("other")]


def ours(prefix: str) -> Discriminator:
    """Choose M of Either[M] where `_target_` begins with the prefix."""

    def tag(part: Any) -> str:
        target = part.get("_target_") if isinstance(part, dict) else None
        return "ours" if str(target).startswith(prefix) else "other"

    return Discriminator(tag)


class DataDescription(Group):
    """The least that a file says of the data that its network was trained on."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=r"^\w+$")]
    classes: list[str] | None = None
    val_fraction: BelowOne = 0.0
    fold: Whole = 0
    split: str = "rows"
    own: Custom | None = None  # a user's, in place of one of this project's sets


class Images(Open):
    """`data.datamodule.ImageDataModule`."""

    val_fraction: BelowOne
    fold: Whole
    split: Literal["rows", "writers", "writers_by_series"] = "rows"
    batch_size: Batch
    eval_batch_size: Batch
    shuffle: bool
    seed: Seed
    clean_epochs: Whole


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
    background: Share
    noise: Share
    erase: Share
    unchanged: Share


class Data(Images):
    """Its subclasses."""

    target: Target
    name: Literal["mnist", "fashion_mnist", "kmnist", "qmnist", "arrays", "folder"]
    augment: Annotated[Augment | None, BeforeValidator(lambda values: values or None)]
    negatives: Count | None = None  # of data.negatives.MNISTWithNegatives


class Network(Custom):
    """The networks of model.py."""

    mean: Share | list[Share] | Literal["auto"] = 0.0
    std: Deviation | list[Deviation] | Literal["auto"] = 1.0
    channels: Annotated[list[Width], Field(min_length=2, max_length=2)] = [32, 64]
    hidden: Width = 128
    dropout: BelowOne = 0.0
    channel_dropout: BelowOne = 0.0
    stages: Annotated[list[Stage], Field(min_length=1, max_length=4)] = [[32]]


class Optimizer(Custom):
    """Any optimizer; torch's own judge the ranges of most values, but not all types."""

    partial: Later = True
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: NotNegative = 0.0
    eps: Positive = 1e-8
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    nesterov: bool = False
    fused: bool | None = None


class Schedule(Open):
    """Any schedule, as Optimizer; {} for none. Its `_target_` need not be there."""

    partial: Later = True
    patience: Whole = 1
    factor: Positive = 0.5
    threshold: NotNegative = 0.0
    min_lr: NotNegative = 0.0
    eta_min: NotNegative = 0.0
    max_lr: Positive = 1e-3
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1)] = 1e4
    cycle_momentum: bool = True
    interval: Literal["epoch", "step"] = "epoch"  # it is stepped after each


class EarlyStopping(Open):
    mode: Mode
    patience: Whole
    min_delta: NotNegative
    check_finite: bool
    strict: bool


class Checkpoint(Open):
    target: Annotated[Literal["mnist_cnn.callbacks.checkpoint.Checkpoint"], Field(alias="_target_")]
    mode: Mode
    every_seconds: Positive | None
    every_steps: Count | None
    check_every_steps: Count


class ProgressBar(Open):
    refresh_seconds: Positive
    quiet: bool


class Averaging(Open):
    decay: BelowOne
    update_every_n_steps: Count


PROGRESS = "mnist_cnn.callbacks.progress.ProgressBar"


class Callbacks(Group):
    early_stopping: EarlyStopping | None
    checkpoint: Checkpoint
    progress: Annotated[Either[ProgressBar], ours(PROGRESS)] | None
    history: Custom
    averaging: Averaging | None


class Trainer(Custom):
    """Values that Lightning would take, or refuse without their key; it judges all others."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    strategy: str | dict[str, Any]
    devices: Count | Annotated[list[Whole], Field(min_length=1, max_length=1)]
    num_nodes: Count
    max_epochs: Count
    min_epochs: Count | None
    max_steps: Literal[-1] | Count
    max_time: Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$")] | None
    fast_dev_run: bool | Count
    overfit_batches: NoneOrLimit
    limit_train_batches: Limit
    limit_val_batches: NoneOrLimit
    limit_test_batches: Limit
    limit_predict_batches: NoneOrLimit
    val_check_interval: Limit | None  # Lightning's own fails with a time
    enable_checkpointing: Literal[True] | None
    barebones: Literal[False] = False
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: Whole | None
    benchmark: bool | None
    gradient_clip_val: Positive | None
    accumulate_grad_batches: Count
    reload_dataloaders_every_n_epochs: Whole
    profiler: Literal["simple", "advanced", "pytorch"] | Custom | None


class Objective(Group):
    metric: str
    mode: Mode


class Train(Group):
    """conf/train.yaml."""

    seed: Seed
    ckpt_path: Text | None
    force: bool
    init_weights: Text | None
    init_strict: bool
    freeze: list[str] | None
    test: bool
    label_smoothing: BelowOne
    targets: list[str]
    loss: Custom | None
    metrics: dict[str, Custom]
    run_dir: str
    run_name: Annotated[str, Field(pattern=r"^(\.{3,}|\.{0,2}[^./\\][^/\\]*|)$")]  # a folder's
    objective: Objective
    trainer: Trainer
    data: Annotated[Either[Data], ours("mnist_cnn.")]
    model: Annotated[Either[Network], ours("mnist_cnn.model.")]
    optimizer: Optimizer
    scheduler: Schedule | None
    callbacks: Callbacks


class Evaluate(Group):
    """conf/evaluate.yaml."""

    targets: list[str]
    ckpt_path: Text | Texts | None
    compare: Text | Texts | None
    split: Literal["test", "val", "train"]
    shifts: Annotated[int, Field(ge=0, le=4)]  # by 4, three of four MNIST digits are cut already
    robustness: bool | Annotated[list[Suite], Field(min_length=1)]
    temperature: bool
    device: Literal["auto", "cpu", "cuda", "mps"]
    mistakes: Whole
    run_dir: str
    data: Annotated[Either[Data], ours("mnist_cnn.")]
