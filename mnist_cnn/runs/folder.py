"""A run's folder: who is at work in it, with which configuration, and how that ended.

Calling a run again finishes what lies in its folder, or returns what is finished.
"""

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mnist_cnn.runs import ranks
from mnist_cnn.runs.file_format import KEY, VERSION, check_format, finite
from mnist_cnn.runs.signals import interrupted

# held while a process works in the folder; the system releases it after a kill. Its name alone says
# that the folder is a run's: older releases of filelock empty the file
LOCK = ".mnist_cnn.lock"
SWEEP = "sweep.yaml"  # in the folder of a sweep
PENDING = f"{SWEEP}.new"  # with the command of which no job has been opened yet
RESULTS, FAILED, PRUNED = "results.json", "failed.json", "pruned.json"
CONFIG, OVERRIDES, HYDRA = (Path(".hydra", f"{s}.yaml") for s in ("config", "overrides", "hydra"))
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")

State = Literal["running", "finished", "failed", "pruned", "interrupted", "new"]
Flat = dict[str, Any]  # the values of a configuration by their whole keys
Changes = dict[str, tuple[Any, Any]]  # by such keys, the value as recorded and the one of now


class FolderInUseError(ValueError):
    """Another process works in the folder."""


class Pruned(Exception):  # noqa: N818, it is no error
    """A search pruned a run: `epoch` (from 1), `metric` and `value` say when and why."""

    def __init__(self, epoch: int, metric: str, value: float):
        super().__init__(f"pruned after epoch {epoch}: {metric}={value:.4f}")
        self.epoch, self.metric, self.value = epoch, metric, value


class RunFolder:
    """The folder of one run. It is opened before anything is done for the run.

    Args:
        depends_on: picks from a flat configuration what the results depend on.
        extendable: the keys among these with another value of which the run can be finished anew.
        ended: says why a checkpoint leaves nothing to train; empty where it leaves something.
        stale: files of the results, which are removed when a newer checkpoint makes them so.
        log: the file in the folder that gets what is logged.

    Attributes, once it is opened:
        results: what results.json holds; None where the run has not ended with this configuration.
        last: the checkpoint to resume from; None where there is none.
        values: the configuration that is recorded.
    """

    def __init__(
        self,
        path: Path | str,
        depends_on: Callable[[Flat], Flat] = dict,
        extendable: Callable[[Flat], Collection[str]] = lambda config: (),
        ended: Callable[[Path], str] = lambda checkpoint: "",
        stale: Collection[str] = (),
        log: str = "run.log",
    ):
        self.path = Path(path).absolute()
        self.depends_on, self.extendable, self.ended = depends_on, extendable, ended
        self.stale, self.log = (RESULTS, FAILED, PRUNED, *stale), log
        self.lock = FileLock(self.path / LOCK, timeout=0)
        self.results: dict[str, Any] | None = None
        self.last: Path | None = None
        self.values: dict[str, Any] = {}
        self.pending: dict[Path, Any] = {}  # what is to be recorded of the configuration

    @contextlib.contextmanager
    def opened(self, values: Mapping[Any, Any]) -> Iterator["RunFolder"]:
        """Lock the folder; record the configuration, or compare it with the recorded one.

        What is raised inside is noted in failed.json, or in pruned.json.

        Args:
            values: the resolved configuration. With `force` it may differ from the recorded one;
                with `ckpt_path` it is compared with the checkpoint's run.

        Raises:
            FolderInUseError: another process works there.
            ValueError: something else lies there, or a run with another configuration.
        """
        self.values = dict(values)
        accelerator = flat(values).get("trainer.accelerator")
        broadcast = partial(ranks.broadcast, accelerator=accelerator)
        if ranks.rank() > 0:  # rank 0 has the folder
            self.results, self.last = broadcast([None, None])
            yield self
            return
        self.check_free()
        if self.path.is_dir() and not os.access(self.path, os.W_OK):
            self.compare()
            if self.results is None:
                raise ValueError(f"{self.path} must be a folder that can be written")
            broadcast([self.results, self.last])
            yield self  # what has ended is read alone
            return
        with self.locked():
            self.compare()
            with contextlib.suppress(FileNotFoundError):  # the command of its sweep is no mistake
                replace(self.path.parent / PENDING, self.path.parent / SWEEP)
            if (self.path / LAST).is_file():
                self.last = self.path / LAST
            if not (self.path / CONFIG).exists():
                self.commit()
            if self.results is None:
                (self.path / FAILED).unlink(missing_ok=True)
                (self.path / PRUNED).unlink(missing_ok=True)
            broadcast([self.results, self.last])
            with self.logged(), self.ending():
                yield self

    def check_free(self) -> None:
        """Raise ValueError where anything but a run lies in the folder."""
        found = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        if SWEEP in found:
            raise ValueError(f"{self.path} is the folder of a sweep; choose another folder")
        found = [name for name in found if name != hydra_log()]
        if found and LOCK not in found:
            raise ValueError(f"{self.path} must be empty or a run's, has {found[0]}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        except Timeout:
            raise FolderInUseError(f"{self.path}: another process is at work there") from None
        try:
            yield
        finally:
            self.lock.release()

    def compare(self) -> None:
        """Raise ValueError where the results would depend on another configuration."""
        now = flat(self.values)
        self.pending = record(self.values, self.path)
        last, recorded = self.path / LAST, self.path / CONFIG
        start = last if last.is_file() else self.values.get("ckpt_path")
        if start and not recorded.exists():
            recorded = Path(start).absolute().parent.parent / CONFIG
        if not recorded.is_file():
            return
        before = flat(OmegaConf.to_container(OmegaConf.load(recorded)))
        changed = differences(self.depends_on(before), self.depends_on(now))
        ended = self.ended(Path(start)) if changed and start else ""
        allowed = {key: changed[key] for key in self.extendable(now) if key in changed}
        if refused := {key: changed[key] for key in changed if key not in allowed}:
            self.force(refused, ended, forced=bool(self.values.get("force")))
        # a step, as the test, that is left out now takes nothing from the results that are there
        off, on = ({key for key in allowed if allowed[key] == (not new, new)} for new in (0, 1))
        longer = changed.keys() - off - on
        if longer and ended:
            print(f"{self.path}: nothing is left to train: {ended}", file=sys.stderr)
        results = self.path / RESULTS
        if results.exists() and not on and (not longer or (ended and off)):
            self.results = read_results(results)

    def force(self, changed: Changes, ended: str, *, forced: bool) -> None:
        """Raise ValueError for changed values, unless they are forced on what is left to train."""
        keys = [
            f"{key} must be {old} as recorded, got {new}" for key, (old, new) in changed.items()
        ]
        text = f"{self.path}: {'; '.join(keys)}"
        if not forced:
            raise ValueError(f"{text}; force=true resumes it all the same, not exactly")
        if ended:  # only the record would change, and be false
            raise ValueError(f"{text}; force=true has nothing to resume: {ended}")
        print(f"forced: {text}", file=sys.stderr)

    def outdate(self) -> None:
        """Remove the results, which a newer checkpoint outdates, and record what made that."""
        for name in self.stale:
            (self.path / name).unlink(missing_ok=True)
        self.commit()

    def commit(self) -> None:
        """Record the configuration."""
        for name, content in self.pending.items():
            file = self.path / name
            file.parent.mkdir(exist_ok=True)
            new = file.with_suffix(".new")
            OmegaConf.save(content, new)
            replace(new, file)
        self.pending = {}

    def finish(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Write results.json, the last file: it says that all the rest is there."""
        self.commit()
        write_json({KEY: VERSION, **results}, self.path / RESULTS)
        return dict(results)

    def note_failure(self, error: Exception) -> None:
        if (self.path / RESULTS).exists():  # a finished run that could not be extended
            return
        trace = "".join(traceback.format_exception(error))
        failure = {"type": type(error).__name__, "error": str(error), "traceback": trace}
        with contextlib.suppress(OSError):  # the disk may be what failed
            write_json(failure, self.path / FAILED)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        try:
            yield
        except Pruned as e:
            write_json(vars(e), self.path / PRUNED)
            raise
        except BaseException as e:  # Rich ends the program where nobody reads what it prints
            if stop := interrupted(e, f"resume it with ckpt_path={self.path}"):
                raise stop from None
            if isinstance(e, Exception):
                self.note_failure(e)
            raise

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Write what is logged inside to the folder, too."""
        root = logging.getLogger()
        handler = logging.FileHandler(self.path / self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s"))
        level = root.level
        root.addHandler(handler)
        root.setLevel(min(level, logging.INFO))
        try:
            yield
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
            handler.close()


def record(values: Mapping[Any, Any], folder: Path) -> dict[Path, Any]:
    """Return the files that record a configuration; where the last one is, the others are."""
    content: dict[Path, Any] = {CONFIG: values}
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or Path(hydra.runtime.output_dir).absolute() != folder:
        return content
    return {OVERRIDES: hydra.overrides.task, HYDRA: {"hydra": hydra}, **content}


def hydra_log() -> str:
    """Return the name of the log that Hydra opens in a job's folder before the job is called."""
    return f"{HydraConfig.get().job.name}.log" if HydraConfig.initialized() else ""


def flat(node: Any, key: str = "") -> Flat:
    """The values of a plain configuration by their whole keys: {"a": {"b": 1}} has a.b."""
    if not (isinstance(node, Mapping) and (node or not key)):
        return {key: node}
    found: Flat = {}
    for name, value in node.items():
        found |= flat(value, f"{key}.{name}".lstrip("."))
    return found


def differences(old: Flat, new: Flat) -> Changes:
    """The keys whose values differ, with both; a key that is missing counts as null."""
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def state(folder: Path) -> State:
    """The state of a run, by the files in its folder; `new` where none has begun."""
    lock = folder / LOCK
    if lock.exists():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return "running"
        except OSError:  # a folder that only others may write
            pass
    ends: dict[str, State] = {RESULTS: "finished", FAILED: "failed", PRUNED: "pruned"}
    ends[LOCK] = "interrupted"
    return next((end for file, end in ends.items() if (folder / file).exists()), "new")


def read_results(path: Path) -> dict[str, Any]:
    """What RunFolder.finish was given; ValueError for a file of another version."""
    content = json.loads(path.read_text("utf-8"))
    try:
        check_format(content)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
    return {key: value for key, value in content.items() if key != KEY}


def write_json(content: Mapping[str, Any], path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n", "utf-8")
    replace(new, path)


def replace(new: Path, old: Path) -> None:
    """Put a finished file in another's place; after a power cut one of the two is there whole."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(old)
