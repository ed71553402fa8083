"""Interrupted equals uninterrupted; what is damaged, changed or not finite is refused."""

import csv
import os
import random
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mnist_cnn.callbacks import finite
from mnist_cnn.config.compose import compose, flat
from mnist_cnn.data.loader import generator
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs import checks, generators, jobs, state
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train
from tests.helpers.folder import end
from tests.helpers.training import SHORT


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal during a step (from 1, over all epochs)."""

    def at(step: int, number: int = signal.SIGTERM) -> None:
        def kill(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch * trainer.num_training_batches + batch_idx + 1 == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(finite.Finite, "on_train_batch_start", kill)

    return at


RECIPES = {
    "plateau": ["scheduler.threshold=10", "scheduler.patience=0", "model.dropout=0.3"],
    "one cycle, sgd, augmented": ["scheduler=one_cycle", "optimizer=sgd", "augment=photo"],
    "averaged weights, nothing validates": [
        *("callbacks=averaging", "callbacks.averaging.update_every_n_steps=3"),
        *("model=vgg", "model.stages=[[4],[4]]", "scheduler=one_cycle"),
        *("data.val_fraction=0", "data.clean_epochs=1", "augment=mild", "label_smoothing=0.1"),
    ],
    "accumulated gradients": ["trainer.accumulate_grad_batches=3", "scheduler=cosine"],
}


FIRST, *OTHERS = RECIPES


@pytest.mark.parametrize(
    "recipe", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_a_run_that_was_stopped_again_and_again_ends_like_one_that_was_not(
    tmp_path, stop_at, recipe
):
    options = [*SHORT, *RECIPES[recipe], "trainer.max_epochs=3", "logger=none"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(compose(options, run_dir=whole))

    again: list[str] = []
    # in the first step, in the middle, in an epoch's last step and first step, in the last of all
    for step in (1, 7, 20, 21, 33, 40, 60):
        stop_at(step)
        with pytest.raises(Interrupted, match=f"SIGTERM; resume it with ckpt_path={cut}"):
            train(compose([*options, *again], run_dir=cut))
        again = [f"ckpt_path={cut / state.LAST}"]
        torch.manual_seed(99)  # whatever the process drew meanwhile
    stop_at(0)
    train(compose([*options, *again], run_dir=cut))
    assert end(cut) == end(whole)


def test_a_run_that_is_stopped_in_its_very_last_step_has_its_last_epoch(tmp_path, stop_at):
    options = [*SHORT, "trainer.max_epochs=3", "trainer.max_steps=27", "logger=none"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(compose(options, run_dir=whole))["epochs"] == 2
    stop_at(27)
    with pytest.raises(Interrupted):
        train(compose(options, run_dir=cut))
    train(compose([*options, f"ckpt_path={cut / state.LAST}"], run_dir=cut))
    assert end(cut) == end(whole)


def test_a_run_that_was_made_longer_and_interrupted_keeps_no_former_results(tmp_path, stop_at):
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = [*SHORT, "logger=csv"]
    longer = ["trainer.max_epochs=3", f"ckpt_path={run}"]
    train(compose([*options, "trainer.max_epochs=3"], run_dir=whole))
    train(compose(options, run_dir=run))
    finished = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    logged = (run / "csv" / "version_0" / "metrics.csv").read_bytes()

    def fail(self, trainer, pl_module, batch, batch_idx):
        raise RuntimeError("before there is a newer checkpoint")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finite.Finite, "on_train_batch_start", fail)
        with pytest.raises(RuntimeError, match="newer"):
            train(compose([*options, *longer], run_dir=run))
    assert state.state(run) == "finished"
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == finished

    stop_at(47)
    with pytest.raises(Interrupted):
        train(compose([*options, *longer], run_dir=run))
    assert state.state(run) == "interrupted"
    left = {path.name for path in run.iterdir() if path.is_file()}
    assert set(finished) - left == {"results.json", "weights.safetensors", "history.png"}
    stop_at(0)
    train(compose([*options, *longer], run_dir=run))
    assert end(run) == end(whole)
    assert (run / "csv" / "version_0" / "metrics.csv").read_bytes() == logged


def test_a_checkpoint_that_was_copied_starts_a_new_run(tmp_path):
    old, options = tmp_path / "old", [*SHORT, "logger=none", "trainer.limit_val_batches=1"]
    train(compose(options, run_dir=old))
    content = torch.load(old / state.LAST, weights_only=True)
    content["callbacks"]["Checkpoint"] = {"best_score": -1.0, "best_epoch": 1}  # none gets better
    for folder in ("alone", "with the best"):
        (tmp_path / folder).mkdir()
        torch.save(content, tmp_path / folder / "copy.ckpt")
    best = tmp_path / "with the best" / "best.ckpt"
    torch.save({**content, "epoch": 1}, best)
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}

    def started(name: str, *overrides: str) -> tuple[Path, dict]:
        run, checkpoint = tmp_path / f"from {name}", tmp_path / name / "copy.ckpt"
        cfg = compose([*options, f"ckpt_path='{checkpoint}'", *overrides], run_dir=run)
        return run, train(cfg)

    run, results = started("alone", "trainer.max_epochs=3")
    assert (results["epochs"], results["best_epoch"]) == (3, 3)  # of those that are there
    kept = torch.load(run / state.BEST, weights_only=True)
    assert kept["epoch"] == 3
    run, results = started("with the best", "trainer.max_epochs=3")
    assert (results["epochs"], results["best_epoch"]) == (3, 1)
    assert (run / state.BEST).read_bytes() == best.read_bytes()
    with pytest.raises(ValueError, match=r"run_dir must be .* a finished run; resume it with"):
        started("alone", "trainer.max_epochs=4")
    with pytest.raises(ValueError, match=r"data\.batch_size must be 64, as trained so far, got 32"):
        started("alone", "data.batch_size=32")
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


NEVER_BETTER = [
    *SHORT,
    "trainer.max_epochs=9",
    "optimizer.lr=1e-12",
    "callbacks.early_stopping.min_delta=1",
    "callbacks.early_stopping.patience=1",
    "logger=none",
]


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 1])
def test_what_stopped_early_stays_stopped(tmp_path, monkeypatch, patience):
    options = [*NEVER_BETTER, f"callbacks.early_stopping.patience={patience}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(compose(options, run_dir=whole))["epochs"] == 2

    def killed(self, *args, **kwargs):
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.test", killed)
        with pytest.raises(Interrupted):
            train(compose(options, run_dir=cut))
    train(compose([*options, f"ckpt_path={cut / state.LAST}"], run_dir=cut))
    assert end(cut) == end(whole)


def test_min_epochs_hold_off_early_stopping_alike_in_a_resumed_run(tmp_path, stop_at, monkeypatch):
    options = [*NEVER_BETTER, "trainer.min_epochs=4"]
    losses = iter([9.0, 9.0, 1.0, 0.0, 9.0, 9.0, 9.0] * 2)  # better again after early stopping

    def validated(self, stage, log=DigitClassifier.log_epoch):
        log(self, stage)
        if stage == "val":
            self.log("val/loss", torch.tensor(next(losses), dtype=torch.float64))

    monkeypatch.setattr(DigitClassifier, "log_epoch", validated)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(compose(options, run_dir=whole))["epochs"] == 4
    losses = iter([9.0, 9.0, 1.0, 0.0, 9.0, 9.0, 9.0])
    stop_at(63)  # after early stopping, and in the middle of an epoch: signals are answered there
    with pytest.raises(Interrupted):
        train(compose(options, run_dir=cut))
    stop_at(0)
    train(compose([*options, f"ckpt_path={cut / state.LAST}"], run_dir=cut))
    assert end(cut) == end(whole)


def test_an_epoch_that_was_cut_short_is_named_when_the_run_is_resumed(tmp_path, capsys):
    options = [*SHORT, "trainer.max_epochs=3", "logger=none", "force=true"]
    results = train(compose([*options, "trainer.max_steps=27"], run_dir=tmp_path))
    assert (results["epochs"], results["best_epoch"]) == (2, 1)
    assert "not bit for bit" not in capsys.readouterr().err
    train(compose([*options, f"ckpt_path={tmp_path / state.LAST}"], run_dir=tmp_path))
    assert "not bit for bit the run that it was: epoch 2 ended after 7 of 20 batches" in (
        capsys.readouterr().err
    )


def test_a_run_that_ends_before_its_first_validation_is_trained(tmp_path):
    options = [*SHORT, "trainer.max_steps=7", "logger=none"]
    results = train(compose(options, run_dir=tmp_path))
    assert results["epochs"] == 1
    assert "val/loss" not in results
    assert results["test/acc"] > 0.1


def rates(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def test_what_force_changes_is_what_trains(tmp_path):
    options = [*SHORT, "logger=none", "callbacks=no_early_stopping", "trainer.max_epochs=4"]
    one_cycle = ["scheduler=one_cycle"]
    first = tmp_path / "first"
    train(compose([*options, "trainer.max_epochs=1"], run_dir=first))
    train(compose([*options, *one_cycle], run_dir=tmp_path / "one cycle"))
    train(compose([*options, *one_cycle, "trainer.max_epochs=1"], run_dir=tmp_path / "short cycle"))
    for name, begun, changes, expected in (
        ("same", "first", [], [1e-3] * 4),
        ("rate", "first", ["optimizer.lr=1e-2"], [1e-3, *[1e-2] * 3]),
        ("moments", "first", ["optimizer.betas=[0.8,0.9]"], [1e-3] * 4),
        ("optimizer", "first", ["optimizer=sgd"], [1e-3, *[0.02] * 3]),
        ("schedule", "first", one_cycle, [1e-3, *rates(tmp_path / "one cycle")[1:]]),
        (
            *("length", "short cycle", one_cycle),
            [rates(tmp_path / "short cycle")[0], *rates(tmp_path / "one cycle")[1:]],
        ),
        ("none", "first", ["scheduler=none"], [1e-3] * 4),
    ):
        again = ["force=true", f"ckpt_path={tmp_path / begun / state.LAST}"]
        train(compose([*options, *changes, *again], run_dir=tmp_path / name))
        assert rates(tmp_path / name) == pytest.approx(expected), name
        last = torch.load(tmp_path / name / state.LAST, weights_only=True)
        (group,) = last["optimizer_states"][0]["param_groups"]
        assert ("betas" in group) == (name != "optimizer")
        if name == "moments":
            assert list(group["betas"]) == [0.8, 0.9]
            assert last["optimizer_states"][0]["state"][0]["step"] == 80  # none is forgotten


@pytest.mark.slow
def test_64_bits_are_resumed_with_all_of_them(tmp_path, stop_at):
    options = [*SHORT, "trainer.precision=64-true", "logger=none"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(compose(options, run_dir=whole))
    stop_at(7)
    with pytest.raises(Interrupted):
        train(compose(options, run_dir=cut))
    stop_at(0)
    train(compose([*options, f"ckpt_path={cut / state.LAST}"], run_dir=cut))
    assert end(cut) == end(whole)


LIGHTNING = "lightning.pytorch.callbacks"
NOT_EXACT = "no exact resume is promised with callbacks.checkpoint"


def test_a_checkpoint_callback_of_lightning_works_beside_ours(tmp_path):
    own = [f"+callbacks.own._target_={LIGHTNING}.ModelCheckpoint"]
    own += ["+callbacks.own.dirpath=${run_dir}/own"]
    train(compose([*SHORT, *own, "logger=none"], run_dir=tmp_path))
    assert list((tmp_path / "own").glob("*.ckpt"))


def test_lightnings_checkpoint_callback_in_place_of_ours_trains_and_resumes(tmp_path, capsys):
    own = [*SHORT, "logger=none", f"callbacks.checkpoint._target_={LIGHTNING}.ModelCheckpoint"]
    own += ["+callbacks.checkpoint.dirpath=${run_dir}/own", "+callbacks.checkpoint.save_last=true"]
    results = train(compose(own, run_dir=tmp_path / "run"))
    assert capsys.readouterr().err.count(NOT_EXACT) == 1
    (best,) = (tmp_path / "run" / "own").glob("epoch=*")
    kept = torch.load(best, weights_only=True)
    assert results["best_epoch"] == kept["epoch"] + 1
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, kept["state_dict"][f"net.{name}"])

    again = ["trainer.max_epochs=3", f"ckpt_path={tmp_path / 'run' / 'own' / 'last.ckpt'}"]
    with pytest.warns(UserWarning, match="dirpath has changed"):
        train(compose([*own, *again], run_dir=tmp_path / "again"))
    with (tmp_path / "again" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)][-1] == "3"
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        train(compose([*SHORT, *again, "logger=none"], run_dir=tmp_path / "ours"))
    assert "another callback wrote the checkpoint" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_callback_of_its_own_has_lightnings(tmp_path, capsys):
    results = train(compose([*SHORT, "logger=none", "callbacks.checkpoint=null"], run_dir=tmp_path))
    assert NOT_EXACT in capsys.readouterr().err
    assert results["test/acc"] > 0.1
    assert list(tmp_path.rglob("*.ckpt"))


def test_a_resume_says_that_lightnings_weight_averaging_is_not_exact(tmp_path, capsys):
    options = [*SHORT, "logger=none", "callbacks=no_early_stopping", "scheduler=none"]
    options += [f"+callbacks.swa._target_={LIGHTNING}.StochasticWeightAveraging"]
    options += ["+callbacks.swa.swa_lrs=0.01", "trainer.max_epochs=3"]
    train(compose(options, run_dir=tmp_path))
    best = tmp_path / "checkpoints" / "best.ckpt"
    train(compose([*options, f"ckpt_path={best}"], run_dir=tmp_path / "again"))
    assert "StochasticWeightAveraging is not resumed exactly" in capsys.readouterr().err


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path, monkeypatch):
    def twice(self, trainer, pl_module, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(finite.Finite, "on_train_batch_start", twice)
    with pytest.raises(Interrupted, match="SIGINT"):
        train(compose([*SHORT, "logger=none"], run_dir=tmp_path))
    assert not (tmp_path / state.LAST).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nan_ends_the_run_and_names_the_step_and_its_images(tmp_path, monkeypatch):
    def spoil(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 4:
            batch[0].fill_(float("nan"))

    monkeypatch.setattr(finite.Finite, "on_train_batch_start", spoil)
    options = [*SHORT, "data.batch_size=5", "logger=none", "callbacks.checkpoint.every_steps=3"]
    rows = torch.randperm(48_000, generator=generator(0, 1))[20:25] + 12_000
    named = f"batch 5 of epoch 2, rows {' '.join(map(str, rows.tolist()))} of the training file"
    with pytest.raises(
        ValueError, match=f"train/loss=nan at step 25, {named}; .*last.ckpt is from"
    ):
        train(compose(options, run_dir=tmp_path))
    assert state.state(tmp_path) == "failed"
    last = torch.load(tmp_path / state.LAST, weights_only=True)
    assert last["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 1, "batch": 3}]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB, and how to make it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_in_a_sentence_and_costs_nothing(command, tmp_path, small_disk):
    disk, enlarge = small_disk
    options = [*SHORT, "trainer.max_epochs=3", "run_name=x"]
    whole, cut = tmp_path / "whole", disk / "cut"
    assert command(*options, f"hydra.run.dir={whole}").returncode == 0
    done = command(*options, f"hydra.run.dir={cut}")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert f"ckpt_path={cut}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(cut.rglob("*.new"))
    assert checks.is_whole(cut / state.LAST)
    enlarge()
    assert command(f"ckpt_path={cut}").returncode == 0
    assert end(cut) == end(whole)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_an_older_one_is_named(command, tmp_path):
    run = tmp_path / "run"
    train(compose([*SHORT, "logger=none"], run_dir=run))
    content = bytearray((run / state.LAST).read_bytes())
    middle = len(content) // 2
    for damaged in (content[:middle], b"", content[:middle] + b"\xff\x00" + content[middle + 2 :]):
        (run / state.LAST).write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"^ckpt_path must be .*, got .*last\.ckpt: .*; .*best\.ckpt is whole"
        ):
            checks.content_to_resume(run / state.LAST)
    done = command(f"ckpt_path={run / state.LAST}", "hydra.run.dir=other")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()
    checks.content_to_resume(run / "checkpoints" / "best.ckpt")


def test_a_finished_run_says_that_nothing_was_left_to_train(short_run, tmp_path, capsys):
    results = short_run("run")
    assert "step" not in results
    cfg = compose([*SHORT, f"ckpt_path={tmp_path / 'run' / state.LAST}"], run_dir=tmp_path / "run")
    jobs.start(train, cfg)
    assert capsys.readouterr().out.endswith(
        "nothing was left to train: set trainer.max_epochs above 2\n"
    )


def test_what_would_make_another_run_is_refused_by_name():
    def check(before: list[str], *now: str) -> None:
        was, now_is = (compose([*before, *more], run_dir="x") for more in ((), now))
        checks.check_same(flat(was), now_is)

    cycle = ["scheduler=one_cycle"]
    allowed = ["trainer.max_time=00:01:00:00", "logger=csv", "callbacks.checkpoint.every_seconds=5"]
    check(cycle, *allowed, "data.eval_batch_size=100")
    for change, message in {
        "data.batch_size=32": "data.batch_size must be 64, as trained so far, got 32; force",
        "optimizer=sgd": "optimizer.name must be Adam, as trained so far, got SGD",
        "augment=photo": r"data\.augment\.degrees must be null, .* got 12; .* \d+ keys more",
        "callbacks.early_stopping=null": r"early_stopping.monitor must be val/loss, .* got null",
        "trainer.max_epochs=20": "trainer.max_epochs must be 10, .* got 20",
    }.items():
        with pytest.raises(ValueError, match=message):
            check(cycle, change)
    check([], "trainer.max_epochs=20")
    check([], "objective.mode=min")
    with pytest.raises(ValueError, match=r"objective\.mode must be min, .* got max"):
        check([], "objective.mode=max")
    with pytest.raises(ValueError, match=r"trainer\.max_epochs must be 10, "):
        check(["callbacks=averaging"], "trainer.max_epochs=20")


def test_every_random_generator_is_resumed_where_it_was():
    cpu = torch.device("cpu")
    states = generators.generators(cpu)
    drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
    generators.set_generators(states, cpu)
    assert [random.random(), np.random.rand(), torch.rand(1).item()] == drawn
