"""How Hydra starts a command, and claims the run's folder before it writes there.

Not promised, and read in hydra-core 1.4.0rc3: with HYDRA_FULL_ERROR=1 hydra.main raises its errors;
callbacks are experimental, and what they change in `config.hydra` counts. Tests of whole commands
(tests/test_command.py, tests/test_runs.py) fail where a release changes this.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import main
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.command import USER_ERRORS
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import CONF, one_line
from mnist_cnn.config.instantiate import COMMANDS
from mnist_cnn.internals.hydra import multirun, task_of
from mnist_cnn.runs.checks import check_run
from mnist_cnn.runs.claim import TakenError, check_evaluation, claim, take
from mnist_cnn.runs.launch import check_processes, join, leave, processes, rank
from mnist_cnn.runs.signals import SIGNALS, Interrupted, interrupt
from mnist_cnn.runs.state import LAST, LOCK, OVERRIDES
from mnist_cnn.sweeps.folder import check_path, name_folder


def run(task: Callable[[DictConfig], Any], config_name: str, argv: Sequence[str]) -> None:
    """Calls task with conf/<config_name>.yaml and the overrides in argv, as Hydra does.

    What a user can get wrong ends the program with one line and exit code 1; set HYDRA_FULL_ERROR=1
    to see where it comes from.
    """
    sys.argv[1:] = argv  # hydra.main reads no other
    entry = main(str(CONF), config_name, execution_whitelist=COMMANDS)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return entry(task)()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises its errors instead of printing them

    @entry
    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except BrokenPipeError:
            raise
        except (*USER_ERRORS, InstantiationException) as e:
            if multirun():  # one of an evaluation's
                raise
            sys.exit(one_line(e, config_name))

    with interruptible():
        try:
            job()
        except BrokenPipeError:
            raise  # for command
        except (*USER_ERRORS, HydraException, OmegaConfBaseException) as e:
            sys.exit(one_line(e, config_name))
        except Interrupted as e:
            print(e, file=sys.stderr)
            sys.exit(128 + e.number)  # by convention


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, a signal to stop raises Interrupted.

    Where one is raised while Python collects garbage, Python reports it to sys.unraisablehook and
    goes on: it is sent again. After this the signals end the program, as nobody is left to tell.
    """
    report = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if isinstance(lost.exc_value, Interrupted):
            threading.Timer(0.1, os.kill, (os.getpid(), lost.exc_value.number)).start()
        else:
            report(lost)

    sys.unraisablehook = unraisable
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number in SIGNALS:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, signal.SIG_DFL)


class ClaimFolder(Callback):
    """Gives each run and each evaluation a folder of its own, before Hydra writes anything."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        entry = config.hydra.job.config_name
        try:
            task = task_of(config)
            if entry == "train":
                check_run(task)
            else:
                check(task, entry)
            check_path("hydra.run.dir", config.hydra.run.dir)
            if (search := config.hydra.runtime.choices.get("hparams_search")) is not None:
                raise ValueError(f"hparams_search={search}: a search is a sweep: add -m")
            if entry == "train":
                check_processes(task)
            if rank() == 0:
                name_folder(config, "run")
                if entry == "train":
                    take(Path(config.hydra.run.dir), task)
                else:
                    check_evaluation(Path(config.hydra.run.dir))
        except USER_ERRORS as e:  # Hydra would turn them into warnings
            leave(one_line(e))
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
        try:
            if processes() > 1:
                raise ValueError("torchrun starts the processes of one run: leave out -m")
            if config.hydra.job.config_name != "train":
                check_path("hydra.sweep.dir", config.hydra.sweep.dir)
                name_folder(config, "sweep")  # training's own sweeper first looks at all jobs
                check_evaluation(Path(config.hydra.sweep.dir))
        except USER_ERRORS as e:
            leave(one_line(e))
