"""A run's folder: who owns it, what is of one moment in it, and how the run is resumed.

A process claims a folder before it changes anything in it, and holds its lock until the run ends.
A run begins in a new or empty folder, or where a run of this project ended without a checkpoint.
Only `checkpoints/last.ckpt` of the same folder resumes a run; from any other checkpoint a new run
starts, in a folder of its own that gets a copy. What a run replaces or removes is known by name.
"""

import atexit
import contextlib
import copy
import ctypes
import functools
import itertools
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_cnn.command import SIGPIPE
from mnist_cnn.config import (
    USER_ERRORS,
    Interrupted,
    check,
    check_here,
    compose,
    must_be,
    one_line,
    run_name,
    shown,
)
from mnist_cnn.threads import sleep_at_barriers_if_busy

# Hydra writes them into each run's folder
OVERRIDES, CONFIG, HYDRA = (Path(".hydra", f"{s}.yaml") for s in ("overrides", "config", "hydra"))
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")
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
    "trainer.devices",
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
WEIGHTS, PICTURE = "weights.safetensors", "history.png"
OUTCOME = (
    RESULTS,
    FAILED,
    PRUNED,
    WEIGHTS,
    PICTURE,
)  # stale as soon as there is a newer checkpoint

claimed: dict[Path, FileLock] = {}  # the folders that this process has claimed


class TakenError(ValueError):
    """A folder is not this run's: another process trains in it, or something else lies there."""


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
        if cfg.ckpt_path is not None and Path(cfg.ckpt_path).is_dir():  # as on the command line
            cfg = copy.deepcopy(cfg)
            cfg.ckpt_path = str(Path(cfg.ckpt_path) / LAST)
        try:
            claim(folder, cfg)
        except TakenError:
            raise
        except ValueError as e:
            if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
                note_failure(folder, e)  # a sweep has made the job's folder already
            raise
        try:
            for file in (FAILED, PRUNED):
                (folder / file).unlink(missing_ok=True)
            if cfg.ckpt_path is not None and not (folder / LAST).exists():
                copy_checkpoint(Path(cfg.ckpt_path), folder)
            if not by_hydra(folder):
                note_configuration(cfg, folder)
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
            # a finished run that could not be made longer is still the finished run that it was
            if not (folder / RESULTS).exists():
                note_failure(folder, e)
            if isinstance(e, OSError) and (folder / LAST).exists():
                raise OSError(f"{e}; when that is mended go on with ckpt_path={folder}") from e
            raise
        finally:
            release(folder)

    return alone


def claim(folder: Path, cfg: DictConfig, written: Collection[str] = ()) -> None:
    """Makes a folder this run's before anything in it changes; nothing where it is so already.

    Args:
        folder: made where it is missing.
        cfg: the run's configuration.
        written: names in the folder that are this run's all the same.

    Raises:
        TakenError: the folder is not free for this run.
        ValueError: the configuration is not allowed, or does not belong to its checkpoint.
    """
    if folder.absolute() in claimed:
        return
    check_run(cfg)
    resumed = cfg.ckpt_path is not None and same(Path(cfg.ckpt_path), folder / LAST)
    if not resumed and not (folder / LOCK).exists():
        check_free(folder, written)  # first: a lock would be the run's mark
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=1)
        lock.acquire()
    except Timeout:
        raise TakenError(f"run_dir={folder}: another process is training there") from None
    except OSError as e:
        where = "; a new run from it can be written elsewhere: hydra.run.dir=FOLDER"
        raise TakenError(f"{folder} cannot be written: {e.strerror}{where * resumed}") from None
    claimed[folder.absolute()] = lock
    try:
        if not resumed:
            check_free(folder, written)
            clear(folder)
    except BaseException:
        release(folder)
        raise


def release(folder: Path) -> None:
    claimed.pop(folder.absolute()).release()


def same(path: Path, other: Path) -> bool:
    return path.expanduser().resolve() == other.expanduser().resolve()


def check_free(folder: Path, written: Collection[str]) -> None:
    """Raises TakenError where a new run would mix with what lies in a folder."""
    found = [path.name for path in folder.iterdir()] if folder.exists() else []
    others = sorted(set(found) - {LOCK, *written})
    advice = f"resume it with ckpt_path={folder}, or choose another folder"
    if SWEEP in found:
        what = f"a sweep; {advice}"
    elif LOCK not in found:
        what = f"{others[0]}; choose another folder" if others else ""
    elif {RESULTS, WEIGHTS} & set(found):
        what = f"a finished run; {advice}"
    else:
        what = f"a run; {advice}" if any(folder.glob("checkpoints/*.ckpt")) else ""
    if what:
        raise TakenError(f"run_dir must be a new or empty folder, got {folder}, which holds {what}")


def clear(folder: Path) -> None:
    """Removes what a run has left in its folder, and nothing that anybody else may have put there.

    The log and the configuration stay.
    """
    events = folder.glob("tensorboard/**/events.out.tfevents.*")
    unfinished = folder.glob("checkpoints/*.new")
    named = (folder / name for name in (*OUTCOME, "history.csv", LAST, BEST))
    for file in (*events, *unfinished, *named):
        file.unlink(missing_ok=True)


def copy_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Copies a checkpoint to where a new run starts from, and the best one where it is there."""
    from mnist_cnn import results, trained

    def copy_to(place: Path, file: Path) -> None:
        new = place.with_suffix(".new")
        shutil.copyfile(file, new)
        results.replace(new, place)

    (folder / LAST).parent.mkdir(exist_ok=True)
    state = trained.read_checkpoint(checkpoint)["callbacks"].get("Checkpoint", {})
    for file in (checkpoint, checkpoint.with_name(BEST.name)):
        if file.is_file() and not damage(file):
            content = trained.read_checkpoint(file)
            between_epochs = "tally" not in content["processes"][0]
            if between_epochs and content["epoch"] == state.get("best_epoch"):
                copy_to(folder / BEST, file)
                break
    copy_to(folder / LAST, checkpoint)


def check_evaluation(folder: Path) -> None:
    """Raises TakenError where an evaluation would mix with what it did not write in a folder."""
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(found - {"evaluate.log", ".hydra.new"})  # of one that ended at once
    evaluated = "evaluation.json" in found
    if (folder / CONFIG).is_file():
        evaluated |= "split" in OmegaConf.load(folder / CONFIG)
    if (folder / SWEEP).is_file():
        evaluated |= OmegaConf.load(folder / SWEEP).hydra.job.config_name == "evaluate"
    if others and (LOCK in found or not evaluated):
        what = "a run" if LOCK in found else others[0]
        raise TakenError(
            f"run_dir must be a new or empty folder or an evaluation's, got {folder}, which holds "
            f"{what}; choose another folder with hydra.run.dir"
        )


def note_failure(folder: Path, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # the disk may be what failed
        note(folder / FAILED, type=type(error).__name__, error=str(error), traceback=trace)


def note(path: Path, **content: Any) -> None:
    from mnist_cnn import results  # after torch, which a mistake does not need

    results.write(content, path)


def by_hydra(folder: Path) -> bool:
    """Whether Hydra started this run, and has written its configuration into the folder."""
    if not HydraConfig.initialized():
        return False
    return folder.resolve() == Path(HydraConfig.get().runtime.output_dir).resolve()


def note_configuration(cfg: DictConfig, folder: Path) -> None:
    """Writes a run's configuration as Hydra does, so that the command line can resume the run.

    Its overrides are those that make it of the default configuration, wherever it came from.
    """
    (folder / OVERRIDES.parent).mkdir(exist_ok=True)
    values = OmegaConf.to_container(cfg)
    default = OmegaConf.to_container(compose(run_dir="."))
    changed = [o for o in differences(default, values) if not o.startswith(("run_", "force="))]
    changed.append(f"run_name={quote(cfg.run_name)}")  # also none: TensorBoard's folder has it
    OmegaConf.save(cfg, folder / CONFIG)
    OmegaConf.save(OmegaConf.create(changed), folder / OVERRIDES)


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """The overrides that make one plain configuration of another."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now and type(before) is type(now) else [f"{key}={written(now)}"]
    found = [f"~{key}.{name}".replace("~.", "~") for name in before if name not in now]
    for name, value in now.items():
        inner = f"{key}.{name}".lstrip(".")
        if name in before:
            found += differences(before[name], value, inner)
        else:
            found.append(f"+{inner}={written(value)}")
    return found


def written(value: Any) -> str:
    """A plain value as Hydra's grammar takes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return literal(value) if isinstance(value, str) else shown(value)


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


class ClaimFolder(Callback):
    """Gives each run and each evaluation a folder of its own, before Hydra writes anything."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        sleep_at_barriers_if_busy()
        entry = config.hydra.job.config_name
        try:
            task = task_of(config)
            if entry == "train":
                check_run(task)
            else:
                check(task, entry)
            if (search := config.hydra.runtime.choices.get("hparams_search")) is not None:
                raise ValueError(f"hparams_search={search}: a search is a sweep: add -m")
            if entry == "train":
                check_processes(task.trainer.strategy == "ddp")
                if task.data.batch_size < (n := processes()):
                    raise ValueError(
                        f"data.batch_size must be at least {n}, an image for each process, "
                        f"got {task.data.batch_size}"
                    )
            if rank() == 0:
                name_folder(config, "run")
                if entry == "train":
                    claim(Path(config.hydra.run.dir), task)
                else:
                    check_evaluation(Path(config.hydra.run.dir))
        except USER_ERRORS as e:  # Hydra would turn them into warnings
            sys.exit(one_line(e) if rank() == 0 else 1)
        if processes() > 1:
            join(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Puts what Hydra has written of a run into its place: all of it, or what was there."""
        if config.hydra.output_subdir is None:
            return
        folder = Path(config.hydra.runtime.output_dir)
        written = folder / config.hydra.output_subdir
        if config.hydra.job.config_name == "train":
            task = task_of(config)
            if (folder / LAST).is_file():  # a job of a sweep is resumed
                task.ckpt_path = str(folder / LAST)
            try:
                claim(folder, task, [written.name, f"{config.hydra.job.name}.log"])
            except TakenError:  # training says so
                shutil.rmtree(written)
                return
            except ValueError:  # this, too, but the folder is the job's
                (folder / LOCK).touch()
        (folder / OVERRIDES.parent).mkdir(exist_ok=True)
        for file in sorted(written.iterdir()):  # config.yaml is the first
            file.replace(folder / OVERRIDES.parent / file.name)
        written.rmdir()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sleep_at_barriers_if_busy()
        try:
            if processes() > 1:
                raise ValueError("torchrun starts the processes of one run; allowed: no -m with it")
            if config.hydra.job.config_name != "train":
                name_folder(config, "sweep")  # training's own sweeper first looks at all jobs
                check_evaluation(Path(config.hydra.sweep.dir))
        except USER_ERRORS as e:
            sys.exit(one_line(e) if rank() == 0 else 1)


def task_of(config: DictConfig) -> DictConfig:
    """What Hydra hands to a job of this configuration, before its folder is known.

    Raises:
        ValueError: run_dir was set, which would split the run over two folders.
    """
    written: Any = OmegaConf.to_container(config, resolve=False)
    if written["run_dir"] != "${hydra:runtime.output_dir}":
        raise ValueError("run_dir must be the run's own folder; set hydra.run.dir instead")
    task = copy.deepcopy(config)
    with open_dict(task):
        del task["hydra"]
        task.run_dir = task.run_name = "."
    return task


def processes() -> int:
    """How many processes torchrun started to train together, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def torchrun() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_WORLD_SIZE" in os.environ


def rank() -> int:
    """Which of them this one is, from 0; one of them writes the run's files: 0."""
    return int(os.environ.get("RANK", 0))


def check_processes(ddp: bool) -> None:
    """Raises ValueError unless trainer=ddp and torchrun come together."""
    if ddp and not torchrun():
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


def name_folder(config: DictConfig, kind: str) -> None:
    """Makes the folder hydra.<kind>.dir, under another name where it exists already.

    A folder that was asked for by name, as in resuming a run, keeps its name.
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
    given = next(
        (a.split("=", 1)[1] for a in argv if a.lstrip("+").startswith("ckpt_path=")), "null"
    ).strip("'\"")
    if not given:  # as of a variable of the shell that is not set
        raise ValueError(must_be("ckpt_path", "a folder, a file or null", given))
    rest = [a for a in argv if not a.lstrip("+").startswith("ckpt_path=")]
    return None if given == "null" else given, rest


def resume(argv: Sequence[str]) -> list[str]:
    """The command line that does with the run or the sweep in `ckpt_path=` what is asked.

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
    places = [a.split("=", 1)[1].strip("'\"") for a in command if a.startswith("hydra.run.dir=")]
    in_place = checkpoint == folder / LAST and all(same(Path(p), folder) for p in places[-1:])
    if (folder / OVERRIDES).is_file():
        recorded = [str(o) for o in OmegaConf.load(folder / OVERRIDES)]
        # a new run from a checkpoint that has not copied it yet starts from it again
        started = ["ckpt_path="] if checkpoint.is_file() else []
        again = unchanged(recorded, [*started, "force=", "hparams_search=", *command])
        again = [a for a in again if not a.lstrip("+~").startswith("callbacks.prune")]
        if (folder / HYDRA).is_file():
            again += unchanged(search_path(OmegaConf.load(folder / HYDRA).hydra), command)
        if in_place:
            if not any(a.startswith("run_name=") for a in (*again, *command)):
                again.append(f"run_name={quote(run_name(recorded))}")
            command = [*command, f"hydra.run.dir={quote(folder)}"]
        command = [*again, *command]
    if checkpoint.is_file():
        command.append(f"ckpt_path={quote(checkpoint)}")
    return command


def resume_sweep(folder: Path, command: Sequence[str]) -> list[str]:
    """The command line that goes on with a sweep, launcher and sweeper included."""
    hydra = OmegaConf.load(folder / SWEEP).hydra
    if hydra.job.config_name != "train":
        raise ValueError(f"ckpt_path={folder}: not a sweep of mnist_cnn.train")
    given = [a for a in command if a not in ("-m", "--multirun")]
    not_again = ["hydra.mode=", "hydra.sweep.dir=", "hydra.searchpath=", *given]
    own = unchanged(hydra.overrides.hydra, not_again) + unchanged(search_path(hydra), given)
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
    """The files of the networks that an evaluation is given, each once.

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
        files += [trained.find(job).resolve() for job in finished]
    if not files:
        raise ValueError("[]: allowed: runs' or sweeps' folders, checkpoints, weights files")
    return list(dict.fromkeys(files))


def as_trained(argv: Sequence[str]) -> list[str]:
    """The command line of an evaluation, filled up with the data that its networks were trained on.

    The set, where it lies (if it still does), its normalisation and the split into training and
    validation come from the checkpoint or weights file, of several the first; what is given now
    comes after them. A normalisation that is not the same for all is left to each network. A
    checkpoint of a run is evaluated in `evaluation/` of the run's folder, a sweep in that of its
    own.

    Raises:
        ValueError: there is no such file or folder, or it is not one of this project's; or the
            networks were trained on different sets.
    """
    from mnist_cnn import trained  # after torch, which --help does not need

    given, command = take_ckpt_path(argv)
    paths = listed(given)
    try:
        files = networks(paths)
        nets = trained.load_all(files)
    except ValueError as e:
        raise ValueError(f"ckpt_path={e}") from None
    trained_on = [net.about["data"] for net in nets]
    data = trained_on[0]
    alike = [key for key in ("mean", "std") if len({other[key] for other in trained_on}) == 1]
    filled = [f"data.{key}={data[key]}" for key in (*alike, "val_fraction", "fold")]
    if root := trained.data_root(nets[0]):
        filled.append(f"data.root={quote(root)}")
    if not any(a.startswith("data=") for a in command):
        filled = [f"data={data['name']}", *filled]
    file = files[0]
    home = file.parents[1] if file.parent.name == LAST.parent.name else file.parent
    if paths[0] is not None and is_sweep(paths[0]):
        home = Path(paths[0]).expanduser().resolve()
    if len(paths) == 1 and (is_sweep(home) or (home / OVERRIDES).is_file()):
        kept = file.stem in ("best", "weights")
        what = [] if kept else [file.stem]
        what += [a for a in command if a.startswith(("data", "shifts=", "temperature="))]
        name = ",".join(["${split}", *(re.sub(r"[^\w.=+-]+", "_", part) for part in what)])
        place = quote(home / "evaluation").removesuffix("'")  # ${split} is no part of the path yet
        command = [f"hydra.run.dir={place}/{name}'", *command]
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
    return literal(re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path)))


def literal(text: str) -> str:
    """The same, but an interpolation stays one."""
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
        return f"not a checkpoint that training can resume: {e}"
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


def check_run(config: DictConfig) -> None:
    """Raises ValueError where a configuration is not allowed, or does not belong to its checkpoint.

    A run that is made another one by force is told of on stderr.
    """
    if config.ckpt_path is not None:
        check_checkpoint(Path(config.ckpt_path))  # first: the logger reads it too
    check(config)
    check_here(config)
    if config.ckpt_path is None:
        return
    from mnist_cnn import trained

    checkpoint = trained.read_checkpoint(config.ckpt_path)
    done = checkpoint["epoch"]
    if (wanted := config.trainer.max_epochs) < done:
        raise ValueError(
            f"trainer.max_epochs={wanted}: {done} epochs are done; allowed: {done} or more"
        )
    try:
        if before := checkpoint.get("config"):  # those of earlier versions have none
            check_same(before, config)
    except ValueError as e:
        if not config.force:
            raise
        if rank() == 0:
            print(f"not the run that it was, by force: {e}", file=sys.stderr)


def check_same(before: Mapping[str, Any], config: DictConfig) -> None:
    """Raises ValueError where a configuration would turn a run into another one.

    It names each key that has another value now; what changes no weight may be changed.

    Args:
        before: `flat` of the configuration that the checkpoint was trained with.
        config: the one that is to go on from it.
    """
    now = flat(config)
    free = UNRELATED
    laid_out = config.scheduler.name in ("OneCycleLR", "CosineAnnealingLR")
    # a run that ended with averaged weights has no others left to go on from
    averaged = config.callbacks.get("averaging")
    if laid_out or config.data.clean_epochs or averaged:  # for a number of epochs
        free = [key for key in free if key != "trainer.max_epochs"]
    if str(config.trainer.limit_val_batches) != "1.0":  # so many batches: it chooses the images
        free = [key for key in free if key != "data.eval_batch_size"]
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
