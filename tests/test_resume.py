"""A run that was interrupted ends, bit for bit, like one that was not; soak.py has more of it."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from mnist_cnn import pretrained
from mnist_cnn.config.compose import compose, plain
from mnist_cnn.runs import checks, state
from mnist_cnn.train import train
from tests.helpers.comparison import contents, differences, kept
from tests.helpers.folder import histogram_steps, only_run, rows, scalars
from tests.helpers.process import Piece
from tests.helpers.training import SHORT

STEPS = 60  # of an epoch
# all that is drawn at random, and a schedule that moves with each step
RANDOM = [
    *SHORT,
    f"trainer.limit_train_batches={STEPS}",
    "trainer.max_epochs=3",
    "model.dropout=0.25",
    "augment=photo",
    "scheduler=one_cycle",
]
# no epoch counts as an improvement: the rate is halved after the first two, the third is the last
STOPPED_EARLY = [
    *SHORT,
    f"trainer.limit_train_batches={STEPS}",
    "trainer.max_epochs=5",
    "optimizer.lr=0.01",
    "scheduler.patience=0",
    "scheduler.threshold=10",
    "callbacks.early_stopping.patience=2",
    "callbacks.early_stopping.min_delta=10",
]


def trained(folder: Path, overrides: list[str]) -> Path:
    piece = Piece(folder, overrides)
    assert piece.end() == 0, piece.said()
    return folder


@pytest.fixture(scope="module")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("whole") / "random", RANDOM)


@pytest.fixture(scope="module")
def early_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("whole") / "early", STOPPED_EARLY)


def assert_same(whole: Path, cut: Path) -> None:
    wrong = differences(contents(whole), contents(cut))
    assert not wrong, "\n".join(wrong)


def steps_kept(run: Path) -> int:
    found = kept(run)
    return found[1] if found else 0


def wait_until_kept(piece: Piece, steps: int) -> None:
    assert piece.wait_for(lambda: steps_kept(piece.folder) >= steps)


@pytest.mark.slow
def test_a_run_that_is_killed_and_asked_to_stop_ends_as_if_it_had_not_been(random_run, tmp_path):
    cut = tmp_path / "cut"
    # in the middle of an epoch, at the end of two, and in the middle of one after those
    for number, code, steps in (
        (signal.SIGINT, 130, 31),
        (signal.SIGKILL, -9, STEPS),
        (signal.SIGKILL, -9, 2 * STEPS),
        (signal.SIGTERM, 143, 2 * STEPS + 31),
    ):
        piece = Piece(cut, [*RANDOM, "callbacks.checkpoint.every_steps=31"])
        wait_until_kept(piece, steps)
        piece.hit(number)
        assert piece.end() == code
        if number == signal.SIGKILL:
            assert steps_kept(cut) == steps
        else:  # the step is finished and saved
            assert steps < steps_kept(cut) < steps + STEPS - 31
            assert f"ckpt_path={cut}" in piece.said()
    trained(cut, [])
    assert_same(random_run, cut)


@pytest.mark.slow
def test_kills_before_the_first_checkpoint_and_while_one_is_written_cost_no_exactness(
    early_run, tmp_path
):
    cut = tmp_path / "cut"
    piece = Piece(cut, [*STOPPED_EARLY, "callbacks.checkpoint.every_steps=7"])
    assert piece.wait_for(piece.training)
    piece.hit(signal.SIGKILL)
    assert piece.end() == -signal.SIGKILL
    assert kept(cut) is None
    piece = Piece(cut, [])  # resumes what has no checkpoint yet
    wait_until_kept(piece, STEPS + 1)
    assert piece.stop_while(piece.unfinished)
    piece.hit(signal.SIGKILL)
    assert piece.end() == -signal.SIGKILL
    assert piece.unfinished()
    assert steps_kept(cut) > STEPS  # what was there is whole
    trained(cut, [])
    assert_same(early_run, cut)


@pytest.mark.slow
def test_resuming_a_run_that_stopped_early_changes_nothing(early_run, tmp_path):
    assert len(rows(early_run)) == 3
    assert len({row["lr"] for row in rows(early_run)}) == 2
    again = trained(Path(shutil.copytree(early_run, tmp_path / "again")), [])
    assert_same(early_run, again)


@pytest.mark.slow
def test_a_run_from_python_is_resumed_by_the_hint_that_it_prints(command, tmp_path, monkeypatch):
    for name, value in (("SLURM_NTASKS", "4"), ("SLURM_JOB_NAME", "x")):  # no torchrun: ignored
        monkeypatch.setenv(name, value)
    run = tmp_path / "{a} %20?b\\ ${y}"
    cfg = compose([*SHORT, "trainer.max_epochs=1", "model=mlp", "~logger"], run_dir=run)
    cfg.optimizer.lr = 0.005  # not by an override
    train(cfg)
    done = command(
        f"ckpt_path={run}", "trainer.max_epochs=2", "hydra.run.dir=elsewhere", "--cfg=job"
    )
    assert "name: MLP" in done.stdout
    assert "lr: 0.005" in done.stdout
    assert "tensorboard" not in done.stdout


@pytest.mark.slow
def test_a_run_with_configuration_of_the_users_own_is_resumed_without_naming_its_folder(
    command, tmp_path
):
    tiny = tmp_path / "mine" / "model" / "tiny.yaml"
    tiny.parent.mkdir(parents=True)
    tiny.write_text("name: MLP\nhidden: 3\ndropout: 0.0\n")
    done = command("--config-dir", "mine", "model=tinny")
    assert done.stderr == "error: model must be cnn, fast_cnn, mlp, tiny or vgg, got tinny\n"
    one_epoch = ["debug=default", "trainer.accelerator=cpu", "logger=none", "hydra.run.dir=run"]
    done = command("--config-dir", "mine", "model=tiny", *one_epoch)
    assert done.returncode == 0, done.stderr
    done = command("ckpt_path=run", "--cfg", "job")
    assert "hidden: 3" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_run_is_resumed_in_its_folder_with_its_configuration(command, tmp_path):
    assert command(*SHORT, "trainer.max_epochs=1", "optimizer.lr=0.002").returncode == 0
    run = only_run(tmp_path)
    started = json.loads((run / "results.json").read_text())["started"]
    done = command(f"ckpt_path={run}", "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path) == run
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 3
    assert results["started"] == started
    assert results["config"]["optimizer"]["lr"] == 0.002
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    steps = [step for step, _ in scalars(run)["val/loss"]]
    assert steps == sorted(set(steps))
    assert len(steps) == 3
    assert histogram_steps(run) == steps  # none is lost, nor shown at another place than the curves

    done = command(f"ckpt_path={run}", "trainer.max_epochs=2")
    assert done.returncode == 1
    assert done.stderr == (
        "error: trainer.max_epochs must be at least 3, the number of epochs that are done, got 2\n"
    )
    assert not (run / "failed.json").exists()
    done = command(f"ckpt_path={run}", "trainer.max_epochs=4", "data.batch_size=32", "force=true")
    assert done.returncode == 0, done.stderr
    assert "by force: data.batch_size must be 64, as trained so far, got 32" in done.stderr


@pytest.mark.slow
def test_a_checkpoint_with_a_folder_starts_a_new_run_there_and_leaves_its_own_alone(
    early_run, tmp_path
):
    run = Path(shutil.copytree(early_run, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    new = tmp_path / "new"
    piece = Piece(new, [f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"])
    assert piece.end() == 0, piece.said()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    # the same epochs after the best one, and the end that the run had
    left = [
        line
        for line in differences(contents(early_run), contents(new))
        if not line.startswith(("tensorboard", "files"))
    ]
    assert not left, "\n".join(left)
    assert (new / ".hydra" / "overrides.yaml").exists()


@pytest.mark.slow
def test_a_sweep_s_jobs_start_from_a_checkpoint(early_run, tmp_path, command):
    checkpoint = early_run / "checkpoints" / "best.ckpt"
    options = ["logger=none", f"ckpt_path={checkpoint}", "hydra.sweep.dir=sweep", "force=true"]
    done = command("-m", *STOPPED_EARLY, *options, "data.batch_size=64,32")
    assert done.returncode == 0, done.stderr
    assert "by force: data.batch_size must be 64, as trained so far, got 32" in done.stderr
    for job in "01":
        assert (tmp_path / "sweep" / job / "results.json").exists()
        assert rows(tmp_path / "sweep" / job)[0] == rows(early_run)[0]


def test_a_resume_reads_its_checkpoint_once_and_a_configuration_reads_none(
    short_run, tmp_path, monkeypatch
):
    short_run("run", "trainer.max_epochs=1")
    last, read = tmp_path / "run" / state.LAST, []

    def noted(file, really=pretrained.read_checkpoint):
        read.append(str(file))
        return really(file)

    monkeypatch.setattr(pretrained, "read_checkpoint", noted)
    cfg = compose([*SHORT, f"ckpt_path='{last}'"], run_dir=tmp_path / "run", run_name="run")
    plain(cfg)
    assert read == []
    checks.check_run(cfg)
    train(cfg)
    assert read == [str(last)]
    steps = [step for step, _ in scalars(tmp_path / "run")["val/loss"]]
    assert steps == [1, 2]
