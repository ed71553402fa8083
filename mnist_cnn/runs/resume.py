"""The command line that resumes a run or a sweep: `ckpt_path=` as the overrides recorded there."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_cnn.runs.folder import CONFIG, HYDRA, LAST, OVERRIDES, SWEEP, state

# what may be imported is for who resumes a run to say: its folder may be a stranger's
NOT_REPEATED = ("targets", "force", "run_dir")
# of Hydra's own keys, how a sweep is run
OF_SWEEP = ("hydra/launcher", "hydra/sweeper", "hydra.launcher.", "hydra.sweeper.")
OF_HYDRA = re.compile(r"-|[+~]*([^=]*@)?hydra\b")  # options, and keys of Hydra's own
SAMPLER = re.compile(r"hydra\.sweeper\.sampler\._target_=optuna\.samplers\.\w+")
MULTIRUN = ("-m", "--multirun")
OF_SEARCH = ("hparams_search", "callbacks.prune")  # a trial is resumed as a run of its own


def expand(argv: Sequence[str], outputs: Path | str = "outputs") -> list[list[str]]:
    """The command lines that a command line with `ckpt_path=` stands for.

    Args:
        argv: overrides, with `ckpt_path=` a run's folder (it is resumed there), a checkpoint (a new
            run starts from it, with that run's overrides), a sweep's folder (each of its commands
            is resumed) or `latest`. What else is given takes the place of what is recorded there.
        outputs: where `latest` is looked for.

    Raises:
        ValueError: there is no such folder or file, or nothing is recorded there; `run_dir=`.
    """
    if "run_dir" in map(key_of, argv):
        raise ValueError("run_dir must be the run's own folder; set hydra.run.dir instead")
    place, rest = take_ckpt_path(argv)
    rest.sort(key=lambda a: a not in MULTIRUN)  # Hydra 1.3 takes it at the beginning alone
    if place is None:
        return [rest]
    path = latest(Path(outputs)) if place == "latest" else Path(place).expanduser().absolute()
    if (path / SWEEP).is_file():
        return [resumed_sweep(path, command, rest) for command in commands(path)]
    if set(MULTIRUN) & set(rest) and path.is_dir():
        raise ValueError(f"ckpt_path must be a sweep's folder or a checkpoint with -m, got {place}")
    if path.is_dir():
        return [resumed_run(path, rest)]
    if not place or not path.is_file():
        wanted = "a run's or a sweep's folder or a checkpoint"
        raise ValueError(f"ckpt_path must be {wanted}, got {place}")
    start = f"ckpt_path={quote(path)}"
    count = sum(a in MULTIRUN for a in rest)  # they stay in front
    before = recorded(path.parent.parent, [*rest, start])
    return [[*rest[:count], *before, *rest[count:], start]]


def resumed_run(path: Path, given: Sequence[str]) -> list[str]:
    whole = (path / OVERRIDES).is_file() and (path / CONFIG).is_file()
    config: Any = OmegaConf.load(path / CONFIG) if whole else {}
    if "trainer" not in config:
        reason = "is an evaluation's" if whole else "is none's that a command line started"
        raise ValueError(f"ckpt_path must be a run's folder, {path} {reason}")
    if any(a.startswith("hydra.run.dir=") for a in given):  # a new run, as from the checkpoint
        start = f"ckpt_path={quote(path / LAST)}"
        return [*recorded(path, [*given, start]), *given, start]
    overrides = recorded(path, given)
    overrides += repeated([f"run_name={config.run_name}"], [*overrides, *given])
    return [*overrides, *given, f"hydra.run.dir={quote(path)}"]


def resumed_sweep(path: Path, command: dict[str, Any], given: Sequence[str]) -> list[str]:
    chosen = [a for a in given if a not in MULTIRUN]
    # another launcher or sweeper does not know the keys of the one before
    groups = [key_of(a).replace("/", ".") for a in chosen if a.startswith("hydra/")]
    return [
        "-m",
        *config_dirs(command["config_dirs"], chosen),
        *repeated(filter(of_sweep, command["hydra"]), [*chosen, *groups]),
        *repeated(command["task"], chosen),
        *chosen,
        f"hydra.sweep.dir={quote(path)}",
    ]


def commands(sweep: Path) -> list[dict[str, Any]]:
    """The commands that a sweep was started and extended with."""
    content: Any = OmegaConf.to_container(OmegaConf.load(sweep / SWEEP))
    return list(content["commands"])


def recorded(path: Path, given: Sequence[str]) -> list[str]:
    """The overrides that a run was started with, without those that are given now."""
    if not (path / OVERRIDES).is_file():
        return []
    overrides = repeated(map(str, OmegaConf.load(path / OVERRIDES)), [*given, *OF_SEARCH])
    return [*config_dirs(own_config_dirs(OmegaConf.load(path / HYDRA).hydra), given), *overrides]


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


def own_config_dirs(hydra: Any) -> list[str]:
    """The absolute folders of --config-dir."""
    return [
        str(Path(hydra.runtime.cwd, source.path))
        for source in hydra.runtime.config_sources
        if source.provider == "command-line"
    ]


def config_dirs(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """The options for these folders; their files may name no code that is not allowed anew."""
    if not recorded or any(a.startswith("--config-dir") or a == "-cd" for a in given):
        return []
    targets = [] if "targets" in map(key_of, given) else ["targets=[]"]
    return [*(f"--config-dir={folder}" for folder in recorded), *targets]


def latest(outputs: Path) -> Path:
    """The newest run that has not ended, or the newest; no job of a sweep, none that is running.

    Raises:
        ValueError: there is no run.
    """
    runs = sorted(
        (file.parent.parent for file in outputs.glob(f"*/*/{OVERRIDES}")),
        key=lambda run: (run / OVERRIDES).stat().st_mtime,
        reverse=True,
    )
    free = []
    for run in runs:
        if "trainer" in OmegaConf.load(run / CONFIG) and (how := state(run)) != "running":
            free.append(run)
            if how in ("interrupted", "failed"):
                return run.absolute()
    if not free:
        raise ValueError(f"ckpt_path=latest: there is no run in {outputs.absolute()}")
    return free[0].absolute()


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
