"""The event files of a run for TensorBoard."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

RESULTS = "results"  # the run that has them
EVENTS = "events.out.tfevents.*"
DPI = 100  # a card has about 400 pixels
Value = bool | int | float | str  # of a hyperparameter in TensorBoard


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger with a run each for training, validation and results.

    TensorBoard draws a chart for each tag, with a line for each run: `train/NAME` and `val/NAME`
    are `curves/NAME` of the runs `train` and `val`, so that both are in one chart, with those of
    other metrics beside it. Other names are unchanged in `train`. Test metrics are in `results`
    alone, as a chart of one is a single dot.

    Args:
        save_dir: the folder of these runs, each a folder in it.
    """

    def __init__(self, save_dir: Path | str):
        super().__init__(save_dir, name="", version="", sub_dir="train", default_hp_metric=False)
        self.validation: Any = None  # the writer of the run `val`, once it has a value
        self.restart: Event | None = None

    def writer(self, run: str, suffix: str = "") -> Any:
        """Return a new SummaryWriter of a run, whose file's name ends with a suffix."""
        from torch.utils.tensorboard import SummaryWriter  # slow

        return SummaryWriter(str(Path(self.save_dir, run)), filename_suffix=suffix)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        found: dict[str, dict[str, float]] = {"train": {}, "val": {}, "test": {}}
        for name, value in metrics.items():
            stage, _, metric = name.partition("/")
            staged = stage in found and metric
            found[stage if staged else "train"][f"curves/{metric}" if staged else name] = value
        super().log_metrics(found["train"], step)
        if found["val"] and self.validation is None:
            self.validation = self.writer("val")
            if self.restart is not None:
                self.validation.file_writer.add_event(self.restart)
        for tag, value in found["val"].items():
            self.validation.add_scalar(tag, value, step)

    @rank_zero_only
    def drop_from(self, step: int) -> None:
        """Drop what earlier processes logged from a step on.

        TensorBoard's default loader needs no such event: there a value replaces later ones.
        """
        self.restart = Event(step=step, session_log=SessionLog(status=SessionLog.START))
        self.experiment.file_writer.add_event(self.restart)

    @rank_zero_only
    def log_results(
        self,
        outcome: Mapping[str, Any],
        metrics: Mapping[str, float],
        hparams: Mapping[str, Value],
        figures: Mapping[str, Figure],
    ) -> None:
        """Write the run `results` anew: a table, pictures, and a session for the HPARAMS tab.

        The session has no schema of an experiment: TensorBoard would show the keys of that one
        alone, while without any it shows those of all sessions, whatever sweeps they are of.

        Args:
            outcome: the content of results.json.
            metrics: those that sessions are compared by, which take a scalar each.
            hparams: the values of the swept keys; empty for no session and no scalars.
            figures: by name.
        """
        from torch.utils.tensorboard.summary import hparams as session  # slow

        run, folder = Path(outcome["config"]["run_dir"]).resolve(), Path(self.save_dir, RESULTS)
        shared = not folder.resolve().is_relative_to(run)  # other runs may have theirs there
        suffix = f".{sha256(str(run).encode()).hexdigest()[:8]}" if shared else ""
        for file in folder.glob(f"{EVENTS}{suffix}"):
            file.unlink()
        step = outcome["best_epoch"] or outcome["epochs"]
        with self.writer(RESULTS, suffix) as writer:
            if hparams:
                _, start, end = session(dict(hparams), dict(metrics))
                writer.file_writer.add_summary(start, step)
                writer.file_writer.add_summary(end, step)
                for name, value in metrics.items():
                    writer.add_scalar(name, value, step)
            writer.add_text(RESULTS, table(outcome), step)
            for name, figure in figures.items():
                writer.add_image(f"mistakes/{name}", pixels(figure), step, dataformats="HWC")

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()  # no hparams.yaml: .hydra/config.yaml has them

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self.validation is not None:
            self.validation.close()


def table(outcome: Mapping[str, Any]) -> str:
    """Return the numbers and names of results.json as a table in Markdown."""
    texts = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in outcome.items()}
    rows = [f"| {k} | {text} |" for k, text in texts.items() if isinstance(text, int | str)]
    return "\n".join(["| result | |", "|---|---|", *rows])


def pixels(figure: Figure) -> np.ndarray:
    """Draw a figure, and return its pixels uint8 (H, W, 3)."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)  # untyped methods
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
