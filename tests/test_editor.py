"""What an editor knows of the files in conf."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mnist_cnn.config.editor import editor_files

ROOT = Path(__file__).parents[1]
SETTINGS = json.loads((ROOT / ".vscode" / "settings.json").read_text("utf-8"))["yaml.schemas"]


def validator(name: str) -> Any:
    path = ROOT / "conf" / ".schema" / f"{name}.json"
    return jsonschema.Draft7Validator(json.loads(path.read_text("utf-8")))


def test_the_schemas_are_those_of_the_classes():
    for path, text in editor_files(ROOT).items():
        hint = "python -m mnist_cnn.config schema"
        assert path.read_text("utf-8") == text, f"{path} is old: {hint}"


def test_every_file_in_conf_is_as_its_schema_says():
    checked = set()
    for schema, patterns in SETTINGS.items():
        for path in (file for pattern in patterns for file in ROOT.glob(pattern)):
            errors = validator(Path(schema).stem).iter_errors(
                yaml.safe_load(path.read_text("utf-8"))
            )
            assert [error.message for error in errors] == [], path
            checked.add(path)
    every = set((ROOT / "conf").rglob("*.yaml")) - set((ROOT / "conf" / "hydra").rglob("*.yaml"))
    assert every - checked == {ROOT / "conf" / "entry.yaml"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model", "{name: CNN, hiden: 3}"),
        ("optimizer", "{name: Adam, lr: 0}"),
        ("trainer", "{max_epochs: ten}"),
        ("augment", "{degrees: 300}"),
        ("callbacks", "{early_stopping: {patience: -1}}"),
        ("train", "{seed: x}"),
        ("train", "{model: {name: CNN, dropout: 2}}"),
        ("data", "{name: mnist, batch_size: 0}"),
    ],
)
def test_an_editor_marks_a_mistake(name, text):
    assert list(validator(name).iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model", "{_target_: my_pkg.nets.Net, width: 3}"),
        ("model", "{name: MyNet, width: 3}"),
        ("optimizer", "{defaults: [adam], lr: '${seed}'}"),
        ("train", "{model: {hidden: 3}, trainer: {devices: 2}}"),
    ],
)
def test_own_parts_and_interpolations_are_no_mistakes(name, text):
    assert not list(validator(name).iter_errors(yaml.safe_load(text)))
