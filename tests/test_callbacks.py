"""What the callbacks save and show, and what they cost."""

import io
import multiprocessing
import os
from multiprocessing import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mnist_cnn.build import fit, load_best
from mnist_cnn.callbacks import history
from mnist_cnn.callbacks.checkpoint import Checkpoint
from mnist_cnn.callbacks.finite import Loss, check_finite, loss_in
from mnist_cnn.callbacks.profiler import NoProfiler
from mnist_cnn.callbacks.progress import ProgressBar
from mnist_cnn.callbacks.summary import Summary
from mnist_cnn.checks.folders import results
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs import terminal
from mnist_cnn.runs.folder import BEST, LAST
from mnist_cnn.weights.files import read_checkpoint, read_file
from tests.helpers.folder import column
from tests.helpers.training import bare_trainer, trained


@pytest.mark.parametrize(
    "options",
    [
        ["test=true"],
        ["trainer.val_check_interval=5"],
        ["trainer.val_check_interval=4", "objective.metric=train/loss"],
    ],
)
def test_seconds_are_those_of_training_alone(tmp_path, monkeypatch, options):
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
    trained(tmp_path, *options)
    assert clock[0] > 20_000
    assert results(tmp_path)["seconds"] == 2 * 10
    assert results(tmp_path)["images/s"] == 64
    assert column(tmp_path, "seconds") == [10, 10]


ONES: Any = torch.ones(4, 1)


class Regression(L.LightningModule):
    """Logs metrics whose names do not tell their stage."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log_dict({"value_loss": loss, "loss": loss}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"error": 1.0, "loss": 2.0})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_row_has_what_its_epoch_logged_whatever_the_names(tmp_path):
    kept = history.History()
    kept.monitored = {"objective.metric": "error"}
    options = {"default_root_dir": tmp_path, "num_sanity_val_steps": 0, "callbacks": [kept]}
    trainer = bare_trainer(max_epochs=5, check_val_every_n_epoch=2, **options)
    loader = DataLoader(ONES)
    trainer.fit(Regression(), loader, loader)
    assert [row.get("error") for row in kept.rows] == [None, 1, None, 1, None]
    assert all(row["loss"] == row["value_loss"] for row in kept.rows)


def test_a_metric_that_the_first_validation_does_not_log_is_named(tmp_path):
    kept = history.History()
    kept.monitored = {"objective.metric": "eror"}
    options = {"default_root_dir": tmp_path, "num_sanity_val_steps": 0, "callbacks": [kept]}
    loader = DataLoader(ONES)
    with pytest.raises(ValueError, match=r"^objective\.metric must be error, .*, got eror$"):
        bare_trainer(max_epochs=2, **options).fit(Regression(), loader, loader)
    assert kept.rows == []


class UsedUp(IterableDataset):
    """Four numbers, once."""

    def __init__(self):
        self.numbers = iter(ONES)

    def __iter__(self):
        return self.numbers


def test_an_epoch_without_batches_is_refused(tmp_path):
    kept = history.History()
    options = {"default_root_dir": tmp_path, "limit_val_batches": 0, "callbacks": [kept]}
    trainer = bare_trainer(max_epochs=3, **options)
    with pytest.raises(ValueError, match=r"^train_dataloader must be .*, got none in epoch 2$"):
        trainer.fit(Regression(), DataLoader(UsedUp()), DataLoader(ONES))
    assert len(kept.rows) == 1


def on_a_terminal(screen: io.StringIO) -> ProgressBar:
    bar = ProgressBar(refresh_seconds=1e-9, quiet=False)
    bar.console = terminal.console(
        file=screen, force_terminal=True, width=100, legacy_windows=False, soft_wrap=False
    )
    return bar


class Unending(IterableDataset):
    """Five images, of which nobody says that they are five."""

    def __iter__(self):
        yield from [(torch.zeros(1, 28, 28, dtype=torch.uint8), torch.tensor(0))] * 5


@pytest.mark.parametrize("limit", [None, 2])
def test_a_bar_needs_no_length_of_the_loader(limit):
    screen = io.StringIO()
    options = {"limit_train_batches": limit, "num_sanity_val_steps": 0}
    trainer = bare_trainer(max_epochs=2, callbacks=[on_a_terminal(screen)], **options)
    loader = DataLoader(Unending(), batch_size=2)
    trainer.fit(DigitClassifier(), loader, loader)
    assert "epoch 2/2" in screen.getvalue()


def test_on_a_terminal_a_bar_shows_the_loss_and_the_time_left():
    screen = io.StringIO()
    bar = on_a_terminal(screen)
    options = {"limit_train_batches": 5, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    trainer = bare_trainer(max_epochs=1, callbacks=[bar], **options)
    trainer.fit(DigitClassifier(), MNISTDataModule())
    for part in ("epoch 1/1", "loss", "0:00:0", "epoch  1/1 │ train"):
        assert part in screen.getvalue()


class Constant(L.LightningModule):
    """Has a loss of 0.4 for each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum() + 0.4

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Folders(Dataset[Tensor]):
    """One image; `folder` gets a file with the temporary folder of the process that loads it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> Tensor:
        (self.folder / str(os.getpid())).write_text(util.get_temp_dir())
        return torch.zeros(1)


def test_workers_share_the_temporary_folder_of_their_training(monkeypatch, tmp_path):
    monkeypatch.delitem(
        vars(multiprocessing.current_process())["_config"], "tempdir", raising=False
    )
    loader = DataLoader(Folders(tmp_path), num_workers=1)
    fit(bare_trainer(max_epochs=2), Constant(), loader, None)
    found = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert str(os.getpid()) not in found
    assert set(found.values()) == {util.get_temp_dir()}


def test_a_bar_shows_the_loss_of_a_batch_and_the_batches_of_all_steps():
    screen, totals = io.StringIO(), []
    bar: Any = on_a_terminal(screen)
    noted = LambdaCallback(on_train_batch_start=lambda *_: totals.append(bar.bar.tasks[0].total))
    options = {"max_epochs": 5, "max_steps": 3, "accumulate_grad_batches": 2}
    bare_trainer(**options, callbacks=[bar, noted]).fit(Constant(), DataLoader(ONES))
    assert "loss 0.4000" in screen.getvalue()
    assert set(totals) == {6}


def test_a_loss_that_is_no_number_is_named_with_its_step():
    trainer: Any = SimpleNamespace(num_training_batches=10, accumulate_grad_batches=4)
    trainer.callback_metrics = {}
    losses = [Loss(2, 4, torch.tensor(0.0)), Loss(2, 5, torch.tensor(torch.nan))]
    with pytest.raises(ValueError, match=r"^train/loss=nan at step 5, batch 5 of epoch 2; "):
        check_finite(trainer, Constant(), losses)


def test_losses_without_a_mean_that_is_a_number_are_told():
    found = [loss_in(each) for each in ({"loss": torch.tensor([1.0, torch.nan])}, {}, None)]
    assert found[0] is not None
    assert (found[0].ndim, found[0].isnan().item(), found[1:]) == (0, True, [None, None])
    assert loss_in(torch.tensor([[1, 2], [3, 6]])) == 3  # manual optimization


@pytest.mark.parametrize(
    ("interval", "often"), [(None, False), (1.0, False), (0.5, True), (1, True), (5, True)]
)
def test_one_is_a_batch_and_one_point_nothing_an_epoch(interval, often):
    trainer: Any = SimpleNamespace(val_check_interval=interval)
    assert history.validates_often(trainer) is often


def test_the_best_epoch_of_another_metric_is_none_of_the_new_one(tmp_path):
    for metric, epochs, best in (("val/acc", 1, 1), ("val/loss", 2, 2), ("val/loss", 3, 3)):
        options = [f"objective.metric={metric}", f"trainer.max_epochs={epochs}", "force=true"]
        options += ["callbacks=no_early_stopping", "scheduler=none"]
        assert results(trained(tmp_path, *options))["best_epoch"] == best


def test_without_a_metric_the_last_epoch_takes_the_place_of_the_best_one_from_before(tmp_path):
    options = ["callbacks=no_early_stopping", "scheduler=none", "test=true"]
    trained(tmp_path, *options, "trainer.max_epochs=1")
    assert (tmp_path / BEST).exists()
    options += ["force=true", "callbacks.checkpoint.monitor=null"]
    assert results(trained(tmp_path, *options))["best_epoch"] == 2
    assert not (tmp_path / BEST).exists()
    last = read_checkpoint(tmp_path / LAST)["state_dict"]
    kept = read_file(tmp_path / "weights.safetensors")[0]
    assert last.keys() == {f"net.{name}" for name in kept}
    assert all(torch.equal(last[f"net.{name}"], value) for name, value in kept.items())


def test_the_best_epoch_is_known_with_another_checkpoint_callback_before_ours(tmp_path, capsys):
    other = ModelCheckpoint(dirpath=tmp_path / "other")
    options: Any = {"monitor": "val/loss", "mode": "min", "every_seconds": None}
    ours = Checkpoint(**options, every_steps=None, check_every_steps=100)
    callbacks = [other, ours, ProgressBar(refresh_seconds=1, quiet=False)]
    limits: dict[str, Any] = {"limit_train_batches": 2, "limit_val_batches": 1}
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        callbacks=callbacks,
        logger=False,
        accelerator="cpu",
        enable_model_summary=False,
        **limits,
    )
    module = DigitClassifier()
    trainer.fit(module, MNISTDataModule())
    assert capsys.readouterr().err.rstrip().endswith("best")
    assert load_best(trainer, module) == 1


def test_the_table_of_layers_has_their_operations_and_no_column_of_one_value(capsys):
    limits = {"limit_train_batches": 1, "limit_val_batches": 0}
    trainer = bare_trainer(max_epochs=1, callbacks=[Summary(max_depth=2)], **limits)
    trainer.fit(DigitClassifier(), MNISTDataModule())
    head, *rows = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "┃│"]
    assert [name.strip() for name in head.strip("┃").split("┃")] == [
        *("Name", "Type", "Params", "FLOPs", "In sizes", "Out sizes"),
    ]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    flops = {name: count for name, _, _, count, *_ in cells}
    # 2 x 9 x 26 x 26 x 32 multiplications and additions
    assert flops["net.conv1"] == "389 K"
    assert flops["net"] == "5.3 M"


def test_text_is_printed_as_it_is(capsys):
    text = "a[x]b :x: [red] 3 " + 300 * "long "
    terminal.console().print(text)
    assert capsys.readouterr().out == f"{text}\n"
    assert terminal.printable("a\x1b[31m\x07b") == "a?[31m?b"


def test_a_run_without_a_profiler_has_one_context_for_all_hooks(tmp_path, monkeypatch):
    contexts = {}
    profile = NoProfiler.profile

    def noted(self, action_name):
        contexts[action_name] = profile(self, action_name)
        return contexts[action_name]

    monkeypatch.setattr(NoProfiler, "profile", noted)
    trained(tmp_path, "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert "run_training_batch" in contexts
    assert len({*map(id, contexts.values())}) == 1


def test_a_validation_after_each_step_leaves_no_place_for_checkpoints_and_says_so(tmp_path, capsys):
    options = ["trainer.max_epochs=1", "trainer.val_check_interval=1"]
    trained(tmp_path, *options, "trainer.limit_train_batches=2")
    said = "no checkpoint within an epoch: trainer.val_check_interval=1 validates after each step"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0.3", "4"])
def test_an_epoch_that_trains_on_after_its_validation_has_no_best_checkpoint(tmp_path, interval):
    option = f"trainer.val_check_interval={interval}"
    line = rf"^trainer\.val_check_interval must be .*, got {interval}$"
    with pytest.raises(ValueError, match=line):
        trained(tmp_path / "refused", option)
    found = results(trained(tmp_path / "of training", option, "objective.metric=train/loss"))
    assert found["best_epoch"] == 2


def test_an_epoch_that_is_cut_after_its_validation_is_not_the_best(tmp_path):
    # the second one is better, and two steps older when it is saved
    trained(tmp_path, "trainer.val_check_interval=5", "trainer.max_steps=17")
    first, second = column(tmp_path, "val/loss")
    assert first > second
    assert (results(tmp_path)["best_epoch"], results(tmp_path)["val/loss"]) == (1, first)
