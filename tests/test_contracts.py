"""What `internals/lightning.py` uses of Lightning without a promise is as it was read."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import Tensor

from mnist_cnn.internals import lightning as wall
from tests.helpers.training import bare_trainer

BATCHES = 4  # of an epoch


class Numbers:
    """A loader that can be resumed, of BATCHES numbers."""

    batch_sampler = None

    def __init__(self) -> None:
        self.epochs: list[int] = []  # announced
        self.first = self.done = 0

    @property
    def sampler(self) -> "Numbers":
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Any:
        first, self.first = self.first, 0
        for self.done in range(first + 1, BATCHES + 1):
            yield torch.tensor([float(self.done)])

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["done"]


class Module(L.LightningModule):
    def __init__(self, *, counts_steps: bool = False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.counts_steps = counts_steps
        self.batches: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.batches.append(batch.item())
        return (self.weight * batch).sum()

    def on_train_epoch_end(self) -> None:
        self.log("mean", 1.0)

    def configure_optimizers(self) -> Any:
        if self.counts_steps:  # as a schedule over the whole run does
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


class Seen(Callback):
    """Notes what Lightning calls and says, and saves a checkpoint after a step (from 1)."""

    def __init__(self, path: Path | str = "", step: int = 0):
        self.path, self.step = path, step
        self.mid_epoch: bool | None = None
        self.starts: list[int] = []
        self.mean: dict[str, bool] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.mid_epoch = wall.resumed_mid_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.starts.append(trainer.current_epoch)
        self.mean["at the next start"] = "mean" in trainer.callback_metrics

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.mean.setdefault("at its end", "mean" in trainer.callback_metrics)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(module: Module, *callbacks: Callback, path: Any = None, **options: Any) -> L.Trainer:
    trainer = bare_trainer(**{"max_epochs": 3, "callbacks": list(callbacks), **options})
    trainer.fit(module, Numbers(), ckpt_path=path, weights_only=path and True)
    return trainer


def test_an_epoch_that_is_resumed_in_its_middle_is_not_announced_and_its_loader_may_be_lost(
    tmp_path,
):
    path = tmp_path / "6.ckpt"
    whole, cut = Seen(path, 6), Seen()
    fit(Module(), whole)
    module, counting = Module(), Module(counts_steps=True)
    fit(module, cut, path=path)
    assert (whole.mid_epoch, whole.starts) == (False, [0, 1, 2])
    assert (cut.mid_epoch, cut.starts) == (True, [2]), "resumed_mid_epoch"
    # the module's metrics of an epoch are there when the next one starts: BetweenEpochs
    assert whole.mean == {"at its end": False, "at the next start": True}
    position = wall.loader_position(torch.load(path, weights_only=True))
    assert position == {"done": 2}, "loader_position"
    assert module.batches == [3, 4, 1, 2, 3, 4], "loader_position"
    fit(counting, path=path)
    assert counting.batches[:2] == [1, 2], "loader_position: it is restored always now"


class Closes(Callback):
    """Saves between the first two epochs, with counters set back and corrected or as they are."""

    def __init__(self, path: Path, *, closed: bool, corrected: bool):
        self.path, self.closed, self.corrected = path, closed, corrected

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            assert wall.mid_epoch(trainer)
            if self.closed:
                wall.close_epoch(trainer)
                assert not wall.mid_epoch(trainer)
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: Any) -> None:
        if self.corrected:
            wall.correct_counters(trainer, checkpoint)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
def test_a_checkpoint_between_epochs_skips_one_unless_its_counters_are_set_back(
    tmp_path, closed, corrected
):
    fit(Module(), Closes(tmp_path / "1.ckpt", closed=closed, corrected=corrected))
    module = Module()
    trainer = fit(module, path=tmp_path / "1.ckpt")
    whole = (trainer.current_epoch, len(module.batches)) == (3, 2 * BATCHES)
    assert whole is (closed and corrected), "close_epoch, correct_counters"


class Stops(Callback):
    def __init__(self) -> None:
        self.ends: list[int] = []
        self.over = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = True
        if wall.ends_after_this_batch(trainer, batch_idx):
            self.ends.append(trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.over = wall.training_is_over(trainer)


@pytest.mark.parametrize(
    ("options", "ends"),
    [({"min_steps": 6}, [4, 6]), ({"min_epochs": 2}, [4, 8]), ({"max_steps": 1}, [1])],
)
def test_a_stop_waits_for_the_first_steps_and_epochs(options, ends):
    stops = Stops()
    trainer = fit(Module(), stops, **options)
    assert trainer.global_step == ends[-1]
    assert stops.ends == ends, "ends_after_this_batch"
    assert stops.over, "training_is_over"


def test_a_stop_is_forgotten_in_a_resumed_run_but_not_by_early_stopping(tmp_path):
    class StopsOnce(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            trainer.should_stop = True
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    fit(Module(), StopsOnce())
    trainer = fit(Module(), path=tmp_path / "stopped.ckpt")
    assert (trainer.should_stop, trainer.current_epoch) == (False, 3)
    callback = EarlyStopping("mean", patience=3)
    assert not wall.stopped_early(callback)
    callback.load_state_dict({**callback.state_dict(), "stopping_reason": 1})
    assert wall.stopped_early(callback)


def test_checkpoint_callbacks_act_last_and_the_first_of_them_is_the_trainers():
    class Saves(Checkpoint):
        pass

    first, other, second = Saves(), Callback(), Saves()
    trainer = bare_trainer(callbacks=[first, other, second], enable_checkpointing=True)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's stubs lack it
    assert callbacks == [other, first, second], "callbacks/default.yaml"
    assert trainer.checkpoint_callback is first
