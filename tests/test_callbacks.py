"""What the callbacks keep, show and cost."""

import io
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mnist_cnn import terminal
from mnist_cnn.callbacks import history
from mnist_cnn.callbacks.adversarial import AdversarialTraining
from mnist_cnn.callbacks.progress import ProgressBar
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.mnist import load_split
from mnist_cnn.module import DigitClassifier
from tests.helpers.training import bare_trainer


def test_best_is_the_epoch_with_the_lowest_validation_loss(short_run, tmp_path):
    # a learning rate at which training goes up and down
    results = short_run("run", "trainer.max_epochs=4", "optimizer.lr=0.05", "seed=1")
    losses = [row["val/loss"] for row in read_rows(tmp_path / "run" / "checkpoints" / "last.ckpt")]
    assert results["best_epoch"] == losses.index(min(losses)) + 1
    best = read_rows(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert len(best) == results["best_epoch"]
    depends = {"seed", "device", "processor", "threads", "versions", "git_commit", "config"}
    assert depends <= set(results)


class Normalized(L.LightningModule):
    """A batch normalisation that is trained and one that is not, and the images that they see."""

    def __init__(self):
        super().__init__()
        self.frozen, self.seen = torch.nn.BatchNorm2d(1), []
        norm = torch.nn.BatchNorm2d(1)
        self.net = torch.nn.Sequential(
            norm, self.frozen, torch.nn.Flatten(), torch.nn.Linear(784, 10)
        )

    def training_step(self, batch, batch_idx):
        assert self.net.training
        assert not self.frozen.training
        hook = self.net.register_forward_hook(lambda net, images, logits: self.seen.extend(images))
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        hook.remove()
        return loss

    def on_train_start(self):
        self.frozen.eval()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_adversarial_training_changes_what_the_network_sees_and_nothing_else(data_root):
    images, labels = load_split("mnist", data_root, "train")
    parts = zip((images[:60].unsqueeze(1) / 255).split(20), labels[:60].split(20), strict=True)
    batches: Any = list(parts)
    clean = [x.clone() for x, _ in batches]

    def train() -> Normalized:
        L.seed_everything(0)
        module = Normalized()
        attack = AdversarialTraining(epsilon=0.3, steps=3)
        loader = DataLoader(batches, batch_size=None)  # hands out these tensors themselves
        trainer = bare_trainer(max_epochs=1, log_every_n_steps=1, callbacks=[attack])
        trainer.fit(module, loader)
        return module

    one, same = train(), train()
    assert one.net[0].num_batches_tracked == 3  # the attacks have moved no statistics
    assert one.frozen.num_batches_tracked == 0
    assert not one.net._forward_pre_hooks
    for x, (handed, _), attacked, again in zip(clean, batches, one.seen, same.seen, strict=True):
        assert torch.equal(x, handed)
        assert 0.29 < (attacked - x).abs().max() <= 0.3 + 1e-6
        assert 0 <= attacked.min() <= attacked.max() <= 1
        assert torch.equal(attacked, again)


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
