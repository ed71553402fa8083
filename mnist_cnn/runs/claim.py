"""A run's folder: who owns it, and what is of one moment in it.

A process claims a folder before it changes anything in it, and holds its lock until the run ends.
A run begins in a new or empty folder, or where a run of this project ended without a checkpoint.
Only `checkpoints/last.ckpt` of the same folder resumes a run; from any other checkpoint a new run
starts, in a folder of its own that gets a copy. A run replaces and removes only files that it knows
by name.
"""

import contextlib
import copy
import functools
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.command import SIGPIPE
from mnist_cnn.internals.hydra import multirun, output_folder
from mnist_cnn.runs.checks import check_run, content, is_whole
from mnist_cnn.runs.launch import rank
from mnist_cnn.runs.resume import note_configuration, same
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.runs.state import (
    BEST,
    CONFIG,
    FAILED,
    LAST,
    LOCK,
    PICTURE,
    PRUNED,
    RESULTS,
    SWEEP,
    TRACKED,
    WEIGHTS,
    Pruned,
    note_failure,
    replace,
    write,
)

# stale as soon as there is a newer checkpoint
OUTCOME = (RESULTS, FAILED, PRUNED, WEIGHTS, PICTURE)

claimed: dict[Path, FileLock] = {}  # the folders that this process has claimed


class TakenError(ValueError):
    """A folder is not this run's: another process trains in it, or something else lies there."""


def recorded(
    train: Callable[[DictConfig], dict[str, Any]],
) -> Callable[[DictConfig], dict[str, Any]]:
    """Makes a run the only one in its folder, and leaves a file there if it fails or is pruned.

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
            if multirun():
                note_failure(folder, e)  # a sweep has made the job's folder already
            raise
        try:
            with ending(folder):
                place_start(folder, cfg)
                return train(cfg)
        finally:
            release(folder)

    return alone


@contextlib.contextmanager
def ending(folder: Path) -> Iterator[None]:
    """Leaves in a run's folder how it ended, and says how an interrupted run is resumed."""
    hint = f"resume it with ckpt_path={folder}"
    try:
        yield
    except Pruned as e:
        write({"epoch": e.epoch, "metric": e.metric, "value": e.value}, folder / PRUNED)
        raise
    except Interrupted as e:
        raise Interrupted(e.number, hint) from None
    except (KeyboardInterrupt, SystemExit, BrokenPipeError) as e:
        # Lightning exits at Ctrl-C while it sets up, rich where nobody reads what it prints
        closed = BrokenPipeError in (type(e), type(e.__context__))
        raise Interrupted(SIGPIPE if closed else signal.SIGINT, hint) from None
    except Exception as e:
        # a finished run that could not be made longer is still the finished run that it was
        if not (folder / RESULTS).exists():
            note_failure(folder, e)
        if isinstance(e, OSError) and (folder / LAST).exists():
            raise OSError(f"{e}; when that is mended {hint}") from e
        raise


def place_start(folder: Path, cfg: DictConfig) -> None:
    """Puts into a claimed folder what the run starts from."""
    for file in (FAILED, PRUNED):
        (folder / file).unlink(missing_ok=True)
    if cfg.ckpt_path is not None and not (folder / LAST).exists():
        copy_checkpoint(Path(cfg.ckpt_path), folder)
    if output_folder() != folder.resolve():  # Hydra has not written it
        note_configuration(cfg, folder)


def claim(folder: Path, cfg: DictConfig, written: Collection[str] = ()) -> None:
    """Checks a run's configuration and takes its folder; nothing where this process has it already.

    Raises:
        TakenError: the folder is not free for this run.
        ValueError: the configuration is not allowed, or does not belong to its checkpoint.
    """
    if folder.absolute() not in claimed:
        check_run(cfg)
        take(folder, cfg, written)


def take(folder: Path, cfg: DictConfig, written: Collection[str] = ()) -> None:
    """Makes a folder this run's before anything in it changes.

    Args:
        folder: made where it is missing.
        cfg: the run's configuration, which is checked already.
        written: names in the folder that are this run's all the same.

    Raises:
        TakenError: the folder is not free for this run.
    """
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
    named = (folder / name for name in (*OUTCOME, "history.csv", LAST, BEST, TRACKED))
    for file in (*events, *unfinished, *named):
        file.unlink(missing_ok=True)


def copy_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Copies a checkpoint to where a new run starts from, and the best one where it is there."""

    def copy_to(place: Path, file: Path) -> None:
        new = place.with_suffix(".new")
        shutil.copyfile(file, new)
        replace(new, place)

    (folder / LAST).parent.mkdir(exist_ok=True)
    best_epoch = content(checkpoint).best_epoch
    for file in filter(is_whole, (checkpoint, checkpoint.with_name(BEST.name))):
        if content(file).between_epochs and content(file).epochs == best_epoch:
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
