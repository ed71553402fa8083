"""JSON schemas with which an editor completes and checks the files in conf.

They are made of the classes in schema.py: python -m mnist_cnn.config schema. Which file is held
against which is in `.vscode/settings.json`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from mnist_cnn.config.check import DATA, NAMED, PARTS
from mnist_cnn.config.schema import Augment, Group

ANY: dict[str, Any] = {"type": "object"}
INTERPOLATION = {"type": "string", "pattern": r"\$\{"}
MISSING = {"const": "???"}  # to be given on the command line
OF_HYDRA = {"defaults": {"type": "array"}, "hydra": ANY}


def loose(schema: Any) -> Any:
    """A schema of a file that gives some of the keys, and interpolates values."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("required", "title")}
    if "properties" in kept:
        given = {
            key: {"anyOf": [loose(value), INTERPOLATION, MISSING, {"type": "null"}]}
            for key, value in kept["properties"].items()
        }
        kept["properties"] = {"_target_": {"type": "string"}, **given, **OF_HYDRA}
    return kept


def used(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the definitions that a schema refers to, and those that they refer to."""

    def referred(part: Any) -> set[str]:
        return set(re.findall(r"#/\$defs/(\w+)", json.dumps(part)))

    names = referred(schema)
    while more := referred([definitions[name] for name in names]) - names:
        names |= more
    return {name: definitions[name] for name in sorted(names)}


def one_of(models: Iterable[type[Group]], known: Iterable[str | None] = ()) -> dict[str, Any]:
    """What one of several classes describes, or a part of the user's own.

    Args:
        models: of the parts that are known.
        known: their names, which another part does not have.
    """
    name = {"not": {"enum": list(known)}} if known else {}
    target = {"type": "string", "not": {"pattern": r"^mnist_cnn\."}}
    needed = [{"required": ["_target_"]}, *([{"required": ["name"]}] if known else [])]
    properties = {"name": name, "_target_": target, **OF_HYDRA}
    other = {**ANY, "properties": properties, "anyOf": needed}
    return {"anyOf": [*({"$ref": f"#/$defs/{model.__name__}"} for model in models), other]}


def editor_schemas() -> dict[str, dict[str, Any]]:
    """Each schema by the name of its file."""
    train, named = PARTS["train"], NAMED["train"]
    classes: set[type[Group]] = {Augment, *DATA.values()}
    classes |= {model for models in PARTS.values() for model in models.values()}
    classes |= {model for models in named.values() for model in models.values()}
    ordered = sorted(classes, key=lambda model: model.__name__)
    _, whole = models_json_schema([(model, "validation") for model in ordered])
    definitions = {name: loose(schema) for name, schema in whole["$defs"].items()}
    parts = {group: one_of(models.values(), models) for group, models in named.items()}
    parts["data"] = one_of([train["data"], *DATA.values()])
    parts["trainer"] = {"$ref": "#/$defs/Trainer"}
    parts["augment"] = {"$ref": "#/$defs/Augment"}
    for group in ("callbacks", "logger"):
        inner = {key.partition(".")[2]: model for key, model in train.items() if group in key}
        options = {
            key: {"anyOf": [{"$ref": f"#/$defs/{model.__name__}"}, {"type": "null"}]}
            for key, model in inner.items()
        }
        parts[group] = {**ANY, "properties": {**options, **OF_HYDRA}}
    entries = {}
    for entry, models in PARTS.items():
        own = definitions[models[""].__name__]["properties"]
        groups = parts if entry == "train" else {"data": parts["data"]}
        objective = {"objective": {"$ref": "#/$defs/Objective"}} if entry == "train" else {}
        entries[entry] = {**ANY, "properties": {**own, **groups, **objective, **OF_HYDRA}}
    return {
        name: {
            "$schema": "http://json-schema.org/draft-07/schema#",
            **schema,
            "$defs": used(schema, definitions),
        }
        for name, schema in {**parts, **entries}.items()
    }


def settings(names: Iterable[str]) -> dict[str, Any]:
    """What VS Code's extension for YAML needs to know."""
    whole = ("train", "evaluate")
    files = {name: [f"conf/{name}/*.yaml"] for name in names if name not in whole}
    files["train"] = ["conf/train.yaml", "conf/experiment/*.yaml", "conf/debug/*.yaml"]
    files["train"] += ["conf/hparams_search/*.yaml"]
    files["evaluate"] = ["conf/evaluate.yaml"]
    return {"yaml.schemas": {f"conf/.schema/{name}.json": paths for name, paths in files.items()}}


def editor_files(clone: Path) -> dict[Path, str]:
    """The text of each file in a clone, by its path."""
    made = editor_schemas()
    files = {clone / "conf" / ".schema" / f"{name}.json": schema for name, schema in made.items()}
    files[clone / ".vscode" / "settings.json"] = settings(made)
    return {path: json.dumps(content, indent=1) + "\n" for path, content in files.items()}
