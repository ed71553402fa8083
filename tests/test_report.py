"""Reports: real runs added up, exactly; whatever lies beside them; the page in a real browser."""

import csv
import importlib.util
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mnist_cnn import report, terminal
from mnist_cnn.analysis import found, ranking, tables
from mnist_cnn.config.compose import compose
from mnist_cnn.config.depends import depends_on
from mnist_cnn.config.messages import install
from mnist_cnn.runs import folder as state
from mnist_cnn.train import train
from tests.helpers.process import environment

SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=5",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "logger=none",
]
JOBS = ("lr_0.001-seed_0", "lr_0.001-seed_1", "lr_0.01-seed_0", "lr_0.01-seed_1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A sweep of two learning rates with two seeds each."""
    sweep = tmp_path_factory.mktemp("trained")
    (sweep / state.SWEEP).touch()
    for job, (lr, seed) in zip(JOBS, itertools.product((1e-3, 1e-2), (0, 1)), strict=True):
        changed = [f"optimizer.lr={lr}", f"seed={seed}"]
        train(compose([*SHORT, *changed], run_dir=sweep / job, run_name="x"))
    return sweep


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may change; its jobs are 0 to 3."""
    copy = tmp_path / "outputs" / "sweeps" / "2026-01-01" / "12-00-00"
    shutil.copytree(trained, copy)
    for number, job in enumerate(JOBS):
        (copy / job).rename(copy / str(number))
    return copy


def results(folder: Path) -> dict[str, Any]:
    return found.read_json(folder / "results.json")


def change(folder: Path, **values: Any) -> None:
    """Writes other results; a double underscore stands for a slash."""
    new = {key.replace("__", "/"): value for key, value in values.items()}
    (folder / "results.json").write_text(json.dumps(results(folder) | new))


def configure(folder: Path, key: str, value: Any) -> None:
    content = results(folder)
    *parts, last = key.split(".")
    node = content["config"]
    for part in parts:
        node = node[part]
    node[last] = value
    (folder / "results.json").write_text(json.dumps(content))


def add(sweep: Path, job: int, like: int, **values: Any) -> Path:
    folder = sweep / str(job)
    shutil.copytree(sweep / str(like), folder)
    change(folder, **values)
    return folder


def unfinished(sweep: Path, job: int, file: str, content: Any, *overrides: str) -> Path:
    folder = sweep / str(job)
    (folder / ".hydra").mkdir(parents=True)
    (folder / state.OVERRIDES).write_text("".join(f"- {text}\n" for text in overrides))
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls the command; what it prints to standard output."""

    def call(*argv: Any) -> str:
        capsys.readouterr()
        report.main([*map(str, argv)])
        return capsys.readouterr().out

    return call


@pytest.fixture
def as_json(printed: Any) -> Any:
    return lambda *argv: json.loads(printed(*argv, "--json", "-"))


def failure(*argv: Any) -> str:
    with pytest.raises(SystemExit) as end:
        report.main([*map(str, argv)])
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    return end.value.code


def sizes(content: dict[str, Any]) -> list[int]:
    return [group["n"] for group in content["groups"]]


def test_means_and_deviations_are_those_of_the_jobs_to_the_last_digit(sweep, as_json, printed):
    configure(add(sweep, 4, like=3, val__loss=0.1 + 0.2), "seed", 2)
    groups = as_json(sweep)["groups"]
    rows = list(csv.DictReader(io.StringIO(printed(sweep, "--csv", "-"))))
    assert sorted(group["n"] for group in groups) == [2, 3]
    for group, row in zip(groups, rows, strict=True):
        jobs = [results(Path(run["folder"])) for run in group["runs"]]
        rate = group["config"]["optimizer.lr"]
        assert {job["config"]["optimizer"]["lr"] for job in jobs} == {rate}
        assert row["optimizer.lr"] == str(rate)
        for metric in ("val/loss", "val/acc", "test/acc", "seconds"):
            values = [Fraction(job[metric]) for job in jobs]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            assert group[metric]["mean"] == float(row[f"{metric} mean"]) == float(mean)
            assert group[metric]["std"] == float(row[f"{metric} std"])
            std = math.sqrt(variance)
            assert group[metric]["std"] == pytest.approx(std, rel=1e-14, abs=0)
            assert group[metric]["n"] == len(jobs)


@pytest.mark.parametrize("seen", [(0.9, 0.99, 0.5, 0.4), (0.4, 0.5, 0.99, 0.9)])
@pytest.mark.parametrize(("metric", "mode", "best"), [("loss", "min", 2), ("acc", "max", 0)])
def test_the_validation_objective_ranks_and_test_accuracy_never_does(
    metric, mode, best, seen, sweep, as_json
):
    for job, value in enumerate((0.3, 0.2, 0.1, 0.2)):
        folder = sweep / str(job)
        change(folder, val__loss=value, val__acc=value, test__acc=seen[job])
        configure(folder, "objective", {"metric": f"val/{metric}", "mode": mode})
    first, second = as_json(sweep)["groups"]
    rates = [1e-3, 1e-2] if best == 0 else [1e-2, 1e-3]
    assert [group["config"]["optimizer.lr"] for group in (first, second)] == rates
    assert first["checkpoint"] == str(sweep / str(best) / "checkpoints" / "best.ckpt")


def test_an_objective_that_is_not_a_number_ranks_last_and_is_written_as_null(sweep, as_json):
    change(sweep / "2", val__loss=None, seconds=None)
    (sweep / "3" / "checkpoints" / "best.ckpt").unlink()
    first, last = as_json(sweep)["groups"]
    assert [group["config"]["optimizer.lr"] for group in (first, last)] == [1e-3, 1e-2]
    assert last["val/loss"] == {"n": 2, "mean": None, "std": None}
    assert last["checkpoint"] == str(sweep / "3" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger", {"csv": {"save_dir": "x"}}),
        ("data.root", "/elsewhere"),
        ("trainer.devices", [1]),
        ("callbacks.progress", None),
        ("callbacks.checkpoint.dirpath", "/elsewhere"),
        ("data.seed", 7),
        ("test", False),
    ],
)
def test_what_does_not_matter_to_a_result_makes_no_group(key, value, sweep, as_json):
    configure(sweep / "0", key, value)
    assert sizes(as_json(sweep)) == [2, 2]


def test_a_neutral_key_is_a_whole_one():
    config = {"logger.x": 1, "callbacks.progress.y": 1, "callbacks.progressive.size": 2}
    assert depends_on(config) == {"callbacks.progressive.size": 2}


def test_a_batch_size_of_evaluation_matters_where_batches_are_counted(sweep, as_json):
    configure(sweep / "0", "data.eval_batch_size", 100)
    assert len(sizes(as_json(sweep))) == 3
    for job, stage in itertools.product("0123", ("val", "test")):
        configure(sweep / job, f"trainer.limit_{stage}_batches", 1.0)
    assert len(sizes(as_json(sweep))) == 2


def test_resuming_a_run_makes_no_group_and_starting_from_another_does(sweep, as_json):
    own = results(sweep / "0")["config"]["run_dir"]
    configure(sweep / "0", "ckpt_path", f"{own}/checkpoints/last.ckpt")
    assert len(sizes(as_json(sweep))) == 2
    configure(sweep / "0", "ckpt_path", "/elsewhere/checkpoints/last.ckpt")
    groups = as_json(sweep)["groups"]
    assert len(groups) == 3
    assert set(groups[0]["config"]) == {"optimizer.lr", "ckpt_path"}


def test_a_run_counts_once_however_often_it_lies_there_tested_or_not(sweep, as_json):
    again = add(sweep, 4, like=0, finished="2099-01-01T00:00:00+00:00")
    for number, (tested, loss) in enumerate(((True, 0.5), (False, 0.5), (False, 0.6)), 5):
        folder = add(sweep, number, like=1, val__loss=loss)
        configure(folder, "test", tested)
        if not tested:
            kept = {key: v for key, v in results(folder).items() if not key.startswith("test/")}
            (folder / "results.json").write_text(json.dumps(kept))
    change(sweep / "1", val__loss=0.5)
    groups = as_json(sweep)["groups"]
    by_rate = {group["config"]["optimizer.lr"]: group for group in groups}
    folders = {Path(run["folder"]) for run in by_rate[1e-3]["runs"]}
    assert folders == {again, sweep / "1"}  # the newest, or the first
    assert by_rate[1e-3]["test/acc"]["n"] == 2


@pytest.mark.parametrize("chosen_by", ["name", "_target_"])
def test_only_keys_that_tell_groups_apart_are_columns_under_short_names(chosen_by):
    same = {"trainer.max_epochs": 3, "data.fold": 0}
    kind = f"optimizer.{chosen_by}"
    adam = {kind: "Adam", "optimizer.lr": 0.1, "optimizer.eps": 1e-7}
    sgd = {kind: "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9}
    photo = {"data.augment.degrees": 15, "data.augment.shear": 10}
    configs = [
        {**same, **adam, "model.hidden": 32},
        {**same, **adam, "model.hidden": 64},
        {**same, **sgd, "model.hidden": 32, "optimizer.lr": 0.2},
        {**same, **sgd, "model.hidden": 32, **photo},
    ]
    # momentum and eps follow from the optimizer; shear is there when degrees is
    assert ranking.short_names(ranking.differing(configs)) == {
        kind: "optimizer",
        "optimizer.lr": "lr",
        "model.hidden": "hidden",
        "data.augment.degrees": "degrees",
    }
    names = ranking.short_names(["a.x.lr", "b.x.lr", "c.hidden", "x.name"])
    assert list(names.values()) == ["a.x.lr", "b.x.lr", "hidden", "x"]


def test_folds_are_averaged_as_seeds_are(sweep, as_json, printed):
    for job in range(4):
        configure(sweep / str(job), "data.fold", job)
        configure(sweep / str(job), "seed", 0)
    said = printed(sweep, "--csv", sweep / "x.csv")
    assert "alike but for the fold\n" in said
    assert "fold ┃" not in said
    groups = as_json(sweep)["groups"]
    assert sorted(run["fold"] for group in groups for run in group["runs"]) == [0, 1, 2, 3]
    for over in ("optimizer.lr", "lr", "optimizer"):
        assert sizes(as_json(sweep, "--over", over)) == [4]
    assert [group["n"] for group in groups] == [2, 2]


def test_a_run_that_never_validated_ranks_last_and_without_any_nothing_is_ranked(
    sweep, as_json, printed
):
    for jobs in ("01", "23"):
        for job in jobs:
            kept = {k: v for k, v in results(sweep / job).items() if not k.startswith("val/")}
            (sweep / job / "results.json").write_text(json.dumps(kept))
        content = as_json(sweep)
        assert sizes(content) == [2, 2]
        assert jobs == "23" or content["groups"][1]["config"]["optimizer.lr"] == 1e-3
    said = printed(sweep)
    assert "not ranked" in said
    assert "best checkpoint:" not in said


def test_one_batch_and_all_batches_do_not_look_alike(sweep, printed):
    for job, limit in zip("0123", (1.0, 1.0, 1, 1), strict=True):
        configure(sweep / job, "trainer.limit_train_batches", limit)
    rows = printed(sweep, "--csv", "-").splitlines()
    assert sorted(row.split(",")[2] for row in rows[1:]) == ["1", "1.0"]
    sides = ("limit_train_batches=1.0", "limit_train_batches=1")
    assert "A: limit_train_batches=1.0: 2 finished" in printed(sweep, "--compare", *sides)


def mix(sweep: Path) -> None:
    """Makes the sweep one of runs that differ in as much as experiments do."""
    for job, group in (("1", "photo"), ("2", "mild")):
        for key, value in compose([f"augment={group}"], run_dir="x").data.augment.items():
            configure(sweep / job, f"data.augment.{key}", value)
    configure(sweep / "3", "model.name", "<class 'a$b$'>")


def test_a_report_of_mixed_experiments_is_legible_at_80_columns(sweep, capsys, printed):
    mix(sweep)
    board = report.collect_runs([sweep])
    assert len(board.columns) > 10
    narrow = terminal.console(force_terminal=True, color_system=None)
    narrow.width = 80
    tables.print_leaderboard(board, narrow)
    lines = capsys.readouterr().out.split("\n4 finished")[0].splitlines()
    assert max(map(len, lines)) <= 80
    for head in ("val loss", "test acc, %", "best run"):
        assert f" {head} " in lines[1]
    said = " ".join(" ".join(lines).split())
    assert "usual model=CNN lr=" in said
    assert "degrees=12 shift=1.5 scale=0.12" in said
    (heads,) = [x for x in printed(sweep, "--markdown", "-").splitlines() if x.startswith("| #")]
    assert heads.endswith("| best checkpoint | settings |")


def test_runs_without_a_result_are_told_apart_each_with_its_first_line(sweep, as_json, printed):
    wrong = {"type": "RuntimeError", "error": "out of | memory [/b]\nmore", "traceback": ""}
    gone = {"epoch": 2, "metric": "val/loss", "value": 2.5}
    typed = ["model=mlp", "optimizer.lr=100", "logger=none", "trainer.max_epochs=1", "seed=3"]
    unfinished(sweep, 4, "failed.json", wrong, *typed)
    unfinished(sweep, 5, "pruned.json", gone)
    unfinished(sweep, 6, ".lock", "")
    held = unfinished(sweep, 7, "history.csv", "epoch,val/loss\n1,0.5\n2,0.4\n")
    add(sweep, 8, like=0)
    (sweep / "8" / "results.json").write_text('{"val/loss": 0.1, "conf')
    with FileLock(held / state.LOCK), FileLock(sweep / state.LOCK):  # a locked sweep is no run
        content = as_json(sweep)
        said = printed(sweep, "--markdown", "-")
    states = ["failed", "pruned", "interrupted", "running", "unreadable"]
    assert [run["state"] for run in content["unfinished"]] == states
    messages = [run["message"] for run in content["unfinished"]]
    assert messages[0] == "RuntimeError: out of | memory [/b]"
    assert messages[1:4] == ["after epoch 2: val/loss=2.5000", "", "2 epochs done"]
    assert messages[4].startswith("results.json: ")
    row = "| 4 | failed | model=mlp lr=100 seed=3 | RuntimeError: out of \\| memory [/b] |"
    assert row in said
    assert sum(sizes(content)) == 4


def test_no_half_written_file_is_a_crash(sweep):
    whole = (sweep / "0" / "results.json").read_bytes()
    broken = [whole[:cut] for cut in range(0, len(whole) - 3, 97)]
    broken += [b"[]", b"null", b"\xff\xfe", b"{}", b'{"config": 3}', b'{"config": {}}']
    broken += [whole.replace(b'"val/loss": ', b'"val/loss": "x", "y": ', 1)]
    for content in broken:
        (sweep / "0" / "results.json").write_bytes(content)
        run = found.read_run(sweep / "0", "0")
        assert run.state == "unreadable"
        assert run.note.startswith("results.json: ")
    for file in ("failed.json", "pruned.json"):
        for text in ("", '{"epoch": 1', "3", "{}", '{"epoch": 1, "metric": "x", "value": "y"}'):
            folder = sweep / "9"
            (folder / ".hydra").mkdir(exist_ok=True, parents=True)
            (folder / file).write_text(text)
            (folder / state.OVERRIDES).write_bytes(b"- 'a=\n- b\n\xff")
            assert found.read_run(folder, "9").state in ("unreadable", "failed")
        (folder / file).unlink()
    (sweep / "1" / "history.csv").write_text("epoch,val/loss\n1,0.5\n2,")
    report.main([str(sweep)])


def test_the_newest_sweep_is_reported_and_without_one_all_runs(
    sweep, tmp_path, monkeypatch, as_json
):
    monkeypatch.chdir(tmp_path)
    evaluations = tmp_path / "outputs" / "evaluations" / "1"
    newer = sweep.with_name("09-00-00")
    shutil.copytree(sweep, newer)
    shutil.rmtree(newer / "3")
    for file in newer.glob("*/results.json"):  # or they were the same runs again
        change(file.parent, **{"train/loss": 0.5})
    evaluations.mkdir(parents=True)
    for folder in (newer, evaluations):
        (folder / state.SWEEP).touch()
    assert found.newest_sweep(Path("outputs")) == newer.relative_to(tmp_path)
    assert sum(sizes(as_json())) == 3
    for folder in (sweep, newer):
        (folder / state.SWEEP).unlink()
    assert sum(sizes(as_json())) == 7
    # a folder inside another is not counted twice
    assert sum(sizes(as_json("outputs", sweep))) == 7


def test_runs_behind_symbolic_links_are_found_once(sweep, tmp_path):
    top = tmp_path / "links"
    top.mkdir()
    os.symlink(sweep, top / "a")
    os.symlink(sweep, top / "b")
    os.symlink(top, top / "around")
    assert len(list(found.find_runs(top))) == 4


def test_a_wrong_command_line_is_told_in_one_line(sweep, tmp_path, capsys):
    assert failure("no/such") == "error: no/such: no such folder"
    assert failure(tmp_path / "outputs" / "none") != ""
    for kind in ("csv", "html"):
        assert f"--{kind} must be" in failure(sweep, f"--{kind}", tmp_path / "no" / "such")
    assert "did you mean optimizer.lr?" in failure(sweep, "--over", "optimizer.lrr")
    assert "more than one key" in failure(sweep, "--over", "mode")
    with pytest.raises(SystemExit) as end:
        report.main([str(sweep), "--csv", "-", "--json", "-"])
    assert end.value.code == 2
    assert "allowed once" in capsys.readouterr().err


def compared(sweep: Path, printed: Any, losses: tuple[float, ...], *sides: str) -> tuple[Any, str]:
    """Compares the two rates by three seeds' losses each: the cells of the loss, and the text."""
    for job, like in ((4, 0), (5, 2)):
        configure(add(sweep, job, like=like), "seed", 2)
    for job, loss in zip((0, 1, 4, 2, 3, 5), losses, strict=True):
        change(sweep / str(job), val__loss=loss)
    said = printed(sweep, "--compare", *(sides or ("optimizer.lr=0.001", "lr=1e-2")))
    row = next(line for line in said.splitlines() if "val loss" in line)
    return [cell.strip() for cell in row.split("│")[1:-1]], said


def test_runs_of_the_same_seeds_are_compared_in_pairs(sweep, printed):
    losses = (0.30, 0.40, 0.50, 0.21, 0.32, 0.40)  # differences 0.09, 0.08, 0.10
    row, said = compared(sweep, printed, losses)
    half = 4.302653 * 0.01 / math.sqrt(3)  # the t-table's value for 2 degrees of freedom
    assert row[3:] == ["+0.0900", f"{0.09 - half:+.4f} to {0.09 + half:+.4f}", "B is better"]
    assert row[1:3] == ["0.4000 ± 0.1000 (n=3)", "0.3100 ± 0.0954 (n=3)"]
    assert "in pairs of the same seed" in said


def test_runs_of_other_seeds_are_compared_by_welchs_t(sweep, printed):
    configure(sweep / "3", "seed", 9)
    row, said = compared(sweep, printed, (0.30, 0.40, 0.50, 0.20, 0.20, 0.20))
    # where one side has no spread, Welch's degrees of freedom are the other's, 2
    half = 4.302653 * 0.1 / math.sqrt(3)
    interval = f"{0.2 - half:+.4f} to {0.2 + half:+.4f}"
    assert row[3:] == ["+0.2000", interval, "no difference shown"]
    assert "not in pairs" in said
    said = printed(sweep, "--compare", sweep / "0", sweep / "2")
    assert "one run has no spread" in said


def test_a_part_is_chosen_for_comparison_by_its_file_or_its_class(sweep, printed):
    for job in "23":
        configure(sweep / job, "model.name", "MLP")
    for job, augment in zip("0123", ("none", "photo", "none", "photo"), strict=True):
        (sweep / job / ".hydra").mkdir(exist_ok=True)
        noted = f"hydra: {{runtime: {{choices: {{augment: {augment}}}}}}}"
        (sweep / job / state.HYDRA).write_text(noted)
        configure(sweep / job, "data.augment", {"degrees": 12} if augment == "photo" else {})
    for first, second in (("cnn", "mlp"), ("CNN", "MLP"), ("cnn", "MLP")):
        said = printed(sweep, "--compare", f"model={first}", f"model={second}")
        assert f"B: model={second}: 2 finished" in said
    said = printed(sweep, "--compare", "augment=photo", "augment=none")
    assert "A: augment=photo: 2 finished" in said


@pytest.mark.parametrize(
    ("side", "names"),
    [
        ("lr=0.5", "0.001, 0.01"),
        ("lrr=1", "did you mean lr?"),
        ("3", "1 to 2"),
        ("lr", "key=value"),
        ("seed=0", "some runs are in 1"),
    ],
)
def test_a_wrong_side_of_a_comparison_is_told_in_one_line(side, names, sweep):
    said = failure(sweep, "--compare", "1", side)
    assert names in said


def test_reading_runs_needs_neither_torch_nor_matplotlib(sweep):
    script = (
        "import sys; from mnist_cnn import report; report.main(sys.argv[1:]); "
        "print([m for m in ('torch', 'matplotlib', 'plotly', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(sweep), "--csv", "/dev/null"]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


def test_a_sweep_ends_with_its_page_and_without_plotly_with_a_sentence(sweep, capsys, monkeypatch):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    mix(sweep)
    change(sweep / "0", seconds=None)
    report.report(sweep)
    assert str(sweep / "report.html") in capsys.readouterr().out
    assert "&lt;class 'a$b$'&gt;" in (sweep / "report.html").read_text()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report.report(sweep)
    assert capsys.readouterr().out.splitlines()[-1].endswith(install("sweep"))
    assert failure(sweep, "--html", sweep / "x.html").endswith(install("sweep"))
    monkeypatch.setattr(report, "write_page", lambda *args: 1 / 0)
    report.report(sweep)  # what cannot be drawn breaks nothing
    said = capsys.readouterr()
    assert "4 finished" in said.out
    assert "ZeroDivisionError" in said.err


@pytest.fixture
def figures() -> Any:
    pytest.importorskip("plotly", reason="needs the extra sweep")
    from mnist_cnn.analysis import figures

    return figures


def test_a_search_shows_the_best_so_far_in_the_order_of_time(sweep, figures):
    gone = unfinished(sweep, 4, "pruned.json", {"epoch": 1, "metric": "val/loss", "value": 0.9})
    lost = unfinished(sweep, 5, "failed.json", {"type": "OSError", "error": "no disk"})
    for job, value in enumerate((0.5, 0.7, 0.4, 0.6)):
        change(sweep / str(job), val__loss=value)
    order = [sweep / "3", lost, sweep / "0", gone, sweep / "1", sweep / "2"]
    for time, folder in enumerate(order):
        for file in folder.glob("*.json"):
            os.utime(file, (time, time))
    figure = figures.trials(report.collect_runs([sweep]))
    traces = {trace.name: trace for trace in figure.data}
    assert [*traces["best so far"].y] == [0.6, 0.6, 0.5, 0.5, 0.5, 0.4]
    assert sorted(traces["finished"].x) == [1, 3, 5, 6]
    assert [*traces["pruned"].x] == [4]


def test_one_run_is_drawn_on_axes_of_whole_numbers_that_are_not_negative(sweep, figures):
    board = report.collect_runs([sweep / "0"])
    for draw in (figures.trials, figures.curves):
        axis = draw(board).layout.xaxis
        assert (axis.dtick, axis.rangemode) == (1, "nonnegative")
    assert [trace.name for trace in figures.curves(board).data] == ["best"]
    assert figures.slices(board) is None


def test_the_page_draws_in_a_browser_and_asks_no_machine_for_anything(sweep, browser):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    for job in range(4, 24):
        folder = add(sweep, job, like=job % 4, val__loss=0.5 + job / 10)
        configure(folder, "optimizer.lr", 10 ** -(1 + job % 4))
        configure(folder, "optimizer.name", "<b>&" if job % 2 else "Adam")
    unfinished(sweep, 24, "failed.json", {"type": "OSError", "error": "<script>x()</script>"})
    unfinished(sweep, 25, "pruned.json", {"epoch": 1, "metric": "val/loss", "value": 2.2})
    report.main([str(sweep)])
    requests: list[str] = []
    wrong: list[str] = []
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.goto((sweep / "report.html").as_uri())
    tab.wait_for_selector("#curves .point")
    places = {"runs": ".point", "settings": ".point", "curves": ".scatterlayer .js-line"}
    drawn = {part: tab.locator(f"#{part} {mark}").count() for part, mark in places.items()}
    rows = tab.locator("#leaderboard tbody tr").count()
    text = tab.inner_text("main")
    overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert wrong == []
    assert requests == [(sweep / "report.html").as_uri()]
    # pruned, and two settings of 24 runs each; the runs that count are drawn once
    board = report.collect_runs([sweep])
    assert drawn == {"runs": 25, "settings": 2 * len(board.ranked), "curves": len(board.ranked)}
    assert rows == len(board.groups)
    assert "OSError: <script>x()</script>" in text
    assert "<b>&" in text
    assert overflow <= 0
