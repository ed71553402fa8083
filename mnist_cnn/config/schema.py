"""Pydantic models of the values that the parts of a configuration may have.

A value is checked here if its class would accept it and fail only during training; other keys are
left to the class. The models are used for validation alone: the parts stay dictionaries, so the
models have no defaults.
"""

import math
import os
import re
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mnist_cnn.config.messages import either, must_be, sentences
from mnist_cnn.runs.ranks import under_torchrun, world_size

IMAGES, CLASSES = 60_000, 10  # of the training file of each public data set
PUBLIC = ("mnist", "fashion_mnist", "kmnist", "qmnist")
FOLDS = 5  # of the writers of MNIST, for pages
FROM_FILES = ("ArraysDataModule", "FolderDataModule")  # data sets from the user's own files
UNSUPPORTED = ("BackboneFinetuning", "BatchSizeFinder", "LearningRateFinder")  # callbacks
MAX_PIXELS = 10_000_000  # of an image, times its channels, that a network is made for
OMITTED: Any = None  # marks an optional key: the constructor has the default


def not_zero(value: Any) -> Any:
    if value in (0, "00:00:00:00"):
        raise PydanticCustomError("not_zero", "Input should not be zero")
    return value


def supported(target: str) -> str:
    if target.rpartition(".")[2] in UNSUPPORTED:
        text = "Input should be a callback that is supported: not {classes}"
        raise PydanticCustomError("unsupported", text, {"classes": either(UNSUPPORTED)})
    return target


def normalization(value: Any, above: float = -math.inf) -> Any:
    """Check a constant of `Normalize`: auto, or a number or one per channel."""
    numbers = value if isinstance(value, list) else [value]
    if value != "auto" and not all(
        isinstance(number, int | float) and above < number < math.inf for number in numbers
    ):
        what = "a finite number" if above < 0 else f"a finite number above {above:g}"
        text = "Input should be auto, {what} or a list of them"
        raise PydanticCustomError("normalization", text, {"what": what})
    return value


BelowOne = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]
TEXT = TypeAdapter(Text)
# one, or several; a single one is checked by itself, as a message on an element has its index
Texts = Annotated[
    list[Text],
    Field(min_length=1),
    WrapValidator(lambda v, check: check(v if isinstance(v, list) else [TEXT.validate_python(v)])),
]
Suite = Literal["corruptions", "adversarial", "certified", "outliers"]
Suites = Annotated[list[Suite], BeforeValidator(lambda v: [] if isinstance(v, bool) else v)]
Target = Annotated[str, Field(pattern=r"^\w+(\.\w+)+$", alias="_target_")]  # package.module.Class
# a number of batches, or true
Batches = Annotated[NonNegativeInt, BeforeValidator(lambda n: int(n) if isinstance(n, bool) else n)]
Steps = Annotated[int, Field(ge=-1), AfterValidator(not_zero)]  # -1: no limit
Time = Annotated[str, Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$"), AfterValidator(not_zero)]
# a number of devices, or [n]: the GPU with index n
Devices = Annotated[
    PositiveInt, BeforeValidator(lambda n: 1 if isinstance(n, list) and len(n) == 1 else n)
]


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Custom(Part):
    """A part that is made by its `_target_`, whose constructor checks the arguments."""

    target: Target
    partial: Annotated[bool, Field(alias="_partial_")] = OMITTED


class DataDescription(Part):
    """The minimal description in a file of the data that its network was trained on."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=r"^\w+$")]
    classes: list[str] | None = OMITTED
    val_fraction: BelowOne = OMITTED
    fold: NonNegativeInt = OMITTED
    split: str = OMITTED
    per_class: PositiveInt | None = OMITTED
    seed: Seed = OMITTED
    custom: Custom | None = OMITTED  # a user's, in place of one of this project's


class Images(Part):
    """The arguments of every data module of images."""

    val_fraction: BelowOne
    fold: NonNegativeInt
    split: Literal["rows", "writers", "writers_by_series"] = OMITTED
    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    shuffle: bool
    seed: Seed
    clean_epochs: NonNegativeInt
    per_class: PositiveInt | None = OMITTED
    unlabeled: PositiveInt | None = OMITTED

    @model_validator(mode="after")
    def leaves_images_without_labels(self) -> "Images":
        if self.unlabeled and not self.per_class:
            allowed = "a number with data.unlabeled, which takes the images that it leaves out"
            raise ValueError(must_be("data.per_class", allowed, self.per_class))
        return self

    @model_validator(mode="after")
    def has_this_fold(self) -> "Images":
        # rounding may put 1 / 0.2 below 5
        folds = int(min(1 / self.val_fraction, IMAGES) + 1e-9) if self.val_fraction else 1
        if self.fold >= folds:
            allowed = f"0 to {folds - 1} with data.val_fraction={self.val_fraction}"
            raise ValueError(must_be("data.fold", allowed, self.fold))
        return self


class Augment(Part):
    degrees: Annotated[float, Field(ge=0, le=180)] = OMITTED
    shift: Annotated[float, Field(ge=0, le=14)] = OMITTED
    scale: Annotated[float, Field(ge=0, le=0.9)] = OMITTED
    stretch: Annotated[float, Field(ge=0, le=0.9)] = OMITTED
    shear: Annotated[float, Field(ge=0, le=60)] = OMITTED
    contrast: Annotated[float, Field(ge=0, le=10)] = OMITTED
    elastic: Annotated[float, Field(ge=0, le=5)] = OMITTED
    gamma: Annotated[float, Field(ge=0, le=3)] = OMITTED
    pen: Annotated[float, Field(ge=0.4, le=14)] = OMITTED
    __pydantic_extra__: dict[str, Fraction]  # all other keys


def are_transforms(augment: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether an augmentation consists of transforms by name, not of `Augment`'s amounts."""
    if not isinstance(augment, Mapping) or not augment:
        return False
    return all(part is None or isinstance(part, Mapping) for part in augment.values())


class Data(Images, Custom):
    name: Annotated[str, Field(pattern=r"^\w+$")]
    # transforms are checked as they are made
    augment: Annotated[
        Augment | None,
        BeforeValidator(lambda values: None if are_transforms(values) else values or None),
    ]
    root: Text = OMITTED
    path: Text = OMITTED
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = OMITTED
    color: bool = OMITTED
    size: Annotated[int, Field(gt=0, le=math.isqrt(MAX_PIXELS))] | None = OMITTED

    @model_validator(mode="after")
    def has_a_name_of_its_own(self) -> "Data":
        """Check that public data sets, and only they, have the public names.

        Some results are given for MNIST alone, by its name.
        """
        from_files = self.target.rpartition(".")[2] in FROM_FILES
        if from_files and self.name in PUBLIC:
            allowed = f"none of {either(PUBLIC)}, with files of your own"
            raise ValueError(must_be("data.name", allowed, self.name))
        if not from_files and self.name not in PUBLIC:
            raise ValueError(must_be("data.name", either(PUBLIC), self.name))
        return self

    @model_validator(mode="after")
    def has_writers(self) -> "Data":
        check_split(self.split or "rows", self.name, self.name == "mnist", self.val_fraction)
        return self

    @model_validator(mode="after")
    def has_enough_of_each_class(self) -> "Data":
        """Check per_class against the mean class size, which the smallest class cannot exceed."""
        most = IMAGES * (1 - self.val_fraction) / CLASSES
        if self.name in PUBLIC and self.per_class and self.per_class > most:
            allowed = f"at most {int(most)} with data.val_fraction={self.val_fraction}"
            raise ValueError(must_be("data.per_class", allowed, self.per_class))
        return self


class Pages(Custom):
    """The arguments of the data module of pages."""

    pages: PositiveInt
    val_pages: Annotated[int, Field(ge=2)]  # as many calibrate the scores
    batch_size: PositiveInt
    workers: NonNegativeInt
    seed: Seed
    fold: Annotated[int, Field(ge=0, lt=FOLDS)]

    @model_validator(mode="after")
    def fill_a_batch(self) -> "Pages":
        if self.pages < self.batch_size:
            allowed = f"at least data.batch_size={self.batch_size}"
            raise ValueError(must_be("data.pages", allowed, self.pages))
        return self


class Network(Part):
    channels: list[PositiveInt] = OMITTED
    hidden: PositiveInt = OMITTED
    dropout: BelowOne = OMITTED
    mean: Annotated[Any, AfterValidator(normalization)] = OMITTED
    std: Annotated[Any, AfterValidator(partial(normalization, above=0))] = OMITTED
    bits: Annotated[int, Field(ge=2, le=8)] | None = OMITTED


class Optimizer(Custom):
    lr: PositiveFloat = OMITTED
    nesterov: bool = OMITTED
    fused: bool | None = OMITTED


class Schedule(Part):
    target: Annotated[str, Field(alias="_target_")] = OMITTED  # none: a constant learning rate
    patience: NonNegativeInt = OMITTED
    threshold: NonNegativeFloat = OMITTED
    min_lr: NonNegativeFloat = OMITTED
    eta_min: NonNegativeFloat = OMITTED
    cooldown: NonNegativeInt = OMITTED
    eps: NonNegativeFloat = OMITTED
    interval: Literal["epoch", "step"] = OMITTED
    cycle_momentum: bool = OMITTED
    partial: Annotated[bool, Field(alias="_partial_")] = OMITTED

    @model_validator(mode="after")
    def has_its_metric(self) -> "Schedule":
        if self.interval == "step" and str(self.target).endswith(".ReduceLROnPlateau"):
            allowed = "epoch with ReduceLROnPlateau, which follows a metric of an epoch"
            raise ValueError(must_be("scheduler.interval", allowed, self.interval))
        return self


class Callback(Custom):
    """Any callback; these arguments mean the same in all of Lightning's and this project's."""

    target: Annotated[Target, AfterValidator(supported)]
    quiet: bool = OMITTED
    check_finite: bool = OMITTED
    strict: bool = OMITTED
    every_steps: PositiveInt | None = OMITTED
    every_seconds: PositiveFloat | None = OMITTED
    refresh_seconds: PositiveFloat = OMITTED
    patience: NonNegativeInt = OMITTED
    min_delta: NonNegativeFloat = OMITTED
    stopping_threshold: float | None = OMITTED
    divergence_threshold: float | None = OMITTED
    max_depth: Annotated[int, Field(ge=-1)] = OMITTED
    decay: BelowOne = OMITTED
    update_every_n_steps: PositiveInt = OMITTED
    epsilon: Fraction = OMITTED
    grown: Fraction = OMITTED


class Checkpoint(Callback):
    target: Annotated[Literal["mnist_cnn.callbacks.checkpoint.Checkpoint"], Field(alias="_target_")]
    check_every_steps: PositiveInt


class History(Callback):
    target: Annotated[Literal["mnist_cnn.callbacks.history.History"], Field(alias="_target_")]


class Callbacks(Part):
    __pydantic_extra__: dict[str, Callback | None]
    checkpoint: Checkpoint
    history: History


class Logger(Custom):
    default_hp_metric: bool = OMITTED
    offline: bool = OMITTED
    log_model: Literal[True, False, "all"] = OMITTED


class Classifier(Custom):
    label_smoothing: BelowOne = OMITTED
    freeze: list[str] | None = OMITTED


class FewLabels(Classifier):
    strong: Augment
    threshold: Fraction
    decay: BelowOne


class Trainer(Custom):
    """Arguments whose wrong values Lightning would accept; it checks all others."""

    devices: Devices
    num_nodes: PositiveInt
    max_epochs: PositiveInt
    min_epochs: NonNegativeInt | None = OMITTED
    max_steps: Steps
    min_steps: NonNegativeInt | None = OMITTED
    max_time: Time | None
    limit_train_batches: PositiveFloat
    limit_test_batches: PositiveFloat
    val_check_interval: PositiveFloat | None  # Lightning itself fails with a time
    enable_checkpointing: Literal[True] | None
    enable_model_summary: bool
    enable_progress_bar: bool
    fast_dev_run: Batches
    barebones: Literal[False] = OMITTED
    check_val_every_n_epoch: PositiveInt | None
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    log_every_n_steps: NonNegativeInt | None
    accumulate_grad_batches: PositiveInt
    detect_anomaly: bool
    deterministic: Literal[True, False, "warn"] | None
    benchmark: bool | None
    inference_mode: bool
    sync_batchnorm: bool
    use_distributed_sampler: bool | None
    profiler: str | dict[str, Any] | None = OMITTED
    # set by the run itself
    callbacks: None = OMITTED
    default_root_dir: None = OMITTED
    logger: None = OMITTED
    plugins: None = OMITTED

    @model_validator(mode="after")
    def has_its_processes(self) -> "Trainer":
        started = {"trainer.devices": self.devices, "trainer.num_nodes": self.num_nodes}
        strategy = (self.model_extra or {}).get("strategy")
        if isinstance(strategy, str) and re.search("spawn|fork|notebook", strategy):
            allowed = "auto, ddp or ddp_find_unused_parameters_true"
            raise ValueError(must_be("trainer.strategy", allowed, strategy))
        ddp = str(strategy).startswith("ddp")
        for key, count in {**started, "the number of processes": world_size()}.items():
            if count > 1 and not ddp:
                raise ValueError(must_be(key, "1 without trainer=ddp", count))
        if self.num_nodes > 1 and not under_torchrun():
            raise ValueError(must_be("trainer.num_nodes", "1 without torchrun", self.num_nodes))
        return self


def check_values(key: str, kind: type[Part], values: Any) -> None:
    """Raise ValueError if a part of the configuration has values that are not allowed."""
    try:
        kind.model_validate(values)
    except ValidationError as e:
        raise ValueError("; ".join(sentences(e, key))) from None


def check_shape(shape: Any) -> None:
    """Raise ValueError for an invalid shape (C, H, W) of images, or one that is too large."""
    sides = shape if isinstance(shape, list | tuple) and len(shape) == 3 else [0]
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    if not whole or math.prod(sides) > MAX_PIXELS:
        raise ValueError(must_be("shape", f"three sides, of at most {MAX_PIXELS:,} pixels", shape))


def check_files(data: Mapping[str, Any]) -> None:
    """Raise ValueError if the user's own files are missing or evidently no data set.

    Nothing is read whole: a damaged image or array shows only when a run loads it.
    """
    home, _, kind = data["_target_"].rpartition(".")
    if home != "mnist_cnn.data.custom":
        return
    key = "path" if kind == "ArraysDataModule" else "root"
    wanted = "an .npz file" if key == "path" else "a folder with train/CLASS/*.png"
    place = Path(os.path.expanduser(str(data.get(key))))
    try:
        if key == "path":
            with place.open("rb") as file:
                is_data = zipfile.is_zipfile(file)
        else:
            os.listdir(place / "train")  # says what is wrong, where glob finds nothing
            is_data = any((place / "train").glob("*/*"))
    except OSError as e:
        raise ValueError(must_be(f"data.{key}", f"{wanted} ({e})", data.get(key))) from None
    if not is_data:
        raise ValueError(must_be(f"data.{key}", wanted, data.get(key)))


def check_split(split: str, name: str, has_writers: bool, val_fraction: float) -> None:
    """Raise ValueError if a data set's writers are unknown or cannot form folds of this size."""
    if split != "rows" and val_fraction and not has_writers:
        raise ValueError(must_be("data.split", f"rows with data={name}", split))
    if split == "writers_by_series" and val_fraction not in (0, 0.5):
        allowed = "0.5 with data.split=writers_by_series, which has two folds"
        raise ValueError(must_be("data.val_fraction", allowed, val_fraction))
