"""Expansion of `ckpt_path=` to the recorded overrides of the run or sweep that it resumes."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from mnist_cnn.internals.hydra import ChoiceSweep, QuotedString, parse_override
from mnist_cnn.runs.folder import CONFIG, LAST, LOCK, OVERRIDES, SWEEP, is_sweep, state

# a run's folder may be untrusted: only the user who resumes it says what may be imported
NOT_REPEATED = ("targets", "force", "run_dir")
OF_HYDRA = re.compile(r"-|[+~]*([^=]*@([^=]*\.)?)?hydra\b")  # options, and Hydra's own keys
OF_SWEEP = re.compile(r"[+~]*hydra[./](launcher|sweeper)\b")  # of these, how to run a sweep
# Of those, the ones that are repeated. A sweep's file may be untrusted: keys are left out whose
# values reach a shell (setup, additional_parameters), eval (joblib's pre_dispatch), an import, a
# file that is unpickled (submitit_folder) or an address. A value must be a single word, as a line
# break ends a comment in a batch script.
PLAIN = re.compile(
    r"""[+~]*hydra(
    /(launcher|sweeper)=[\w-]+
    | \.launcher\.(
        n_jobs | batch_size | timeout | verbose
        | timeout_min | max_num_timeout | signal_delay_s | array_parallelism
        | name | comment | partition | qos | account | constraint | exclude | gres
        | nodes | (tasks|gpus)_per_node | cpus_per_(task|gpu) | gpus_per_task
        | mem_gb | mem_per_[cg]pu | stderr_to_stdout
        | ray\.init\.num_cpus | ray\.remote\.(num_[cg]pus|max_retries)
      )(=[\w.:+/-]*)?
    | \.launcher\.ray\.init\.address=(auto|local)
    | \.sweeper\.(
        n_trials | n_jobs | seeds | metric | mode | max_batch_size | (sampler|pruner)\.[a-z]\w*
      )(=[\w.:+/-]*)?
    | \.sweeper\.(sampler\._target_=optuna\.samplers|pruner\._target_=optuna\.pruners)\.[A-Z]\w*
    | \.sweeper\.pruner=null
    )""",
    re.ASCII | re.VERBOSE,
)
PARAMS = "hydra.sweeper.params"
SWEPT = re.compile(r"[a-z]\w*([./-][a-z\d]\w*)*", re.ASCII | re.IGNORECASE)  # a key in PARAMS
# an override that may name a file outside the folders of the configuration
ELSEWHERE = re.compile(r"[+~]*[^=.@]*(@[^=]*)?=.*(\.\.|\$)", re.DOTALL)
# a $ that is more than the value of another key: ${oc.env:SECRET} may send it to a logger's server
RESOLVER = re.compile(r"\$(?!\{[\w.]+\})")
MULTIRUN = ("-m", "--multirun")
# paths relative to the working directory of the command that gave them; ckpt_path is made absolute
# when it is expanded
PATHS = ("init_weights", "data.root", "data.path")
AS_GIVEN = re.compile(r"^(~|$)|\$\{")  # no path in them is made absolute; an empty one is refused
OF_SEARCH = ("hparams_search", "callbacks.prune")  # a trial is resumed as a run of its own


def run(job: Callable[[], Any], argv: Sequence[str]) -> None:
    """Call a function of hydra.main with each command line that `argv` expands to."""
    codes = [0]
    for line in expand(argv):
        sys.argv[1:] = line  # where hydra.main reads it
        try:
            job()
        except SystemExit as e:  # after a failed command of a sweep the others still run
            codes.append(e.code if isinstance(e.code, int) else bool(e.code))
            if isinstance(e.code, str):
                print(e.code, file=sys.stderr)
    if any(codes):
        sys.exit(max(codes))


def expand(argv: Sequence[str], outputs: Path | str = "outputs") -> list[list[str]]:
    """Expand `ckpt_path=` in a command line to the command lines that it stands for.

    Args:
        argv: overrides. `ckpt_path=` is a run's folder (the run is resumed there), a checkpoint (a
            new run starts from it, with that run's overrides), a sweep's folder (each of its
            commands is resumed) or `latest`. Overrides in `argv` take precedence over recorded
            ones.
        outputs: the folder that is searched for `latest`.

    Raises:
        ValueError: there is no such folder or file, nothing is recorded there, or `run_dir=` is
            given.
    """
    if "run_dir" in map(key_of, argv):
        raise ValueError("run_dir must be the run's own folder; set hydra.run.dir instead")
    argv = multirun_first(map(absolute, argv))
    place, rest = take_ckpt_path(argv)
    if place is None:
        return [rest]
    if not place:  # such as from an unset shell variable; Path("") is the working directory
        raise ValueError(f"ckpt_path must be a folder, a file or latest, got {place!r}")
    at = next(n for n, a in enumerate(argv) if a.startswith("ckpt_path="))
    path = (
        latest(Path(outputs)) if place == "latest" else Path(os.path.expanduser(place)).absolute()
    )
    if is_sweep(path):
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
    # another launcher or sweeper does not have the keys of the recorded one
    groups = [key_of(a).replace("/", ".") for a in given if a.startswith("hydra/")]
    of_hydra = not_given(command["hydra"], [*given, *groups])
    for override in of_hydra:
        if not plain(override):
            raise not_repeated(override)
    return [*of_hydra, *repeated(command["task"], given), f"hydra.sweep.dir={quote(path)}"]


def commands(sweep: Path) -> list[dict[str, Any]]:
    """Return the commands that a sweep was started and extended with.

    Raises:
        ValueError: its file has none, for example as it is empty.
    """
    content: Any = OmegaConf.to_container(OmegaConf.load(sweep / SWEEP))
    if not isinstance(content, dict) or not isinstance(content.get("commands"), list):
        raise ValueError(f"{sweep / SWEEP} must have the commands of a sweep")
    return content["commands"]


def recorded(path: Path, given: Sequence[str]) -> list[str]:
    """Return the overrides that a run was started with, without those that are given now."""
    if not (path / OVERRIDES).is_file():
        return []
    overrides: Any = OmegaConf.to_container(OmegaConf.load(path / OVERRIDES))  # unresolved
    return repeated(map(str, overrides), [*given, *OF_SEARCH])


def settled(run: Path) -> list[str]:
    """Return overrides with the recorded paths of the files that a run started from.

    They are for files that a file of the configuration named, such as experiment=mine: it may have
    changed, or name them relative to the working directory of then.
    """
    config: Any = OmegaConf.to_container(OmegaConf.load(run / CONFIG))  # unresolved
    data = config.get("data") or {}
    files = {"init_weights": config.get("init_weights"), "data.path": data.get("path")}
    given = {key: file for key, file in files.items() if isinstance(file, str) and "$" not in file}
    return [f"{key}={quote(file)}" for key, file in given.items()]


def repeated(recorded: Iterable[str], given: Iterable[str]) -> list[str]:
    """Return the recorded overrides whose keys or groups are not given anew; none of Hydra's own.

    Raises:
        ValueError: one may name a file outside the folders of the configuration, or read a variable
            of the environment.
    """
    kept = [o for o in not_given(recorded, given) if not OF_HYDRA.match(o)]
    for override in kept:
        is_place = key_of(override) in ("ckpt_path", *PATHS)
        if RESOLVER.search(override) or (ELSEWHERE.match(override) and not is_place):
            raise not_repeated(override)
    return kept


def not_given(recorded: Iterable[str], given: Iterable[str]) -> list[str]:
    left_out = (*NOT_REPEATED, *map(key_of, given))
    return [override for override in recorded if not is_of(key_of(override), left_out)]


def is_of(key: str, keys: Sequence[str]) -> bool:
    """Return whether a key is one of `keys`, or below one."""
    return key in keys or key.startswith(tuple(f"{each}." for each in keys))


def not_repeated(override: str) -> ValueError:
    return ValueError(
        f"{override!r} must be given anew: ckpt_path repeats nothing that may run code or read "
        "more than the run's own values"
    )


def plain(override: str) -> bool:
    """Return whether an override of a launcher or sweeper cannot run code."""
    if PLAIN.fullmatch(override):
        return True
    try:
        parsed = parse_override(override)
        value = parsed.value()
    except HydraException:
        return False
    key = str(parsed.key_or_group)
    if key != PARAMS:
        return key.startswith(f"{PARAMS}.") and may_be_swept(key.removeprefix(f"{PARAMS}."), value)
    params = {} if value is None else value
    return isinstance(params, dict) and all(may_be_swept(*item) for item in params.items())


def may_be_swept(key: Any, value: Any) -> bool:
    """Return whether a sweep's search space may have a key with these values (None deletes it).

    In a dictionary there Hydra would call `_target_`, and each key becomes an override of the jobs.
    """
    key = str(key).replace("\\", "")  # it escapes dots
    text = value.text if isinstance(value, QuotedString) else value
    scalar = text is None or isinstance(text, str | int | float)
    if not scalar or "$" in str(text) or not SWEPT.fullmatch(key):
        return False
    override = f"{key}={text}"
    return (
        not is_of(key_of(override), NOT_REPEATED)
        and not OF_HYDRA.match(override)
        and not ELSEWHERE.match(override)
    )


def multirun_first(argv: Iterable[str]) -> list[str]:
    """Move -m to the first place, the only one where Hydra 1.3 accepts it."""
    return sorted(argv, key=lambda argument: argument not in MULTIRUN)


def key_of(override: str) -> str:
    """Return the key of an override, with dots for brackets."""
    return re.sub(r"\[([^]]*)\]", r".\1", override.partition("=")[0].lstrip("+~"))


def absolute(override: str) -> str:
    """Make the path in an override absolute, or each path if several are swept."""
    if key_of(override) not in PATHS:
        return override
    try:
        value = parse_override(override).value()
    except HydraException:  # Hydra has a better message
        return override
    every = value.list if isinstance(value, ChoiceSweep) else [value]
    texts = [part.text if isinstance(part, QuotedString) else part for part in every]
    files = [text for text in texts if isinstance(text, str) and not AS_GIVEN.search(text)]
    if len(files) < len(texts) or all(map(os.path.isabs, files)):
        return override
    return (
        f"{override.partition('=')[0]}={','.join(quote(Path(file).absolute()) for file in files)}"
    )


def latest(outputs: Path) -> Path:
    """Return the newest run that was interrupted or failed, or else the newest run.

    Jobs of a sweep and runs in progress are left out.
    """
    runs = sorted(runs_below(outputs), key=lambda run: (run / OVERRIDES).stat().st_mtime)
    states = {run.absolute(): state(run) for run in reversed(runs)}
    free = [run for run, how in states.items() if how != "running"]
    if not free:
        raise ValueError(f"ckpt_path=latest: there is no run in {outputs.absolute()}")
    return next((run for run in free if states[run] in ("interrupted", "failed")), free[0])


def runs_below(outputs: Path) -> Iterator[Path]:
    """Yield the folders of runs at any depth, except those in a sweep."""
    for path, folders, names in os.walk(outputs):
        if LOCK in names:
            folders.clear()
            if SWEEP not in names and Path(path, OVERRIDES).is_file():
                yield Path(path)


def take_ckpt_path(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split a command line into the value of `ckpt_path=`, None if it has none, and the rest."""
    given = [a for a in argv if a.startswith("ckpt_path=")]
    place = given[-1].partition("=")[2].strip("'\"") if given else "null"
    return None if place == "null" else place, [a for a in argv if a not in given]


def quote(path: Path | str) -> str:
    """Quote text for Hydra's command line, so that no interpolation in it is resolved."""
    # a backslash escapes an interpolation in OmegaConf, a quote in Hydra; elsewhere it is literal
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path))
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\*)$", r"\1\1", text, count=1) + "'"
