"""The loop of internals/loop.py gives what Lightning's own gives, bit for bit."""

import os
import signal

import lightning as L
import pytest
import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from mnist_cnn.callbacks import finite
from mnist_cnn.config.compose import compose
from mnist_cnn.internals import loop
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.runs.state import LAST
from mnist_cnn.train import train
from tests.helpers.comparison import contents, differences
from tests.helpers.training import SHORT, bare_trainer

RUNS = {
    "plateau": ["trainer.max_epochs=3", "scheduler.threshold=10", "scheduler.patience=0"],
    "one cycle": ["scheduler=one_cycle", "model.dropout=0.25", "augment=photo"],
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("stop", [0, 27], ids=["whole", "resumed within an epoch"])
def test_a_run_leaves_the_same_with_either_loop(tmp_path, monkeypatch, name, stop):
    def stop_once(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch * trainer.num_training_batches + batch_idx + 1 == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(folder):
        options = [*SHORT, *RUNS[name], "trainer.limit_val_batches=1"]
        if stop:
            with monkeypatch.context() as patch:
                patch.setattr(finite.Finite, "on_train_batch_start", stop_once)
                with pytest.raises(Interrupted):
                    train(compose(options, run_dir=folder, run_name="x"))
            options.append(f"ckpt_path={folder / LAST}")
        train(compose(options, run_dir=folder, run_name="x"))
        return contents(folder)

    taken, optimize = [], loop.SlimEpochLoop.optimize

    def count(self, args):
        taken.append(args)
        return optimize(self, args)

    monkeypatch.setattr(loop.SlimEpochLoop, "optimize", count)
    ours = run(tmp_path / "ours")
    assert len(taken) >= 39  # Lightning's own takes the first step of a resumed run
    monkeypatch.setattr(loop, "use_slim_loop", lambda trainer: False)
    lightnings = run(tmp_path / "lightnings")
    assert not differences(lightnings, ours)


def summary(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.detach().double().sum().item()
    if isinstance(value, (tuple, list)):
        return [summary(v) for v in value]
    if isinstance(value, dict):
        return {k: summary(v) for k, v in value.items()}
    return repr(value) if isinstance(value, (int, float, str, type(None))) else type(value).__name__


def recording(base, names, calls):
    """A subclass of a callback or module that notes the calls of its hooks in a list."""

    def hook(name):
        def note(self, *args, **kwargs):
            trainer = args[0] if isinstance(self, L.Callback) else self.trainer
            module = trainer.lightning_module
            grads = [None if p.grad is None else p.grad.sum().item() for p in module.parameters()]
            state = {} if name == "teardown" else summary(trainer.fit_loop.state_dict())
            logged = summary({**trainer.callback_metrics, **trainer.logged_metrics})
            fx = module._current_fx_name
            calls.append(
                (name, type(self), summary(args), summary(kwargs), grads, fx, state, logged)
            )
            if name in loop.HOOKS:
                module.log(f"hooks/{name}", float(len(calls)), on_step=True, on_epoch=True)

        return note

    return type(f"Recording{base.__name__}", (base,), {name: hook(name) for name in names})


class Linear(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        if batch_idx == 4:
            return None  # Lightning passes over such a step
        return {"loss": loss, "index": batch_idx} if batch_idx % 2 else loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.layer(batch[0]).mean())

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(12, 3, generator=generator)), batch_size=2)


@pytest.mark.filterwarnings("ignore")  # of Lightning: no workers, a step that returns None
def test_every_overridden_hook_is_called_alike_with_either_loop(tmp_path):
    def calls_of(install):
        calls: list = []
        every = [name for name in dir(L.Callback) if name.startswith("on_")]
        callback = recording(L.Callback, [*every, "setup", "teardown"], calls)
        own = [name for name in loop.HOOKS if name != "on_train_batch_start"]
        module = recording(Linear, own, calls)()
        first, second = callback(), callback()
        trainer = bare_trainer(
            max_epochs=2, val_check_interval=3, callbacks=[first, second], log_every_n_steps=2
        )
        if install:
            assert loop.use_slim_loop(trainer)
        trainer.fit(module, loader(), loader())
        assert getattr(trainer.fit_loop.epoch_loop, "slim", False) == install
        calls.append(summary(module.state_dict()))
        return [str(call).replace("SlimEpochLoop", "") for call in calls]

    ours, lightnings = calls_of(True), calls_of(False)
    assert len(ours) > 12 * 3 * len(loop.HOOKS)
    for one, other in zip(ours, lightnings, strict=True):
        assert one == other


class OwnStep(Linear):
    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)


class MaySkip(Linear):
    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 2 else None


@pytest.mark.filterwarnings("ignore")  # of Lightning: no workers
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Linear, {"accumulate_grad_batches": 2}),
        (Linear, {"gradient_clip_val": 0.5}),
        (Linear, {"precision": "bf16-mixed"}),
        (Linear, {"profiler": "simple"}),
        (OwnStep, {}),
        (MaySkip, {}),
    ],
)
def test_where_a_step_needs_more_lightnings_own_takes_it(kind, options):
    trainer = bare_trainer(max_epochs=1, limit_train_batches=3, **options)
    assert loop.use_slim_loop(trainer)
    trainer.fit(kind(), loader())
    assert not getattr(trainer.fit_loop.epoch_loop, "slim", True)


def test_lightnings_loop_is_the_one_that_was_read():
    assert loop.use_slim_loop(bare_trainer()), (
        "mnist_cnn/internals/loop.py repeats advance of Lightning 2.6.6's training epoch loop; in "
        f"{L.__version__} training takes Lightning's own, slower one. Compare their "
        "lightning/pytorch/loops, trainer/call.py and plugins/precision/precision.py, then name "
        "this release there."
    )
