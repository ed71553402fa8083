"""What the values of a configuration may be."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=1, le=60_000)]  # no split of any set has more images
Width = Annotated[int, Field(ge=1, le=65_536)]  # of a layer; model.build counts what they make up
Whole = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1)]
Stage = Annotated[list[Width], Field(min_length=1, max_length=8)]
Limit = Count | Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NoneOrLimit = Whole | Share
Deviation = Annotated[float, Field(gt=0, le=1)]  # of values in [0, 1]
Metric = str  # one of those that are logged, which config.check knows
Mode = Literal["min", "max"]
Interval = Literal["epoch", "step"]  # a schedule is stepped after each
Suite = Literal["corruptions", "affine", "adversarial", "outliers", "autoattack"]
Target = Annotated[str, Field(pattern=r"^\w+(\.\w+)+$", examples=["lightning.Trainer"])]


class Group(BaseModel):
    """A part of the configuration; `_target_`, where there is one, is left to Hydra."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Open(Group):
    """A part that takes keys of its own beside the ones that are checked here."""

    model_config = ConfigDict(extra="allow")


class Seen(Group):
    """What must be known of the data that a network was trained on."""

    name: Annotated[str, Field(pattern=r"^\w+$")]
    classes: list[str] | None = None
    val_fraction: BelowOne
    fold: Whole
    split: str | None = None  # rows in checkpoints of earlier versions


class Images(Group):
    """What `data.datamodule.ImageDataModule` takes."""

    target: Target = Field(alias="_target_")
    val_fraction: BelowOne
    fold: Whole
    split: Literal["rows", "writers", "writers_by_series"] = "rows"
    batch_size: Batch
    eval_batch_size: Batch
    shuffle: bool
    seed: Seed
    augment: dict[str, Any]
    clean_epochs: Whole


class Data(Images):
    name: Literal["mnist", "fashion_mnist", "kmnist", "qmnist"]
    root: str
    negatives: Count | None = None  # of data.negatives.MNISTWithNegatives


class Arrays(Images):
    name: Literal["arrays"]
    path: str


class Folder(Images):
    name: Literal["folder"]
    root: str
    color: bool
    size: Count | None


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


class Own(Open):
    """A part that is made by its `_target_`, whose constructor judges."""

    target: Target = Field(alias="_target_")


class OwnSchedule(Own):
    interval: Interval = "epoch"


class Named(Open):
    name: str


class Schedule(Named):
    interval: Interval = "epoch"


class Network(Group):
    """What all networks of this project have: `model.Normalize`; a file of a user's may omit it."""

    mean: Share | list[Share] | Literal["auto"] = 0.0
    std: Deviation | list[Deviation] | Literal["auto"] = 1.0


class CNN(Network):
    name: Literal["CNN"]
    channels: Annotated[list[Width], Field(min_length=2, max_length=2)]
    hidden: Width
    dropout: BelowOne


class MLP(Network):
    name: Literal["MLP"]
    hidden: Width
    dropout: BelowOne


class FastCNN(Network):
    name: Literal["FastCNN"]
    channels: Annotated[list[Width], Field(min_length=2, max_length=2)]
    hidden: Width


class VGG(Network):
    name: Literal["VGG"]
    stages: Annotated[list[Stage], Field(min_length=1, max_length=4)]
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
    patience: Whole
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
    patience: Whole
    min_delta: NotNegative
    check_finite: bool
    strict: bool


class Checkpoint(Open):
    of: ClassVar[str] = "mnist_cnn.callbacks.checkpoint.Checkpoint"  # others judge by themselves
    monitor: Metric
    mode: Mode
    every_seconds: Positive | None
    every_steps: Count | None


class NaNGuard(Open):
    every_steps: Count


class History(Open):
    pass


class ProgressBar(Open):
    of: ClassVar[str] = "mnist_cnn.callbacks.progress.ProgressBar"
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
    purge_step: Whole | None


class Profiler(Open):
    target: Target = Field(alias="_target_")
    dirpath: str | None = None
    filename: str | None = None


class Trainer(Open):
    """What is checked before Lightning judges; its other arguments go through to it."""

    target: Target = Field(alias="_target_")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    strategy: str | dict[str, Any]
    devices: Count | Annotated[list[Whole], Field(min_length=1, max_length=1)]
    num_nodes: Count
    use_distributed_sampler: bool
    precision: str | int | None
    max_epochs: Count
    min_epochs: Count | None
    max_steps: Literal[-1] | Count
    max_time: (
        Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$", examples=["00:01:30:00"])] | None
    )
    fast_dev_run: bool | Count
    overfit_batches: NoneOrLimit
    limit_train_batches: Limit
    limit_val_batches: NoneOrLimit
    limit_test_batches: Limit
    limit_predict_batches: NoneOrLimit
    val_check_interval: Limit | str | dict[str, Any] | None
    check_val_every_n_epoch: Count | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: Whole | None
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"]
    accumulate_grad_batches: Count
    sync_batchnorm: bool
    deterministic: bool | Literal["warn"] | None
    benchmark: bool | None
    detect_anomaly: bool
    inference_mode: bool
    reload_dataloaders_every_n_epochs: Whole
    profiler: Literal["simple", "advanced", "pytorch"] | Profiler | None
    enable_checkpointing: bool | None
    enable_model_summary: bool | None
    enable_progress_bar: bool | None


class Objective(Group):
    metric: Metric
    mode: Mode


class Train(Open):
    seed: Seed
    ckpt_path: Text | None
    force: bool
    init_weights: Text | None
    init_strict: bool
    freeze: list[str] | None
    test: bool
    label_smoothing: BelowOne
    targets: list[str]
    loss: Own | None
    metrics: dict[str, Own]
    run_dir: str
    run_name: str


class Evaluate(Open):
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
