"""The loggers of a run."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.config.messages import install, must_be
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.folder import SWEEP, write_json
from mnist_cnn.runs.ranks import rank

TRACKED = "trackers.json"  # the ids of the runs of W&B and MLflow that are this run

# parts of the configuration that Lightning logs of the module, as they are after seeing the data
OF_MODULE = ("model", "optimizer", "scheduler", "label_smoothing", "loss", "metrics")
RESULTS = ".results"  # the end of the name of the event file that `write_results` fills


class TensorBoard(TensorBoardLogger):
    """Lightning's logger of the curves, without the test.

    TensorBoard shows each point that was ever written. The results lie in a file of their own,
    which is replaced as a whole when a run is extended.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {key: value for key, value in metrics.items() if not key.startswith("test/")}
        super().log_metrics(curves, step)

    def remove_results(self) -> None:
        for file in Path(self.log_dir).glob(f"events.out.tfevents.*{RESULTS}"):
            file.unlink()


def make_loggers(cfg: DictConfig, start: Path | str | None) -> list[Logger]:
    """The loggers that a configuration names.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew. A resumed run continues its runs of W&B and MLflow, a copy of its
    folder begins new ones, and so does `force`.

    Raises:
        ValueError: run_name leads out of the run's folder, a tracker is missing, or W&B refuses.
    """
    if {"/", "\\"} & set(str(cfg.run_name)) or cfg.run_name == "..":
        raise ValueError(must_be("run_name", "a name without / and \\", cfg.run_name))
    for name in {"wandb", "mlflow"} & set(cfg.get("logger") or {}):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"logger={name}: not installed: {install(name)}")
    file, folder = Path(cfg.run_dir, TRACKED), str(Path(cfg.run_dir).resolve())
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    # by force it is another run, and MLflow's parameters cannot change
    if start is None or cfg.force or known.get("folder") != folder:
        known = {"folder": folder}
    loggers, ids = [], dict(known)
    for name, node in (cfg.get("logger") or {}).items():
        if node is None:
            continue
        options = tracker_options(node, Path(folder).parent, known.get(name))
        if start is not None and node.get("purge_step", 0) is None:
            options["purge_step"] = read_checkpoint(start)["epoch"] + 1
        logger = instantiate_as(Logger, node, key=f"logger.{name}", **options)
        if isinstance(logger, WandbLogger | MLFlowLogger) and rank() == 0:
            begin(logger, cfg, resumed=name in known)
            ids[name] = logger.version
        elif isinstance(logger, TensorBoard) and rank() == 0 and start is not None:
            logger.remove_results()
        loggers.append(logger)
    if len(ids) > 1:
        write_json(ids, file)
    return loggers


def tracker_options(node: DictConfig, above: Path, known: str | None) -> dict[str, Any]:
    """Arguments for a logger of W&B or MLflow: the run to continue, and the sweep of a job.

    Args:
        above: the folder that the run's folder lies in, of a job that of the sweep.
        known: the id of the run to continue.
    """
    kind = str(node.get("_target_")).rpartition(".")[2]
    sweep = "/".join(above.parts[-2:]) if (above / SWEEP).is_file() else None
    if kind == "WandbLogger":
        resumed = {"id": known, "resume": "allow"} if known else {}
        return {"group": node.get("group") or sweep, **resumed}
    if kind == "MLFlowLogger":
        tags = {**(node.get("tags") or {}), **({"sweep": sweep} if sweep else {})}
        # without a name MLflow makes one up
        return {"run_id": known, "run_name": node.get("run_name") or None, "tags": tags}
    return {}


def begin(logger: WandbLogger | MLFlowLogger, cfg: DictConfig, resumed: bool) -> None:
    """Begins or continues a run of a tracker, with the configuration as its parameters.

    Raises:
        ValueError: W&B refuses, as where nobody is logged in.
    """
    values = {key: value for key, value in plain(cfg).items() if key not in OF_MODULE}
    if isinstance(logger, WandbLogger):
        import wandb

        wandb.finish()  # the run of a job that failed before in this process
        try:
            logger.log_hyperparams(values)
        except wandb.errors.Error as error:
            wandb.teardown()  # it remembers the mode of what it refused
            reason = str(error).rstrip(".")
            raise ValueError(f"W&B: {reason}; logger.wandb.offline=true needs no server") from None
        return
    Path("outputs").mkdir(exist_ok=True)
    with FileLock(Path("outputs", ".mlflow.lock")):  # several jobs make the database at once
        logger.experiment.update_run(str(logger.run_id), status="RUNNING")
    if not resumed:  # MLflow's parameters cannot change
        logger.log_hyperparams(values)
