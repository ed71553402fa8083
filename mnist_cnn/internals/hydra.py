"""How Hydra starts a command, and what it writes before the command runs."""

import copy
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.command import USER_ERRORS, tolerate_encoding
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import TARGETS
from mnist_cnn.config.errors import one_line
from mnist_cnn.config.files import CONF, check_choices
from mnist_cnn.internals.threads import sleep_at_barriers_if_busy
from mnist_cnn.runs.checks import check_run
from mnist_cnn.runs.claim import TakenError, check_evaluation, claim, name_folder
from mnist_cnn.runs.launch import check_processes, join, leave, processes, rank
from mnist_cnn.runs.signals import SIGNALS, Interrupted
from mnist_cnn.runs.state import LAST, LOCK, OVERRIDES


def run(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Calls task with conf/<config_name>.yaml and the command line's overrides, as Hydra does.

    What a user can get wrong ends the program with one line and exit code 1; set HYDRA_FULL_ERROR=1
    to see where it comes from.
    """
    tolerate_encoding()
    entry = hydra.main(str(CONF), config_name, execution_whitelist=TARGETS)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return entry(task)()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra leaves its errors to us

    @entry
    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except BrokenPipeError:
            raise
        except (*USER_ERRORS, InstantiationException) as e:
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # one of an evaluation's
                raise
            sys.exit(one_line(e, config_name))

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    def unraisable(lost: Any) -> None:
        # it came while Python collected garbage, which swallows it: let it come again
        if isinstance(lost.exc_value, Interrupted):
            threading.Timer(0.1, os.kill, (os.getpid(), lost.exc_value.number)).start()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = unraisable
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        check_choices(sys.argv[1:])
        job()
    except BrokenPipeError:
        raise  # for command
    except (*USER_ERRORS, HydraException, OmegaConfBaseException) as e:
        sys.exit(one_line(e, config_name))
    except Interrupted as e:
        print(e, file=sys.stderr)
        sys.exit(128 + e.number)  # by convention
    finally:  # while Python ends there is nobody left to tell
        for number in SIGNALS:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, signal.SIG_DFL)


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
                check_processes(str(task.trainer.strategy).startswith("ddp"))
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
        sleep_at_barriers_if_busy()
        try:
            if processes() > 1:
                raise ValueError("torchrun starts the processes of one run; allowed: no -m with it")
            if config.hydra.job.config_name != "train":
                name_folder(config, "sweep")  # training's own sweeper first looks at all jobs
                check_evaluation(Path(config.hydra.sweep.dir))
        except USER_ERRORS as e:
            leave(one_line(e))


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
