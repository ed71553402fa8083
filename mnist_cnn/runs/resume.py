"""The command line that resumes a run or a sweep: `ckpt_path=` as the overrides recorded there."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mnist_cnn.runs.folder import CONFIG, LAST, LOCK, OVERRIDES, SWEEP, state

# what may be imported is for who resumes a run to say: its folder may be a stranger's
NOT_REPEATED = ("targets", "force", "run_dir")
# of Hydra's own keys, how a sweep is run
OF_SWEEP = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.")
OF_HYDRA = re.compile(r"-|[+~]*([^=]*@)?hydra\b")  # options, and keys of Hydra's own
SAMPLER = re.compile(r"hydra\.sweeper\.sampler\._target_=optuna\.samplers\.\w+")
MULTIRUN = ("-m", "--multirun")
# files, which are found from the working directory of the command that named them
PATHS = ("init_weights", "data.root", "data.path")
OF_SEARCH = ("hparams_search", "callbacks.prune")  # a trial is resumed as a run of its own


def run(job: Callable[[], Any], argv: Sequence[str]) -> None:
    """Call a function of hydra.main with each command line that a command line stands for."""
    codes = [0]
    for line in expand(argv):
        sys.argv[1:] = line  # hydra.main reads no other
        try:
            job()
        except SystemExit as e:  # one command of a sweep does not keep the others from running
            codes.append(e.code if isinstance(e.code, int) else bool(e.code))
            if isinstance(e.code, str):
                print(e.code, file=sys.stderr)
    if any(codes):
        sys.exit(max(codes))


def expand(argv: Sequence[str], outputs: Path | str = "outputs") -> list[list[str]]:
    """The command lines that a command line with `ckpt_path=` stands for.

    Args:
        argv: overrides, with `ckpt_path=` a run's folder (it is resumed there), a checkpoint (a new
            run starts from it, with that run's overrides), a sweep's folder (each of its commands
            is resumed) or `latest`. What is recorded stands in its place, but for what is given.
        outputs: where `latest` is looked for.

    Raises:
        ValueError: there is no such folder or file, or nothing is recorded there; `run_dir=`.
    """
    if "run_dir" in map(key_of, argv):
        raise ValueError("run_dir must be the run's own folder; set hydra.run.dir instead")
    # Hydra 1.3 takes it at the beginning alone
    argv = sorted(map(absolute, argv), key=lambda a: a not in MULTIRUN)
    place, rest = take_ckpt_path(argv)
    if place is None:
        return [rest]
    at = next(n for n, a in enumerate(argv) if a.startswith("ckpt_path="))
    path = latest(Path(outputs)) if place == "latest" else Path(place).expanduser().absolute()
    if (path / SWEEP).is_file():
        start = ["-m", *(a for a in rest[:at] if a not in MULTIRUN)]
        lines = [resumed_sweep(path, command, rest) for command in commands(path)]
        return [[*start, *line, *rest[at:]] for line in lines]
    many = argv[0] in MULTIRUN
    if path.is_dir() and "hydra.run.dir" in map(key_of, rest):
        path /= LAST  # a new run starts from it
    if path.is_file():
        where = f"ckpt_path={quote(path)}"
        overrides = recorded(path.parent.parent, [*rest, where])
    elif (path / OVERRIDES).is_file() and (path / CONFIG).is_file() and not many:
        where = f"hydra.run.dir={quote(path)}"
        overrides = recorded(path, rest)
        overrides += repeated(settled(path), [*overrides, *rest])
    else:
        wanted = "a sweep's folder or a checkpoint" + ("" if many else ", or a run's folder")
        raise ValueError(f"ckpt_path must be {wanted}, got {place}")
    return [[*rest[:at], *overrides, where, *rest[at:]]]


def resumed_sweep(path: Path, command: dict[str, Any], given: Sequence[str]) -> list[str]:
    # another launcher or sweeper does not know the keys of the one before
    groups = [key_of(a).replace("/", ".") for a in given if a.startswith("hydra/")]
    of_hydra = repeated(filter(of_sweep, command["hydra"]), [*given, *groups])
    return [*of_hydra, *repeated(command["task"], given), f"hydra.sweep.dir={quote(path)}"]


def commands(sweep: Path) -> list[dict[str, Any]]:
    """The commands that a sweep was started and extended with."""
    content: Any = OmegaConf.to_container(OmegaConf.load(sweep / SWEEP))
    return list(content["commands"])


def recorded(path: Path, given: Sequence[str]) -> list[str]:
    """The overrides that a run was started with, without those that are given now."""
    if not (path / OVERRIDES).is_file():
        return []
    return repeated(map(str, OmegaConf.load(path / OVERRIDES)), [*given, *OF_SEARCH])


def settled(path: Path) -> list[str]:
    """The files that a run started from, which its configuration may have named relatively."""
    config = OmegaConf.load(path / CONFIG)
    files = {key: OmegaConf.select(config, key) for key in ("init_weights", "data.path")}
    return [f"{key}={quote(file)}" for key, file in files.items() if isinstance(file, str)]


def repeated(recorded: Iterable[str], given: Iterable[str]) -> list[str]:
    """The recorded overrides whose keys, and groups of keys, are not given anew."""
    left_out = (*NOT_REPEATED, *map(key_of, given))
    below = tuple(f"{key}." for key in left_out)
    own = (o for o in recorded if of_sweep(o) or not OF_HYDRA.match(o))
    keys = [(override, key_of(override)) for override in own]
    return [o for o, key in keys if key not in left_out and not key.startswith(below)]


def of_sweep(override: str) -> bool:
    """Tell whether an override chooses how a sweep is run, and nothing that is imported for it."""
    names_code = "_target_" in override or "$" in override
    return override.startswith(OF_SWEEP) and bool(not names_code or SAMPLER.fullmatch(override))


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def absolute(override: str) -> str:
    """An override of a path, or of several that are swept, as it holds from any directory."""
    if key_of(override) not in PATHS:
        return override
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:  # which Hydra will say better
        return override
    every = value.list if isinstance(value, ChoiceSweep) else [value]
    texts = [part.text if isinstance(part, QuotedString) else part for part in every]
    files = [text for text in texts if isinstance(text, str) and not re.search(r"^~|\$\{", text)]
    if len(files) < len(texts) or all(map(os.path.isabs, files)):
        return override
    return (
        f"{override.partition('=')[0]}={','.join(quote(Path(file).absolute()) for file in files)}"
    )


def latest(outputs: Path) -> Path:
    """The newest run that has not ended, or the newest; no job of a sweep, none that is running."""
    runs = sorted(runs_below(outputs), key=lambda run: (run / OVERRIDES).stat().st_mtime)
    states = {run.absolute(): state(run) for run in reversed(runs)}
    free = [run for run, how in states.items() if how != "running"]
    if not free:
        raise ValueError(f"ckpt_path=latest: there is no run in {outputs.absolute()}")
    return next((run for run in free if states[run] in ("interrupted", "failed")), free[0])


def runs_below(outputs: Path) -> Iterator[Path]:
    """The folders of runs at any depth, but not those in a sweep."""
    for path, folders, names in os.walk(outputs):
        if not {LOCK, SWEEP}.isdisjoint(names):
            folders.clear()
            if SWEEP not in names and Path(path, OVERRIDES).is_file():
                yield Path(path)


def take_ckpt_path(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `ckpt_path=` in a command line, None where there is none, and the rest."""
    given = [a for a in argv if a.startswith("ckpt_path=")]
    place = given[-1].partition("=")[2].strip("'\"") if given else "null"
    return None if place == "null" else place, [a for a in argv if a not in given]


def quote(path: Path | str) -> str:
    """Text as Hydra's command line takes it: no interpolation in it is resolved."""
    # in OmegaConf a backslash escapes an interpolation, in Hydra a quote; elsewhere it is itself
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path))
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\*)$", r"\1\1", text, count=1) + "'"
