"""Records: a real sweep's numbers to the last digit; README's table; the results in the files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks import front, recording, records, robustness, splits, tables, usual
from mnist_cnn.config import compose
from tests.helpers.process import environment

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "benchmarks" / "README.md").read_text("utf-8")
TINY = """# @package _global_
# stands in for a training of minutes
defaults:
  - override /logger: none
trainer:
  accelerator: cpu
  max_epochs: 2
  limit_train_batches: 5
  limit_val_batches: 1
  limit_test_batches: 1
"""
MEASURED = [*recording.RECORDS.glob("*.json")]


def clone_in(folder: Path) -> Path:
    """A clone whose experiment=accurate takes seconds, without records."""
    clone = folder / "clone"
    shutil.copytree(REPOSITORY / "conf", clone / "conf")
    (clone / "mnist_cnn").symlink_to(REPOSITORY / "mnist_cnn")
    ignore = shutil.ignore_patterns("*.json")
    shutil.copytree(REPOSITORY / "benchmarks", clone / "benchmarks", ignore=ignore)
    shutil.copy(REPOSITORY / "README.md", clone)
    (clone / "conf" / "experiment" / "accurate.yaml").write_text(TINY)
    return clone


def run(clone: Path, *argv: str) -> str:
    command = [sys.executable, "-m", *argv]
    env = {**environment(), "PYTHONPATH": str(clone)}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_a_record_holds_the_numbers_of_its_runs_to_the_last_digit(clone: Path) -> None:
    record = read(clone / "benchmarks" / "accurate.json")
    assert list(record) == list(read(recording.RECORDS / "robust.json"))
    jobs = recording.read_runs(sweep_of(clone))
    assert record["seeds"] == [job["seed"] for job in jobs] == [0, 1]
    for key in recording.METRICS:
        assert record[key] == [job[key] for job in jobs]
    assert [record[key] for key in recording.SAME] == [jobs[1][key] for key in recording.SAME]
    assert record["config"]["trainer.limit_train_batches"] == 5
    assert "seed" not in record["config"]
    assert record["finished"] == max(job["finished"] for job in jobs)
    assert record["command"] == "python -m mnist_cnn.train -m experiment=accurate seed=0,1"
    assert record["elapsed_seconds"] + 1 >= sum(record["seconds"])  # the times are whole seconds
    histories = [pd.read_csv(job["folder"] / "history.csv") for job in jobs]
    clocks = [history["seconds"].cumsum() for history in histories]
    epochs = pd.DataFrame(record["epochs"])
    assert epochs["epoch"].tolist() == [1, 2]
    assert epochs["seconds"].tolist() == pytest.approx(sum(clocks) / 2)
    assert epochs["val/acc"].tolist() == pytest.approx(sum(h["val/acc"] for h in histories) / 2)


def test_a_result_is_compared_with_its_record_and_shown(clone: Path) -> None:
    before = (clone / "README.md").read_text()
    out = run(clone, "benchmarks.records", "accurate", "--from", str(sweep_of(clone)))
    record = read(clone / "benchmarks" / "accurate.json")
    shown = tables.accuracy(record["test/acc"])
    assert f"accurate: {shown}, n=2" in out
    assert "| +0.00 |" in out
    assert shown in run(clone, "benchmarks.records")
    run(clone, "benchmarks.records", "--plot", recording.PICTURE, "--readme")
    text = (clone / "README.md").read_text()
    for part in (f"| {record['parameters']:,} |", f"`{record['command']}`", recording.PICTURE):
        assert part in text
    assert (clone / recording.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert before.split(tables.BEGIN)[0] == text.split(tables.BEGIN)[0]
    assert before.split(tables.END)[1] == text.split(tables.END)[1]


def test_other_seeds_give_a_difference_with_its_interval(clone: Path) -> None:
    old = read(clone / "benchmarks" / "accurate.json")
    new = {**old, "seeds": [2, 3, 4], "test/acc": [0.9, 0.92, 0.91]}
    row = records.comparison(new, {**old, "test/acc": [0.8, 0.82]}).iloc[0]
    assert (row["here"], row["record"], row["difference"]) == (
        "91.00 (n=3)",
        "81.00 (n=2)",
        "+10.00",
    )
    low, _, high = row["95 % interval"].partition(" to ")
    assert float(low) < 10 < float(high)
    assert records.comparison(old, old).iloc[0]["95 % interval"] == "-"


def test_readme_has_the_table_that_the_records_make() -> None:
    text = recording.README.read_text("utf-8")
    table = text.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert table == f"\n\n{tables.readme(recording.load_records())}\n", (
        "python -m benchmarks.records --readme"
    )


@pytest.mark.parametrize("experiment", compose.files("experiment"))
def test_an_experiment_states_what_its_record_says(experiment: str) -> None:
    record = recording.load_records()[experiment]
    seeds = record["seeds"]
    stated = tables.accuracy(record["test/acc"]).replace("±", "+-") + " on the test set "
    stated += f"(seeds {seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f"(seed {seeds[0]})"
    lines = (REPOSITORY / "conf" / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert stated in header
    assert tables.span(record["elapsed_seconds"]) in header


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_record_is_of_the_recipe_and_the_command_that_there_are(file: Path) -> None:
    record = read(file)
    name = record["name"]
    assert file.stem == name
    assert record["command"] == recording.invocation(name, record["seeds"], record["launcher"])
    if name != "usual":
        experiment = record.get("experiment", name)
        now = recording.setting(
            compose.plain(compose.compose([f"experiment={experiment}"], run_dir="."))
        )
        assert recording.differences(record["config"], now) == ""


def test_runs_that_differ_in_more_than_the_seed_make_no_record(sweep: Path) -> None:
    first, second = recording.read_runs(sweep)
    assert recording.make_record("accurate", [first, second])["seeds"] == [0, 1]
    config = {**second["config"], "optimizer": {**second["config"]["optimizer"], "lr": 0.5}}
    for key, other in (
        ("optimizer.lr", {**second, "config": config}),
        ("threads", {**second, "threads": 77}),
        ("git_commit", {**second, "git_commit": "another"}),
    ):
        with pytest.raises(ValueError, match=f"the seed alone: {key}="):
            recording.make_record("accurate", [first, other])
    del second["test/acc"]
    with pytest.raises(ValueError, match="have no test/acc"):
        recording.make_record("accurate", [first, second])


def test_a_run_of_another_experiment_makes_no_record(sweep: Path) -> None:
    first, _ = recording.read_runs(sweep)
    with pytest.raises(ValueError, match=r"not experiment=article, .*trainer\.max_epochs=2, 10"):
        recording.check_experiment(first, "article")


def test_what_is_not_finished_is_refused_by_name(sweep: Path, tmp_path: Path) -> None:
    (second,) = (run["folder"] for run in recording.read_runs(sweep, [1]))
    (second / "results.json").unlink()
    with pytest.raises(ValueError, match=f"{second}: not finished; .*ckpt_path={sweep}"):
        recording.read_runs(sweep)
    shutil.rmtree(second)  # it never began
    with pytest.raises(ValueError, match="has no run of seed 1"):
        recording.read_runs(sweep, [0, 1])
    assert len(recording.read_runs(sweep)) == 1
    with pytest.raises(ValueError, match="nowhere: no runs"):
        recording.read_runs(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_usual_recipe_is_recorded_and_what_is_there_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, original = [], usual.train_usual

    def short(*args: Any, **options: Any) -> dict[str, Any]:
        trained.append(options["seed"])
        torch.use_deterministic_algorithms(True)
        return original(*args, batches=2, **options)

    monkeypatch.setattr(usual, "train_usual", short)
    monkeypatch.setattr(records, "USUAL_EPOCHS", 2)
    first = records.measure("usual", [0], tmp_path, None)
    record = records.measure("usual", [0, 1], tmp_path, None)
    assert trained == [0, 1]
    assert record["test/acc"][0] == first["test/acc"][0]
    assert all(a > 0.05 for a in record["test/acc"])
    assert record["parameters"] == 225_034
    assert record["config"] == {"epochs": 2, "batches": 2}
    assert "val/acc" not in record


@pytest.mark.parametrize(
    ("name", "networks", "row"),
    [
        ("shifts", 1, "| the same networks, each image averaged over 9 shifts | {} | 2 |"),
        ("ensemble", 2, "| an ensemble of 2 of these, each image averaged over 9 shifts | **99"),
    ],
)
def test_networks_are_evaluated_with_shifts_one_by_one_or_together(
    name: str, networks: int, row: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []

    def evaluate(entry: str, ckpt_path: str, shifts: str, run_dir: str) -> None:
        started.append((entry, ckpt_path, shifts))
        place = Path(run_dir.partition("=")[2].strip("'"))
        place.mkdir(parents=True)
        outcome = {"acc": 0.9971 + len(started) / 10_000, "errors": 29 - len(started)}
        (place / "evaluation.json").write_text(json.dumps({**outcome, "images": 10_000}))

    monkeypatch.setattr(records, "run_command", evaluate)
    monkeypatch.setattr(records, "check_experiment", lambda run, name: None)
    runs = recording.read_runs(sweep)
    record = records.measure(name, [0, 1], sweep, None)
    groups = [[run] for run in runs] if networks == 1 else [runs]
    for (entry, ckpt_path, shifts), group in zip(started, groups, strict=True):
        assert (entry, shifts) == ("evaluate", "shifts=1")
        folders = [f"'{run['folder']}'" for run in group]
        assert ckpt_path == f"ckpt_path=[{','.join(folders)}]"
    assert record["errors"] == [28, 27][: len(groups)]
    assert (record["networks"], record["shifts"], record["seeds"]) == (networks, 1, [0, 1])
    assert record["seconds"] == [sum(run["seconds"] for run in group) for group in groups]
    assert record["parameters"] == networks * runs[0]["parameters"]
    members = recording.make_record("accurate", runs)
    table = tables.markdown(tables.records_table({"accurate": members, name: record}))
    assert row.format("**99.72 % ± 0.01**") in table


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["nothing"], "NAME"),
        (["article", "--seeds", "0,x"], "--seeds"),
        (["article", "--seeds", "3,0,3"], "--seeds"),
        (["article", "--from", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_answered_in_one_line(argv: list[str], key: str) -> None:
    with pytest.raises(SystemExit) as end:
        records.main(argv)
    assert str(end.value.code).startswith(f"error: {key}")
    assert "\n" not in str(end.value.code)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9.94, "9.9 s"), (81.2, "81 s"), (300.0, "5 min"), (7200.0, "2.0 h")]
)
def test_a_time_is_told_as_people_do(seconds: float, shown: str) -> None:
    assert tables.span(seconds) == shown


@pytest.mark.parametrize("module", [front, splits, robustness])
def test_a_table_of_measurements_is_that_of_what_was_recorded(
    module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module.main([])
    assert capsys.readouterr().out in README


def test_an_error_of_validation_stands_beside_that_of_the_test_of_the_same_runs() -> None:
    runs = pd.DataFrame({"experiment": "fast", "split": "rows", "fold": [0, 1], "seed": 0})
    runs["val/acc"], runs["test/acc"] = [0.98, 0.96], [0.99, 0.98]
    assert splits.table(runs).splitlines()[2:] == [
        "| fast | rows | 2 | 3.00 % | 2.00, 4.00 | 1.50 % | +1.50 ± 0.71 |"
    ]


def test_runs_of_a_sweep_take_the_place_of_those_recorded(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MEASUREMENTS", tmp_path)
    (known,) = splits.read(recording.read_runs(sweep, [0])[0]["folder"])
    file = tmp_path / "splits.json"
    file.write_text(json.dumps({"runs": [{**known, "val/acc": 0.5}, {**known, "seed": 7}]}))
    splits.main([str(sweep), "--write"])
    rows = {run["seed"]: run for run in read(file)["runs"]}
    assert list(rows) == [7, 0, 1]
    assert rows[0] == known
    assert known["experiment"] == "accurate"


def test_an_evaluation_without_robustness_is_no_measurement_of_it(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"robustness": None}))
    with pytest.raises(ValueError, match=r"^NAME=FOLDER must be names of 0 networks"):
        robustness.read(Path(f"a={tmp_path}"))
