"""The values that a configuration may have, as pydantic models of its parts.

A value is checked here where the class that it is for would take it, and fail in the middle of a
training. A key with a default may be missing; other keys are for the class to judge.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from mnist_cnn.config.instantiate import IMAGES


def listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def not_zero(value: Any) -> Any:
    if value in (0, "00:00:00:00"):
        raise PydanticCustomError("not_zero", "Input should not be zero")
    return value


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1), BeforeValidator(listed)]  # one, or several
PUBLIC = ("mnist", "fashion_mnist", "kmnist", "qmnist")  # data sets of known files
Suite = Literal["corruptions", "adversarial", "certified", "outliers"]
# a number of batches, or true
Batches = Annotated[Whole, BeforeValidator(lambda n: int(n) if isinstance(n, bool) else n)]
Steps = Annotated[int, Field(ge=-1), AfterValidator(not_zero)]  # -1: no limit
Time = Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$"), AfterValidator(not_zero)]
# 2, or [n]: the GPU of this number
Devices = Annotated[
    Count, BeforeValidator(lambda n: 1 if isinstance(n, list) and len(n) == 1 else n)
]


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Custom(Part):
    """A part that is made by its `_target_`, whose constructor judges."""

    target: Annotated[str, Field(pattern=r"^\w+(\.\w+)+$", alias="_target_")]
    partial: Annotated[bool, Field(alias="_partial_")] = False


class DataDescription(Part):
    """The least that a file says of the data that its network was trained on."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=r"^\w+$")]
    classes: list[str] | None = None
    val_fraction: BelowOne = 0.0
    fold: Whole = 0
    split: str = "rows"
    custom: Custom | None = None  # a user's, in place of one of this project's sets


class Images(Part):
    val_fraction: BelowOne
    fold: Whole
    split: Literal["rows", "writers", "writers_by_series"] = "rows"
    batch_size: Count
    eval_batch_size: Count
    shuffle: bool
    seed: Seed
    clean_epochs: Whole
    per_class: Count | None = None


class Augment(Part):
    degrees: Annotated[float, Field(ge=0, le=180)]
    shift: Annotated[float, Field(ge=0, le=14)]
    scale: Annotated[float, Field(ge=0, le=0.9)]
    stretch: Annotated[float, Field(ge=0, le=0.9)]
    shear: Annotated[float, Field(ge=0, le=60)]
    elastic: Annotated[float, Field(ge=0, le=5)]
    gamma: Annotated[float, Field(ge=0, le=3)]
    pen: Annotated[float, Field(ge=0.4, le=14)] = 1.2
    __pydantic_extra__: dict[str, Share]  # all others


class Data(Images):
    name: Annotated[str, Field(pattern=r"^\w+$")]
    augment: Annotated[Augment | None, BeforeValidator(lambda values: values or None)]
    color: bool = True  # of data.custom.FolderDataModule


class Network(Part):
    channels: list[Count] = [32, 64]
    hidden: Count = 128
    dropout: BelowOne = 0.0
    bits: Annotated[int, Field(ge=2, le=8)] | None = None


class Optimizer(Custom):
    lr: Positive = 1e-3
    nesterov: bool = False
    fused: bool | None = None


class Schedule(Part):
    patience: Whole = 1
    threshold: NotNegative = 0.0
    min_lr: NotNegative = 0.0
    eta_min: NotNegative = 0.0
    interval: Literal["epoch", "step"] = "epoch"  # it is stepped after each
    cycle_momentum: bool = True
    partial: Annotated[bool, Field(alias="_partial_")] = False


class Callback(Custom):
    """Any callback; these arguments of ours and of Lightning's mean the same everywhere."""

    quiet: bool = False
    check_finite: bool = True
    strict: bool = True
    every_steps: Count | None = None
    every_seconds: Positive | None = None
    refresh_seconds: Positive = 0.5
    patience: Whole = 0
    min_delta: NotNegative = 0.0
    decay: BelowOne = 0.0
    update_every_n_steps: Count = 1


class Checkpoint(Callback):
    target: Annotated[Literal["mnist_cnn.callbacks.checkpoint.Checkpoint"], Field(alias="_target_")]
    check_every_steps: Count


class Callbacks(Part):
    __pydantic_extra__: dict[str, Callback | None]
    checkpoint: Checkpoint
    history: Callback


class Logger(Custom):
    default_hp_metric: bool = True
    offline: bool = False
    log_model: Literal[True, False, "all"] = False


class Classifier(Custom):
    label_smoothing: BelowOne = 0.0
    freeze: list[str] | None = None


# parts of this project whose values are known; a class of another module judges its own
OURS: dict[str, tuple[str | tuple[str, ...], type[Part]]] = {
    "data": (IMAGES, Data),
    "model": ("mnist_cnn.model.", Network),
    "module": ("mnist_cnn.module.", Classifier),
}


class Trainer(Custom):
    """Values that Lightning would take; it judges all others."""

    devices: Devices
    num_nodes: Count
    max_epochs: Count
    max_steps: Steps
    max_time: Time | None
    limit_train_batches: Positive
    limit_test_batches: Positive
    val_check_interval: Positive | None  # Lightning's own fails with a time
    enable_checkpointing: Literal[True] | None
    enable_model_summary: bool
    enable_progress_bar: bool
    fast_dev_run: Batches
    barebones: Literal[False] = False
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: Whole | None
    accumulate_grad_batches: Count
    detect_anomaly: bool
    deterministic: Literal[True, False, "warn"] | None
    benchmark: bool | None
    inference_mode: bool
    sync_batchnorm: bool
    use_distributed_sampler: bool
    # a run sets them itself
    callbacks: None = None
    default_root_dir: None = None
    logger: None = None
    plugins: None = None


class Train(Part):
    """conf/train.yaml."""

    seed: Seed
    ckpt_path: Text | None
    force: bool
    test: bool
    init_weights: Text | None
    init_strict: bool
    compile: bool
    targets: list[str]
    run_name: Annotated[str, Field(pattern=r"^(\.{3,}|\.{0,2}[^./\\][^/\\]*|)$")]  # a folder's
    objective: dict[str, str]
    trainer: Trainer
    data: Custom
    module: Custom
    model: Custom | None
    optimizer: Optimizer | None
    scheduler: Schedule | None
    loss: Custom | None
    metrics: dict[str, Custom] | None
    callbacks: Callbacks
    logger: dict[str, Logger | None] | None


class Evaluate(Part):
    """conf/evaluate.yaml."""

    targets: list[str]
    ckpt_path: Texts | None
    compare: Texts | None
    split: Literal["test", "val", "train"]
    shifts: Annotated[int, Field(ge=0, le=4)]  # by 4, three of four MNIST digits are cut already
    robustness: Annotated[list[Suite], BeforeValidator(lambda v: [] if isinstance(v, bool) else v)]
    temperature: bool
    mistakes: Annotated[int, Field(ge=0, le=300)]  # 300 make a picture of 1,200 x 13,000 pixels
    data: Custom
