"""The loggers of a run."""

import json
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.own import make
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.folder import write_json
from mnist_cnn.runs.ranks import rank
from mnist_cnn.sweeps.names import in_sweep

TRACKED = "trackers.json"

# a part of the configuration that Lightning logs of the module, as it is after seeing the data
OF_MODULE = ("model", "optimizer", "scheduler", "label_smoothing", "loss", "metrics")


def make_loggers(cfg: DictConfig, start: Any) -> list[Logger]:
    """The loggers that a configuration names.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew. A resumed run continues its runs of W&B and MLflow.
    """
    if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
        wandb.finish()  # of the job before in this process
    ids = Path(cfg.run_dir, TRACKED)
    # by force it is another run, and MLflow's parameters cannot change
    again = start is not None and not cfg.force and ids.is_file()
    known = json.loads(ids.read_text("utf-8")) if again else {}
    loggers, versions = [], {}
    for name, node in (cfg.get("logger") or {}).items():
        if node is None:
            continue
        options = tracked(node, cfg, known.get(name))
        if start is not None and node.get("purge_step", 0) is None:
            options["purge_step"] = read_checkpoint(start)['epoch'] + 1
        logger = make(Logger, node, **options)
        if isinstance(logger, (WandbLogger, MLFlowLogger)) and rank() == 0:
            begin(logger, cfg)
            versions[name] = logger.version
        loggers.append(logger)
    if versions:
        write_json(versions, ids)
    return loggers


def tracked(node: DictConfig, cfg: DictConfig, known: str | None) -> dict[str, Any]:
    """What W&B or MLflow are to know a run by: its id if it is resumed, and its sweep."""
    kind = str(node.get("_target_")).rpartition(".")[2]
    sweep = "/".join(Path(cfg.run_dir).absolute().parts[-3:-1]) if in_sweep() else None
    options: dict[str, Any] = {}
    if kind == "WandbLogger":
        options = {"id": known, "resume": "allow"} if known else {}
        if sweep and not node.get("group"):
            options["group"] = sweep
    elif kind == "MLFlowLogger":
        options = {"run_id": known} if known else {}
        options["run_name"] = node.get("run_name") or None  # MLflow then finds one
        if sweep:
            options["tags"] = {**(node.get("tags") or {}), "sweep": sweep}
    return options


def begin(logger: WandbLogger | MLFlowLogger, cfg: DictConfig) -> None:
    """Begins or continues a run of a tracker, with the configuration as its parameters.

    Raises:
        ValueError: W&B refuses, as where nobody is logged in.
    """
    values = {key: value for key, value in plain(cfg).items() if key not in OF_MODULE}
    if isinstance(logger, WandbLogger):
        import wandb

        try:
            logger.log_hyperparams(values)
        except wandb.errors.Error as error:
            wandb.teardown()  # it remembers the mode of what it refused
            raise ValueError(
                f"W&B: {str(error).rstrip('.')}; logger.wandb.offline=true needs no server"
            ) from None
        return
    Path("outputs").mkdir(exist_ok=True)
    with FileLock(Path("outputs", ".mlflow.lock")):  # several jobs make the database at once
        client, run = logger.experiment, logger.run_id
    client.update_run(run, status="RUNNING")
    known = client.get_run(run).data.params  # which cannot change
    logger.log_hyperparams(
        {key: v for key, v in mlflow_parameters(values).items() if key not in known}
    )


def mlflow_parameters(values: Any, key: str = "") -> dict[str, str]:
    """Parameters as MLflow names them."""
    if not isinstance(values, dict) or not values:
        return {key: str(values)}
    return {
        name: inner
        for part, value in values.items()
        for name, inner in mlflow_parameters(value, f"{key}/{part}".lstrip("/")).items()
    }
