"""The loggers of a run."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.config.messages import must_be
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.ranks import rank

# Lightning logs these parts of the configuration itself, as they are after seeing the data
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
    """The loggers that a configuration names, which have logged it.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew.

    Raises:
        ValueError: run_name leads out of the run's folder, or a logger is not installed.
    """
    if {"/", "\\"} & set(str(cfg.run_name)) or cfg.run_name == "..":
        raise ValueError(must_be("run_name", "a name without / and \\", cfg.run_name))
    values = {key: value for key, value in plain(cfg).items() if key not in OF_MODULE}
    loggers = []
    for name, node in (cfg.get("logger") or {}).items():
        if node is None:
            continue
        options = {}
        if start is not None and node.get("purge_step", 0) is None:
            options["purge_step"] = read_checkpoint(start)["epoch"] + 1
        logger = instantiate_as(Logger, node, key=f"logger.{name}", **options)
        logger.log_hyperparams(values)
        if isinstance(logger, TensorBoard) and rank() == 0 and start is not None:
            logger.remove_results()
        loggers.append(logger)
    return loggers
