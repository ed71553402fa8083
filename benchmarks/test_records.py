"""Test records: exact numbers of a real sweep, README's table and the results in the files."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from benchmarks import autoattack, measurements, records, tables
from benchmarks.usual import train_usual
from mnist_cnn.runs.folder import OVERRIDES

REPOSITORY = Path(__file__).parents[1]
SHORT = "max_epochs: 2, limit_train_batches: 5, limit_val_batches: 1, limit_test_batches: 1"
TINY = f"# @package _global_\ntrainer: {{accelerator: cpu, {SHORT}}}\n"  # it takes seconds


def run(clone: Path, *argv: str) -> str:
    command = [sys.executable, "-m", *argv]
    env = {"OMP_NUM_THREADS": "2", **os.environ, "PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Make a clone with a short experiment=accurate, its runs of two seeds and their record."""
    clone = tmp_path_factory.mktemp("records") / "clone"
    shutil.copytree(REPOSITORY / "conf", clone / "conf")
    (clone / "mnist_cnn").symlink_to(REPOSITORY / "mnist_cnn")
    without = shutil.ignore_patterns("*.json", "*.png")
    shutil.copytree(REPOSITORY / "benchmarks", clone / "benchmarks", ignore=without)
    shutil.copy(REPOSITORY / "README.md", clone)
    (clone / "conf" / "experiment" / "accurate.yaml").write_text(TINY)
    run(clone, "mnist_cnn.train", "-m", "experiment=accurate", "seed=0,1", "hydra.sweep.dir=sweep")
    run(clone, "benchmarks.records", "accurate", "--from", "sweep", "--write")
    return clone


@pytest.fixture
def sweep(clone: Path, tmp_path: Path) -> Path:
    """Copy the sweep, so that a test may change it."""
    return Path(shutil.copytree(clone / "sweep", tmp_path / "sweep"))


def test_a_record_holds_the_numbers_of_its_runs_to_the_last_digit(clone: Path) -> None:
    record = json.loads((clone / "benchmarks" / "accurate.json").read_text())
    assert list(record) == list(records.load_records()["robust"])
    jobs = records.read_runs(clone / "sweep")
    assert record["seeds"] == [job["seed"] for job in jobs] == [0, 1]
    for key in records.METRICS:
        assert record[key] == [job[key] for job in jobs]
    assert [record[key] for key in records.SAME] == [jobs[1][key] for key in records.SAME]
    assert record["config"]["trainer.limit_train_batches"] == 5
    assert "seed" not in record["config"]
    assert record["command"] == "python -m mnist_cnn.train -m experiment=accurate seed=0,1"
    histories = [pd.read_csv(job["folder"] / "history.csv") for job in jobs]
    clocks = sum(history["seconds"].cumsum() for history in histories) / 2
    epochs = pd.DataFrame(record["epochs"])
    assert epochs["epoch"].tolist() == [1, 2]
    assert epochs["seconds"].tolist() == pytest.approx(clocks)
    assert epochs["val/acc"].tolist() == pytest.approx(sum(h["val/acc"] for h in histories) / 2)


def test_a_result_is_measured_again_beside_its_record_and_shown(clone: Path) -> None:
    record = json.loads((clone / "benchmarks" / "accurate.json").read_text())
    shown = f"{tables.accuracy(record['test/acc'])} | 2 | {record['parameters']:,} |"
    out = run(clone, "benchmarks.records", "accurate")
    assert f"| here | {shown}" in out
    assert f"| the record | {shown}" in out
    picture, readme = clone / "benchmarks" / "accuracy.png", clone / "benchmarks" / "README.md"
    before, _, after = readme.read_text().partition(tables.BEGIN)
    run(clone, "benchmarks.records", "--readme")
    text = readme.read_text()
    assert f"`{record['command']}`" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert text.startswith(before)
    assert text.endswith(after.partition(tables.END)[2])


def test_readme_has_the_table_that_the_records_make() -> None:
    table = tables.README.read_text("utf-8").partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert table == f"\n\n{tables.readme(records.load_records())}\n"  # benchmarks.records --readme


@pytest.mark.parametrize("experiment", records.experiments())
def test_an_experiment_states_what_its_record_says(experiment: str) -> None:
    record = records.load_records()[experiment]
    seeds = record["seeds"]
    stated = tables.accuracy(record["test/acc"]).replace("±", "+-") + " on the test set "
    stated += f"(seeds {seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f"(seed {seeds[0]})"
    lines = (REPOSITORY / "conf" / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert stated in header
    assert tables.span(record["elapsed_seconds"]) in header


def test_the_reader_states_what_its_record_says() -> None:
    record = json.loads((tables.RECORDS / "reader.json").read_text("utf-8"))
    header = " ".join(
        (REPOSITORY / "conf" / "experiment" / "reader.yaml").read_text().replace("#", "").split()
    )
    assert f"val/error {record['then'][-1]['val/error']:.4f}" in header
    for run in (record, *record["then"]):
        assert run["command"] in header
        if "config" not in run:
            continue  # a mean of the others
        chosen = shlex.split(run["command"])[3:]  # without python -m mnist_cnn.train
        assert chosen.pop(0) == "experiment=reader"
        assert run["config"] == records.setting_of("reader", *chosen)


@pytest.mark.parametrize("name", records.load_records())
def test_a_record_is_of_the_recipe_and_the_command_that_there_are(name: str) -> None:
    record = records.load_records()[name]
    assert record["name"] == name
    assert record["command"] == records.invocation(name, record["seeds"], record["launcher"])
    if name != "usual":
        assert record["config"] == records.setting_of(record.get("experiment", name))


def test_runs_that_differ_in_more_than_the_seed_make_no_record(sweep: Path) -> None:
    first, second = records.read_runs(sweep)
    expected, config = records.setting(first["config"]), {**second["config"], "loss": 1}
    for key, other in (("threads", {"threads": 77}), ("loss", {"config": config})):
        with pytest.raises(ValueError, match=f"the seed alone: {{'{key}'"):
            records.make_record("accurate", [first, {**second, **other}], expected)
    del second["test/acc"]
    with pytest.raises(ValueError, match="have no test/acc"):
        records.make_record("accurate", [first, second], expected)


def test_what_is_not_finished_is_refused_by_name(sweep: Path) -> None:
    second = records.read_runs(sweep)[1]["folder"]
    (second / "results.json").unlink()
    with pytest.raises(ValueError, match=f"{second}: .*ckpt_path={sweep}"):
        records.read_runs(sweep)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_usual_recipe_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
        return train_usual(folder, epochs=1, batches=2, seed=seed)

    monkeypatch.setattr("benchmarks.usual.train_usual", short)
    records.train_again({"name": "usual", "seeds": [1, 0]}, tmp_path)
    record = records.record_of("usual", tmp_path)
    assert list(record) == list(records.load_records()["usual"])
    assert record["seeds"] == [0, 1]
    assert all(a > 0.05 and round(a, 4) == a for a in record["test/acc"])
    assert record["config"] == {"epochs": 1, "batches": 2}


@pytest.mark.parametrize(("name", "networks"), [("shifts", 1), ("ensemble", 2)])
def test_networks_are_evaluated_with_shifts_one_by_one_or_together(
    name: str, networks: int, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = records.read_runs(sweep)
    started: list[str] = []

    def evaluate(*arguments: str) -> None:
        started.append(arguments[1])
        place = Path(arguments[-1].partition("=")[2].strip("'"))
        place.mkdir(parents=True)
        labels = {name: {"acc": 0.998} for name in ("sound", "corrected")}
        outcome = {"acc": 0.9971, "labels": labels, "errors": 29, "images": 10000}
        (place / "evaluation.json").write_text(json.dumps(outcome))

    monkeypatch.setattr(records, "run_module", evaluate)
    monkeypatch.setattr(records, "setting_of", lambda name: records.setting(runs[0]["config"]))
    record = records.record_of(name, sweep)
    assert list(record) == list(records.load_records()[name])
    groups = [[run] for run in runs] if networks == 1 else [runs]
    paths = [",".join(f"'{run['folder']}'" for run in group) for group in groups]
    assert started == [f"ckpt_path=[{path}]" for path in paths]
    assert len(record["test/acc"]) == len(groups)
    assert (record["networks"], record["shifts"], record["seeds"]) == (networks, 1, [0, 1])
    assert record["seconds"] == [sum(run["seconds"] for run in group) for group in groups]
    assert record["parameters"] == networks * runs[0]["parameters"]


def test_the_certified_accuracies_of_each_seed_are_in_the_record_and_shown(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = records.read_runs(sweep)
    bounds = [{"0.1": 0.962, "0.3": 0.911}, {"0.1": 0.964, "0.3": 0.913}]

    def evaluate(*arguments: str) -> None:
        paths = ",".join(f"'{run['folder']}'" for run in runs)
        assert arguments[1:3] == (f"ckpt_path=[{paths}]", "robustness=[certified]")
        place = Path(arguments[-1].partition("=")[2].strip("'"))
        place.mkdir(parents=True)
        networks = [{"network": str(k), "certified": found} for k, found in enumerate(bounds)]
        outcome = {"robustness": {"networks": networks}}
        (place / "evaluation.json").write_text(json.dumps(outcome))

    monkeypatch.setattr(records, "run_module", evaluate)
    monkeypatch.setattr(records, "setting_of", lambda name: records.setting(runs[0]["config"]))
    monkeypatch.setattr(autoattack, "accuracy", lambda run, epsilon: 0.93 + epsilon / 10)
    record = records.record_of("certified", sweep)
    assert record["test/acc_certified_0.1"] == [0.962, 0.964]
    assert record["test/acc_certified_0.3"] == [0.911, 0.913]
    text = " ".join(tables.note({"certified": record}).split())
    assert "up to 0.1 and 0.3" in text
    assert "96.30 % ± 0.14 and 91.20 % ± 0.14" in text
    assert "by up to 0.3, leaves 96.00 % ± 0.00" in text


def test_a_package_that_is_missing_is_named_before_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(records, "train_again", lambda record, folder: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"^AutoAttack needs torchattacks: pip install"):
        records.measure("certified", None)


@pytest.mark.parametrize("harmless", [True, False])
def test_only_images_that_are_right_and_not_certified_are_attacked(
    harmless: bool, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = records.read_runs(sweep)[0]
    attacked = []

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        attacked.append(len(images))
        return images if harmless else torch.zeros_like(images)

    module = SimpleNamespace(AutoAttack=lambda net, norm, eps, seed: attack)
    monkeypatch.setitem(sys.modules, "torchattacks", module)
    proven = torch.arange(autoattack.BATCH) % 2 == 0
    monkeypatch.setattr(autoattack, "certified", lambda net, x, y, epsilon: proven)
    left = autoattack.accuracy(run["folder"], 0.1)
    assert 0 < sum(attacked) < 5000
    if harmless:
        assert left == pytest.approx(0.5 + sum(attacked) / 10_000)
    else:  # an empty image is of one class
        assert 0.5 <= left < 0.5 + 0.15


def test_a_suite_that_was_not_measured_is_neither_in_the_file_nor_a_number_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = json.loads((measurements.FOLDER / "robustness.json").read_text())["rows"]
    corruptions = next(row["corruptions"] for row in known if "corruptions" in row)
    evaluated = {"clean": 0.5, "corruptions": corruptions, "certified": {"0.1": 0.5}}
    networks = [{"network": "run", **evaluated}, {"network": "another", **evaluated}]
    place, file = tmp_path / "evaluation.json", tmp_path / "robustness.json"
    place.write_text(json.dumps({"robustness": {"networks": networks}}))
    file.write_text(json.dumps({"rows": known}))
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    measurements.main(["robustness", f"article,new={tmp_path}"])
    rows = {row.pop("network"): row for row in json.loads(file.read_text())["rows"]}
    del evaluated["certified"]
    assert rows["new"] == rows["article"] == evaluated
    assert "| new | 50.00 % |" in (out := capsys.readouterr().out)
    assert "% | - | - |" in out
    assert "nan" not in out


MISTAKES = [["nothing"], ["--write"], ["article", "--from", "nowhere"]]
MISTAKES += [["article", "--from", "here", "nowhere"]]


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_named(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        records.main(argv)
    *_, last = ["", *capsys.readouterr().err.splitlines()]  # the first lines show the options
    assert argv[-1] in f"{end.value.code} {last}"


@pytest.mark.parametrize("name", measurements.TABLES)
def test_a_table_of_measurements_is_that_of_what_was_recorded(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements.main([name])
    assert capsys.readouterr().out in (tables.RECORDS / "README.md").read_text("utf-8")


def test_a_run_without_an_experiment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / OVERRIDES).parent.mkdir()
    (tmp_path / OVERRIDES).write_text("- seed=1\n")
    runs = [{"folder": tmp_path, "config": {}}]
    monkeypatch.setattr(measurements, "read_runs", lambda folder: runs)
    with pytest.raises(ValueError, match=f"^{tmp_path} must be a run that experiment=NAME"):
        next(measurements.read_sweep("x"))


def test_labels_of_three_experiments_are_shown_where_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"experiment": name, "per_class": n, "seed": 0, "test/acc": acc, "hardware": "x"}
        for name, n, acc in (("a", 1, 0.9), ("a", 10, 0.91), ("b", 10, 0.92), ("c", 1, 0.93))
    ]
    (tmp_path / "labels.json").write_text(json.dumps({"rows": rows[:1]}))
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    monkeypatch.setitem(measurements.READ, "labels", lambda folder: rows)
    measurements.main(["labels", "x"])
    assert "| 10 | 91.00 % (n = 1) | 92.00 % (n = 1) | - |" in capsys.readouterr().out
    assert json.loads((tmp_path / "labels.json").read_text())["rows"] == rows
    monkeypatch.setitem(measurements.DRAW, "labels", lambda runs, file: 1 / 0)
    before = (tmp_path / "labels.json").read_bytes()
    rows[0]["test/acc"] = 0.8
    with pytest.raises(ZeroDivisionError):
        measurements.main(["labels", "x"])
    assert (tmp_path / "labels.json").read_bytes() == before


def test_the_best_accuracy_is_that_of_the_highest_mean() -> None:
    record = records.load_records()["tiny"]
    spread, best = [0.99, 1.0], [1.0, 1.0]
    found = {"a": {**record, "test/acc": spread}, "b": {**record, "test/acc": best}}
    accuracies = tables.records_table(found)["test accuracy"]
    assert [text.startswith("**") for text in accuracies] == [False, False, True]


def test_runs_of_a_sweep_take_the_place_of_those_recorded(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["experiment", "split", "fold", "seed", "val/acc", "test/acc", "hardware"]
    first = next(measurements.read_sweep(str(sweep)))
    known, file = {key: first[key] for key in keys}, tmp_path / "splits.json"
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    file.write_text(json.dumps({"rows": [{**known, "val/acc": 0.5}, {**known, "seed": 7}]}))
    measurements.main(["splits", str(sweep)])
    rows = {row["seed"]: row for row in json.loads(file.read_text())["rows"]}
    assert list(rows) == [7, 0, 1]
    assert rows[0] == known
