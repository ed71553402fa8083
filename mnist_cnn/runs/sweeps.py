"""This project's sweeps: jobs are runs, checked before the first starts, reported at the end."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mnist_cnn.config.instantiate import COMMANDS
from mnist_cnn.config.messages import install
from mnist_cnn.internals.hydra import is_plugin, task_of
from mnist_cnn.runs.checks import check_run
from mnist_cnn.runs.launch import check_processes
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.sweeps import optuna, sweep

EXTRAS = {
    **{"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"},
    "optuna": "sweep",
}


class Runs(sweep.Sweep):
    """A sweep whose jobs are runs of mnist_cnn.train."""

    OBJECTIVE: ClassVar = "objective"
    ALLOWED: ClassVar = list(COMMANDS)
    SEARCH: ClassVar = "add hparams_search=optuna"
    IGNORED: ClassVar = ("force",)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        name = config.hydra.runtime.choices["hydra/launcher"]
        if name in EXTRAS and not is_plugin(config.hydra.launcher._target_):
            raise ValueError(f"hydra/launcher={self.missing(name)}")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        if any(o.key_or_group == "run_dir" for o in self.composer.parse(arguments)):
            raise ValueError("run_dir must be each job's own folder; set hydra.sweep.dir instead")
        super().sweep(arguments)

    def wrapped(self, task: TaskFunction) -> TaskFunction:
        return task  # see `runs.jobs.attempt`

    def task_of(self, config: DictConfig) -> DictConfig:
        return task_of(config)

    def check(self, task: DictConfig) -> None:
        check_run(task)
        check_processes(task)
        self.objective = task.objective

    def progress(self, n: int) -> str:
        with contextlib.suppress(OSError):  # not begun, or just being written
            rows = (self.job_folder(n) / "history.csv").read_text("utf-8").count("\n") - 1
            return f"{n}: {rows} epochs"
        return ""

    def again(self) -> str:
        return f"ckpt_path={self.folder}"

    def missing(self, package: str) -> str:
        return f"{package}: not installed: {install(EXTRAS[package])}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        try:
            with super().opened():
                yield
        except Interrupted as e:
            raise Interrupted(e.number, f"resume it with {self.again()}") from None

    def report(self) -> None:
        from mnist_cnn import report

        report.report(self.folder)


class Grid(Runs, sweep.Grid):
    """Every combination of the values given."""


class Optuna(Runs, optuna.Optuna):
    """A search by Optuna; `mnist_cnn.callbacks.prune` prunes its trials."""

    def missing(self, package: str) -> str:
        search = "hparams_search=" if package == "optuna" else ""
        return f"{search}{super().missing(package)}"
