"""Whole programs: from the command line to a run's folder, interrupted and resumed."""

import json
import os
import subprocess
import sys
from typing import Any
from urllib.request import urlopen

import pytest
import torch

from mnist_cnn.config.compose import compose
from mnist_cnn.module import DigitClassifier
from mnist_cnn.train import train
from tests.helpers.folder import measured, only_run, rows, scalars, weights
from tests.helpers.process import environment, wait_for
from tests.helpers.training import SHORT


def test_a_run_prints_no_warning_and_leaves_everything_in_its_folder(command, tmp_path):
    done = command(*SHORT, "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    run = only_run(tmp_path)
    present = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        "train.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "weights.safetensors",
        "history.csv",
        "history.png",
        "results.json",
    } <= present
    assert not [name for name in present if name.endswith(".new")]
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 2
    assert results["parameters"] == 225_034
    assert results["config"]["optimizer"]["lr"] == 0.001
    history = rows(run)
    assert [row["epoch"] for row in history] == ["1", "2"]
    best = history[results["best_epoch"] - 1]
    assert float(best["val/acc"]) == results["val/acc"]
    assert float(best["val/loss"]) == min(float(row["val/loss"]) for row in history)
    logged = scalars(run)
    for key in ("train/loss", "train/acc", "val/loss", "val/acc", "lr"):
        assert [value for _, value in logged[key]] == pytest.approx(
            [float(r[key]) for r in history]
        )
    assert "epoch  2/2" in (run / "train.log").read_text()
    for shown in ("validation", "test", "225,034 parameters", "results.json"):
        assert shown in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_the_test_set_is_read_whole_with_the_best_weights(short_run, tmp_path):
    results = short_run("run", "trainer.limit_test_batches=1.0")
    loss, acc = measured(tmp_path / "run")
    assert results["test/acc"] == pytest.approx(acc, abs=1.5e-4)  # one image of a tie
    assert results["test/loss"] == pytest.approx(loss, rel=1e-4)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    for key, value in weights(tmp_path / "run").items():
        assert torch.equal(value, kept["state_dict"][f"net.{key}"])


def test_the_same_seed_gives_the_same_run_bit_for_bit(short_run, tmp_path):
    first, again, other = (
        short_run(name, f"seed={seed}", "model.dropout=0.25")
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    for key in ("train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc"):
        assert first[key] == again[key]
    same, twin = weights(tmp_path / "first"), weights(tmp_path / "again")
    assert all(torch.equal(same[key], twin[key]) for key in same)
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("first", "again")]
    assert files[0] == files[1]
    assert first["train/loss"] != other["train/loss"]


@pytest.mark.slow
def test_five_folds_run_as_one_sweep(command, tmp_path):
    few = ["trainer.max_epochs=1", "trainer.limit_train_batches=5", "test=false", "logger=none"]
    done = command("-m", *SHORT, *few, "data.fold=0,1,2,3,4")
    assert done.returncode == 0, done.stderr
    (sweep,) = tmp_path.glob("outputs/sweeps/*/*/")
    losses = {json.loads((sweep / n / "results.json").read_text())["val/loss"] for n in "01234"}
    assert len(losses) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.nope=1", "error: data.nope: no such key; allowed in data: "),
        (
            "data.val_fraction=1.2",
            "error: data.val_fraction must be a number >= 0 and < 1, got 1.2",
        ),
        ("data.batch_size=0", "error: data.batch_size must be a whole number >= 1 and <= "),
        ("optimizer.lr=-1", "error: optimizer.lr must be a number > 0, got -1"),
        (
            "trainer.max_epochs=ten",
            "error: trainer.max_epochs must be a whole number >= 1, got ten",
        ),
        ("data.fold=7", "error: data.fold must be 0 to 4 with data.val_fraction=0.2, got 7"),
        ("model=resnet", "error: model must be cnn, fast_cnn, mlp or vgg, got resnet"),
        (
            "ckpt_path=nowhere",
            "error: ckpt_path must be the folder of a run or a sweep, or",
        ),
        ("ckpt_path=foreign.ckpt", "error: ckpt_path must be a checkpoint"),
    ],
)
def test_a_wrong_override_ends_in_one_line_and_leaves_nothing(command, tmp_path, override, line):
    (tmp_path / "foreign.ckpt").write_bytes(b"not a checkpoint")
    done = command(*SHORT, override)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"foreign.ckpt"}


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not(command, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Attack()}, tmp_path / "evil.ckpt")
    done = command(*SHORT, "ckpt_path=evil.ckpt")
    assert done.returncode == 1
    assert "ckpt_path must be a checkpoint that training can resume" in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_mistake_in_resuming_leaves_the_run_untouched(command, tmp_path):
    assert command(*SHORT, "trainer.max_epochs=1").returncode == 0
    run = only_run(tmp_path)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.rglob("*")}
    assert command(f"ckpt_path={run}", "optimizer.lr=-1").returncode == 1
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.rglob("*")}


@pytest.mark.slow
def test_runs_sweeps_and_tensorboard_at_once_do_not_disturb_each_other(tmp_path):
    (tmp_path / "outputs").mkdir()

    def start(*command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**environment(), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    board = start("tensorboard.main", "--logdir=outputs", "--port=0", "--reload_interval=1")
    try:
        short = ["mnist_cnn.train", *SHORT, "trainer.max_epochs=1"]
        trainings = [start(*short), start(*short)]
        trainings += [start(*short, "-m", f"seed={seeds}") for seeds in ("0,1", "2,3")]
        for training in trainings:
            _, stderr = training.communicate(timeout=300)
            assert training.returncode == 0, stderr
        runs = list(tmp_path.glob("outputs/2*/*/results.json"))
        jobs = list(tmp_path.glob("outputs/sweeps/*/*/*/results.json"))
        assert len(runs) == 2
        assert sorted(json.loads(job.read_text())["seed"] for job in jobs) == [0, 1, 2, 3]
        assert len({job.parents[1] for job in jobs}) == 2

        assert board.stderr is not None
        address = next(line.split(" at ")[1].split()[0] for line in board.stderr if " at " in line)

        def shown() -> set[str]:
            with urlopen(f"{address}data/runs") as answer:
                return {name for name in json.load(answer) if "tensorboard" in name}

        wait_for(lambda: len({name.split("/tensorboard")[0] for name in shown()}) == 6, board)
    finally:
        board.kill()
        board.communicate()


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"]])
def test_help_and_the_configuration_need_none_of_the_heavy_imports(command, flag):
    assert "trainer" in command(*flag).stdout
    code = f"import sys; sys.argv[1:] = {flag!r}\nfrom mnist_cnn.train import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "profiler"])
def test_debug_runs_do_what_they_say(command, tmp_path, name):
    more = ["trainer.limit_train_batches=20"] if name == "profiler" else []
    done = command(f"debug={name}", "trainer.accelerator=cpu", *more)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    if name == "profiler":
        assert "run_training_batch" in next(run.glob("fit-profile*")).read_text()
    else:
        assert len(rows(run)) == 1


def test_a_sound_network_overfits_three_batches(tmp_path):
    results = train(compose(["debug=overfit", "trainer.accelerator=cpu"], run_dir=tmp_path))
    losses = [float(row["train/loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.05 < losses[0]
    assert "test/acc" not in results


@pytest.mark.slow
def test_a_terminal_that_is_not_utf_8_shows_what_it_can_and_the_files_are_utf_8(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mnist_cnn.train", "debug=default", "hydra.run.dir=run", *SHORT[:1]],
        cwd=tmp_path,
        env={**environment(), **ascii_only},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("epoch  1/1 ? train ")
    assert done.stderr.count("\n") == 1
    assert "epoch  1/1 │ train" in (tmp_path / "run" / "train.log").read_text("utf-8")


@pytest.mark.parametrize(
    ("option", "epochs", "images", "said"),
    [
        ("fast_dev_run=true", 1, 64, "trainer.fast_dev_run"),
        ("val_check_interval=0.5", 2, 640, "trainer.val_check_interval"),
        ("overfit_batches=3", 2, 192, ""),
        ("sync_batchnorm=true", 2, 640, ""),
        ("log_every_n_steps=2", 2, 640, ""),
        ("limit_predict_batches=2", 2, 640, ""),
    ],
)
def test_an_option_of_lightnings_trainer_works_as_in_lightning(
    option, epochs, images, said, short_run, capsys, monkeypatch
):
    trained = []
    step = DigitClassifier.training_step

    def noted(module: DigitClassifier, batch: Any, batch_idx: int) -> Any:
        trained.append(batch[0])
        return step(module, batch, batch_idx)

    monkeypatch.setattr(DigitClassifier, "training_step", noted)
    tiny = ["model.channels=[2,2]", "model.hidden=4", "logger=none", "test=false"]
    outcome = short_run("run", *tiny, "trainer.limit_train_batches=10", f"trainer.{option}")
    assert (outcome["epochs"], sum(map(len, trained))) == (epochs, epochs * images)
    if option.startswith("overfit"):
        assert torch.equal(torch.cat(trained[:3]), torch.cat(trained[3:]))
    lines = [x for x in capsys.readouterr().err.splitlines() if "no exact resume" in x]
    assert lines == [f"no exact resume is promised with {said}"] * bool(said)
