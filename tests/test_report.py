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

from mnist_cnn import report
from mnist_cnn.analysis import found, ranking
from mnist_cnn.config.compose import compose
from mnist_cnn.config.messages import install
from mnist_cnn.runs.folder import LOCK, SWEEP
from mnist_cnn.train import train
from tests.helpers.process import environment

SHORT = ["trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=5", "logger=none"]
SHORT += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
# by learning rate and seed
LOW_0, LOW_1, HIGH_0, HIGH_1 = JOBS = ("lr_0.001-0", "lr_0.001-1", "lr_0.01-0", "lr_0.01-1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A sweep of two learning rates with two seeds each."""
    sweep = tmp_path_factory.mktemp("trained")
    (sweep / SWEEP).touch()
    for job, (lr, seed) in zip(JOBS, itertools.product((1e-3, 1e-2), (0, 1)), strict=True):
        changed = [f"optimizer.lr={lr}", f"seed={seed}"]
        train(compose([*SHORT, *changed], run_dir=sweep / job, run_name="x"))
    return sweep


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may change."""
    return shutil.copytree(trained, tmp_path / "outputs" / "sweeps" / "2026-01-01" / "12-00-00")


def results(folder: Path) -> dict[str, Any]:
    return found.read_json(folder / "results.json")


def change(folder: Path, **values: Any) -> None:
    """Writes other results; a double underscore stands for a slash."""
    new = {key.replace("__", "/"): value for key, value in values.items()}
    (folder / "results.json").write_text(json.dumps(results(folder) | new))


def drop(folder: Path, stage: str) -> None:
    kept = {key: v for key, v in results(folder).items() if not key.startswith(f"{stage}/")}
    (folder / "results.json").write_text(json.dumps(kept))


def configure(folder: Path, key: str, value: Any) -> None:
    content = results(folder)
    *parts, last = key.split(".")
    node = content["config"]
    for part in parts:
        node = node[part]
    node[last] = value
    (folder / "results.json").write_text(json.dumps(content))


def add(sweep: Path, job: str, like: str, **values: Any) -> Path:
    folder = sweep / job
    shutil.copytree(sweep / like, folder)
    change(folder, **values)
    return folder


def unfinished(sweep: Path, job: str, file: str, content: Any) -> Path:
    folder = sweep / job
    folder.mkdir(parents=True)
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


def board(folder: Path) -> ranking.Leaderboard:
    return ranking.Leaderboard(found.read_runs([folder]))


def test_means_and_deviations_are_those_of_the_jobs_to_the_last_digit(sweep, as_json, printed):
    configure(add(sweep, "third", like=HIGH_1, val__loss=0.1 + 0.2), "seed", 2)
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
            std = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
            assert group[metric]["mean"] == float(row[f"{metric} mean"]) == float(mean)
            assert group[metric]["std"] == float(row[f"{metric} std"])
            assert group[metric]["std"] == pytest.approx(std, rel=1e-14, abs=0)
            assert group[metric]["n"] == len(jobs)


@pytest.mark.parametrize(("metric", "mode", "best"), [("loss", "min", 2), ("acc", "max", 0)])
def test_the_validation_objective_ranks_and_test_accuracy_never_does(
    metric, mode, best, sweep, as_json
):
    for job, value in zip(JOBS, (0.3, 0.2, 0.1, 0.2), strict=True):
        tested = 1 - value if mode == "max" else value  # the other way round
        change(sweep / job, val__loss=value, val__acc=value, test__acc=tested)
        configure(sweep / job, "objective", {"metric": f"val/{metric}", "mode": mode})
    first, second = as_json(sweep)["groups"]
    rates = [1e-3, 1e-2] if best == 0 else [1e-2, 1e-3]
    assert [group["config"]["optimizer.lr"] for group in (first, second)] == rates
    assert first["checkpoint"] == str(sweep / JOBS[best] / "checkpoints" / "best.ckpt")


def test_an_objective_that_is_not_a_number_ranks_last_and_is_written_as_null(sweep, as_json):
    change(sweep / HIGH_0, val__loss=None, seconds=None)
    (sweep / HIGH_1 / "checkpoints" / "best.ckpt").unlink()
    first, last = as_json(sweep)["groups"]
    assert [group["config"]["optimizer.lr"] for group in (first, last)] == [1e-3, 1e-2]
    assert last["val/loss"] == {"n": 2, "mean": None, "std": None}
    assert last["checkpoint"] == str(sweep / HIGH_1 / "checkpoints" / "last.ckpt")


def test_what_does_not_matter_to_a_result_makes_no_group():
    config = {"optimizer.lr": 0.1, "trainer.limit_val_batches": 1.0, "run_dir": "/a"}
    neutral = {
        **{"logger.csv.save_dir": "x", "data.root": "/elsewhere", "trainer.devices": [1]},
        **{"callbacks.progress": None, "callbacks.checkpoint.dirpath": "x", "data.seed": 7},
        **{"test": False, "seed": 3, "data.fold": 1, "data.eval_batch_size": 100},
        "ckpt_path": "/a/checkpoints/last.ckpt",  # resumed in its own folder
    }
    same = ranking.setting(config)
    assert ranking.setting({**config, **neutral}) == same
    other = {
        **{"callbacks.progressive.size": 2, "ckpt_path": "/b/checkpoints/last.ckpt"},
        **{"trainer.limit_val_batches": 2, "optimizer.lr": 0.2},
    }
    for key, value in other.items():
        assert ranking.setting({**config, key: value}) != same
    counted = {**config, "trainer.limit_val_batches": 2}
    more = {**counted, "data.eval_batch_size": 100}
    assert ranking.setting(more) != ranking.setting(counted)


def test_a_run_counts_once_however_often_it_lies_there_tested_or_not(sweep, as_json):
    change(sweep / LOW_1, val__loss=0.5)
    again = add(sweep, "again", like=LOW_0, finished="2099-01-01T00:00:00+00:00")
    drop(add(sweep, "untested", like=LOW_1, finished="2099-01-01T00:00:00+00:00"), "test")
    by_rate = {group["config"]["optimizer.lr"]: group for group in as_json(sweep)["groups"]}
    folders = {Path(run["folder"]) for run in by_rate[1e-3]["runs"]}
    assert folders == {again, sweep / LOW_1}  # the newest, and the tested one
    assert by_rate[1e-3]["test/acc"]["n"] == 2


def test_only_keys_that_tell_groups_apart_are_columns_under_short_names():
    same = {"trainer.max_epochs": 3, "data.fold": 0}
    adam = {"optimizer._target_": "Adam", "optimizer.lr": 0.1, "optimizer.eps": 1e-7}
    sgd = {"optimizer._target_": "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9}
    configs = [
        {**same, **adam, "model.hidden": 32, "scheduler.max_lr": 0.1, "loss": None},
        {**same, **adam, "model.hidden": 64, "scheduler.max_lr": 0.1, "loss._target_": "x"},
        {**same, **sgd, "model.hidden": 32, "optimizer.lr": 0.2, "scheduler.max_lr": 0.2},
        {**same, **sgd, "model.hidden": 32, "scheduler.max_lr": 0.1},
    ]
    # momentum and eps follow from the optimizer, max_lr is lr; a loss is null or a part
    assert ranking.short_names(ranking.differing(configs)) == {
        "optimizer._target_": "optimizer",
        "optimizer.lr": "lr",
        "model.hidden": "hidden",
        "loss._target_": "loss",
    }
    assert ranking.brief(1.0) != ranking.brief(1)  # all batches, and one
    names = ranking.short_names(["a.x.lr", "b.x.lr", "c.hidden", "x._target_"])
    assert list(names.values()) == ["a.x.lr", "b.x.lr", "hidden", "x"]


def test_folds_are_averaged_as_seeds_are_and_other_keys_by_request(sweep, as_json, printed):
    for fold, job in enumerate(JOBS):
        configure(sweep / job, "data.fold", fold)
        configure(sweep / job, "seed", 0)
    assert " fold " not in printed(sweep, "--markdown", "-").splitlines()[0]
    groups = as_json(sweep)["groups"]
    assert [group["n"] for group in groups] == [2, 2]
    assert sorted(run["fold"] for group in groups for run in group["runs"]) == [0, 1, 2, 3]
    for over in ("optimizer.lr", "lr", "optimizer"):
        assert sizes(as_json(sweep, "--over", over)) == [4]


def test_a_run_that_never_validated_ranks_last_and_without_any_nothing_is_ranked(
    sweep, as_json, printed
):
    for job in (LOW_0, LOW_1):
        drop(sweep / job, "val")
    content = as_json(sweep)
    assert sizes(content) == [2, 2]
    assert content["groups"][1]["config"]["optimizer.lr"] == 1e-3
    assert "val/loss" not in content["groups"][1]
    for job in (HIGH_0, HIGH_1):
        drop(sweep / job, "val")
    said = printed(sweep)
    assert "not ranked" in said
    assert "best checkpoint:" not in said


def test_runs_without_a_result_are_told_apart_each_with_its_first_line(sweep, as_json, printed):
    wrong = {"type": "RuntimeError", "error": "out of | memory [/b]\nmore", "traceback": ""}
    gone = {"epoch": 2, "metric": "val/loss", "value": 2.5}
    unfinished(sweep, "x9", "failed.json", wrong)
    unfinished(sweep, "x10", "pruned.json", gone)
    unfinished(sweep, "x11", LOCK, "")
    held = unfinished(sweep, "x12", "history.csv", "epoch,val/loss\n1,0.5\n2,0.4\n3,")
    add(sweep, "x13", like=LOW_0)
    (sweep / "x13" / "results.json").write_text('{"val/loss": 0.1, "conf')
    with FileLock(held / LOCK), FileLock(sweep / LOCK):  # a locked sweep is no run
        content = as_json(sweep)
        said = printed(sweep, "--markdown", "-")
    states = ["failed", "pruned", "interrupted", "running", "unreadable"]
    assert [run["state"] for run in content["unfinished"]] == states
    messages = [run["message"] for run in content["unfinished"]]
    assert messages[0] == "RuntimeError: out of | memory [/b]"
    assert messages[1:4] == ["after epoch 2: val/loss=2.5000", "", "2 epochs done"]
    assert messages[4].startswith("results.json: ")
    assert "| x9 | failed | RuntimeError: out of \\| memory [/b] |" in said
    assert sum(sizes(content)) == 4


def test_no_half_written_file_is_a_crash(sweep):
    whole = (sweep / LOW_0 / "results.json").read_bytes()
    broken = [whole[:cut] for cut in range(0, len(whole) - 3, 97)]
    broken += [b"[]", b"null", b"\xff\xfe", b"{}", b'{"config": 3}', b'{"config": {}}']
    broken += [whole.replace(b'"val/loss": ', b'"val/loss": "x", "y": ', 1)]
    wrong = ["", '{"epoch": 1', "3", "{}", '{"epoch": 1, "metric": "x", "value": "y"}']
    cases = {"results": broken, "failed": map(str.encode, wrong), "pruned": map(str.encode, wrong)}
    for name, contents in cases.items():
        folder = unfinished(sweep, name, f"{name}.json", "")
        for content in contents:
            (folder / f"{name}.json").write_bytes(content)
            run = found.read_run(folder, "x")
            assert run["state"] == "unreadable"
            assert run["message"].startswith(f"{name}.json: ")
    report.main([str(sweep)])


def test_the_newest_sweep_is_reported_and_without_one_all_runs(
    sweep, tmp_path, monkeypatch, as_json
):
    monkeypatch.chdir(tmp_path)
    newer = sweep.with_name("09-00-00")
    shutil.copytree(sweep, newer)
    shutil.rmtree(newer / HIGH_1)
    for job in JOBS[:3]:  # or they were the same runs again
        change(newer / job, train__loss=0.5)
    evaluations = tmp_path / "outputs" / "evaluations"
    evaluations.mkdir()
    for folder in (newer, evaluations):
        (folder / SWEEP).touch()
    assert sum(sizes(as_json())) == 3
    for folder in (sweep, newer):
        (folder / SWEEP).unlink()
    assert sum(sizes(as_json())) == 7
    # a folder inside another is not counted twice
    assert sum(sizes(as_json("outputs", sweep))) == 7


def test_a_wrong_command_line_is_told_in_one_line(sweep, tmp_path):
    assert failure("no/such") == "error: no/such: no such folder"
    (tmp_path / "none").mkdir()
    assert "no runs" in failure(tmp_path / "none")
    assert "no/such" in failure(sweep, "--csv", "no/such")
    assert "optimizer.lrr" in failure(sweep, "--over", "optimizer.lrr")
    for side in ("3", "lr=0.1"):
        assert "1 to 2" in failure(sweep, "--compare", "1", side)


@pytest.mark.parametrize(
    ("seed", "losses", "row", "sentence"),
    [
        # differences 0.09, 0.08 and 0.10; the t-table has 4.3027 for 2 degrees of freedom
        (1, (0.21, 0.32, 0.40), ("+0.0900", "+0.0652 to +0.1148", "B is better"), "same seed:"),
        # not one to one; where one side has no spread, the degrees of freedom are the other's
        (9, (0.20, 0.20, 0.20), ("+0.2000", "-0.0484 to +0.4484", "no difference shown"), "Welch"),
    ],
)
def test_runs_of_the_same_seeds_are_compared_in_pairs(seed, losses, row, sentence, sweep, printed):
    for job, like in (("low-2", LOW_0), ("high-2", HIGH_0)):
        configure(add(sweep, job, like=like), "seed", 2)
    configure(sweep / HIGH_1, "seed", seed)
    jobs = (LOW_0, LOW_1, "low-2", HIGH_0, HIGH_1, "high-2")
    for job, loss in zip(jobs, (0.30, 0.40, 0.50, *losses), strict=True):
        change(sweep / job, val__loss=loss)
    said = printed(sweep, "--compare", "2", "1")
    line = next(line for line in said.splitlines() if "val loss" in line)
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells[1] == "0.4000 ± 0.1000 (n=3)"
    assert tuple(cells[3:]) == row
    assert sentence in said


def test_one_run_gives_no_interval(sweep, printed):
    said = printed("--compare", sweep / LOW_0, sweep / HIGH_0)
    assert said.count("add seeds") == 3


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
    configure(sweep / HIGH_0, "model._target_", "<class 'a$b$'>")
    change(sweep / LOW_0, seconds=None)
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


def test_a_search_shows_the_best_so_far_in_the_order_of_time(sweep):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    from mnist_cnn.analysis import page

    gone = unfinished(sweep, "4", "pruned.json", {"epoch": 1, "metric": "val/loss", "value": 0.9})
    lost = unfinished(sweep, "5", "failed.json", {"type": "OSError", "error": "no disk"})
    for job, value in zip(JOBS, (0.5, 0.7, 0.4, 0.6), strict=True):
        change(sweep / job, val__loss=value)
    order = [sweep / HIGH_1, lost, sweep / LOW_0, gone, sweep / LOW_1, sweep / HIGH_0]
    for time, folder in enumerate(order):
        for file in folder.glob("*.json"):
            os.utime(file, (time, time))
    figure = page.trials(board(sweep))
    assert figure is not None
    traces = {trace.name: trace for trace in figure.data}
    assert [*traces["best so far"].y] == [0.6, 0.6, 0.5, 0.5, 0.5, 0.4]
    assert sorted(traces["finished"].x) == [1, 3, 5, 6]
    assert [*traces["pruned"].x] == [4]
    assert page.slices(board(sweep / LOW_0)) is None


def test_the_page_draws_in_a_browser_and_asks_no_machine_for_anything(sweep, browser):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    for job in range(4, 24):
        folder = add(sweep, f"x{job}", like=JOBS[job % 4], val__loss=0.5 + job / 10)
        configure(folder, "optimizer.lr", 10 ** -(1 + job % 4))
        configure(folder, "optimizer._target_", "<b>&" if job % 2 else "Adam")
    unfinished(sweep, "24", "failed.json", {"type": "OSError", "error": "<script>x()</script>"})
    unfinished(sweep, "25", "pruned.json", {"epoch": 1, "metric": "val/loss", "value": 2.2})
    report.main([str(sweep)])
    requests: list[str] = []
    wrong: list[str] = []
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.goto((sweep / "report.html").as_uri())
    tab.wait_for_selector("#settings .point")
    drawn = {part: tab.locator(f"#{part} .point").count() for part in ("runs", "settings")}
    text = tab.inner_text("main")
    overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert wrong == []
    assert requests == [(sweep / "report.html").as_uri()]
    # pruned, and two settings of each run that counts
    assert drawn == {"runs": 25, "settings": 2 * len(board(sweep).ranked)}
    assert "OSError: <script>x()</script>" in text
    assert "<b>&" in text
    assert overflow <= 0
