"""Sweeps that the same command resumes, for any Hydra application; see docs/usage.md."""

import functools
import math
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.runs.errors import USER_ERRORS
from mnist_cnn.runs.folder import (
    RESULTS,
    FolderInUseError,
    Pruned,
    RunFolder,
    read_json,
    remove_empty,
    state,
)
from mnist_cnn.runs.names import in_sweep
from mnist_cnn.runs.signals import Interrupted

# holds why a job failed or was refused that has left no trace in its folder, until the sweep ends
ENDED = ".{}.{}"
# in a sweep that stops at the first job that fails: empty, then with that job's name
STOPPED = ".stopped"


def resumable(function: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Make the jobs of a Hydra application's sweep resumable; goes below `@hydra.main`.

    The function's return value (a number, a mapping of names to numbers, or None) is saved as
    results.json in the job's folder; a job that has this file is not run again. A job that fails
    leaves failed.json, and the sweep goes on. The sweep's objective is the number, or the one named
    by hydra.sweeper.metric.
    """

    def recorded(cfg: DictConfig) -> Mapping[str, Any]:
        folder, values = of_job(cfg)
        with folder.opened(values) as run:
            if run.results is not None:
                return run.results
            outcome = function(cfg)
            if not isinstance(outcome, Mapping):
                outcome = {} if outcome is None else {"value": outcome}
            return run.finish({str(name): float(number) for name, number in outcome.items()})

    @functools.wraps(function)
    def job(cfg: DictConfig) -> Any:
        if not in_sweep():
            return function(cfg)
        try:
            return attempt(recorded, cfg, HydraConfig.get().sweeper.get("metric") or "value")
        except Interrupted as e:
            print("interrupted; the same command resumes it in the same folder", file=sys.stderr)
            sys.exit(128 + e.number)

    return job


def of_job(cfg: DictConfig) -> tuple[RunFolder, Any]:
    """Return the folder of a job, and the configuration that it records."""
    folder = RunFolder(HydraConfig.get().runtime.output_dir)
    return folder, OmegaConf.to_container(cfg, resolve=True)


def check_folder(cfg: DictConfig) -> None:
    """Raise ValueError if the folder of a sweep's job would refuse it; writes nothing."""
    if in_sweep():  # outside of one nothing is recorded
        folder, values = of_job(cfg)
        folder.check(values)


def attempt(
    run: Callable[[DictConfig], Mapping[str, Any]],
    cfg: DictConfig,
    metric: str,
    check: Callable[[DictConfig], None] = lambda cfg: None,
) -> float:
    """Run a job of a sweep; return its metric.

    The metric is NaN if the job has none, failed, was pruned or refused, or is running in another
    process. A search none of whose jobs has returned its metric ends.

    Args:
        run: opens the RunFolder of the job, and returns its results.
        check: raises ValueError for a configuration that must not be run.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if state(folder) == "pruned":  # it stays pruned within its search
        return math.nan
    if stopped_by(folder.parent):
        remove_empty(folder)
        return math.nan
    try:
        check(cfg)
        results = run(cfg)
        if (value := results.get(metric)) is not None:
            return float(value)
        if "n_trials" in HydraConfig.get().sweeper:
            others = map(read_json, folder.parent.glob(f"*/{RESULTS}"))
            if not any(metric in other for other in others):
                names = [name for name, number in results.items() if isinstance(number, float)]
                found = ", ".join(names) or "no number"
                sys.exit(f"error: {folder} has {found}, not hydra.sweeper.metric={metric}")
    except (Pruned, FolderInUseError) as e:
        print(f"{folder.name}: {e}")
    except Interrupted as e:
        place = shlex.quote(str(folder.parent))
        raise Interrupted(e.number, f"resume it with ckpt_path={place}") from None
    except Exception as e:
        reason = " ".join(str(e).split()).removeprefix(f"{folder}: ")
        has_begun = getattr(e, "failed_in", None) == folder.absolute()
        if not has_begun and not isinstance(e, USER_ERRORS):
            raise
        how = "failed" if has_begun else "refused"
        if not has_begun or state(folder) != "failed":  # the folder is left unchanged
            folder.with_name(ENDED.format(folder.name, how)).write_text(reason, "utf-8")
            remove_empty(folder)
            if has_begun:  # beside earlier results there is no failed.json
                traceback.print_exc()
        print(f"{folder.name}: {how}: {reason}")
        if (stopped := folder.with_name(STOPPED)).exists():
            stopped.write_text(folder.name, "utf-8")
    return math.nan


def stopped_by(sweep: Path) -> str:
    """Return the name of the job after which no other of a sweep is started; empty for none."""
    file = sweep / STOPPED
    return file.read_text("utf-8") if file.exists() else ""
