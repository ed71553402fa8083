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
from tests.helpers.folder import column, results
from tests.helpers.training import bare_trainer, trained


@pytest.mark.filterwarnings("ignore:.*(many workers|no `val_dataloader`)")
def test_adversarial_training_changes_what_the_network_sees_and_nothing_else(data_root):
    images, labels = load_split("mnist", data_root, "train")
    parts = zip((images[:60].unsqueeze(1) / 255).split(20), labels[:60].split(20), strict=True)
    batches: Any = list(parts)
    clean = [x.clone() for x, _ in batches]
    fast = {"_target_": "mnist_cnn.model.FastCNN", "channels": [4, 4], "hidden": 8}

    def attacked_training() -> tuple[Any, list[torch.Tensor]]:
        L.seed_everything(0)
        seen: list[torch.Tensor] = []
        module = DigitClassifier(model=fast, scheduler={}, freeze=["norm1"])

        def note(layer: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
            if layer.training:  # an attack runs the network in eval mode
                seen.append(args[0])

        module.net.normalize.register_forward_pre_hook(note)
        loader = DataLoader(batches, batch_size=None)  # hands out these tensors themselves
        attack = AdversarialTraining(epsilon=0.3, steps=3)
        bare_trainer(max_epochs=1, log_every_n_steps=1, callbacks=[attack]).fit(module, loader)
        return module.net, seen

    (one, first), (_, second) = attacked_training(), attacked_training()
    assert one.norm2.num_batches_tracked == 3  # the attacks have moved no statistics
    assert one.norm1.num_batches_tracked == 0
    assert not one._forward_pre_hooks
    for x, (handed, _), attacked, again in zip(clean, batches, first, second, strict=True):
        assert torch.equal(x, handed)
        assert 0.29 < (attacked - x).abs().max() <= 0.3 + 1e-6
        assert 0 <= attacked.min() <= attacked.max() <= 1
        assert torch.equal(attacked, again)


def test_seconds_are_those_of_training_alone(tmp_path, monkeypatch):
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
    trained(tmp_path, "test=true")
    assert clock[0] > 20_000
    assert results(tmp_path)["seconds"] == 2 * 10
    assert results(tmp_path)["images/s"] == 64
    assert column(tmp_path, "seconds") == [10, 10]


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


def test_text_is_printed_as_it_is(capsys):
    text = "a[x]b :x: [red] 3 " + 300 * "long "
    terminal.console().print(text)
    assert capsys.readouterr().out == f"{text}\n"
    assert terminal.printable("a\x1b[31m\x07b") == "a?[31m?b"
