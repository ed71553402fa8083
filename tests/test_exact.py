"""A run that was interrupted at any point is bitwise identical to an uninterrupted one."""

import contextlib
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torchmetrics
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_cnn.callbacks import process_state
from mnist_cnn.callbacks.checkpoint import Checkpoint
from mnist_cnn.checks.folders import differences, files, last, results, scalars
from mnist_cnn.runs.folder import BEST, LAST, LOCK, state
from mnist_cnn.runs.signals import Interrupted
from tests.helpers.folder import column
from tests.helpers.own_data import OWN
from tests.helpers.process import finish, start
from tests.helpers.training import FAULT, TINY, bare_trainer, trained

STEPS = 10  # per epoch
RECIPES = {
    "plateau": ["scheduler.threshold=10", "scheduler.patience=0", "model.dropout=0.3", "test=true"],
    "one cycle, sgd, augmented": ["scheduler=one_cycle", "optimizer=sgd", "augment=photo"],
    "averaged weights, nothing validates": [
        *("callbacks=averaging", "callbacks.averaging.update_every_n_steps=3"),
        *("scheduler=one_cycle", "data.val_fraction=0", "callbacks.summary=null"),
        *("data.clean_epochs=1", "augment=mild", "module.label_smoothing=0.1"),
    ],
    "accumulated gradients, muon": [
        *("trainer.accumulate_grad_batches=3", "scheduler=cosine", "optimizer=muon"),
    ],
    "64 bits": ["trainer.precision=64-true", "optimizer=adamw"],
    "steps, not every epoch validates": [
        *("trainer.max_steps=27", "trainer.check_val_every_n_epoch=2"),
    ],
    "validated within an epoch": ["trainer.val_check_interval=5"],
    "trained on after it": ["trainer.val_check_interval=7", "objective.metric=train/loss"],
    "few labels": [
        *("module=few_labels", "data.per_class=10", "+data.unlabeled=128", "model=fast_cnn"),
        *("module.threshold=0.2", "callbacks=no_early_stopping", "scheduler=one_cycle"),
    ],
    "stopped early": [
        *("callbacks.early_stopping.min_delta=10", "callbacks.early_stopping.patience=1"),
        *("trainer.max_epochs=9", "trainer.min_epochs=3"),
    ],
}


def run(folder: Path, *overrides: str) -> Path:
    return trained(folder, "trainer.max_epochs=3", FAULT, *overrides)


FAST = ("plateau", "averaged weights, nothing validates", "few labels")


@pytest.mark.parametrize(
    "recipe",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES],
)
def test_a_run_that_is_interrupted_at_any_step_is_identical_to_one_that_is_not(
    tmp_path, fault, recipe
):
    whole = run(tmp_path / "whole", *RECIPES[recipe])
    cut = tmp_path / "cut"
    # in the first step, in the middle, in an epoch's last and first step, in the last step of all
    for step in (1, 4, 10, 11, 17, 20, 27, 30):
        fault(f"on_train_batch_start {step} SIGTERM")
        if step > last(whole)["global_step"] * 3 ** (recipe.startswith("accumulated")):
            break
        with pytest.raises(Interrupted, match=f"SIGTERM; the call that started {cut} resumes it"):
            run(cut, *RECIPES[recipe])
        assert state(cut) == "interrupted"
        torch.manual_seed(99)  # the resumed run must not depend on this state
    run(cut, *RECIPES[recipe])
    assert not differences(whole, cut)


LOADERS = {
    "of one process": ["trainer.limit_train_batches=1.0"],
    "two workers": ["+data.workers=2"],
    "workers that stay": ["+data.workers=2", "+data.persistent_workers=true"],
    "a generator of its own": ["+data.kind=own generator"],
    "generators in methods, hooks and closures": ["+data.kind=hidden"],
    "a state": ["+data.kind=stateful"],
    "a state, in whole epochs": ["+data.kind=stateful", "trainer.limit_train_batches=1.0"],
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_users_own_loader_resumes_within_an_epoch_and_trains_on(tmp_path, fault, loader):
    options = [*OWN, *LOADERS[loader], "model.dropout=0.3", "callbacks.checkpoint.every_steps=3"]
    whole, cut = run(tmp_path / "whole", *options, "trainer.max_epochs=2"), tmp_path / "cut"
    steps = last(whole)["global_step"] // 2
    points = ((7, 1), (None, 1), (steps + 1, 2), (steps + 7, 2), (2 * steps, 2), (None, 2))
    for step, epochs in points:
        fault(f"on_train_batch_start {step} SIGTERM" if step else "- 0 -")
        with pytest.raises(Interrupted) if step else contextlib.nullcontext():
            run(cut, *options, f"trainer.max_epochs={epochs}")
        torch.manual_seed(99)
    assert not differences(whole, cut)


class Adversaries(L.LightningModule):
    """Manual optimization with two optimizers, one accumulating gradients.

    Each hook draws random numbers and logs.
    """

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.nets: Any = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.error: Any = torchmetrics.MeanMetric()
        self.best: Any = torchmetrics.MinMetric()

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), 0.01) for net in self.nets]

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.eye(40, 4)), batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.eye(8, 4)), batch_size=4)

    def training_step(self, batch, batch_idx):
        (batch,) = batch
        for number, (net, optimizer) in enumerate(zip(self.nets, self.optimizers(), strict=True)):
            loss = (net(batch + 0.1 * torch.randn_like(batch)) - batch).square().mean()
            self.manual_backward(loss)
            if number or batch_idx % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
            self.log(f"train/loss_{number}", loss, on_step=False, on_epoch=True)
        self.error.update(loss)
        self.log("train/error", self.error, on_step=False, on_epoch=True)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        with torch.no_grad():
            self.nets[0].bias.add_(0.01 * torch.rand(4))
        self.log("train/bias", self.nets[0].bias.mean(), on_step=False, on_epoch=True)

    def validation_step(self, batch, batch_idx):
        loss = self.nets[0](batch[0]).square().mean() * torch.rand(())
        self.best.update(loss)
        self.log("val/loss", loss)
        self.log("val/best", self.best)

    def on_train_start(self):
        self.best.reset()


class Diary(Callback):
    """A callback that counts the started epochs and records what was logged in each."""

    def __init__(self, stop=0):
        self.stop, self.began, self.rows = stop, 0, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch * 10 + batch_idx + 1 == self.stop:
            signal.raise_signal(signal.SIGTERM)

    def on_train_epoch_start(self, *args):
        self.began += 1

    def on_train_epoch_end(self, trainer, module):
        rows = {k: v.item() for k, v in trainer.callback_metrics.items()}
        self.rows.append({"began": self.began, **rows})

    def state_dict(self):
        return {"began": self.began, "rows": self.rows}

    def load_state_dict(self, state):
        self.began, self.rows = state["began"], list(state["rows"])


def fit(folder: Path, start: Path | None, stop: int) -> tuple[list, dict]:
    torch.manual_seed(3 + bool(start))
    diary = Diary(stop)
    keeper: Any = {"monitor": None, "mode": "min", "every_seconds": None, "every_steps": None}
    trainer = bare_trainer(
        callbacks=[diary, Checkpoint(**keeper, check_every_steps=4)],
        enable_checkpointing=True,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **{"max_epochs": 3, "val_check_interval": 5, "check_val_every_n_epoch": 2},
    )
    with pytest.raises(Interrupted) if stop else contextlib.nullcontext():
        trainer.fit(Adversaries(), ckpt_path=start, weights_only=True if start else None)
    content = torch.load(folder / LAST, weights_only=True)
    return diary.rows, {key: content[key] for key in ("state_dict", "optimizer_states")}


def test_any_module_is_resumed_exactly_whatever_it_does(tmp_path):
    rows, state = fit(tmp_path / "whole", None, 0)
    start = None
    # at each step of a gradient accumulation, before a validation (which delays the stop), at
    # an epoch's start and end
    for stop in (2, 4, 8, 10, 11, 14, 15, 17, 19, 20, 21, 25, 30, 0):
        cut_rows, cut = fit(tmp_path / "cut", start, stop)
        start = tmp_path / "cut" / LAST
    assert cut_rows == rows
    assert [row["began"] for row in rows] == [1, 2, 3]
    torch.testing.assert_close(cut, state, rtol=0, atol=0)


def test_a_stream_has_no_checkpoint_within_an_epoch_and_a_line_says_so(tmp_path, fault, capsys):
    options = [*OWN, "+data.kind=stream", "callbacks.checkpoint.every_steps=3"]
    whole, cut = run(tmp_path / "whole", *options), tmp_path / "cut"
    assert "no checkpoint within an epoch: DataLoader" in capsys.readouterr().err
    for step, epochs in ((4, 0), (17, 1)):
        fault(f"on_train_batch_start {step} SIGTERM")
        with pytest.raises(Interrupted):
            run(cut, *options)
        assert (last(cut)["epoch"] if (cut / LAST).exists() else 0) == epochs
    fault("- 0 -")
    run(cut, *options)
    assert not differences(whole, cut)


known = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender is unknown")


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=known)])
def test_a_signal_to_the_workers_as_well_loses_no_step(tmp_path, name):
    options = ["hydra.run.dir=run", "callbacks.checkpoint.every_seconds=null"]
    command = ["mnist_cnn.train", *TINY, *OWN, "+data.workers=2", FAULT, *options]
    process = start(tmp_path, *command, FAULT=f"on_train_batch_start 8 group:{name}")
    code, _, err = finish(process)
    assert code == 128 + signal.Signals[name]
    assert (err.count("stopping when this step is saved"), "Traceback" in err) == (1, False)
    assert last(tmp_path / "run")["global_step"] == 8


KILLED_WHILE_IT_ASKS = """
import os, signal
from multiprocessing import connection
from torch.utils.data import DataLoader
from tests.helpers.own_data import Jittered
from mnist_cnn.runs.signals import outlive_stop

def main():
    connection.answer_challenge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    for _ in DataLoader(Jittered(), batch_size=4, num_workers=1, worker_init_fn=outlive_stop):
        pass

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tensors are shared otherwise")
def test_a_worker_whose_training_is_killed_while_it_asks_for_a_tensor_says_nothing(tmp_path):
    (tmp_path / "training.py").write_text(KILLED_WHILE_IT_ASKS)
    code, _, err = finish(start(tmp_path, "training.py"))
    assert (code, err) == (-signal.SIGKILL, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "kills"),
    [
        *(("averaged", 4), ("extended", 4), ("copied", 4), ("sweep", 2), ("ddp", 2)),
        *(("own_data", 4), ("own_data_ddp", 2)),
    ],
)
def test_processes_killed_at_any_point_end_like_those_that_are_not(tmp_path, scenario, kills):
    soak = start(tmp_path, "benchmarks.soak", f"--kills={kills}", f"--scenarios={scenario}")
    code, out, err = finish(soak, 900)  # dozens of training processes
    assert code == 0, out + err


def test_checkpoints_within_an_epoch_change_nothing(tmp_path, fault):
    whole = run(tmp_path / "whole", "logger=tensorboard")
    cut = tmp_path / "cut"
    fault("on_train_batch_start 18 raise")
    with pytest.raises(RuntimeError, match="a fault"):
        run(cut, "callbacks.checkpoint.every_steps=3", "logger=tensorboard")
    assert state(cut) == "failed"
    assert last(cut)["global_step"] == STEPS + 6
    fault("- 0 -")
    run(cut, "logger=tensorboard")  # results do not depend on how often checkpoints are saved
    assert not differences(whole, cut)
    assert [step for step, _ in scalars(cut)["val/loss"]] == [1, 2, 3]


def test_what_is_logged_before_the_first_checkpoint_stands_once_in_tensorboard(tmp_path, fault):
    fault("on_train_epoch_start 2 raise")
    with pytest.raises(RuntimeError, match="a fault"):
        run(tmp_path, "logger=tensorboard")
    assert not (tmp_path / LAST).exists()
    fault("- 0 -")
    run(tmp_path, "logger=tensorboard")
    assert [step for step, _ in scalars(tmp_path)["val/loss"]] == [1, 2, 3]


def test_an_extended_run_is_identical_to_one_of_that_length(tmp_path, fault):
    whole = run(tmp_path / "whole", "test=true")
    cut = run(tmp_path / "cut", "trainer.max_epochs=1")
    before = files(cut)
    fault("on_train_batch_start 13 raise")
    with pytest.raises(RuntimeError, match="a fault"):
        run(cut, "test=true")
    assert {**files(cut), "train.log": b""} == {**before, "train.log": b""}
    fault("on_train_batch_start 24 SIGINT")
    with pytest.raises(Interrupted, match="SIGINT"):
        run(cut, "test=true")
    assert set(before) - set(files(cut)) == {"results.json", "weights.safetensors", "history.png"}
    run(cut, "test=true")
    assert not differences(whole, cut)
    before = files(cut)
    with pytest.raises(ValueError, match=r"trainer.max_epochs must be at least 3, .*got 2"):
        run(cut, "test=true", "trainer.max_epochs=2")
    with pytest.raises(ValueError, match=r"seed must be 0 .*; force=true has nothing to resume"):
        run(cut, "test=true", "seed=1", "force=true")
    run(cut, "test=false")  # the existing test results stay
    assert files(cut) == before


def test_another_processor_is_named_when_a_run_is_resumed(tmp_path, monkeypatch, capsys):
    for epochs, name in enumerate(("one", "other", "other"), 1):
        monkeypatch.setattr(process_state, "processor", lambda name=name: name)
        trained(tmp_path, f"trainer.max_epochs={epochs}")
        said = "not identical to an uninterrupted run: processor one, now other\n"
        assert capsys.readouterr().err.count(said) == (epochs == 2)


def test_a_run_that_stopped_early_says_so_when_it_is_extended(tmp_path, capsys):
    stops = ["callbacks.early_stopping.min_delta=10", "callbacks.early_stopping.patience=1"]
    whole, cut = run(tmp_path / "whole", *stops, "trainer.max_epochs=9"), tmp_path / "cut"
    run(cut, *stops, "trainer.max_epochs=4")
    assert "left to train" not in capsys.readouterr().err
    run(cut, *stops, "trainer.max_epochs=9")
    said = f"{cut}: nothing is left to train: callbacks.early_stopping ended it after epoch 2\n"
    assert capsys.readouterr().err == said
    assert not differences(whole, cut)
    with pytest.warns(UserWarning, match="EarlyStopping"):  # Lightning misses the callback
        run(cut, "callbacks=no_early_stopping", "callbacks.summary=null", "force=true")
    assert results(cut)["epochs"] == 3


def test_a_copied_checkpoint_starts_a_new_run_beside_the_old_one(tmp_path):
    old = run(tmp_path / "old", "trainer.max_epochs=2")
    before = files(old)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    alone.mkdir()
    shutil.copy(old / LAST, alone / "copy.ckpt")
    shutil.copytree(old / LAST.parent, beside)
    # make the old run's best epoch better than any later one
    scores = {"best_score": -1.0, "best_epoch": 1}
    for file, epoch in (
        (alone / "copy.ckpt", 2),
        (beside / "last.ckpt", 2),
        (beside / "best.ckpt", 1),
    ):
        content = torch.load(file, weights_only=True)
        content["callbacks"]["Checkpoint"].update(scores)
        torch.save({**content, "epoch": epoch}, file)
    new = run(tmp_path / "new", f"ckpt_path='{beside / 'last.ckpt'}'")
    assert (results(new)["epochs"], results(new)["best_epoch"]) == (3, 1)
    assert (new / BEST).read_bytes() == (beside / "best.ckpt").read_bytes()
    new = run(tmp_path / "new alone", f"ckpt_path='{alone / 'copy.ckpt'}'")
    assert results(new)["best_epoch"] == 3  # the old best.ckpt is missing
    with pytest.raises(ValueError, match=r"data\.batch_size must be 64 as recorded, got 32"):
        run(tmp_path / "other", f"ckpt_path='{old / LAST}'", "data.batch_size=32")
    assert files(old) == before


@pytest.mark.parametrize(
    ("change", "rates"),
    [
        ("optimizer.lr=1e-2", [1e-3, 1e-2, 1e-2]),
        ("optimizer.betas=[0.8,0.9]", [1e-3] * 3),
        ("optimizer=sgd", "optimizer"),
        ("scheduler=one_cycle", "scheduler"),
    ],
)
def test_what_force_changes_is_what_trains_or_is_refused(tmp_path, change, rates):
    steady = ["callbacks=no_early_stopping", "callbacks.summary=null"]
    run(tmp_path, *steady, "trainer.max_epochs=1")
    if isinstance(rates, str):
        with pytest.raises(ValueError, match=rf"{rates}.* must be .*as in the checkpoint"):
            run(tmp_path, *steady, change, "force=true")
        return
    run(tmp_path, *steady, change, "force=true")
    assert column(tmp_path, "lr") == pytest.approx(rates)
    state = last(tmp_path)["optimizer_states"][0]
    assert list(state["param_groups"][0]["betas"]) == (
        [0.8, 0.9] if "betas" in change else [0.9, 0.999]
    )
    assert state["state"][0]["step"] == 30  # the optimizer's state is kept


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path, fault):
    fault("on_train_batch_start 2 SIGINT+SIGINT")
    with pytest.raises(Interrupted, match="SIGINT"):
        run(tmp_path)
    assert not (tmp_path / LAST).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_costs_nothing_but_the_time_since_the_last_checkpoint(tmp_path, fault):
    whole, cut = run(tmp_path / "whole"), tmp_path / "cut"
    mine = cut / "checkpoints" / "mine.new"
    mine.parent.mkdir(parents=True)
    for file in (mine, cut / LOCK):
        file.touch()
    fault("on_save_checkpoint 2 full")
    with pytest.raises(OSError, match="File too large"):
        run(cut)
    fault("- 0 -")
    assert list(cut.rglob("*.new")) == [mine]
    mine.unlink()
    assert last(cut)["epoch"] == 1
    run(cut)
    assert not differences(whole, cut)


def test_a_damaged_checkpoint_or_one_that_would_run_code_is_refused_by_name(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "ran",)

    run(tmp_path, "trainer.max_epochs=1")
    content = (tmp_path / LAST).read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    for damaged in (content[:middle], b"", flipped):
        (tmp_path / LAST).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"ckpt_path must be .*got {tmp_path / LAST}"):
            run(tmp_path)
    assert results(tmp_path)["epochs"] == 1  # still match best.ckpt and the weights
    torch.save({"state_dict": Attack()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=rf"ckpt_path must be .*got {tmp_path}/evil.ckpt"):
        run(tmp_path / "new", f"ckpt_path={tmp_path}/evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_nan_ends_the_run_and_names_the_step(tmp_path, fault):
    fault("on_train_batch_start 15 nan")
    named = "train/loss=nan at step 15, batch 5 of epoch 2; "
    with pytest.raises(ValueError, match=named):
        run(tmp_path, "data.batch_size=5", "callbacks.checkpoint.every_steps=3")
    assert state(tmp_path) == "failed"
    assert last(tmp_path)["global_step"] == STEPS + 3  # before the failure
