"""A callback that interrupts, kills or corrupts a run at a chosen point.

A resumed run must have the configuration of the run that was killed, so the point is given by the
environment variable FAULT instead: "HOOK NUMBER WHAT [RANK]". NUMBER counts from 1: the steps of
all epochs for on_train_batch_start, else the calls in this process.
"""

import os
import resource
import signal
from collections import Counter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mnist_cnn.runs.ranks import rank

SMALL = 10_000  # bytes, less than any checkpoint


class KillAt(Callback):
    """Does WHAT at that point, on one rank or on all.

    WHAT is a signal to send to the process (`SIGKILL`), or several joined by +; `group:SIGINT`:
    send it to the process group, as Ctrl-C does; `raise`: raise an error; `nan`: fill the batch
    with NaN; `full`: let no file grow over 10 kB from then on, as on a full disk; `cut`: the same,
    but a process that tries is killed in the middle of the file.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def reach(self, hook: str, number: int | None = None, batch: Any = None) -> None:
        self.calls[hook] += 1
        point, at, what, *ranks = [*os.environ.get("FAULT", "- 0 -").split()]
        if (hook, number or self.calls[hook]) != (point, int(at)):
            return
        if ranks and rank() != int(ranks[0]):
            return
        if what == "raise":
            raise RuntimeError(f"a fault in {hook}")
        elif what == "nan":
            batch[0].fill_(float("nan"))
        elif what in ("full", "cut"):
            if what == "cut":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
        else:
            for name in what.split("+"):
                group, _, name = name.rpartition(":")
                os.kill(0 if group else os.getpid(), signal.Signals[name])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
        self.reach("on_train_batch_start", int(step), batch)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.reach("on_train_epoch_start")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: Any) -> None:
        self.reach("on_save_checkpoint")

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.reach("on_fit_end")

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.reach("on_test_start")
