"""A run's folder: its lock, its recorded configuration and how the run ended.

Starting a run again in its folder resumes it, or returns its results if it has finished.
"""

import contextlib
import json
import logging
import os
import shlex
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

# held while a process works in the folder; the system releases it after a kill. Its name, not its
# content, marks the folder of a run: older releases of filelock empty the file
LOCK = ".mnist_cnn.lock"
SWEEP = "sweep.yaml"  # in the folder of a sweep
PENDING = f"{SWEEP}.new"  # with a command none of whose jobs has been opened yet
RESULTS, FAILED, PRUNED = "results.json", "failed.json", "pruned.json"
CONFIG, OVERRIDES, HYDRA = (Path(".hydra", f"{s}.yaml") for s in ("config", "overrides", "hydra"))
OF_EPOCH = ("epoch", "lr", "seconds", "images/s")  # columns of history.csv that are not metrics
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")
WEIGHTS = "weights.safetensors"

State = Literal["running", "finished", "failed", "pruned", "interrupted", "new"]
Flat = dict[str, Any]  # the values of a configuration by their full keys
Changes = dict[str, tuple[Any, Any]]  # by full key, the recorded and the new value


class FolderInUseError(ValueError):
    """Another process is using the folder."""


class Pruned(Exception):  # noqa: N818, it is no error
    """A search pruned a run: `epoch` (from 1), `metric` and `value` say when and why."""

    def __init__(self, epoch: int, metric: str, value: float):
        super().__init__(f"pruned after epoch {epoch}: {metric}={value:.4f}")
        self.epoch, self.metric, self.value = epoch, metric, value


class RunFolder:
    """The folder of one run, opened before anything else is done for the run.

    Args:
        depends_on: selects from a flat configuration the values that the results depend on.
        extendable: returns the keys among these that may change when the run is resumed.
        ended: returns why a checkpoint leaves nothing to train; empty if it leaves something.
        stale: further files of the results, removed when a newer checkpoint outdates them; a name
            may have a `*`.
        log: the name of the log file in the folder.

    Attributes, once it is opened:
        results: the content of results.json; None if no run with this configuration has finished.
        last: the checkpoint to resume from; None if there is none.
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
        # a report asks for the state of a run within a second
        self.lock = lock_of(self.path, timeout=1)
        self.results: dict[str, Any] | None = None
        self.last: Path | None = None
        self.values: dict[str, Any] = {}
        self.is_forced = False  # whether the values differ from those recorded, by force=true
        self.pending: dict[Path, Any] = {}  # files that will record the configuration

    @contextlib.contextmanager
    def opened(self, values: Mapping[Any, Any]) -> Iterator["RunFolder"]:
        """Lock the folder; record the configuration, or compare it with the recorded one.

        An exception inside is recorded in failed.json or pruned.json.

        Args:
            values: the resolved configuration. With `force` it may differ from the recorded one;
                with `ckpt_path` it is compared with that of the checkpoint's run.

        Raises:
            FolderInUseError: another process is using the folder.
            ValueError: the folder has other files, or a run with another configuration.
        """
        self.values = dict(values)
        accelerator = flat(values).get("trainer.accelerator")
        broadcast = partial(ranks.broadcast, accelerator=accelerator)
        if ranks.rank() > 0:  # rank 0 opens the folder
            self.results, self.last = broadcast([None, None])
            yield self
            return
        self.check_free()
        if self.path.is_dir() and not os.access(self.path, os.W_OK):
            for line in self.compare():
                print(line, file=sys.stderr)
            if self.results is None:
                raise ValueError(f"{self.path} must be a folder that can be written")
            broadcast([self.results, self.last])
            yield self  # a finished run is only read
            return
        if not (self.path / LOCK).exists():
            self.compare()  # a new run that is refused leaves no lock: it would count as one
        with self.locked():
            for line in self.compare():
                print(line, file=sys.stderr)
            sweep = self.path.parent
            if (sweep / LOCK).exists():
                with contextlib.suppress(FileNotFoundError):  # the sweep's command is valid
                    replace(sweep / PENDING, sweep / SWEEP)
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

    def check(self, values: Mapping[Any, Any]) -> None:
        """Raise ValueError if the folder has other files, or records another configuration."""
        self.values = dict(values)
        self.check_free()
        self.compare()

    def check_free(self) -> None:
        """Raise ValueError if there is anything but a run in the folder."""
        found = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        if is_sweep(self.path):
            raise ValueError(f"{self.path} is the folder of a sweep; choose another folder")
        found = [name for name in found if name == self.log or name != hydra_log()]
        if found and LOCK not in found:
            raise ValueError(f"{self.path} must be empty or a run's, has {found[0]}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        except Timeout:
            raise FolderInUseError(f"{self.path}: another process is at work there") from None
        except OSError as e:  # a file system without locks
            raise OSError(f"{self.path}: no lock can be held there: {e.strerror}") from e
        try:
            yield
        finally:
            self.lock.release()

    def compare(self) -> list[str]:
        """Compare the configuration with the recorded one; read the results if they still hold.

        Returns:
            Lines to say if the run is opened.

        Raises:
            ValueError: a value that the results depend on has changed, and the change is not
                allowed.
        """
        self.pending = record(self.values, self.path)
        last, recorded = self.path / LAST, self.path / CONFIG
        start = last if last.is_file() else self.values.get("ckpt_path")
        if start and not recorded.exists():
            recorded = Path(start).absolute().parent.parent / CONFIG
        if not recorded.is_file():
            return []
        now = flat(as_recorded(self.values))
        before = flat(OmegaConf.to_container(OmegaConf.load(recorded)))
        changed = differences(self.depends_on(before), self.depends_on(now))
        if all(flag is None or isinstance(flag, bool) for flag in changed.get("force", ())):
            changed.pop("force", None)  # how to resume, and no value of the user's
        # another run's is used by a new run alone
        given = now.get("ckpt_path")
        own = None, str(self.path), str(last), before.get("ckpt_path")
        if last.is_file() and given not in own:
            changed["ckpt_path"] = before.get("ckpt_path"), given
        ended = self.ended(Path(start)) if changed and start else ""
        allowed = {key: changed[key] for key in self.extendable(now) if key in changed}
        lines = []
        if refused := {key: changed[key] for key in changed if key not in allowed}:
            self.is_forced = self.values.get("force") is True
            lines += [self.force(refused, ended, recorded.parent.parent)]
        # steps, such as the test
        added = {key for key, change in allowed.items() if change == (False, True)}
        left_out = {key for key, change in allowed.items() if change == (True, False)}
        longer = changed.keys() - added - left_out
        if longer and ended:
            lines += [f"{self.path}: nothing is left to train: {ended}"]
        results = self.path / RESULTS
        # they hold if a step is left out, not if one is added or the training goes on
        if results.exists() and not added and (not longer or (ended and left_out)):
            self.results = read_json(results)
        return lines

    def force(self, changed: Changes, ended: str, of: Path) -> str:
        """Return a line on values that differ from those of the run in the folder `of`.

        Raises:
            ValueError: they are not forced, or no training is left to do.
        """
        keys = [
            f"{key} must be {old} as recorded, got {new}" for key, (old, new) in changed.items()
        ]
        text = f"{of}: {'; '.join(keys)}"
        key = "force" if "force" in self.values else "+force"  # Hydra's sign for a new key
        if not self.is_forced:
            raise ValueError(f"{text}; {key}=true resumes it all the same, not exactly")
        if ended:  # only the record would change, and become wrong
            raise ValueError(f"{text}; {key}=true has nothing to resume: {ended}")
        return f"forced: {text}"

    def check_forced(self) -> None:
        """Raise ValueError if values were forced, but no checkpoint was written with them."""
        if self.is_forced and self.pending:
            raise ValueError(f"{self.path}: force=true has trained nothing with the new values")

    def outdate(self) -> None:
        """Remove the results, outdated by a newer checkpoint, and record its configuration."""
        for file in [file for name in self.stale for file in self.path.glob(name)]:
            file.unlink()
        self.commit()

    def commit(self) -> None:
        """Record the configuration."""
        for name, content in self.pending.items():
            file = self.path / name
            file.parent.mkdir(exist_ok=True)
            with replacing(file) as new:
                OmegaConf.save(content, new)
        self.pending = {}

    def finish(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Write results.json, the last file of a run: it implies that all others exist."""
        self.commit()
        write_json({KEY: VERSION, **results}, self.path / RESULTS)
        return dict(results)

    def note_failure(self, error: Exception) -> None:
        if (self.path / RESULTS).exists():  # a finished run that could not be extended
            return
        trace = "".join(traceback.format_exception(error))
        failure = {"type": type(error).__name__, "error": str(error), "traceback": trace}
        with contextlib.suppress(OSError):  # the disk itself may have failed
            write_json(failure, self.path / FAILED)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        try:
            yield
        except Pruned as e:
            write_json(vars(e), self.path / PRUNED)
            raise
        except BaseException as e:  # Rich exits if its output pipe is closed
            if stop := interrupted(e, how_to_resume(self.path)):
                raise stop from None
            if isinstance(e, Exception):
                self.note_failure(e)
                e.failed_in = self.path  # type: ignore[attr-defined]  # it was not refused
            raise

    @contextlib.contextmanager
    def logged(self) -> Iterator[None]:
        """Also write what is logged inside to a file in the folder."""
        root = logging.getLogger()
        if (self.path / self.log).is_symlink():
            cleared(self.path / self.log)
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


def lock_of(folder: Path, timeout: float = 0) -> FileLock:
    """Return the lock of a folder; its file, which marks the folder, stays when it is released."""
    return FileLock(folder / LOCK, timeout=timeout, preserve_lock_file=True)


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is a sweep's: other programs have a sweep.yaml, too."""
    return (folder / LOCK).exists() and (folder / SWEEP).is_file()


def as_recorded(values: Mapping[Any, Any]) -> Any:
    """Return a configuration as it is read from the file that records it: an Enum as its name."""
    return OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(values)))


def how_to_resume(folder: Path) -> str:
    """Return what resumes a run: ckpt_path repeats a command, which a Python program has not."""
    if (folder / OVERRIDES).is_file():
        return f"resume it with ckpt_path={shlex.quote(str(folder))}"
    return f"the call that started {folder} resumes it"


def record(values: Mapping[Any, Any], folder: Path) -> dict[Path, Any]:
    """Return the files that record a configuration; the last one implies the others."""
    content: dict[Path, Any] = {CONFIG: values}
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or Path(hydra.runtime.output_dir).absolute() != folder:
        return content
    return {OVERRIDES: hydra.overrides.task, HYDRA: {"hydra": hydra}, **content}


def hydra_log() -> str:
    """Return the name of the log file that Hydra opens in a job's folder before calling the job."""
    return f"{HydraConfig.get().job.name}.log" if HydraConfig.initialized() else ""


def flat(node: Any, key: str = "") -> Flat:
    """Flatten a plain configuration to values by full key: {"a": {"b": 1}} to {"a.b": 1}."""
    if not (isinstance(node, Mapping) and (node or not key)):
        return {key: node}
    found: Flat = {}
    for name, value in node.items():
        found |= flat(value, f"{key}.{name}".lstrip("."))
    return found


def differences(old: Flat, new: Flat) -> Changes:
    """Return the keys whose values differ, with both values; a missing key counts as None."""
    pairs = {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())}
    # NaN differs from itself
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b and repr(a) != repr(b)}


def state(folder: Path) -> State:
    """Return the state of a run, from the files in its folder; `new` if it has not begun."""
    if (folder / LOCK).exists():
        try:
            with lock_of(folder):
                pass
        except Timeout:
            return "running"
        except OSError:  # this user cannot write to the folder
            pass
    ends: dict[str, State] = {RESULTS: "finished", FAILED: "failed", PRUNED: "pruned"}
    ends[LOCK] = "interrupted"
    return next((end for file, end in ends.items() if (folder / file).exists()), "new")


def remove_empty(folder: Path) -> None:
    """Remove the folder that Hydra has just made for a run, unless something lies in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def read_json(path: Path) -> dict[str, Any]:
    """Read what write_json wrote; ValueError if it is damaged or of another format version."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not an object of JSON")
        check_format(content)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
    return {key: value for key, value in content.items() if key != KEY}


def write_json(content: Mapping[str, Any], path: Path) -> None:
    with replacing(path) as new:
        new.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n", "utf-8")


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield the path of a new file, which then replaces `file` atomically."""
    new = cleared(file.with_suffix(".new"))
    try:
        yield new
        replace(new, file)
    except OSError:  # most likely a full disk: free what was taken
        new.unlink(missing_ok=True)
        raise


def cleared(path: Path) -> Path:
    """Return a path to write to after removing what is there: a link would lead elsewhere."""
    path.unlink(missing_ok=True)
    return path


def replace(new: Path, old: Path) -> None:
    """Replace a file atomically: after a power failure, either the old or the new one is whole."""
    with new.open("r+b") as file:  # Windows syncs no file that is open for reading only
        os.fsync(file.fileno())
    new.replace(old)
