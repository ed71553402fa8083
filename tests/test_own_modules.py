"""Training, resuming, sweeps and reports of any LightningModule, with those of docs/extend.md."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.checks.folders import differences, results, scalars
from mnist_cnn.config.compose import compose
from mnist_cnn.runs.folder import BEST, LAST, RESULTS
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import preflight, train
from mnist_cnn.weights import predictor
from tests.helpers.docs import DOCS
from tests.helpers.folder import column
from tests.helpers.moments import faults
from tests.helpers.process import run
from tests.helpers.training import FAULT, TINY
from tests.test_own_parts import page, unpacked

PLAIN = [option for option in TINY if not option.startswith("model.")]
COMMAND = ["--config-dir", "my_conf", "targets=[my_pkg.*]"]
THREE_EPOCHS = ["trainer.max_epochs=3", "callbacks.checkpoint.every_steps=3"]
DDP = ["trainer=ddp", "trainer.devices=2", "trainer.strategy=ddp_find_unused_parameters_true"]
MODULES = {"autoencoder": "val/error", "gan": "val/distance"}
SEARCH = """
# @package _global_
defaults:
  - override /hydra/sweeper: resumable_optuna
hydra:
  sweeper:
    n_trials: 3
    params:
      module.width: choice(2, 4, 8)
callbacks:
  prune:
    _target_: mnist_cnn.callbacks.prune.Prune
    trial: ${run_dir}
    monitor: ${objective.metric}
    pruner:
      _target_: optuna.pruners.ThresholdPruner
      upper: 0.0
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    return unpacked(page()[0], tmp_path, monkeypatch)


def configured(here: Path, name: str, module: str, *overrides: str) -> Any:
    place = f"hydra.searchpath=[file://{here / 'my_conf'}]"
    options = [place, f"module={module}", COMMAND[-1], *PLAIN, *overrides]
    return compose(options, run_dir=here / name, run_name="x")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_made_of_what_it_takes_and_trained(here, module):
    train(configured(here, "run", module, "logger=tensorboard"))
    found, metric = results(here / "run"), MODULES[module]
    assert found[metric] == min(column(here / "run", metric))
    assert found["images/s"] > 0
    assert [step for step, _ in scalars(here / "run")[metric]] == [1, 2]
    state = torch.load(here / "run" / LAST, weights_only=True)
    assert len(state["optimizer_states"]) == (2 if module == "gan" else 1)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_interrupted_at_ten_steps_ends_like_an_uninterrupted_one(here, fault, module):
    options = [FAULT, *THREE_EPOCHS]
    train(configured(here, "whole", module, *options))
    for point in faults():
        fault(point)
        with pytest.raises((Interrupted, RuntimeError), match=r"SIGTERM|a fault in"):
            train(configured(here, "cut", module, *options))
        torch.manual_seed(99)  # the resumed run must not depend on this state
    fault("- 0 -")
    train(configured(here, "cut", module, *options))
    assert not differences(here / "whole", here / "cut")


@pytest.mark.slow
def test_a_mean_over_two_processes_weighs_each_sample_alike(here):
    odd = [*PLAIN, "data.eval_batch_size=333", "callbacks.summary=null"]  # cannot be halved
    train(configured(here, "one", "autoencoder", *odd))
    options = [*COMMAND, "module=autoencoder", *odd, *DDP, "hydra.run.dir=two"]
    done = run(here, "mnist_cnn.train", *options)
    assert done.returncode == 0, done.stderr
    one, two = (column(here / name, "val/error") for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_two_processes_interrupted_at_ten_steps_end_like_uninterrupted_ones(here, module):
    options = [f"hydra.searchpath=[file://{here / 'my_conf'}]", COMMAND[-1], f"module={module}"]
    options += [*PLAIN, *THREE_EPOCHS, *DDP, FAULT, "run_name=x"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = run(here, *torchrun, "tests.helpers.moments", *options)
    assert done.returncode == 0, done.stderr
    assert not differences(here / "whole", here / "cut")


@pytest.mark.slow
def test_two_processes_that_are_killed_end_like_uninterrupted_ones(here):
    options = [*COMMAND, "module=gan", *PLAIN, *DDP, FAULT, "run_name=x"]
    options += ["callbacks.checkpoint.every_steps=3"]
    done = run(here, "mnist_cnn.train", *options, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    for fault in ("on_train_batch_start 6 SIGKILL 1", "on_train_batch_start 14 SIGTERM"):
        run(here, "mnist_cnn.train", *options, "hydra.run.dir=cut", FAULT=fault)
        assert not (here / "cut" / RESULTS).exists()
    done = run(here, "mnist_cnn.train", *options, "hydra.run.dir=cut")
    assert done.returncode == 0, done.stderr
    assert not differences(here / "whole", here / "cut")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "size"), [("autoencoder", "width"), ("gan", "latent")])
def test_a_module_is_swept_searched_pruned_and_reported_by_its_own_metric(here, module, size):
    metric, key = MODULES[module], f"module.{size}"
    swept = ["-m", f"module={module}", f"{key}=4,8", "seed=0,1", "hydra.sweep.dir=sweep"]
    done = run(here, "mnist_cnn.train", *COMMAND, *PLAIN, *swept)
    assert done.returncode == 0, done.stderr
    done = run(here, "mnist_cnn.report", "sweep", "--json", "sweep.json")
    best, other = json.loads((here / "sweep.json").read_text())
    assert best[f"{metric} mean"] < other[f"{metric} mean"]
    assert (best["n"], {best[key], other[key]}) == (2, {4, 8})
    (here / "my_conf" / "hparams_search").mkdir()
    search = here / "my_conf" / "hparams_search" / "size.yaml"
    search.write_text(SEARCH.replace("module.width", key))
    searched = ["-m", f"module={module}", "hparams_search=size", "hydra.sweep.dir=search"]
    done = run(here, "mnist_cnn.train", *COMMAND, *PLAIN, *searched)
    assert done.returncode == 0, done.stderr
    assert len([*(here / "search").glob("*/pruned.json")]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_the_checks_pass_the_page_s_modules(here, module):
    done = run(here, "mnist_cnn.checks", "-q", f"--module=my_conf/module/{module}.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["+module.depth=2"], "module.depth: my_pkg.autoencoder.Autoencoder takes width"),
        (["model=cnn"], "model: my_pkg.autoencoder.Autoencoder takes none"),
        (["scheduler=plateau", "+metrics.f1._target_=torch.nn.ReLU"], "scheduler and metrics: "),
        (["~optimizer"], "optimizer must be set, which my_pkg.autoencoder.Autoencoder takes"),
        (["test=true"], "test must be false with my_pkg.autoencoder.Autoencoder"),
    ],
)
def test_what_a_module_does_not_take_or_lacks_is_refused(here, overrides, line):
    with pytest.raises(ValueError, match=r".") as refused:
        preflight(configured(here, "run", "autoencoder", *overrides))
    assert str(refused.value).startswith(line)


def test_a_metric_that_is_not_logged_ends_the_run_with_those_that_are(here):
    cfg = configured(here, "run", "autoencoder", "objective.metric=val/loss")
    line = r"^objective.metric must be (val|train)/error or (val|train)/error, got val/loss$"
    with pytest.raises(ValueError, match=line):
        train(cfg)


def test_commands_for_classifiers_say_that_a_module_is_none(here):
    train(configured(here, "run", "autoencoder"))
    for place in (here / "run", here / "run" / BEST):
        with pytest.raises(
            ValueError, match=r"^.*best.ckpt: a checkpoint of a module that is no cl"
        ):
            predictor.load(place)
    with pytest.raises(ValueError, match=r"^init_weights must be null with my_pkg"):
        train(configured(here, "other", "autoencoder", f"init_weights={here / 'run'}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["evaluate"], ["export", "--out=out"], ["predict", str(DOCS / "drawing.png")]]
)
def test_each_command_for_classifiers_ends_in_a_line_at_another_module_s_run(here, command):
    train(configured(here, "run", "autoencoder"))
    done = run(here, f"mnist_cnn.{command[0]}", *command[1:], "ckpt_path=run", COMMAND[-1])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "best.ckpt: a checkpoint of a module that is no classifier; " in done.stderr


def test_settings_of_one_s_own_hold_for_every_run(here):
    (here / "my_conf" / "local").mkdir()
    (here / "my_conf" / "local" / "default.yaml").write_text("# @package _global_\nseed: 7\n")
    assert configured(here, "run", "gan").seed == 7
    assert configured(here, "run", "gan", "seed=1").seed == 1
