"""Records: a real sweep's numbers to the last digit; README's table; the results in the files."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import front, recording, records, robustness, splits, tables, usual
from mnist_cnn.analysis.found import read_history
from mnist_cnn.config import compose
from tests.helpers.process import environment, wait_for

REPOSITORY = Path(__file__).parents[1]
TINY = """# @package _global_
# 55.50 % +- 4.40 on the test set (seeds 0 to 1): stands in for a training of minutes
defaults:
  - override /logger: none
trainer:
  accelerator: cpu
  max_epochs: 2
  limit_train_batches: 5
  limit_val_batches: 1
  limit_test_batches: 1
"""


def clone_in(folder: Path) -> Path:
    """A clone whose experiment=accurate takes seconds, without records."""
    clone = folder / "clone"
    shutil.copytree(REPOSITORY / "conf", clone / "conf")
    (clone / "mnist_cnn").symlink_to(REPOSITORY / "mnist_cnn")
    shutil.copytree(
        REPOSITORY / "benchmarks", clone / "benchmarks", ignore=shutil.ignore_patterns("*.json")
    )
    shutil.copy(REPOSITORY / "README.md", clone)
    (clone / "conf" / "experiment" / "accurate.yaml").write_text(TINY)
    return clone


def begin(clone: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=clone,
        env={**environment(), "PYTHONPATH": str(clone)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that it can be told Ctrl-C as a terminal does, all of it
    )


def run(clone: Path, *argv: str) -> str:
    process = begin(clone, *argv)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Has the record of two seeds, and their sweep."""
    clone = clone_in(tmp_path_factory.mktemp("records"))
    run(clone, "benchmarks.records", "accurate", "--seeds", "0,1", "--write")
    return clone


def sweep_of(clone: Path) -> Path:
    (sweep,) = (clone / "outputs" / "sweeps").glob("*/*")
    return sweep


@pytest.fixture
def sweep(clone: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may change."""
    return Path(shutil.copytree(sweep_of(clone), tmp_path / "sweep"))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def change(job: Path, key: str, value: Any) -> None:
    """Writes another result, or with a dot in its key another configuration."""
    content = read(job / "results.json")
    *parts, last = ["config", *key.split(".")] if "." in key else [key]
    node = content
    for part in parts:
        node = node[part]
    node[last] = value
    (job / "results.json").write_text(json.dumps(content))


def test_a_record_holds_the_numbers_of_its_runs_to_the_last_digit(clone: Path) -> None:
    record = read(clone / "benchmarks" / "accurate.json")
    jobs = [read(sweep_of(clone) / n / "results.json") for n in "01"]
    assert record["seeds"] == [job["config"]["seed"] for job in jobs] == [0, 1]
    for key in ("test/acc", "val/acc", "seconds"):
        assert record[key] == [job[key] for job in jobs]
    for key in ("parameters", "device", "processor", "threads", "versions", "git_commit"):
        assert record[key] == jobs[0][key]
    assert record["config"]["trainer.limit_train_batches"] == 5
    assert "seed" not in record["config"]
    assert record["finished"] == jobs[1]["finished"]
    assert record["command"] == "python -m mnist_cnn.train -m experiment=accurate seed=0,1"
    assert record["elapsed_seconds"] >= 1
    assert record["elapsed_seconds"] + 1 >= sum(record["seconds"])  # the times are whole seconds
    histories = [read_history(sweep_of(clone) / n) for n in "01"]
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    for k, epoch in enumerate(record["epochs"]):
        accuracies = [Fraction(rows[k]["val/acc"]) for rows in histories]
        assert epoch["val/acc"] == float(sum(accuracies) / 2)
        clock = sum(rows[i]["seconds"] for rows in histories for i in range(k + 1)) / 2
        assert epoch["seconds"] == pytest.approx(clock, rel=1e-12)
    assert (clone / "benchmarks" / "accurate.json").stat().st_size < 12_000


def test_a_result_is_compared_with_its_record_and_shown(clone: Path) -> None:
    out = run(clone, "benchmarks.records", "accurate", "--from", str(sweep_of(clone)))
    accuracies = [100 * a for a in read(clone / "benchmarks" / "accurate.json")["test/acc"]]
    mean, std = sum(accuracies) / 2, abs(accuracies[0] - accuracies[1]) / math.sqrt(2)
    assert out.count(f"{mean:.2f} ± {std:.2f} (n=2)") == 2  # here and in the record
    assert "no spread" in out  # the very same runs
    assert "here: seeds 0, 1" in out
    table = run(clone, "benchmarks.records")
    assert f"{mean:.2f} % ± {std:.2f}" in table
    assert "the best network of at most 250,000 parameters" in table
    stated = recording.stated_result("article")
    assert stated is not None
    assert tables.accuracy(stated) in table  # though without a record here


def test_other_seeds_give_a_difference_with_its_interval(clone: Path) -> None:
    old = read(clone / "benchmarks" / "accurate.json")
    new = {**old, "seeds": [2, 3], "test/acc": [0.9, 0.92]}
    found = recording.record_difference(new, old, "test/acc")
    (a, b), (c, d) = new["test/acc"], old["test/acc"]
    assert found.interval is not None
    assert found.mean is not None
    assert found.mean == pytest.approx((a + b - c - d) / 2)
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.alike is None


def test_the_tables_of_readme_and_the_picture_are_made_of_the_records(clone: Path) -> None:
    before = (clone / "README.md").read_text()
    run(clone, "benchmarks.records", "--plot", recording.PICTURE, "--readme")
    text = (clone / "README.md").read_text()
    record = read(clone / "benchmarks" / "accurate.json")
    assert f"| {record['parameters']:,} |" in text
    assert f"`{record['command']}`" in text
    assert f"]({recording.PICTURE})" in text
    assert (clone / recording.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert before.split(tables.BEGIN)[0] == text.split(tables.BEGIN)[0]
    assert before.split(tables.END)[1] == text.split(tables.END)[1]
    run(clone, "benchmarks.records", "--readme")
    assert (clone / "README.md").read_text() == text


def test_readme_has_the_table_that_the_records_make() -> None:
    text = recording.README.read_text("utf-8")
    table = text.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert table == f"\n\n{tables.markdown(recording.load_records())}\n", (
        "python -m benchmarks.records --readme"
    )


@pytest.mark.parametrize("experiment", compose.files("experiment"))
def test_an_experiment_states_what_its_record_says(experiment: str) -> None:
    stated = recording.stated_result(experiment)
    assert stated is not None, "its first lines have no `NN.NN % +- N.NN on the test set (seeds …)`"
    if record := recording.load_records().get(experiment):
        measured = recording.summary_of(record, "test/acc")
        assert tables.accuracy(stated) == tables.accuracy(measured)
        assert stated.n == measured.n
        assert tables.span(record["elapsed_seconds"]) in recording.header(experiment)


def test_a_record_is_of_the_recipe_as_its_file_has_it() -> None:
    found = recording.load_records()
    for name in set(compose.files("experiment")) & set(found):
        assert not recording.differences(found[name]["config"], recording.current_setting(name))
    for name in set(recording.SHIFTED) & set(found):
        members = found[name]["experiment"]
        assert found[name]["config"] == found[members]["config"]


def test_each_record_names_an_experiment_and_a_command_that_exist(clone: Path) -> None:
    found = [*recording.RECORDS.glob("*.json"), *(clone / "benchmarks").glob("*.json")]
    for file in found:
        record = read(file)
        assert file.stem == record["name"]
        python, dash_m, module, *rest = shlex.split(record["command"])
        assert (python, dash_m) == ("python", "-m")
        if module == "benchmarks.records":
            assert rest == [record["name"]]
            assert record["name"] in ("usual", *recording.SHIFTED)
            assert record.get("experiment", "article") in compose.files("experiment")
        else:
            assert module == "mnist_cnn.train"
            assert f"experiment={record['name']}" in rest
            assert f"seed={','.join(map(str, record['seeds']))}" in rest
            assert record["name"] in compose.files("experiment") or file.parent != recording.RECORDS


def test_runs_that_differ_in_more_than_the_seed_make_no_record(sweep: Path) -> None:
    found = recording.finished_runs(sweep)
    assert recording.make_record("accurate", found)["seeds"] == [0, 1]
    for key, value in (("optimizer.lr", 0.5), ("threads", 77), ("git_commit", "another")):
        kept = (sweep / "1" / "results.json").read_text()
        change(sweep / "1", key, value)
        with pytest.raises(ValueError, match=f"the seed alone: {key}=.*, {value}"):
            recording.make_record("accurate", recording.finished_runs(sweep))
        (sweep / "1" / "results.json").write_text(kept)


def test_a_run_of_another_experiment_makes_no_record(sweep: Path) -> None:
    first, _ = recording.finished_runs(sweep)
    with pytest.raises(ValueError, match=r"not experiment=photo, there and here: .*; and \d+ more"):
        recording.check_experiment(first, "photo")
    with pytest.raises(ValueError, match=r"trainer\.max_epochs=2, 10; trainer\.limit_train"):
        recording.check_experiment(first, "article")


def test_what_is_not_finished_is_refused_by_name(sweep: Path) -> None:
    (sweep / "1" / "results.json").rename(sweep / "kept")
    with pytest.raises(ValueError, match=f"{sweep}/1: interrupted.*ckpt_path={sweep}"):
        recording.finished_runs(sweep)
    failure = {"type": "ValueError", "error": "the disk is full", "traceback": ""}
    (sweep / "1" / "failed.json").write_text(json.dumps(failure))
    with pytest.raises(ValueError, match=f"{sweep}/1: failed, ValueError: the disk is full; "):
        recording.finished_runs(sweep)
    shutil.rmtree(sweep / "1")  # it never began
    with pytest.raises(ValueError, match=f"{sweep}: has no run of seed 1; "):
        recording.finished_runs(sweep)
    assert len(recording.finished_runs(sweep, [0])) == 1


def test_results_without_a_test_make_no_record(sweep: Path) -> None:
    content = read(sweep / "0" / "results.json")
    del content["test/acc"]
    (sweep / "0" / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="have no test/acc"):
        recording.make_record("accurate", recording.finished_runs(sweep))


@pytest.mark.slow
def test_ctrl_c_loses_nothing_and_says_how_to_go_on(tmp_path: Path) -> None:
    clone = clone_in(tmp_path)
    arguments = ("accurate", "--seeds", "0,1,2,3,4,5", "--write")
    process = begin(clone, "benchmarks.records", *arguments)
    wait_for(lambda: list(clone.glob("outputs/sweeps/*/*/0/results.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in err
    assert not list((clone / "benchmarks").glob("*.json"))
    first = (sweep_of(clone) / "0" / "results.json").read_bytes()
    hints = [line.partition(": ")[2] for line in err.splitlines() if ": python -m " in line]
    for hint in hints:
        run(clone, *shlex.split(hint)[2:])
    assert len(hints) == 2
    assert read(clone / "benchmarks" / "accurate.json")["seeds"] == [0, 1, 2, 3, 4, 5]
    assert (sweep_of(clone) / "0" / "results.json").read_bytes() == first


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Shortens the usual recipe; the seeds that were trained."""
    trained, original = [], usual.train_usual

    def short(*args: Any, **options: Any) -> dict[str, Any]:
        trained.append(options["seed"])
        torch.use_deterministic_algorithms(True)
        return original(*args, batches=2, **options)

    monkeypatch.setattr(usual, "train_usual", short)
    monkeypatch.setattr(records, "USUAL_EPOCHS", 2)
    return trained


@pytest.mark.slow
def test_the_usual_recipe_is_recorded_and_what_is_there_is_not_trained_again(
    tmp_path: Path, few_steps: list[int]
) -> None:
    first = records.usual_runs([0], tmp_path)
    record = recording.make_record("usual", records.usual_runs([0, 1], tmp_path))
    assert few_steps == [0, 1]
    assert record["test/acc"][0] == first[0].results["test/acc"]
    assert all(a > 0.05 for a in record["test/acc"])
    assert record["parameters"] == 225_034
    assert record["command"] == "python -m benchmarks.records usual"
    assert "val/acc" not in record
    assert read(tmp_path / "1.json")["epochs"] == 2


def table_of(*made: dict[str, Any]) -> str:
    return tables.markdown({record["name"]: record for record in made})


def test_an_ensemble_is_one_observation_of_several_networks(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = read(clone / "benchmarks" / "accurate.json")
    folder, started = sweep_of(clone), []

    def evaluate(entry: str, *arguments: str) -> None:
        started.append((entry, *arguments))
        (place := folder / "evaluation" / "ensemble").mkdir(parents=True)
        outcome = {"ckpt_path": ["a", "b"], "acc": 0.9971, "errors": 29, "images": 10_000}
        (place / "evaluation.json").write_text(json.dumps({**outcome, "shifts": 1}))

    monkeypatch.setattr(records, "run_command", evaluate)
    monkeypatch.setattr(records, "check_experiment", lambda run, name: None)
    record = records.rerun("ensemble", [], folder, True, [])
    ((entry, ckpt_path, *_),) = started
    assert entry == "evaluate"
    assert ckpt_path == f"ckpt_path=['{folder}/0','{folder}/1']"
    assert (record["test/acc"], record["errors"], record["images"]) == ([0.9971], [29], 10_000)
    assert (record["networks"], record["shifts"], record["seeds"]) == (2, 1, [0, 1])
    assert record["seconds"] == [sum(members["seconds"])]
    assert record["parameters"] == 2 * members["parameters"]
    table = table_of(members, record)
    line = "| an ensemble of 2 of these, each image averaged over 9 shifts | **99.71 %** | 1 |"
    assert line in table
    found = recording.record_difference(record, record, "test/acc")
    assert found.interval is None


def test_networks_are_evaluated_one_by_one_with_shifts(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, folder = read(clone / "benchmarks" / "accurate.json"), sweep_of(clone)
    started: list[tuple[str, ...]] = []

    def evaluate(entry: str, *arguments: str) -> None:
        place = folder / "evaluation" / "shifts" / str(len(started))
        started.append((entry, *arguments))
        assert arguments[-1] == f"hydra.run.dir='{place}'"
        place.mkdir(parents=True)
        outcome = {"acc": 0.9971 + len(started) / 10_000, "errors": 29 - len(started)}
        (place / "evaluation.json").write_text(json.dumps({**outcome, "images": 10_000}))

    monkeypatch.setattr(records, "run_command", evaluate)
    monkeypatch.setattr(records, "check_experiment", lambda run, name: None)
    record = records.rerun("shifts", [], folder, True, [])
    assert [ckpt_path for _, ckpt_path, *_ in started] == [
        f"ckpt_path=['{folder}/{seed}']" for seed in (0, 1)
    ]
    assert (record["test/acc"], record["errors"]) == ([0.9972, 0.9973], [28, 27])
    assert (record["networks"], record["seconds"]) == (1, members["seconds"])
    assert record["parameters"] == members["parameters"]
    line = "| the same networks, each image averaged over 9 shifts | 99.72 % ± 0.01 | 2 |"
    assert line in table_of(members, record).replace("*", "")


def test_the_ratio_is_told_in_the_note_and_belongs_to_its_record(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RECORDS", tmp_path)  # where they are read
    monkeypatch.setattr(records, "RECORDS", tmp_path)  # and written
    shutil.copy(clone / "benchmarks" / "accurate.json", tmp_path)
    ratio = {"ratio": 0.91, "ratios": [0.9, 0.91, 0.93], "seconds": {"accurate": [9.0, 9.1, 9.3]}}
    (tmp_path / "ratio").write_text(json.dumps(ratio))
    records.add_ratio("accurate", tmp_path / "ratio")
    note = " ".join(table_of(read(tmp_path / "accurate.json")).split())
    assert "takes 0.91 of the time of one epoch of the tutorial's network (median of 3 " in note
    with pytest.raises(ValueError, match="usual: no record yet"):
        records.add_ratio("usual", tmp_path / "ratio")


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["nothing"], "NAME must be article, "),
        (["article", "--seeds", "0,x"], "--seeds must be whole numbers, as in 0,1,2, got 0,x"),
        (["article", "--seeds", "3,0,3"], "--seeds must name each seed once, got 3,0,3"),
        (["article", "--from", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_answered_in_one_line(argv: list[str], answer: str) -> None:
    with pytest.raises(SystemExit) as end:
        records.main(argv)
    assert str(end.value.code).startswith(f"error: {answer}")
    assert "\n" not in str(end.value.code)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9.94, "9.9 s"), (81.2, "81 s"), (300.0, "5 min"), (7200.0, "2.0 h")]
)
def test_a_time_is_told_as_people_do(seconds: float, shown: str) -> None:
    assert tables.span(seconds) == shown


def test_the_table_of_splits_is_that_of_the_recorded_runs() -> None:
    lines = splits.table(read(splits.RECORD)["runs"])
    assert "\n".join(lines) in (REPOSITORY / "benchmarks" / "README.md").read_text()


def test_an_error_of_validation_stands_beside_that_of_the_test_of_the_same_runs() -> None:
    def run(split: str, fold: int, val: float, test: float) -> dict[str, Any]:
        return {
            "experiment": "fast",
            **{"split": split, "fold": fold, "seed": 0, "val/acc": val, "test/acc": test},
        }

    runs = [run("rows", 0, 0.98, 0.99), run("rows", 1, 0.96, 0.98)]
    assert splits.table(runs)[2:] == [
        "| fast | rows | 2 | 3.00 % | 2.00, 4.00 | 1.50 % | +1.50 ± 0.71 |"
    ]


def test_the_table_of_sizes_is_that_of_the_recorded_runs_and_of_the_records() -> None:
    found = front.networks(read(front.RECORD)["runs"], recording.load_records())
    assert list(found) == sorted(found, key=lambda name: found[name][0])
    lines = front.table(found)
    assert "\n".join(lines) in (REPOSITORY / "benchmarks" / "README.md").read_text()


def test_the_table_of_other_conditions_is_that_of_the_recorded_networks() -> None:
    lines = robustness.table(read(robustness.RECORD)["networks"])
    assert "\n".join(lines) in (REPOSITORY / "benchmarks" / "README.md").read_text()


def test_an_evaluation_without_robustness_is_no_measurement_of_it(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"robustness": None}))
    with pytest.raises(ValueError, match=r"^NAME=FOLDER must be names of 0 networks, got a="):
        robustness.read_networks(f"a={tmp_path}")
