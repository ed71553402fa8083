"""The typed configuration: the keys of this project, and the rules between them.

`model`, `module`, `optimizer`, `data`, `callbacks`, `trainer` and what users add are checked but
stay dictionaries, as they go to constructors. A run records and compares Hydra's configuration
(`compose.resolved`), not this one: a key that is new here would make it reject older runs.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mnist_cnn.config import schema
from mnist_cnn.config.compose import better
from mnist_cnn.config.instantiate import (
    CHECKPOINTS,
    COMMANDS,
    IMAGE_MODULES,
    allow,
    class_name,
    is_custom,
    not_allowed,
)
from mnist_cnn.config.messages import must_be, sentences
from mnist_cnn.runs.ranks import world_size

# parts that a module's constructor may take; checkpoints store them
OF_MODULE = ("model", "optimizer", "scheduler", "loss", "metrics")
FOLLOWED = "module.monitor"  # by a plateau schedule
PAGES = "mnist_cnn.data.pages."

Values = dict[str, Any]


def valid_as(kind: Any) -> PlainValidator:
    """Validate a value against a type, but keep it unchanged."""
    adapter = TypeAdapter(kind)

    def check(value: Any) -> Any:
        adapter.validate_python(value)
        return value

    return PlainValidator(check)


def ours(modules: str | tuple[str, ...], kind: type[schema.Part]) -> AfterValidator:
    """Validate a part whose class is in modules of this project; leave others to their class."""

    def check(value: Any) -> Any:
        if value is not None and value["_target_"].startswith(modules):
            kind.model_validate(value)
        return value

    return AfterValidator(check)


class Entry(schema.Part):
    """The keys that conf/train.yaml and conf/evaluate.yaml share."""

    model_config = ConfigDict(frozen=True)

    targets: list[Annotated[str, Field(pattern=r"^[\w.*?]+$")]]
    run_dir: schema.Text
    data: Annotated[
        Values,
        valid_as(schema.Custom),
        ours(IMAGE_MODULES, schema.Data),
        ours(PAGES, schema.Pages),
    ]

    @field_validator("*")
    @classmethod
    def names_what_is_allowed(cls, value: Any, info: ValidationInfo) -> Any:
        key = str(info.field_name)
        if faults := not_allowed(value, key, CHECKPOINTS if key in OF_MODULE else COMMANDS):
            raise ValueError("; ".join(faults))
        return value


class Objective(schema.Part):
    """The monitored metric, and whether less or more of it is better."""

    metric: schema.Text
    mode: str | None


class Config(Entry):
    """The configuration that conf/train.yaml composes to."""

    seed: schema.Seed
    ckpt_path: schema.Text | None
    force: bool
    test: bool
    init_weights: schema.Text | None
    init_strict: bool
    compile: bool
    run_name: Annotated[str, Field(pattern=r"^(\.{3,}|\.{0,2}[^./\\][^/\\]*|)$")]  # a folder name
    objective: Objective
    trainer: Annotated[Values, valid_as(schema.Trainer)]
    module: Annotated[
        Values,
        valid_as(schema.Custom),
        ours("mnist_cnn.module.", schema.Classifier),
        ours("mnist_cnn.few_labels.", schema.FewLabels),
    ]
    model: Annotated[
        Values | None, valid_as(schema.Custom | None), ours("mnist_cnn.model.", schema.Network)
    ]
    optimizer: Annotated[Values | None, valid_as(schema.Optimizer | None)]
    scheduler: Annotated[Values | None, valid_as(schema.Schedule | None)]
    loss: Annotated[Values | None, valid_as(schema.Custom | None)]
    metrics: Annotated[dict[str, Values] | None, valid_as(dict[str, schema.Custom] | None)]
    callbacks: Annotated[dict[str, Values | None], valid_as(schema.Callbacks)]
    logger: Annotated[
        dict[str, Values | None] | None, valid_as(dict[str, schema.Logger | None] | None)
    ]

    @model_validator(mode="before")
    @classmethod
    def is_a_training(cls, values: Any) -> Any:
        if "trainer" not in values:
            raise ValueError("--config-name must be a configuration of a training, as train is")
        return values

    @model_validator(mode="after")
    def every_monitor_has_a_mode(self) -> "Config":
        """Reject a mode that is not the metric's: Lightning and PyTorch take min for a missing one.

        A callback of this project or of the user's may do without, as Prune does.
        """
        parts: dict[str, Mapping[str, Any]] = {"objective": dict(self.objective)}
        parts |= {f"callbacks.{name}": node for name, node in self.callbacks.items() if node}
        parts["scheduler"] = self.scheduler or {}
        for key, metric in self.monitored().items():
            part = "scheduler" if key == FOLLOWED else key.rpartition(".")[0]
            node, known = parts[part], better(metric)
            theirs = part == "scheduler" or str(node.get("_target_")).startswith("lightning.")
            mode = node.get("mode", "min" if known else None)
            if (theirs or "mode" in node) and mode not in ([known] if known else ["min", "max"]):
                allowed = f"{known or 'min or max'} for {metric}"
                raise ValueError(must_be(f"{part}.mode", allowed, node.get("mode")))
        return self

    @model_validator(mode="after")
    def what_is_waited_for_is_measured(self) -> "Config":
        """Reject waiting for a validation metric where nothing is validated.

        Whether the module logs a metric of this name is checked after the first validation.
        """
        waiting = (FOLLOWED, "callbacks.early_stopping.monitor", "callbacks.prune.monitor")
        if 0 in (self.data.get("val_fraction"), self.trainer.get("limit_val_batches")):
            for key, metric in self.monitored().items():
                if key in waiting and metric.startswith("val/"):
                    given = "objective.metric" if metric == self.objective.metric else key
                    allowed = "of train/ where nothing is validated, as train/loss"
                    raise ValueError(must_be(given, allowed, metric))
        return self

    @model_validator(mode="after")
    def images_without_labels_have_a_use(self) -> "Config":
        given, kind = self.data.get("unlabeled"), class_name(self.module)
        ours = self.module["_target_"].startswith("mnist_cnn.") and not is_custom(self.data)
        if ours and bool(given) != (kind == "FewLabels"):
            allowed = f"{'null' if given else 'a number'} with {kind}"
            raise ValueError(must_be("data.unlabeled", allowed, given))
        return self

    @model_validator(mode="after")
    def an_epoch_is_augmented(self) -> "Config":
        clean, epochs = self.data.get("clean_epochs"), self.trainer["max_epochs"]
        if isinstance(clean, int) and epochs <= clean:
            allowed = f"less than trainer.max_epochs={epochs}"
            raise ValueError(must_be("data.clean_epochs", allowed, clean))
        return self

    @model_validator(mode="after")
    def every_split_has_a_batch(self) -> "Config":
        if self.data.get("name") not in schema.PUBLIC or is_custom(self.data):
            return self
        of_set, val = schema.IMAGES, self.data["val_fraction"]
        train, test = of_set * (1 - val), of_set if self.data["name"] == "qmnist" else of_set / 6
        sizes = dict.fromkeys(("val", "test"), self.data["eval_batch_size"])
        sizes["train"] = self.data["batch_size"]
        if per_class := self.data.get("per_class"):
            labeled = schema.CLASSES * per_class
            unlabeled = self.data.get("unlabeled")
            train = train - labeled if unlabeled else labeled
            sizes["train"] = unlabeled or sizes["train"]
        for split, images in {"train": train, "val": of_set * val, "test": test}.items():
            key, size = f"limit_{split}_batches", sizes[split]
            limit, batches = self.trainer.get(key), math.ceil(images / size)
            if isinstance(limit, float) and 0 < limit * batches < 1:
                allowed = f"at least one of {batches} batches"
                raise ValueError(must_be(f"trainer.{key}", allowed, limit))
        return self

    @model_validator(mode="after")
    def processes_have_as_many_pages(self) -> "Config":
        if not self.data["_target_"].startswith(PAGES):
            return self
        devices = self.trainer["devices"]  # [n] is one
        count = max(world_size(), devices if isinstance(devices, int) else 1)
        # unequal parts would give the processes different numbers of batches
        for key in ("batch_size", "val_pages"):
            if self.data[key] % count:
                allowed = f"a multiple of {count}, the number of processes"
                raise ValueError(must_be(f"data.{key}", allowed, self.data[key]))
        return self

    def monitored(self) -> dict[str, str]:
        """Return what the objective, a plateau schedule and the callbacks monitor, by its keys."""
        nodes = {f"callbacks.{name}": node or {} for name, node in self.callbacks.items()}
        found = {f"{key}.monitor": node.get("monitor") for key, node in nodes.items()}
        if class_name(self.scheduler or {}) == "ReduceLROnPlateau":
            found = {FOLLOWED: self.module.get("monitor"), **found}
        found = {"objective.metric": self.objective.metric, **found}
        return {key: metric for key, metric in found.items() if isinstance(metric, str)}


class Evaluation(Entry):
    """The configuration that conf/evaluate.yaml composes to."""

    ckpt_path: Annotated[str | list[str] | None, valid_as(schema.Texts | None)]
    compare: Annotated[str | list[str] | None, valid_as(schema.Texts | None)]
    split: Literal["test", "val", "train"]
    shifts: Annotated[int, Field(ge=0, le=4)]  # 4 already cuts off three of four MNIST digits
    robustness: Annotated[bool | list[str], valid_as(schema.Suites)]
    temperature: bool
    seed: schema.Seed
    mistakes: Annotated[int, Field(ge=0, le=300)]  # 300 make a picture of 1,200 x 13,000 pixels


AnyEntry = TypeVar("AnyEntry", bound=Entry)


def parse(values: Mapping[str, Any], kind: type[AnyEntry]) -> AnyEntry:
    """Validate a resolved configuration, and return it with typed keys.

    Args:
        values: what `compose.resolved` returned. Its `targets` are allowed from now on.

    Raises:
        ValueError: in one line, the key of each wrong value, what it must be and what it is.
    """
    targets = values.get("targets")
    allow([t for t in targets if isinstance(t, str)] if isinstance(targets, list) else [])
    try:
        return kind.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as e:
        raise ValueError("; ".join(sentences(e))) from None
