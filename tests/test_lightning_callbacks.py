"""Lightning's own callbacks work in a run, each by one override."""

import pytest
import torch
from lightning.pytorch import Callback, callbacks
from torch.optim.swa_utils import SWALR

from mnist_cnn.callbacks.exactness import is_inexact
from mnist_cnn.checks.folders import scalars, weights
from tests.helpers.folder import column
from tests.helpers.training import trained

LIGHTNINGS = "lightning.pytorch.callbacks"


def added(name: str, *arguments: str) -> list[str]:
    return [f"+callbacks.own={{{','.join([f'_target_:{LIGHTNINGS}.{name}', *arguments])}}}"]


def test_the_monitor_of_rates_logs_beside_the_history(tmp_path):
    trained(tmp_path, *added("LearningRateMonitor", "logging_interval:epoch"), "logger=tensorboard")
    logged = scalars(tmp_path)
    assert [step for step, _ in logged["val/loss"]] == [1, 2]
    for name in ("lr", "lr-Adam"):
        assert [rate for _, rate in logged[name]] == pytest.approx(column(tmp_path, "lr"))


def test_lightnings_progress_bar_takes_the_place_of_this_projects(tmp_path, capsys):
    bar = ["callbacks.progress=null", f"+callbacks.bar._target_={LIGHTNINGS}.TQDMProgressBar"]
    trained(tmp_path, *bar, "trainer.enable_progress_bar=true")
    said = capsys.readouterr()
    assert "Epoch 1: 100%" in said.out + said.err


def schedule_has_code() -> bool:
    """Return whether PyTorch puts a function into the state of SWALR, as 2.6 does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return "anneal_func" in SWALR(optimizer, swa_lr=0.1).state_dict()


@pytest.mark.skipif(schedule_has_code(), reason="checkpoints with code are not loaded")
def test_stochastic_weight_averaging_sets_the_rate(tmp_path, capsys):
    averaging = added("StochasticWeightAveraging", "swa_lrs:0.01", "swa_epoch_start:1")
    rates = column(trained(tmp_path, *averaging, "trainer.max_epochs=3"), "lr")
    assert 0.001 < rates[0] < rates[1] < rates[2]
    assert "no exact resume is promised with callbacks.own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (*added("LearningRateFinder"), "callbacks.own"),
        (*added("BatchSizeFinder"), "callbacks.own"),
        (*added("BackboneFinetuning"), "callbacks.own"),
        ("trainer.limit_train_batches=0.0001", "trainer.limit_train_batches"),
        ("trainer.limit_test_batches=0.01", "trainer.limit_test_batches"),
        *((f"+trainer.{key}=x", f"trainer.{key}") for key in ("callbacks", "logger", "plugins")),
        ("trainer.enable_checkpointing=false", "trainer.enable_checkpointing"),
        ("trainer.val_check_interval='00:00:00:01'", "trainer.val_check_interval"),
        ("+trainer.barebones=true", "trainer.barebones"),
    ],
)
def test_what_is_not_supported_is_refused_before_there_is_a_folder(override, key, tmp_path):
    with pytest.raises(ValueError, match=rf"^{key}\b"):
        trained(tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


class Forgetful(Callback):
    seen = 0

    def on_train_batch_end(self, *args):
        self.seen += 1


class Remembering(Forgetful):
    def state_dict(self):
        return {"seen": self.seen}


class Between(Callback):
    def on_train_epoch_end(self, *args):
        pass


RELOAD = "reload_dataloaders_every_n_epochs"


def test_what_has_no_exact_resume_is_named(tmp_path, capsys):
    exact = {
        Remembering: True,
        Between: True,
        callbacks.TQDMProgressBar: True,
        callbacks.LearningRateMonitor: False,
        Forgetful: False,
    }
    assert {kind: not is_inexact(kind()) for kind in exact} == exact
    own = [f"+callbacks.own._target_={__name__}.Forgetful", "targets=[tests.*]"]
    trained(tmp_path, *own, "trainer.max_epochs=1", f"trainer.{RELOAD}=1")
    line = f"no exact resume is promised with callbacks.own, trainer.{RELOAD}\n"
    assert line in capsys.readouterr().err


def test_weights_are_pruned_by_lightnings_callback(tmp_path):
    pruning = added("ModelPruning", "pruning_fn:l1_unstructured", "amount:0.5")
    net = weights(trained(tmp_path, *pruning))
    share = sum((w == 0).sum() for w in net.values()) / sum(w.numel() for w in net.values())
    assert 0.4 < share < 0.8
