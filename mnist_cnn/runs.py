"""A run's folder: claimed for one run alone, named, and found again to go on with it."""

import atexit
import contextlib
import copy
import ctypes
import functools
import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_cnn.command import SIGPIPE
from mnist_cnn.config import USER_ERRORS, Interrupted, check, one_line, run_name, shown
from mnist_cnn.threads import sleep_at_barriers_if_busy

# Hydra writes them into each run's folder
OVERRIDES, CONFIG = Path(".hydra", "overrides.yaml"), Path(".hydra", "config.yaml")
LAST = Path("checkpoints", "last.ckpt")
SWEEP = "multirun.yaml"  # Hydra's name for the configuration in a sweep's folder
LOCK = ".lock"  # held by the process that trains in the folder; the system lets go of it at its end
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends

# beginnings of keys that may differ when a run goes on: they change nothing of what it learns
UNRELATED = [
    "ckpt_path",
    "force",
    "run_",
    "test",
    "logger",
    "hparams_search",
    "data.root",
    "data.source",
    "data.mirror",
    "data.eval_batch_size",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.enable",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "callbacks.progress",
    "callbacks.prune",
    "callbacks.summary",
    "callbacks.histograms",
    "callbacks.finite",
    "callbacks.checkpoint.every",
]

State = Literal["running", "finished", "failed", "pruned", "interrupted", "new"]
RESULTS, FAILED, PRUNED = "results.json", "failed.json", "pruned.json"


class Pruned(Exception):  # noqa: N818, it is no error
    """A search gave a run up: `epoch` (from 1), `metric` and `value` say when and why."""

    def __init__(self, epoch: int, metric: str, value: float):
        super().__init__(f"given up after epoch {epoch}: {metric}={value:.4f}")
        self.epoch, self.metric, self.value = epoch, metric, value


def state(folder: Path) -> State:
    """What became of the run in a folder; `new` where none has begun."""
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, timeout=0):
                pass
        except Timeout:
            return "running"
        except OSError:  # a folder that only others may write: nobody can ask
            pass
    ends: dict[str, State] = {RESULTS: "finished", FAILED: "failed", PRUNED: "pruned"}
    for file, end in ends.items():
        if (folder / file).exists():
            return end
    return "interrupted" if (folder / LOCK).exists() else "new"


def recorded(
    train: Callable[[DictConfig], dict[str, Any]],
) -> Callable[[DictConfig], dict[str, Any]]:
    """Makes a run the only one in its folder, and leaves a file there if it fails or is given up.

    failed.json has `type`, `error` and `traceback`; pruned.json `epoch`, `metric` and `value`.
    A run that is interrupted leaves neither.

    Raises:
        ValueError: another process is training in the folder.
    """

    @functools.wraps(train)
    def alone(cfg: DictConfig) -> dict[str, Any]:
        if rank() > 0:
            try:
                return train(cfg)
            except Interrupted as e:  # rank 0 says so
                sys.exit(128 + e.number)
        folder = Path(cfg.run_dir)
        if not folder.is_dir():
            check(cfg)  # so that a mistake leaves nothing
            folder.mkdir(parents=True)
        lock = FileLock(folder / LOCK, timeout=1)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(f"run_dir={folder}: another process is training there") from None
        try:
            for file in (FAILED, PRUNED):
                (folder / file).unlink(missing_ok=True)
            return train(cfg)
        except Pruned as e:
            note(folder / PRUNED, epoch=e.epoch, metric=e.metric, value=e.value)
            raise
        except Interrupted as e:
            raise Interrupted(e.number, f"go on with ckpt_path={folder}") from None
        except (KeyboardInterrupt, SystemExit, BrokenPipeError) as e:
            # Lightning exits at Ctrl-C while it sets up, rich where nobody reads what it prints
            closed = BrokenPipeError in (type(e), type(e.__context__))
            number = SIGPIPE if closed else signal.SIGINT
            raise Interrupted(number, f"go on with ckpt_path={folder}") from None
        except Exception as e:
            trace = "".join(traceback.format_exception(e))
            with contextlib.suppress(OSError):  # the disk may be what failed
                note(folder / FAILED, type=type(e).__name__, error=str(e), traceback=trace)
            if isinstance(e, OSError) and (folder / LAST).exists():
                raise OSError(f"{e}; when that is mended go on with ckpt_path={folder}") from e
            raise
        finally:
            lock.release()

    return alone


def note(path: Path, **content: Any) -> None:
    from mnist_cnn import results  # after torch, which a mistake does not need

    results.write(content, path)


class ClaimFolder(Callback):
    """Checks the configuration before Hydra makes a folder, and gives each run one of its own."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        sleep_at_barriers_if_busy()
        task = task_of(config)
        try:
            if config.hydra.job.config_name == "train" and task.get("ckpt_path") is not None:
                check_checkpoint(Path(task.ckpt_path))  # first: the logger reads it too
            check(task, config.hydra.job.config_name)
            if (search := config.hydra.runtime.choices.get("hparams_search")) is not None:
                raise ValueError(f"hparams_search={search}: a search is a sweep: add -m")
            if config.hydra.job.config_name == "train":
                check_processes(task.trainer.strategy == "ddp")
                if task.ckpt_path is not None:
                    check_further(task, Path(config.hydra.run.dir))
            if rank() == 0:
                claim(config, "run")
        except USER_ERRORS as e:  # Hydra would turn them into warnings
            sys.exit(one_line(e) if rank() == 0 else 1)
        if processes() > 1:
            join(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Puts what Hydra has written of a run into its place: all of it, or what was there."""
        if config.hydra.output_subdir is not None:
            folder = Path(config.hydra.runtime.output_dir)
            (folder / OVERRIDES.parent).mkdir(exist_ok=True)
            written = folder / config.hydra.output_subdir
            for file in sorted(written.iterdir()):  # config.yaml is the first
                file.replace(folder / OVERRIDES.parent / file.name)
            written.rmdir()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sleep_at_barriers_if_busy()
        try:
            if processes() > 1:
                raise ValueError("torchrun starts the processes of one run; allowed: no -m with it")
            if config.hydra.job.config_name != "train":
                claim(config, "sweep")  # training's own sweeper first looks at all jobs
        except USER_ERRORS as e:
            sys.exit(one_line(e) if rank() == 0 else 1)


def task_of(config: DictConfig) -> DictConfig:
    """What Hydra hands to a job of this configuration, before its folder is known."""
    task = copy.deepcopy(config)
    with open_dict(task):
        del task["hydra"]
        task.run_dir = task.run_name = "."
    return task


def processes() -> int:
    """How many processes torchrun started to train together, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is, from 0; one of them writes the run's files: 0."""
    return int(os.environ.get("RANK", 0))


def check_processes(ddp: bool) -> None:
    """Raises ValueError unless trainer=ddp and torchrun come together."""
    if ddp and "LOCAL_WORLD_SIZE" not in os.environ:
        raise ValueError(
            "trainer=ddp: allowed: with torchrun, which starts the processes: "
            "torchrun --nproc-per-node 2 -m mnist_cnn.train trainer=ddp"
        )
    if not ddp and processes() > 1:
        raise ValueError(f"torchrun started {processes()} processes; allowed: with trainer=ddp")


def join(config: DictConfig) -> None:
    """Makes the processes that torchrun started one run: rank 0 has the folder and the log."""
    if sys.platform == "linux":  # where torchrun is killed, its processes would train on alone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from torch import distributed

    distributed.init_process_group()  # Lightning takes it over
    atexit.register(distributed.destroy_process_group)
    folder = [config.hydra.run.dir]
    distributed.broadcast_object_list(folder)
    with read_write(config), open_dict(config):
        config.hydra.run.dir = folder[0]
        if rank() > 0:
            config.hydra.output_subdir = None
            config.hydra.job_logging = {"root": None}


def claim(config: DictConfig, kind: str) -> None:
    """Makes the folder hydra.<kind>.dir, under another name where it exists already.

    A folder that was asked for by name, as in going on with a run, is taken as it is.
    """
    if any(o.startswith(f"hydra.{kind}.dir=") for o in config.hydra.overrides.hydra):
        return
    wanted = Path(OmegaConf.select(config, f"hydra.{kind}.dir"))
    for n in itertools.count(1):
        folder = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    with read_write(config.hydra), open_dict(config):
        config.hydra[kind].dir = str(folder)


def take_ckpt_path(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `ckpt_path=` in a command line, None where there is none, and all the rest."""
    given = next((a.split("=", 1)[1] for a in argv if a.lstrip("+").startswith("ckpt_path=")), "")
    rest = [a for a in argv if not a.lstrip("+").startswith("ckpt_path=")]
    return None if given in ("null", "") else given.strip("'\""), rest


def resume(argv: Sequence[str]) -> list[str]:
    """The command line that goes on with the run or the sweep that `ckpt_path=` names.

    ckpt_path may be a run's folder or a checkpoint in it, or a sweep's folder. Its own overrides
    are taken up again, those given now come after them, and its folder is used; what was killed
    before its first checkpoint starts anew there. A checkpoint that lies anywhere else starts a new
    run from where it stopped.

    Raises:
        ValueError: there is no such folder or file, or the folder is not a run's.
    """
    given, command = take_ckpt_path(argv)
    if given is None:
        return command
    path = Path(given).expanduser().resolve()
    if (path / SWEEP).is_file():
        return resume_sweep(path, command)
    allowed = "allowed: the folder of a run or a sweep, or a checkpoint"
    if not path.exists():
        raise ValueError(f"ckpt_path={given}: no such file or folder; {allowed}")
    if any(a in ("-m", "--multirun") for a in argv):
        if path.is_dir():
            raise ValueError(f"ckpt_path={given}: not a sweep; allowed with -m: one, or a file")
        return [*command, f"ckpt_path={quote(path)}"]
    checkpoint = path / LAST if path.is_dir() else path
    folder = checkpoint.parents[1]
    if not checkpoint.is_file() and not (folder / OVERRIDES).is_file():
        raise ValueError(f"ckpt_path={given}: has no {LAST}; {allowed}")
    if (folder / CONFIG).is_file() and "trainer" not in OmegaConf.load(folder / CONFIG):
        raise ValueError(f"ckpt_path={given}: an evaluation, not a run; {allowed}")
    if (folder / OVERRIDES).is_file():
        recorded = [str(o) for o in OmegaConf.load(folder / OVERRIDES)]
        again = unchanged(recorded, ["ckpt_path=", "force=", "hparams_search=", *command])
        again = [a for a in again if not a.lstrip("+~").startswith("callbacks.prune")]
        if not any(a.startswith("run_name=") for a in (*again, *command)):
            again.append(f"run_name={quote(run_name(recorded))}")
        command = [*again, *command, f"hydra.run.dir={quote(folder)}"]
    if checkpoint.is_file():
        command.append(f"ckpt_path={quote(checkpoint)}")
    return command


def resume_sweep(folder: Path, command: Sequence[str]) -> list[str]:
    """The command line that goes on with a sweep, launcher and sweeper included."""
    hydra = OmegaConf.load(folder / SWEEP).hydra
    if hydra.job.config_name != "train":
        raise ValueError(f"ckpt_path={folder}: not a sweep of mnist_cnn.train")
    given = [a for a in command if a not in ("-m", "--multirun")]
    own = unchanged(hydra.overrides.hydra, ["hydra.mode=", "hydra.sweep.dir=", *given])
    # another launcher or sweeper does not know the keys of the one before
    exchanged = tuple(
        f"{a.split('=')[0].replace('/', '.')}." for a in given if a.startswith("hydra/")
    )
    own = [o for o in own if not exchanged or not o.startswith(exchanged)]
    place = f"hydra.sweep.dir={quote(folder)}"
    return ["-m", *own, *unchanged(hydra.overrides.task, given), *given, place]


def unchanged(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """The recorded overrides whose keys are not among those given."""
    changed = {a.split("=")[0] for a in given}
    return [str(o) for o in recorded if str(o).split("=")[0] not in changed]


def networks(paths: Sequence[str | None]) -> list[Path]:
    """The files of the networks that an evaluation is given.

    Of a run's folder it is the best checkpoint; a sweep's folder stands for its finished runs, in
    their order; None is the network in the package.

    Raises:
        ValueError: it names none, or something that is not there.
    """
    from mnist_cnn import leaderboard, trained  # after torch, which --help does not need

    files = []
    for path in paths:
        if path is None or not is_sweep(path):
            files.append(trained.find(path).resolve())
            continue
        jobs = leaderboard.find(Path(path).expanduser().resolve())
        finished = [job for job in jobs if state(job) == "finished"]
        if not finished:
            raise ValueError(f"{path}: a sweep of which no run is finished")
        finished.sort(key=lambda job: leaderboard.natural(str(job)))
        files += map(trained.find, finished)
    if not files:
        raise ValueError("[]: allowed: runs' or sweeps' folders, checkpoints, weights files")
    return files


def as_trained(argv: Sequence[str]) -> list[str]:
    """The command line of an evaluation, filled up with the data that its networks were trained on.

    The set, its normalisation and the split into training and validation come from the checkpoint
    or weights file, of several the first; what is given now comes after them. A normalisation that
    is not the same for all is left to each network. A checkpoint of a run is evaluated in
    `evaluation/` of the run's folder, a sweep in that of its own.

    Raises:
        ValueError: there is no such file or folder, or it is not one of this project's; or the
            networks were trained on different sets.
    """
    from mnist_cnn import trained  # after torch, which --help does not need

    given, command = take_ckpt_path(argv)
    paths = listed(given)
    try:
        files = networks(paths)
        trained_on = [net.about["data"] for net in trained.load_all(files)]
    except ValueError as e:
        raise ValueError(f"ckpt_path={e}") from None
    data = trained_on[0]
    alike = [key for key in ("mean", "std") if len({other[key] for other in trained_on}) == 1]
    filled = [f"data.{key}={data[key]}" for key in (*alike, "val_fraction", "fold")]
    if not any(a.startswith("data=") for a in command):
        filled = [f"data={data['name']}", *filled]
    file = files[0]
    home = file.parents[1] if file.parent.name == LAST.parent.name else file.parent
    if paths[0] is not None and is_sweep(paths[0]):
        home = Path(paths[0]).expanduser().resolve()
    if len(paths) == 1 and (is_sweep(home) or (home / OVERRIDES).is_file()):
        kept = file.stem in ("best", "weights")
        what = [] if kept else [file.stem]
        what += [a for a in command if a.startswith(("data", "shifts="))]
        name = ",".join(["${split}", *(re.sub(r"[^\w.=+-]+", "_", part) for part in what)])
        command = [f"hydra.run.dir={quote(home / 'evaluation' / name)}", *command]
    value = quote(file) if len(files) == 1 else f"[{','.join(map(quote, files))}]"
    return [*filled, f"ckpt_path={value}", *command]


def listed(given: str | None) -> list[str | None]:
    """The parts of a list `[a,'b, c']` on the command line; of anything else itself alone."""
    if given is None or not (given.startswith("[") and given.endswith("]")):
        return [given]
    parts = re.findall(r"'[^']*'|\"[^\"]*\"|[^,\s][^,]*", given[1:-1])
    return [part.strip().strip("'\"") for part in parts]


def is_sweep(folder: Path | str) -> bool:
    return (Path(folder).expanduser() / SWEEP).is_file()


def quote(path: Path | str) -> str:
    """Text as Hydra's grammar takes it, whatever characters it has."""
    # in OmegaConf a backslash escapes an interpolation, in Hydra a quote; elsewhere it is itself
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path))
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\*)$", r"\1\1", text, count=1) + "'"


def check_checkpoint(path: Path) -> None:
    """Raises ValueError where training cannot go on from this file. It runs none of its code."""
    if fault := damage(path):
        others = (file for file in sorted(path.parent.glob("*.ckpt")) if file != path)
        whole = next((file for file in others if not damage(file)), None)
        hint = f"; allowed: ckpt_path={whole}, an older one that is whole" if whole else ""
        raise ValueError(f"ckpt_path={path}: {fault}{hint}")


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, empty where nothing is."""
    from mnist_cnn import trained  # after torch, which a mistake does not need

    try:
        content = trained.read_checkpoint(path)
    except ValueError as e:
        return f"not a checkpoint that is safe to load: {e}"
    wanted = {
        **{"state_dict": dict, "loops": dict, "callbacks": dict},
        **{"optimizer_states": list, "processes": list},
    }
    sound = isinstance(content, dict) and all(
        isinstance(content.get(key), kind) and content[key] for key, kind in wanted.items()
    )
    if not sound or not any(str(key).startswith("net.") for key in content["state_dict"]):
        return "not a checkpoint of this project"
    return ""


def check_further(config: DictConfig, folder: Path) -> None:
    """Raises ValueError where config.ckpt_path is further than, or another run than, its values."""
    from mnist_cnn import trained

    done = trained.read_checkpoint(config.ckpt_path)["epoch"]
    if (wanted := config.trainer.max_epochs) < done:
        raise ValueError(
            f"trainer.max_epochs={wanted}: {done} epochs are done; allowed: {done} or more"
        )
    try:
        check_same(config, folder)
    except ValueError as e:
        if not config.force:
            raise
        print(f"not the run that it was, by force: {e}", file=sys.stderr)


def check_same(config: DictConfig, folder: Path) -> None:
    """Raises ValueError where a configuration would turn the run in a folder into another one.

    It names each key that has another value now; what changes no weight may be changed.
    """
    if not (folder / CONFIG).is_file():
        return
    before, now = flat(OmegaConf.load(folder / CONFIG)), flat(config)
    free = UNRELATED
    laid_out = config.scheduler.name in ("OneCycleLR", "CosineAnnealingLR")
    # a run that ended with averaged weights has no others left to go on from
    averaged = config.callbacks.get("averaging")
    if laid_out or config.data.clean_epochs or averaged:  # for a number of epochs
        free = [key for key in UNRELATED if key != "trainer.max_epochs"]
    changed = [
        key
        for key in {**now, **before}
        if now.get(key) != before.get(key) and not key.startswith(tuple(free))
    ]
    if changed:
        faults = [
            f"{key}={shown(now.get(key))}: trained with {shown(before.get(key))} so far"
            for key in changed[:3]
        ]
        more = [f"and {len(changed) - 3} keys more"] if len(changed) > 3 else []
        raise ValueError(
            f"{'; '.join(faults + more)}; allowed with force=true, as a run that is not exact"
        )


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Every value of a configuration by its whole key, as written: interpolations as such."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {key: node}
    inner = (flat(value, f"{key}.{name}".lstrip(".")) for name, value in node.items())
    return dict(itertools.chain.from_iterable(values.items() for values in inner))
