"""How mistakes are told: `key must be X, got Y`, and how to install an extra."""

import importlib.metadata
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_cnn.config.schema import Group


def better(metric: str, objective: str = "", mode: str | None = None) -> str | None:
    """min for a loss, max for an accuracy; of the objective, another metric, its mode."""
    known = {"loss": "min", "acc": "max"}
    return known.get(metric.rpartition("/")[2], mode if metric == objective else None)


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


def install(extra: str) -> str:
    """The command that installs an extra of this project, from a clone or beside a wheel.

    It never names this project, which an index may know as somebody else's.
    """
    clone = Path(__file__).parents[2]
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
