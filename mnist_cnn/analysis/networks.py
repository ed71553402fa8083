"""Find an evaluation's networks, and complete its command line with their training data."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mnist_cnn.config.compose import CONF
from mnist_cnn.config.instantiate import allow_given, not_allowed
from mnist_cnn.config.messages import must_be, shown
from mnist_cnn.config.schema import PUBLIC
from mnist_cnn.runs.file_format import check_replaceable
from mnist_cnn.runs.folder import BEST, CONFIG, RESULTS, flat, is_sweep
from mnist_cnn.runs.names import file_name
from mnist_cnn.runs.resume import key_of, multirun_first, quote, take_ckpt_path

EVALUATION = "evaluation.json"  # it marks the folder as an evaluation's
SETS = (*PUBLIC, "arrays", "folder")  # of the group data


def network_files(ckpt_path: Any) -> list[Path]:
    """Return the network files of a path or a list of paths, each once.

    A run's folder stands for its best checkpoint, a sweep's folder for those of its finished runs,
    and None for the network in the package.

    Raises:
        ValueError: a path does not exist or has no network, or there are no networks at all.
    """
    from mnist_cnn.weights.files import find  # slow: imports torch

    paths: list[Any] = []
    for path in ckpt_path if isinstance(ckpt_path, list) else [ckpt_path]:
        if not isinstance(path, str | Path | None):
            raise ValueError(must_be(shown(ckpt_path), "a path or a list of paths", shown(path)))
        folder = Path(os.path.expanduser(path or ""))
        if path and is_sweep(folder):
            paths += sorted(file.parent for file in folder.resolve().rglob(RESULTS))
        else:
            paths.append(path)
    if not paths:
        raise ValueError(f"{shown(ckpt_path)}: no network: name finished runs, sweeps or files")
    return list(dict.fromkeys(find(path).resolve() for path in paths))


def as_trained(argv: Sequence[str]) -> list[str]:
    """Complete the command line of an evaluation with the data its networks were trained on.

    The data set, its folder (if it still exists) and the training and validation split come from
    the first network's file; argv overrides them. A single run is evaluated in `evaluation/` of
    its own folder.

    Args:
        argv: as on the command line: ["ckpt_path=RUN", "split=val"]. What `targets=` lists may be
            imported from then on.

    Raises:
        ValueError: ckpt_path is not a network of this project.
    """
    from mnist_cnn.weights import predictor

    allow_given(argv)  # before a file is read: only the command may allow
    given, command = take_ckpt_path(argv)
    if given == "":  # such as from an unset shell variable
        raise ValueError(must_be("ckpt_path", "a folder, a file or null", given))
    is_list = given is not None and given.startswith("[")
    try:
        paths = yaml.load(given, yaml.BaseLoader) if is_list else [given]  # all values are strings
        files = network_files(paths)
        first = predictor.load(files[0])
    except (ValueError, yaml.YAMLError) as e:
        raise ValueError(f"ckpt_path={e}") from None
    other = next((a.partition("=")[2] for a in command if a.startswith("data=")), None)
    data = trained_on(first.data, predictor.data_root(first), other)
    value = in_grammar(str(files[0]) if len(files) == 1 else list(map(str, files)))
    defaults = yaml.safe_load((CONF / "evaluate.yaml").read_text("utf-8")).items()
    usual = {*data, *(f"{key}={shown(default)}" for key, default in defaults)}
    changes = [a for a in command if a not in usual]
    place = output_folder(files[0], changes) if len(files) == 1 else []
    return multirun_first([*data, f"ckpt_path={value}", *place, *command])


def output_folder(file: Path, command: Sequence[str]) -> list[str]:
    """Return the override of hydra.run.dir for a run's file; no override for any other file."""
    folder = file.parents[1] if file.parent.name == BEST.parent.name else file.parent
    if not (folder / CONFIG).is_file():
        return []
    parts = [] if file.stem in ("best", "weights") else [file.stem]
    own_folder = re.compile("data.*|shifts|temperature|compare|robustness")
    parts += [override for override in command if own_folder.fullmatch(key_of(override))]
    quoted = quote(folder / "evaluation").removesuffix("'")  # only ${split} is resolved
    # a hash tells apart what is cut or replaced, such as in compare=PATH
    named = file_name(",".join(parts), also="=,")
    return [f"hydra.run.dir={quoted}/{','.join(['${split}', *filter(None, [named])])}'"]


def trained_on(data: Mapping[str, Any], root: str | None, given: str | None) -> list[str]:
    """Return the overrides that describe the data a network was trained on.

    Args:
        data: their description in the network's file.
        root: their folder, see `predictor.data_root`.
        given: the data set that the command line names itself. Only the validation split is
            handed on to it, and to a user's own set, which may have no such keys, nothing.

    Raises:
        ValueError: the data are custom, and `targets` does not allow their code.
    """
    if given is None and "custom" in data:
        # the file is untrusted: it may name only what the command allows
        if faults := not_allowed(data["custom"], "data", allowlist=()):
            raise ValueError("; ".join(faults))
        custom = flat({key: value for key, value in data["custom"].items() if key != "augment"})
        if wrong := [key for key in custom if not re.fullmatch(r"[\w.]+", key)]:
            raise ValueError(must_be("a key of data", "a name", wrong[0]))
        return ["~data", *(f"+data.{key}={in_grammar(value)}" for key, value in custom.items())]
    if given is None:
        # a checkpoint does not say which class the data were of
        kind = data["name"] if data["name"] in PUBLIC else "arrays" if "path" in data else "folder"
        group, keys = [f"data={kind}"], ["name", "val_fraction", "fold", "split"]
        keys += ["path", "root", "color", "size"]
        keys += ["per_class", "seed"]  # which choose the images that were trained on
    else:
        ours = {*given.split(",")} <= {*SETS}
        group, keys = [], ["val_fraction", "fold"] if ours else []
    values = {key: value for key, value in {**data, "root": root}.items() if value is not None}
    return [*group, *(f"data.{key}={in_grammar(values[key])}" for key in keys if key in values)]


def in_grammar(value: Any) -> str:
    """Quote a value or a list for Hydra's command line; interpolations in it are not resolved."""
    if isinstance(value, list):
        return f"[{','.join(map(in_grammar, value))}]"
    return quote(value) if isinstance(value, str) else shown(value)


def check_folder(folder: Path) -> None:
    """Raise ValueError if a folder has files but is not that of an evaluation of this project's."""
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if names and EVALUATION not in names:
        allowed = "a new or empty folder or an evaluation's (hydra.run.dir=...)"
        raise ValueError(must_be("run_dir", allowed, f"{folder}, which holds {names[0]}"))
    check_replaceable(folder / EVALUATION, r'\A{\s+"ckpt_path": ')
