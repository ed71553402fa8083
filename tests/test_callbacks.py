"""What the callbacks keep, show and cost."""

import io
from types import SimpleNamespace

import torch

from mnist_cnn import terminal
from mnist_cnn.callbacks import history
from mnist_cnn.callbacks.progress import ProgressBar
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.module import DigitClassifier
from tests.helpers.training import bare_trainer


def test_seconds_are_those_of_training_alone(short_run, tmp_path, monkeypatch):
    clock = [0.0]

    def takes(owner, name, seconds):
        original = getattr(owner, name)

        def slow(*args, **kwargs):
            clock[0] += seconds
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, slow)

    monkeypatch.setattr(history, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    takes(DigitClassifier, "training_step", 1)
    takes(DigitClassifier, "validation_step", 100)
    takes(DigitClassifier, "test_step", 1000)
    takes(ProgressBar, "epoch_done", 10_000)
    results = short_run("run")
    assert clock[0] > 20_000
    assert results["seconds"] == 2 * 20
    assert results["images/s"] == 64
    rows = read_rows(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert [row["seconds"] for row in rows] == [20, 20]


def read_rows(path):
    state = torch.load(path, weights_only=True)["callbacks"]
    (history,) = (value for key, value in state.items() if key.startswith("History"))
    return history["rows"]


def test_on_a_terminal_a_bar_shows_the_loss_and_the_time_left():
    screen = io.StringIO()
    bar = ProgressBar(refresh_seconds=1e-9, quiet=False)
    bar.console = terminal.console(
        file=screen, force_terminal=True, width=100, legacy_windows=False, soft_wrap=False
    )
    options = {"limit_train_batches": 5, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = bare_trainer(max_epochs=1, callbacks=[bar], **options)
    trainer.fit(DigitClassifier(), MNISTDataModule())
    for part in ("epoch 1/1", "loss", "0:00:0", "epoch  1/1 │ train"):
        assert part in screen.getvalue()
