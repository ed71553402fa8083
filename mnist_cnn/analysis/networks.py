"""The networks of an evaluation, and the command line that gives it the data of their training."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import ListConfig

from mnist_cnn.analysis.found import natural_order
from mnist_cnn.config.instantiate import not_allowed
from mnist_cnn.config.messages import must_be, shown
from mnist_cnn.runs.folder import BEST, CONFIG, RESULTS, SWEEP
from mnist_cnn.runs.resume import MULTIRUN, quote, take_ckpt_path

if TYPE_CHECKING:
    from mnist_cnn.pretrained import Trained

# evaluations of one network and split that differ in these have folders of their own
LABELS = ("data", "shifts=", "temperature=", "compare=", "robustness=")


def is_sweep(path: Path | str | None) -> bool:
    return path is not None and (Path(path).expanduser() / SWEEP).is_file()


def network_files(ckpt_path: Any) -> list[Path]:
    """The files that a path or a list of paths stands for, each once.

    A run's folder stands for its best checkpoint, a sweep's for those of its finished runs, and
    None for the network in the package.

    Raises:
        ValueError: a path does not exist or has no network, or the list is empty.
    """
    from mnist_cnn import pretrained  # torch, which --help does not need

    paths: list[Any] = []
    for path in ckpt_path if isinstance(ckpt_path, list | ListConfig) else [ckpt_path]:
        found = [path]
        if is_sweep(path):
            files = Path(path).expanduser().resolve().rglob(RESULTS)
            found = sorted((file.parent for file in files), key=lambda job: natural_order(str(job)))
        if not found:
            raise ValueError(f"{path}: a sweep of which no run is finished")
        paths += found
    if not paths:
        raise ValueError("[]: no network: name runs or sweeps, checkpoints or weights files")
    return list(dict.fromkeys(pretrained.find(path).resolve() for path in paths))


def as_trained(argv: Sequence[str]) -> list[str]:
    """The command line of an evaluation, completed with the data of its networks' training.

    The set, its folder (where it still exists) and the split into training and validation come
    from the first network's file; what argv sets counts more. A single run or sweep is evaluated
    in `evaluation/` of its own folder.

    Raises:
        ValueError: ckpt_path is not a network of this project, or names networks of several sets.
    """
    from mnist_cnn import pretrained

    given, command = take_ckpt_path(argv)
    if given == "":  # as of a variable of the shell that is not set
        raise ValueError(must_be("ckpt_path", "a folder, a file or null", given))
    is_list = given is not None and given.startswith("[")
    try:
        paths = yaml.load(given, yaml.BaseLoader) if is_list else [given]  # each part is text
        files = network_files(paths)
        nets = pretrained.load_all(files)
    except (ValueError, yaml.YAMLError) as e:
        raise ValueError(f"ckpt_path={e}") from None
    data = trained_on(nets[0], any(a.startswith("data=") for a in command))
    value = in_grammar(str(files[0]) if len(files) == 1 else list(map(str, files)))
    place = output_folder(paths[0], files[0], command) if len(paths) == 1 else []
    whole = [*data, f"ckpt_path={value}", *place, *command]
    return sorted(whole, key=lambda a: a not in MULTIRUN)  # first, as Hydra 1.3 wants it


def output_folder(path: str | None, file: Path, command: Sequence[str]) -> list[str]:
    """The override of hydra.run.dir for a run's file or a sweep; none for any other file."""
    folder = file.parents[1] if file.parent.name == BEST.parent.name else file.parent
    parts = ["${split}", *([] if file.stem in ("best", "weights") else [file.stem])]
    if is_sweep(path):
        folder, parts = Path(str(path)).expanduser().resolve(), parts[:1]
    elif not (folder / CONFIG).is_file():
        return []
    changed = (re.sub(r"[^\w.=+-]+", "_", a)[:80] for a in command if a.startswith(LABELS))
    quoted = quote(folder / "evaluation").removesuffix("'")  # nothing in it is resolved but split
    return [f"hydra.run.dir={quoted}/{','.join([*parts, *changed])}'"]


def trained_on(net: "Trained", other_set: bool) -> list[str]:
    """The overrides that describe the data of a network's training.

    Args:
        other_set: the command line names a set by itself.

    Raises:
        ValueError: the data are custom, and `targets` does not allow their code.
    """
    from mnist_cnn import pretrained

    data = net.about["data"]
    if "own" not in data:
        values = {key: data.get(key) for key in ("val_fraction", "fold", "split", "path")}
        values["root"] = pretrained.data_root(net)
        group = [f"data={data['name']}"]
        if other_set:
            del values["split"], group[0]
        known = {key: value for key, value in values.items() if value is not None}
        return [*group, *(f"data.{key}={in_grammar(value)}" for key, value in known.items())]
    if other_set:
        return []
    # the file may be a stranger's: it names no more than the command allows
    if faults := not_allowed(data["own"], "data", allowlist=()):
        raise ValueError("; ".join(faults))
    unknown = ("val_fraction", "fold", "seed", "augment")
    # Hydra 1.3 deletes no key that is null
    removed = ["~data", "data.val_fraction=0", "data.fold=0", *(f"~data.{key}" for key in unknown)]
    values = {check_name(key): value for key, value in data["own"].items() if key != "augment"}
    return [*removed, *(f"+data.{key}={in_grammar(value)}" for key, value in values.items())]


def in_grammar(value: Any) -> str:
    """A plain value as Hydra's command line takes it; no interpolation in it is resolved."""
    if isinstance(value, dict):
        pairs = (f"{check_name(key)}:{in_grammar(inner)}" for key, inner in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(in_grammar, value))}]"
    return quote(value) if isinstance(value, str) else shown(value)


def check_name(key: Any) -> str:
    """The key as it is; ValueError where it has characters of Hydra's grammar."""
    if not re.fullmatch(r"\w+", str(key)):
        raise ValueError(must_be("a key of data", "a name", key))
    return str(key)


def check_folder(folder: Path) -> None:
    """Raise ValueError where files lie in a folder that no evaluation wrote."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(names - {"evaluate.log"})  # of an evaluation that ended at once
    if others and "evaluation.json" not in others:
        raise ValueError(
            f"run_dir must be a new or empty folder or an evaluation's, got {folder}, which holds "
            f"{others[0]}; choose another folder with hydra.run.dir"
        )


def network_name(file: Path | str) -> str:
    """A checkpoint's path from the current folder; of a run's best one the run's folder."""
    path = str(file).removeprefix(f"{Path.cwd()}{os.sep}")
    return path.removesuffix(f"{os.sep}{BEST}")
