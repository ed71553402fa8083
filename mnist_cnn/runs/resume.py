"""The command line that resumes a run or a sweep, and the overrides that a run leaves for it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.compose import compose, run_name
from mnist_cnn.config.messages import must_be, shown
from mnist_cnn.internals.hydra import literal, quote
from mnist_cnn.runs.state import CONFIG, HYDRA, LAST, OVERRIDES, SWEEP


def take_ckpt_path(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `ckpt_path=` in a command line, None where there is none, and all the rest."""
    own = [a for a in argv if a.lstrip("+").startswith("ckpt_path=")]
    given = own[0].split("=", 1)[1].strip("'\"") if own else "null"
    if not given:  # as of a variable of the shell that is not set
        raise ValueError(must_be("ckpt_path", "a folder, a file or null", given))
    return None if given == "null" else given, [a for a in argv if a not in own]


def resume(argv: Sequence[str]) -> list[str]:
    """The command line that resumes the run or the sweep in `ckpt_path=`, with what is given now.

    A run's folder, or the last checkpoint in it, resumes the run in its folder; what was killed
    before its first checkpoint starts anew there. Another checkpoint, or one with hydra.run.dir,
    starts a new run. Both have the run's own overrides, where they lie beside the checkpoint; those
    given now come after them. A sweep's folder resumes the sweep.

    Raises:
        ValueError: there is no such folder or file, or the folder is not a run's.
    """
    given, command = take_ckpt_path(argv)
    if given is None:
        return command
    path = Path(given).expanduser().resolve()
    if (path / SWEEP).is_file():
        return resume_sweep(path, command)
    if any(a in ("-m", "--multirun") for a in argv):
        if path.is_dir():
            allowed = "the folder of a sweep, or a checkpoint, with -m"
            raise ValueError(must_be("ckpt_path", allowed, given))
        check_there(given, path)
        return [*command, f"ckpt_path={quote(path)}"]
    check_there(given, path)
    checkpoint = path / LAST if path.is_dir() else path
    if (checkpoint.parents[1] / OVERRIDES).is_file():
        command = with_recorded(checkpoint, command)
    if checkpoint.is_file():
        command = [*command, f"ckpt_path={quote(checkpoint)}"]
    return command


def check_there(given: str, path: Path) -> None:
    """Raises ValueError where a path is neither a checkpoint nor the folder of a run."""
    folder = path if path.is_dir() else path.parents[1]
    if not path.exists():
        fault = "which does not exist"
    elif path.is_dir() and not any((path / name).is_file() for name in (LAST, OVERRIDES)):
        fault = f"which has no {LAST}"
    elif (folder / CONFIG).is_file() and "trainer" not in OmegaConf.load(folder / CONFIG):
        fault = "an evaluation"
    else:
        return
    allowed = "the folder of a run or a sweep, or a checkpoint"
    raise ValueError(must_be("ckpt_path", allowed, f"{given}, {fault}"))


def with_recorded(checkpoint: Path, command: Sequence[str]) -> list[str]:
    """A command line after the overrides that the run of a checkpoint was started with."""
    folder = checkpoint.parents[1]
    places = [a.split("=", 1)[1].strip("'\"") for a in command if a.startswith("hydra.run.dir=")]
    in_place = checkpoint == folder / LAST and all(same(Path(p), folder) for p in places[-1:])
    recorded = [str(o) for o in OmegaConf.load(folder / OVERRIDES)]
    # a new run from a checkpoint that has not copied it yet starts from it again
    started = ["ckpt_path="] if checkpoint.is_file() else []
    again = unchanged(recorded, [*started, "force=", "hparams_search=", *command])
    again = [a for a in again if not a.lstrip("+~").startswith("callbacks.prune")]
    hydra = folder / HYDRA
    folders = search_path(OmegaConf.load(hydra).hydra) if hydra.is_file() else []
    again = [*untargeted(again, folders), *unchanged(folders, command)]
    if not in_place:
        return [*again, *command]
    if not any(a.startswith("run_name=") for a in (*again, *command)):
        again.append(f"run_name={quote(run_name(recorded))}")
    return [*again, *command, f"hydra.run.dir={quote(folder)}"]


def resume_sweep(folder: Path, command: Sequence[str]) -> list[str]:
    """The command line that resumes a sweep, launcher and sweeper included."""
    hydra = OmegaConf.load(folder / SWEEP).hydra
    if hydra.job.config_name != "train":
        what = f"{folder}, a sweep of mnist_cnn.{hydra.job.config_name}"
        raise ValueError(must_be("ckpt_path", "a sweep of mnist_cnn.train", what))
    given = [a for a in command if a not in ("-m", "--multirun")]
    # another launcher or sweeper does not know the keys of the one before
    groups = [a.split("=")[0].replace("/", ".") for a in given if a.startswith("hydra/")]
    not_again = ["hydra.mode=", "hydra.sweep.dir=", "hydra.searchpath=", *given]
    folders = search_path(hydra)
    own = unchanged(hydra.overrides.hydra, not_again) + unchanged(folders, given)
    own = [o for o in own if not o.startswith(tuple(f"{group}." for group in groups))]
    place = f"hydra.sweep.dir={quote(folder)}"
    task = untargeted(unchanged(hydra.overrides.task, given), folders)
    return ["-m", *own, *task, *given, place]


def untargeted(recorded: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Recorded overrides without those that allow code of the user's own.

    What may be imported is for who resumes a run to say: its folder may be a stranger's. Files of
    its search path may allow nothing either.
    """
    own = [o for o in recorded if not re.match(r"[+~]*targets\b", o)]
    return [*own, "targets=[]"] if folders else own


def unchanged(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """The recorded overrides whose keys are not among those given."""
    changed = {a.split("=")[0] for a in given}
    return [str(o) for o in recorded if str(o).split("=")[0] not in changed]


def note_configuration(cfg: DictConfig, folder: Path) -> None:
    """Writes a run's configuration as Hydra does, so that the command line can resume the run.

    Its overrides are those that make it of the default configuration, wherever it came from.
    """
    (folder / OVERRIDES.parent).mkdir(exist_ok=True)
    values = OmegaConf.to_container(cfg)
    default = OmegaConf.to_container(compose(run_dir="."))
    changed = [o for o in changes(default, values) if not o.startswith(("run_", "force="))]
    changed.append(f"run_name={quote(cfg.run_name)}")  # also none: TensorBoard's folder has it
    OmegaConf.save(cfg, folder / CONFIG)
    OmegaConf.save(OmegaConf.create(changed), folder / OVERRIDES)


def changes(before: Any, now: Any, key: str = "") -> list[str]:
    """The overrides that make one plain configuration of another."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now and type(before) is type(now) else [f"{key}={in_grammar(now)}"]
    found = [f"~{key}.{name}".replace("~.", "~") for name in before if name not in now]
    for name, value in now.items():
        inner = f"{key}.{name}".lstrip(".")
        if name in before:
            found += changes(before[name], value, inner)
        else:
            found.append(f"+{inner}={in_grammar(value)}")
    return found


def in_grammar(
    value: Any, text: Callable[[str], str] = literal, key: Callable[[Any], str] = str
) -> str:
    """A plain value as Hydra's grammar takes it; with text=quote no text in it is resolved."""
    if isinstance(value, dict):
        parts = (f"{key(name)}:{in_grammar(inner, text, key)}" for name, inner in value.items())
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list):
        return f"[{','.join(in_grammar(inner, text, key) for inner in value)}]"
    return text(value) if isinstance(value, str) else shown(value)


def search_path(hydra: DictConfig) -> list[str]:
    """The override that gives a run the folders that its command line added to the search path."""
    own = [
        f"pkg://{source.path}"
        if source.schema == "pkg"
        else quote(Path(hydra.runtime.cwd, source.path))
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" or source.provider.startswith("hydra.searchpath")
    ]
    return [f"hydra.searchpath=[{','.join(own)}]"] if own else []


def same(path: Path, other: Path) -> bool:
    return path.expanduser().resolve() == other.expanduser().resolve()
