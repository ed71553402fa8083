"""Composition of configurations from the files in conf/."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config.messages import either, must_be
from mnist_cnn.runs import names, resume
from mnist_cnn.runs.errors import raised_by_hydra
from mnist_cnn.runs.folder import flat
from mnist_cnn.runs.terminal import reason

# inside an installed package, or beside the package in a clone
CONF = next(up / "conf" for up in Path(__file__).parents[1:3] if (up / "conf").is_dir())
# argument of hydra.main and the like: Hydra 1.3 warns if it is missing, 1.4 if it is given
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}
PATHS = ("ckpt_path", *resume.PATHS)


def files(group: str) -> list[str]:
    """Return the options of a config group in conf/, without those in the user's own folders."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def plain(cfg: DictConfig, key: Any = "") -> Any:
    """Return a key's value, or all of cfg, as plain values; ValueError if it cannot be resolved."""
    try:
        value = cfg
        if key != "":
            value = cfg[key] if key in cfg else OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError) as e:
        raise ValueError(f"{key}: {reason(e)}".removeprefix(": ")) from None


def better(metric: str | None, objective: str = "", mode: str | None = None) -> str | None:
    """Return min or max, whichever is better for a metric; None if unknown.

    It is min for a loss or no metric, max for an accuracy, and `mode` for another objective.
    """
    if metric is None:
        return "min"
    known = {"loss": "min", "acc": "max"}
    # what is no name is refused by its key, later
    return known.get(str(metric).rpartition("/")[2], mode if metric == objective else None)


def visible_files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Iterate over the files below a folder, also behind links, without hidden ones.

    Args:
        folder: the folder.
        above: the folders that it is in.
    """
    if (here := folder.resolve()) in above:  # a ring of links
        return
    for path in folder.iterdir():
        if not path.name.startswith("."):
            yield from visible_files(path, (*above, here)) if path.is_dir() else [path]


def fingerprint(path: str) -> str | None:
    """Return the SHA-256 of a file, or of a folder's files and their names; None if missing.

    Files whose names begin with a dot, which desktops leave behind, do not count.
    """
    place = Path(os.path.expanduser(str(path)))  # a number is refused with its key
    files = [*filter(Path.is_file, visible_files(place))] if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.parts):  # Windows compares paths in lower case
        if not file.is_file():
            return None
        name, size = file.relative_to(place).as_posix(), file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as content:
            while part := content.read(2**20):
                digest.update(part)
    return digest.hexdigest()


names.register("better", better, replace=True)
names.register("fingerprint", fingerprint, replace=True)


def resolved(cfg: DictConfig) -> dict[Any, Any]:
    """Resolve a configuration to the plain values that a run records and compares.

    Paths are made absolute, so that they hold from any working directory.

    Raises:
        ValueError: a mandatory key is missing, or an interpolation cannot be resolved.
    """
    written: Any = OmegaConf.to_container(cfg)
    if missing := [key for key, value in flat(written).items() if value == "???"]:
        raise ValueError("; ".join(f"{key} must be given: {key}=..." for key in missing))
    copy = cfg.copy()
    for key in PATHS:
        path = plain(copy, key)
        if isinstance(path, str) and path and not path.startswith("~"):
            OmegaConf.update(copy, key, to_absolute_path(path))  # also with hydra.job.chdir
    return {name: plain(copy, name) for name in copy}


def explained(error: Exception, overrides: Sequence[str]) -> Exception:
    """Return an error that names the wrong override, where Hydra's own error does not.

    An example is a group that is set to something else than a name.
    """
    if type(error) not in (TypeError, ValueError) or not raised_by_hydra(error):
        return error
    for override in overrides:
        key, given, value = override.partition("=")
        if (
            given
            and (CONF / key).is_dir()
            and (value == "null" or not value.strip("'\"[ ")[:1].isalpha())
        ):
            return ValueError(must_be(key, either(files(key)), value))
    return ValueError(f"{' '.join(overrides)}: {error}")


def tutorial(part: str, mode: str = "min") -> dict[str, Any]:
    """Load the tutorial's model, optimizer or scheduler from conf/, also within a Hydra job.

    Args:
        part: model, optimizer or scheduler.
        mode: min or max, whichever is better for the metric that the schedule follows.
    """
    name = {"model": "cnn", "optimizer": "adam", "scheduler": "plateau"}[part]
    nodes = {part: OmegaConf.load(CONF / part / f"{name}.yaml"), "objective": {"mode": mode}}
    found: dict[str, Any] = plain(OmegaConf.create(nodes), part)
    return found


def compose(
    overrides: Sequence[str] = (), *, run_dir: str | Path, run_name: str = "", entry: str = "train"
) -> DictConfig:
    """Compose the configuration of `python -m mnist_cnn.<entry> OVERRIDES` from Python.

    Args:
        overrides: as on the command line: ["trainer.max_epochs=2"].
        run_dir: the folder of the run.
        run_name: its name for loggers; if empty, the composed one.
        entry: train or evaluate.
    """
    try:
        with hydra.initialize_config_dir(str(CONF), **VERSION_BASE):
            cfg = hydra.compose(entry, list(overrides))
    except (TypeError, ValueError) as e:
        told = explained(e, overrides)
        raise told from (None if told is e else e)
    cfg.run_dir = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(run_dir))  # no interpolation
    if run_name:
        cfg.run_name = run_name
    return cfg
