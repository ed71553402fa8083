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

from mnist_cnn.config.check import DATA, NAMED, PARTS, names
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


def one_of(kinds: Iterable[type[Group]], named: bool = True) -> dict[str, Any]:
    """What one of several classes describes, or a part of the user's own, with another `name`."""
    properties = {"_target_": {"type": "string", "not": {"pattern": r"^mnist_cnn\."}}, **OF_HYDRA}
    needed = [{"required": ["_target_"]}]
    if named:
        properties["name"] = {"not": {"enum": [name for kind in kinds for name in names(kind)]}}
        needed.append({"required": ["name"]})
    other = {**ANY, "properties": properties, "anyOf": needed}
    return {"anyOf": [*map(reference, kinds), other]}


def reference(kind: type[Group]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def editor_schemas() -> dict[str, dict[str, Any]]:
    """Each schema by the name of its file."""
    train = PARTS["train"]
    classes: set[type[Group]] = {Augment, *DATA}
    classes.update(*NAMED.values(), *(kinds.values() for kinds in PARTS.values()))
    ordered = sorted(classes, key=lambda kind: kind.__name__)
    _, whole = models_json_schema([(kind, "validation") for kind in ordered])
    definitions = {name: loose(schema) for name, schema in whole["$defs"].items()}
    parts = {group: one_of(kinds) for group, kinds in NAMED.items()}
    parts["data"] = one_of(DATA, named=False)
    parts["trainer"], parts["augment"] = reference(train["trainer"]), reference(Augment)
    for group in ("callbacks", "logger"):
        options = {
            key.partition(".")[2]: {"anyOf": [reference(kind), {"type": "null"}]}
            for key, kind in train.items()
            if key.startswith(group)
        }
        parts[group] = {**ANY, "properties": {**options, **OF_HYDRA}}
    groups = {
        "train": {**parts, "objective": reference(train["objective"])},
        "evaluate": {"data": parts["data"]},
    }
    entries = {}
    for entry, kinds in PARTS.items():
        own = definitions[kinds[""].__name__]["properties"]
        entries[entry] = {**ANY, "properties": {**own, **groups[entry], **OF_HYDRA}}
    return {
        name: {
            "$schema": "http://json-schema.org/draft-07/schema#",
            **schema,
            "$defs": used(schema, definitions),
        }
        for name, schema in {**parts, **entries}.items()
    }


def editor_files(clone: Path) -> dict[Path, str]:
    """The text of each file in a clone, by its path: the schemas, and VS Code's settings."""
    made = editor_schemas()
    patterns = {name: [f"conf/{name}/*.yaml"] for name in made if name not in PARTS}
    groups = ("experiment", "debug", "hparams_search")
    patterns["train"] = ["conf/train.yaml", *(f"conf/{group}/*.yaml" for group in groups)]
    patterns["evaluate"] = ["conf/evaluate.yaml"]
    schemas = {f"conf/.schema/{name}.json": paths for name, paths in patterns.items()}
    files = {clone / "conf" / ".schema" / f"{name}.json": schema for name, schema in made.items()}
    files[clone / ".vscode" / "settings.json"] = {"yaml.schemas": schemas}
    return {path: json.dumps(content, indent=1) + "\n" for path, content in files.items()}
