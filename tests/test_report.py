"""Reports: real runs added up, exactly; whatever lies beside them; the page in a real browser."""

import csv
import io
import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mnist_cnn import report, terminal
from mnist_cnn.analysis import found, ranking, tables
from mnist_cnn.config.compose import compose
from mnist_cnn.config.messages import install
from mnist_cnn.runs import state
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A sweep of two learning rates with two seeds each."""
    sweep = tmp_path_factory.mktemp("trained")
    (sweep / state.SWEEP).touch()
    for job, (lr, seed) in enumerate((lr, seed) for lr in (1e-3, 1e-2) for seed in (0, 1)):
        changed = [f"optimizer.lr={lr}", f"seed={seed}"]
        train(compose([*SHORT, *changed], run_dir=sweep / str(job), run_name="x"))
    return sweep


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may change."""
    copy = tmp_path / "outputs" / "sweeps" / "2026-01-01" / "12-00-00"
    shutil.copytree(trained, copy)
    return copy


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def change(folder: Path, **values: Any) -> None:
    """Writes other results; a double underscore stands for a slash, a key with a dot is config."""
    content = results(folder)
    for key, value in values.items():
        content[key.replace("__", "/")] = value
    (folder / "results.json").write_text(json.dumps(content))


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


def as_json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    report.main([*argv, "--json", "-"])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        report.main(argv)
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    return end.value.code


def test_means_and_deviations_are_those_of_the_jobs_to_the_last_digit(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(sweep, 4, like=3, seed=2, val__loss=0.1 + 0.2)
    groups = as_json(capsys, str(sweep))["groups"]
    report.main([str(sweep), "--csv", "-"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(group["n"] for group in groups) == [2, 3]
    for group, row in zip(groups, rows, strict=True):
        jobs = [results(Path(run["folder"])) for run in group["runs"]]
        assert {job["config"]["optimizer"]["lr"] for job in jobs} == {
            group["config"]["optimizer.lr"]
        }
        assert row["optimizer.lr"] == str(group["config"]["optimizer.lr"])
        for metric in ("val/loss", "val/acc", "test/acc", "seconds"):
            values = [Fraction(job[metric]) for job in jobs]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            assert group[metric]["mean"] == float(row[f"{metric} mean"]) == float(mean)
            std = math.sqrt(variance)
            assert group[metric]["std"] == float(row[f"{metric} std"])
            assert group[metric]["std"] == pytest.approx(std, rel=1e-14, abs=0)
            assert group[metric]["n"] == len(jobs)


def test_a_single_run_has_no_deviation(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (1, 2, 3):
        shutil.rmtree(sweep / str(job))
    (group,) = as_json(capsys, str(sweep))["groups"]
    assert group["val/acc"] == {"n": 1, "mean": results(sweep / "0")["val/acc"], "std": None}
    report.main([str(sweep), "--markdown", "-"])
    cells = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| 1 |"))
    assert "±" not in cells
    assert f"{results(sweep / '0')['val/acc']:.2%}".rstrip("%") in cells


@pytest.mark.parametrize("seen", [(0.9, 0.99, 0.5, 0.4), (0.4, 0.5, 0.99, 0.9)])
@pytest.mark.parametrize(("metric", "mode", "best"), [("loss", "min", 2), ("acc", "max", 0)])
def test_the_validation_objective_ranks_and_test_accuracy_never_does(
    metric: str,
    mode: str,
    best: int,
    seen: tuple[float, ...],
    sweep: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for job, value in enumerate((0.3, 0.2, 0.1, 0.2)):
        folder = sweep / str(job)
        change(folder, val__loss=value, val__acc=value, test__acc=seen[job])
        configure(folder, "objective.metric", f"val/{metric}")
        configure(folder, "objective.mode", mode)
    first, second = as_json(capsys, str(sweep))["groups"]
    rates = [1e-3, 1e-2] if best == 0 else [1e-2, 1e-3]
    assert [group["config"]["optimizer.lr"] for group in (first, second)] == rates
    assert first["checkpoint"] == str(sweep / str(best) / "checkpoints" / "best.ckpt")
    assert Path(first["checkpoint"]).is_file()


def test_an_objective_that_is_not_a_number_ranks_last_and_is_written_as_null(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(sweep / "2", val__loss=math.nan)
    report.main([str(sweep), "--html", str(sweep / "nan.html")])
    capsys.readouterr()
    groups = as_json(capsys, str(sweep))["groups"]
    assert [group["config"]["optimizer.lr"] for group in groups] == [1e-3, 1e-2]
    assert groups[1]["val/loss"] == {"n": 2, "mean": None, "std": None}
    assert Path(groups[1]["checkpoint"]).parts[-3] == "3"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger", {"csv": {"save_dir": "x"}}),
        ("data.root", "/elsewhere"),
        ("trainer.devices", [1]),
        ("trainer.profiler", "simple"),
        ("callbacks.progress", None),
        ("callbacks.checkpoint.dirpath", "/elsewhere"),
        ("data.seed", 7),
        ("test", False),
    ],
)
def test_what_does_not_matter_to_a_result_makes_no_group(
    key: str, value: Any, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(sweep / "0", key, value)
    assert [group["n"] for group in as_json(capsys, str(sweep))["groups"]] == [2, 2]


def test_going_on_with_a_run_makes_no_group_and_starting_from_another_does(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = results(sweep / "0")["config"]["run_dir"]
    configure(sweep / "0", "ckpt_path", f"{own}/checkpoints/last.ckpt")
    assert len(as_json(capsys, str(sweep))["groups"]) == 2
    configure(sweep / "0", "ckpt_path", "/elsewhere/checkpoints/last.ckpt")
    groups = as_json(capsys, str(sweep))["groups"]
    assert len(groups) == 3
    assert set(groups[0]["config"]) == {"optimizer.lr", "ckpt_path"}


def test_only_keys_that_tell_groups_apart_are_columns_under_short_names() -> None:
    same = {"trainer.max_epochs": 3, "data.fold": 0}
    adam = {"optimizer.name": "Adam", "optimizer.lr": 0.1, "optimizer.eps": 1e-7}
    sgd = {"optimizer.name": "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9}
    photo = {"data.augment.degrees": 15, "data.augment.shear": 10}
    configs = [
        {**same, **adam, "model.hidden": 32},
        {**same, **adam, "model.hidden": 64},
        {**same, **sgd, "model.hidden": 32, "optimizer.lr": 0.2},
        {**same, **sgd, "model.hidden": 32, **photo},
    ]
    # momentum and eps follow from the optimizer; shear is there when degrees is
    assert ranking.short_names(ranking.differing(configs)) == {
        "optimizer.name": "optimizer",
        "optimizer.lr": "lr",
        "model.hidden": "hidden",
        "data.augment.degrees": "degrees",
    }
    assert ranking.short_names(["a.x.lr", "b.x.lr", "c.hidden", "x.name"]) == {
        "a.x.lr": "a.x.lr",
        "b.x.lr": "b.x.lr",
        "c.hidden": "hidden",
        "x.name": "x",
    }


def test_runs_without_validation_are_finished_and_added_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data_root: Path
) -> None:
    for seed in (0, 1):
        options = [*SHORT, "experiment=fast", f"seed={seed}", "logger=none"]
        train(compose(options, run_dir=tmp_path / str(seed)))
    accuracies = [results(tmp_path / n)["test/acc"] for n in "01"]
    capsys.readouterr()
    report.main([str(tmp_path)])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ 1 ")]
    assert "│ 2 │" in row
    assert f"{100 * sum(accuracies) / 2:.2f} ±" in row


def test_folds_are_averaged_as_seeds_are(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job, fold in enumerate((0, 1, 2, 3)):
        configure(sweep / str(job), "data.fold", fold)
        configure(sweep / str(job), "seed", 0)
    report.main([str(sweep)])
    said = capsys.readouterr().out
    assert "over n runs alike but for the fold\n" in said
    assert "fold ┃" not in said
    groups = as_json(capsys, str(sweep))["groups"]
    assert [group["n"] for group in groups] == [2, 2]
    assert sorted(run["fold"] for group in groups for run in group["runs"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["optimizer.lr", "lr", "optimizer"])
def test_another_key_can_be_averaged_over(
    name: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = as_json(capsys, str(sweep), "--over", name)
    assert [group["n"] for group in over["groups"]] == [4]


def test_a_mistyped_key_to_average_over_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failure(capsys, str(sweep), "--over", "optimizer.lrr")
    assert said == "error: optimizer.lrr: no such key; did you mean optimizer.lr?"
    assert "more than one key ends so: " in failure(capsys, str(sweep), "--over", "mode")


def test_a_run_that_never_validated_is_finished_and_ranks_last(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in "01":
        content = results(sweep / job)
        for metric in ("val/loss", "val/acc"):
            del content[metric]
        (sweep / job / "results.json").write_text(json.dumps(content))
    content = as_json(capsys, str(sweep))
    assert content["unfinished"] == []
    assert [group["config"]["optimizer.lr"] for group in content["groups"]] == [1e-2, 1e-3]


def test_a_batch_size_of_evaluation_makes_no_group_unless_batches_are_counted(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(sweep / "0", "data.eval_batch_size", 100)
    assert len(as_json(capsys, str(sweep))["groups"]) == 3
    for job, stage in itertools.product("0123", ("val", "test")):
        configure(sweep / job, f"trainer.limit_{stage}_batches", 1.0)
    assert len(as_json(capsys, str(sweep))["groups"]) == 2


def test_one_batch_and_all_batches_do_not_look_alike(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy", reason="needs the extra sweep")
    for job, limit in zip("0123", (1.0, 1.0, 1, 1), strict=True):
        configure(sweep / job, "trainer.limit_train_batches", limit)
    report.main([str(sweep), "--csv", str(sweep / "x.csv")])
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("│")]
    assert sum("│                 1.0 │" in row for row in rows) == 1
    assert sum("│                   1 │" in row for row in rows) == 1
    _, said = compare(capsys, sweep, "limit_train_batches=1.0", "limit_train_batches=1")
    assert "A: limit_train_batches=1.0: 2 finished" in said


def test_an_interrupted_or_failed_run_shows_the_groups_that_it_chose(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"type": "OSError", "error": "disk full"}
    typed = ["model=mlp", "optimizer=sgd", "logger=none", "trainer.max_epochs=1", "seed=3"]
    unfinished(sweep, 4, "failed.json", wrong, *typed)
    report.main([str(sweep), "--markdown", "-"])
    assert "| 4 | failed | model=mlp optimizer=sgd seed=3 |" in capsys.readouterr().out


def test_a_network_is_chosen_for_comparison_by_its_file_or_its_class(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in "23":
        configure(sweep / job, "model.name", "MLP")
    for first, second in (("cnn", "mlp"), ("CNN", "MLP"), ("cnn", "MLP")):
        sides = f"model={first}", f"model={second}"
        _, said = compare(capsys, sweep, *sides)
        assert f"A: {sides[0]}: 2 finished" in said
        assert f"B: {sides[1]}: 2 finished" in said
    said = failure(capsys, str(sweep), "--compare", "model=vgg", "model=cnn")
    assert said == "error: model=vgg: no finished run has that, only CNN, MLP"


def test_runs_that_were_not_validated_are_not_ranked(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in sweep.glob("*/results.json"):
        outcome = json.loads(job.read_text())
        job.write_text(json.dumps({k: v for k, v in outcome.items() if not k.startswith("val/")}))
    report.main([str(sweep), "--csv", str(sweep / "x.csv")])
    said = capsys.readouterr().out
    assert "not ranked, since no run has val/loss; mean" in said
    assert "best checkpoint:" not in said


def test_the_best_checkpoint_is_a_file(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = Path(as_json(capsys, str(sweep))["groups"][0]["runs"][0]["folder"])
    for name in ("best", "last", "neither"):
        report.main([str(sweep), "--csv", str(sweep / "x.csv")])
        said = capsys.readouterr().out
        file = best / "checkpoints" / f"{name}.ckpt"
        assert (f"best checkpoint: {file}\n" in said) == file.exists()
        file.unlink(missing_ok=True)
    assert f"best run: {best}\n" in said
    assert as_json(capsys, str(sweep))["groups"][0]["checkpoint"] is None


def mix(sweep: Path) -> None:
    """Makes the sweep one of runs that differ in as much as experiments do."""
    for job, group in (("1", "photo"), ("2", "mild")):
        for key, value in compose([f"augment={group}"], run_dir="x").data.augment.items():
            configure(sweep / job, f"data.augment.{key}", value)
    configure(sweep / "3", "model.name", "<class 'a$b$'>")


def test_a_report_of_mixed_experiments_is_legible_at_80_columns(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix(sweep)
    board = report.collect_runs([sweep])
    assert len(board.columns) > 10
    narrow = terminal.console(force_terminal=True, color_system=None)
    narrow.width = 80
    tables.print_leaderboard(board, narrow)
    lines = capsys.readouterr().out.split("\n4 finished")[0].splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    for head in ("val loss", "test acc, %", "best run"):
        assert f" {head} " in lines[1]
    assert "usual model=CNN lr=" in said
    assert "degrees=12 shift=1.5 scale=0.12" in said
    report.main([str(sweep), "--markdown", "-"])
    (heads,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| #")]
    assert heads.endswith("| best checkpoint | settings |")


def test_a_figure_of_mixed_experiments_has_at_most_ten_hyper_parameters(sweep: Path) -> None:
    pytest.importorskip("plotly", reason="needs the extra sweep")
    from mnist_cnn.analysis import figures

    mix(sweep)
    board = report.collect_runs([sweep])
    text, figure = figures.parallel(board, board.finished)
    assert figure is not None
    assert len(figure.data[0].dimensions) == 11  # and the objective
    assert f"Of {len(board.columns)} the 10 that vary most." in text
    report.write_page(board, sweep / "report.html", Path("/a$b$"))
    assert "<h1>Runs in //a$b$</h1>" in (sweep / "report.html").read_text()


def test_the_newest_sweep_is_one_of_training(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluations = sweep.parents[2] / "evaluations" / "sweeps" / "1"
    (evaluations / "0").mkdir(parents=True)
    (evaluations / state.SWEEP).touch()
    monkeypatch.chdir(sweep.parents[3])
    assert found.newest_sweep(Path("outputs")) == sweep.relative_to(Path.cwd())
    assert sum(group["n"] for group in as_json(capsys)["groups"]) == 4


def test_runs_without_a_result_are_told_apart_each_with_its_first_line(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"type": "RuntimeError", "error": "out of memory [/b]\nmore", "traceback": ""}
    gone = {"epoch": 2, "metric": "val/loss", "value": 2.5}
    unfinished(sweep, 4, "failed.json", wrong, "optimizer.lr=100", "trainer.max_epochs=1")
    unfinished(sweep, 5, "pruned.json", gone)
    unfinished(sweep, 6, ".lock", "")
    held = unfinished(sweep, 7, "history.csv", "epoch,val/loss\n1,0.5\n2,0.4\n")
    add(sweep, 8, like=0)
    (sweep / "8" / "results.json").write_text('{"val/loss": 0.1, "conf')
    with FileLock(held / state.LOCK):
        content = as_json(capsys, str(sweep))
        report.main([str(sweep), "--markdown", "-"])
    assert [(Path(run["folder"]).name, run["state"]) for run in content["unfinished"]] == [
        ("4", "failed"),
        ("5", "pruned"),
        ("6", "interrupted"),
        ("7", "running"),
        ("8", "unreadable"),
    ]
    messages = [run["message"] for run in content["unfinished"]]
    assert messages[:4] == [
        "RuntimeError: out of memory [/b]",
        "after epoch 2: val/loss=2.5000",
        "",
        "2 epochs done",
    ]
    assert messages[4].startswith("results.json: ")
    shown = capsys.readouterr()
    assert "| 4 | failed | lr=100 | RuntimeError: out of memory [/b] |" in shown.out
    assert "out of memory [/b]" in shown.err
    assert sum(group["n"] for group in content["groups"]) == 4


def test_no_half_written_file_is_a_crash(sweep: Path) -> None:
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
            folder.mkdir(exist_ok=True)
            (folder / file).write_text(text)
            (folder / ".hydra").mkdir(exist_ok=True)
            (folder / state.OVERRIDES).write_bytes(b"- 'a=\n- b\n\xff")
            assert found.read_run(folder, "9").state in ("unreadable", "failed")
        (folder / file).unlink()
    (sweep / "1" / "history.csv").write_text("epoch,val/loss\n1,0.5\n2,")
    report.main([str(sweep)])


def test_the_newest_sweep_is_reported_and_without_one_all_runs(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    newer = sweep.with_name("09-00-00")
    shutil.copytree(sweep, newer)
    shutil.rmtree(newer / "3")
    for file in newer.glob("*/results.json"):  # or they were the same runs again
        file.write_text(json.dumps(json.loads(file.read_text()) | {"train/loss": 0.5}))
    (newer / state.SWEEP).touch()
    assert sum(group["n"] for group in as_json(capsys)["groups"]) == 3
    for folder in (sweep, newer):
        (folder / state.SWEEP).unlink()
    assert sum(group["n"] for group in as_json(capsys)["groups"]) == 7
    # a folder inside another is not counted twice, nor is the same run in another place
    shutil.copytree(sweep, sweep.with_name("10-00-00"))
    both = as_json(capsys, "outputs", str(sweep))
    assert sum(group["n"] for group in both["groups"]) == 7


def test_a_sweep_that_is_locked_itself_is_no_run(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(sweep / state.LOCK):
        content = as_json(capsys, str(sweep))
    assert content["unfinished"] == []
    assert sum(group["n"] for group in content["groups"]) == 4


def test_a_wrong_folder_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure(capsys, "no/such") == "error: no/such: no such folder"
    assert failure(capsys, str(tmp_path)) == f"error: {tmp_path}: no runs in there"


def test_standard_output_is_for_one_thing(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        report.main([str(sweep), "--csv", "-", "--json", "-"])
    assert end.value.code == 2
    assert "allowed once" in capsys.readouterr().err


def test_a_report_writes_its_page_beside_the_sweep(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly", reason="needs the extra sweep")
    before = set(sweep.iterdir())
    report.report(sweep)
    said = capsys.readouterr().out
    assert set(sweep.iterdir()) - before == {sweep / "report.html"}
    assert str(sweep / "report.html") in said
    assert "4 finished" in said


def test_what_cannot_be_drawn_is_said_in_one_line_and_breaks_nothing(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly", reason="needs the extra sweep")
    from mnist_cnn.analysis import figures

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no ink\nat all")

    monkeypatch.setattr(figures, "curves", broken)
    report.report(sweep)
    said = capsys.readouterr()
    assert "4 finished" in said.out
    assert said.err == f"{sweep}: no whole report: RuntimeError: no ink\n"


def test_without_plotly_the_tables_come_and_a_sentence_names_the_extra(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    for module in ("mnist_cnn.analysis.figures", "mnist_cnn.analysis.page"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
    report.main([str(sweep)])
    assert not (sweep / "report.html").exists()
    said = capsys.readouterr().out.splitlines()
    assert "4 finished" in said
    assert said[-1].startswith("report.html with the figures was not written: it needs plotly")
    assert said[-1].endswith(install("sweep"))
    refused = failure(capsys, str(sweep), "--html", str(sweep / "x.html"))
    assert refused.startswith("error: --html needs plotly")
    assert refused.endswith(install("sweep"))


def test_importance_tells_the_key_that_mattered(sweep: Path) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep")
    pytest.importorskip("plotly", reason="needs the extra sweep")
    from mnist_cnn.analysis import figures

    for job in range(4, 44):
        hidden, lr = (32, 64, 128)[job % 3], 10 ** -(1 + (job * 7 % 40) / 10)
        folder = add(sweep, job, like=0, val__loss=abs(math.log10(lr) + 3))
        configure(folder, "model.hidden", hidden)
        configure(folder, "optimizer.lr", lr)
    board = report.collect_runs([sweep])
    about, figure = figures.importance(board, board.finished)
    assert "44 runs" in about
    assert figure is not None
    (bars,) = figure.data
    assert bars.y[0] == "lr"
    assert sum(bars.x) == pytest.approx(1)
    why, few = figures.importance(board, board.finished[:5])
    assert (few, why) == (None, "Skipped: it takes 20 finished runs; there are 5.")


@pytest.fixture
def compared(sweep: Path) -> Callable[..., Path]:
    """The sweep with a third seed and these validation losses, by learning rate and seed."""

    def prepare(*losses: float) -> Path:
        add(sweep, 4, like=0, seed=2)
        add(sweep, 5, like=2, seed=2)
        for job, loss in zip((0, 1, 4, 2, 3, 5), losses, strict=False):
            change(sweep / str(job), val__loss=loss)
        for job in (4, 5):
            configure(sweep / str(job), "seed", 2)
        return sweep

    return prepare


def compare(capsys: pytest.CaptureFixture[str], sweep: Path, *sides: str) -> tuple[list[str], str]:
    """The table's row of the validation loss, and all that was printed."""
    pytest.importorskip("scipy", reason="needs the extra sweep")
    report.main([str(sweep), "--compare", *sides])
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "val loss" in line)
    return [cell.strip() for cell in row.split("│")[1:-1]], said


SIDES = ("optimizer.lr=0.001", "lr=1e-2")


def test_runs_of_the_same_seeds_are_compared_in_pairs(
    compared: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = compared(0.30, 0.40, 0.50, 0.21, 0.32, 0.40)  # differences 0.09, 0.08, 0.10
    row, said = compare(capsys, sweep, *SIDES)
    half = 4.302653 * 0.01 / math.sqrt(3)  # the t-table's value for 2 degrees of freedom
    assert row[3:] == ["+0.0900", f"{0.09 - half:+.4f} to {0.09 + half:+.4f}", "B is better"]
    assert row[1:3] == ["0.4000 ± 0.1000 (n=3)", "0.3100 ± 0.0954 (n=3)"]
    assert "in pairs of the same seed" in said


def test_runs_of_other_seeds_are_compared_by_welchs_t(
    compared: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = compared(0.30, 0.40, 0.50, 0.20, 0.20, 0.20)
    configure(sweep / "3", "seed", 9)
    row, said = compare(capsys, sweep, *SIDES)
    # where one side has no spread, Welch's degrees of freedom are the other's, 2
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert row[3:] == [
        "+0.2000",
        f"{0.2 - half:+.4f} to {0.2 + half:+.4f}",
        "no difference shown",
    ]
    assert "not in pairs" in said


def test_one_run_or_no_spread_is_answered_without_an_interval(
    compared: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = compared(0.30, 0.40, 0.50, 0.21, 0.31, 0.41)
    row, _ = compare(capsys, sweep, *SIDES)
    assert row[3:] == ["+0.0900", "-", "no spread: nothing to judge by"]
    row, _ = compare(capsys, sweep, str(sweep / "0"), str(sweep / "2"))
    assert row[3:] == ["+0.0900", "-", "one run has no spread: add seeds"]


def test_ranks_can_be_compared(
    compared: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = compared(0.30, 0.40, 0.50, 0.21, 0.32, 0.40)
    row, said = compare(capsys, sweep, "1", "2")
    assert row[5] == "A is better"
    assert "A: 1: 3 finished; lr=0.01" in said


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("lr=0.001", "lr=0.5"), "error: lr=0.5: no finished run has that, only 0.001, 0.01"),
        (("lr=0.001", "lrr=1"), "error: lrr: no such key; did you mean lr?"),
        (("1", "3"), "error: --compare: a rank must be 1 to 2, got 3"),
        (
            ("1", "lr"),
            "error: --compare must have a folder, a rank of the leaderboard or key=value, got lr",
        ),
        (("1", "seed=0"), "error: --compare: some runs are in 1 and in seed=0"),
    ],
)
def test_a_wrong_side_of_a_comparison_is_told_in_one_line(
    sides: tuple[str, str], said: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure(capsys, str(sweep), "--compare", *sides) == said


def test_reading_runs_needs_neither_torch_nor_matplotlib(sweep: Path) -> None:
    script = (
        "import sys; from mnist_cnn import report; report.main(sys.argv[1:]); "
        "print([m for m in ('torch', 'matplotlib', 'plotly', 'optuna') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(sweep), "--csv", "/dev/null"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_page_draws_in_a_browser_and_asks_no_machine_for_anything(
    sweep: Path, browser: Any
) -> None:
    pytest.importorskip("plotly", reason="needs the extra sweep")
    pytest.importorskip("optuna", reason="needs the extra sweep")
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
    tab.wait_for_selector("#importance-of-hyper-parameters .bars .point path")
    drawn = {
        what: tab.locator(where).count()
        for what, where in {
            "finished": "#validation-loss-of-each-run .trace:nth-child(2) .point",
            "pruned": "#validation-loss-of-each-run .trace:nth-child(3) .point",
            "lost": "#validation-loss-of-each-run .xy2 .point",
            "axes": "#hyper-parameters .y-axis",
            "curves": "#learning-curves .scatterlayer .js-line",
            "bars": "#importance-of-hyper-parameters .bars .point",
        }.items()
    }
    ink = tab.evaluate(
        """() => Array.from(document.querySelectorAll("#hyper-parameters canvas"))
            .map(canvas => canvas.toDataURL().length)"""
    )
    rows = tab.locator("table").nth(0).locator("tbody tr").count()
    text = tab.inner_text("main")
    overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert wrong == []
    assert requests == [(sweep / "report.html").as_uri()]
    assert drawn == {"finished": 24, "pruned": 1, "lost": 1, "axes": 3, "curves": 24, "bars": 2}
    assert max(ink) > 3000
    assert rows == len(report.collect_runs([sweep]).groups)
    assert "OSError: <script>x()</script>" in text
    assert "<b>&" in text
    assert overflow <= 0
