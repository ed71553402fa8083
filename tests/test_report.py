"""Reports: exact statistics of real runs, other files beside them, the page in a browser."""

import importlib.util
import io
import itertools
import json
import re
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from mnist_cnn import report
from mnist_cnn.analysis import comparison, found, ranking, tables
from mnist_cnn.analysis.results import metric_text
from mnist_cnn.config.messages import install
from mnist_cnn.runs.folder import LOCK, OVERRIDES, SWEEP, read_json
from mnist_cnn.runs.terminal import Console
from tests.helpers.training import trained

# by learning rate and seed
LOW_0, LOW_1, HIGH_0, HIGH_1 = JOBS = ("lr_0.001-0", "lr_0.001-1", "lr_0.01-0", "lr_0.01-1")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Train a sweep of two learning rates with two seeds each."""
    sweep = tmp_path_factory.mktemp("original")
    for file in (LOCK, SWEEP):
        (sweep / file).touch()
    for job, (lr, seed) in zip(JOBS, itertools.product((1e-3, 1e-2), (0, 1)), strict=True):
        trained(sweep / job, f"optimizer.lr={lr}", f"seed={seed}", "test=true")
    return sweep


@pytest.fixture
def sweep(original: Path, tmp_path: Path) -> Path:
    """Copy the sweep, so that a test may change it."""
    return shutil.copytree(original, tmp_path / "outputs" / "sweeps" / "2026-01-01" / "12-00-00")


def results(folder: Path) -> dict[str, Any]:
    return read_json(folder / "results.json")


def change(folder: Path, values: dict[str, Any]) -> Path:
    """Change values in results.json, with those of the configuration below `config.`."""
    content = OmegaConf.create(results(folder))
    for key, value in values.items():
        OmegaConf.update(content, key, value)
    (folder / "results.json").write_text(json.dumps(OmegaConf.to_container(content)))
    return folder


def remove(folder: Path, metric: str) -> None:
    """Remove a metric from results.json."""
    content = json.loads((folder / "results.json").read_text())
    del content[metric]
    (folder / "results.json").write_text(json.dumps(content))


def add(sweep: Path, job: str, like: str, values: dict[str, Any]) -> Path:
    return change(shutil.copytree(sweep / like, sweep / job), values)


def unfinished(sweep: Path, job: str, file: str, content: Any) -> Path:
    folder = sweep / job
    folder.mkdir(parents=True)
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that calls the command and returns its standard output."""
    return lambda *argv: report.main([*map(str, argv)]) or capsys.readouterr().out


@pytest.fixture
def groups(printed: Any) -> Any:
    """Return a function that calls the command and returns the groups of its JSON."""
    return lambda *argv: json.loads(printed(*argv, "--json", "-"))


def test_means_and_deviations_are_those_of_the_jobs_in_json_and_csv(sweep, groups, printed):
    add(sweep, "third", HIGH_1, {"val/loss": 0.1 + 0.2, "config.seed": 2})
    table = pd.DataFrame(groups(sweep))
    assert sorted(table["n"]) == [2, 3]
    for group in table.to_dict("records"):
        jobs = [results(Path(folder)) for folder in group["runs"]]
        assert {job["config"]["optimizer"]["lr"] for job in jobs} == {group["optimizer.lr"]}
        for metric in ("val/loss", "val/acc", "test/acc", "seconds"):
            values = [job[metric] for job in jobs]
            assert group[f"{metric} n"] == len(values)
            assert group[f"{metric} mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
            assert group[f"{metric} std"] == pytest.approx(statistics.stdev(values), rel=1e-12)
    written = pd.read_csv(io.StringIO(printed(sweep, "--csv", "-")))
    pd.testing.assert_frame_equal(written, table[list(written)])


@pytest.mark.parametrize(("metric", "mode", "best"), [("loss", "min", 2), ("acc", "max", 0)])
def test_validation_ranks_and_test_accuracy_never_does(metric, mode, best, sweep, groups):
    for job, value in zip(JOBS, (0.3, 0.2, 0.1, 0.2), strict=True):
        tested = 1 - value if mode == "max" else value  # the opposite order
        values = {"val/loss": value, "val/acc": value, "test/acc": tested}
        objective = {"config.objective.metric": f"val/{metric}", "config.objective.mode": mode}
        change(sweep / job, values | objective)
    first, second = groups(sweep)
    rates = [1e-3, 1e-2] if best == 0 else [1e-2, 1e-3]
    assert [group["optimizer.lr"] for group in (first, second)] == rates
    assert first["checkpoint"] == str(sweep / JOBS[best] / "checkpoints" / "best.ckpt")


def test_an_objective_that_is_not_a_number_or_not_there_ranks_last(sweep, groups, printed):
    change(sweep / HIGH_0, {"val/loss": None, "seconds": None})
    (sweep / HIGH_1 / "checkpoints" / "best.ckpt").unlink()
    first, last = groups(sweep)
    assert [group["optimizer.lr"] for group in (first, last)] == [1e-3, 1e-2]
    assert (last["val/loss n"], last["val/loss mean"]) == (2, None)
    assert last["checkpoint"] == str(sweep / HIGH_1 / "checkpoints" / "last.ckpt")
    for job in JOBS:
        shutil.rmtree(sweep / job / "checkpoints")
    assert "best checkpoint: -\n" in printed(sweep)
    for job in (LOW_0, LOW_1):
        remove(sweep / job, "val/loss")
    assert groups(sweep)[1]["val/loss n"] == 0


def test_without_the_objective_there_is_no_ranking_and_without_a_metric_no_difference(
    sweep, printed
):
    for job in JOBS:
        remove(sweep / job, "val/loss")
    for job in (LOW_0, LOW_1):
        remove(sweep / job, "test/acc")
    said = printed(sweep)
    assert "not ranked, as no run has val/loss" in said
    assert "best checkpoint" not in said
    assert "nan" not in printed(sweep, "--compare", "1", "2")


def test_what_does_not_matter_to_a_result_makes_no_group():
    config = {"optimizer.lr": 0.1, "trainer.limit_val_batches": 1.0, "run_dir": "/a"}
    config |= {"data._target_": "mnist_cnn.data.datamodule.MNISTDataModule"}
    neutral = {"logger.csv.save_dir": "x", "data.root": "/elsewhere", "data.seed": 7, "seed": 3}
    neutral |= {"callbacks.checkpoint.dirpath": "x", "test": False, "data.fold": 1}
    neutral |= {"ckpt_path": "/a/checkpoints/last.ckpt"}  # resumed in its own folder
    neutral |= {"trainer.devices": [3]}  # a single one
    config |= {"trainer.devices": 1}
    same = ranking.setting(config)
    assert ranking.setting({**config, **neutral}) == same
    others = {"ckpt_path": "/b/checkpoints/last.ckpt", "optimizer.lr": 0.2, "trainer.devices": 2}
    for key, value in others.items():
        assert ranking.setting({**config, key: value}) != same


def test_seeds_and_folds_are_averaged_and_a_run_counts_once(sweep, groups, tmp_path, monkeypatch):
    for fold, job in enumerate(JOBS):
        change(sweep / job, {"config.data.fold": fold, "config.seed": 0})
    again = add(sweep, "zz-again", LOW_0, {})
    (tmp_path / "links").mkdir()
    for link, place in (("sweep", sweep), ("upwards", tmp_path / "links")):
        (tmp_path / "links" / link).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    for argv in ((sweep,), (), ("outputs", sweep), ("links",)):
        by_rate = {group["optimizer.lr"]: group for group in groups(*argv)}
        assert by_rate[1e-3]["n"] == by_rate[1e-2]["n"] == 2
        assert set(by_rate[1e-3]["runs"]) == {str(again), str(sweep / LOW_1)}


def test_every_seed_makes_a_repeat_and_none_a_group():
    run = {"state": "finished", "name": "x", "message": "", "checkpoint": None}
    config = {"objective.metric": "val/loss", "objective.mode": "min", "seed": 0, "data.seed": 0}
    repeats = [{}, {"data.seed": 1}, {"data.seed": 2}, {"seed": 1}, {"module.noise.seed": 1}]
    same = [{"logger.csv.seed": 1}, {"module.noise.seed": 0}]
    configs = [config | values for values in (*repeats, *same)]
    runs = pd.DataFrame([{**run, "config": c, "results": {"val/loss": 1.0}} for c in configs])
    (board,) = ranking.Ranking(runs).boards
    assert list(board.groups["n"]) == [len(repeats)]


def test_only_keys_that_tell_groups_apart_are_columns():
    same = {"trainer.max_epochs": 3, "data.fold": 0}
    adam = {"optimizer._target_": "Adam", "optimizer.eps": 1e-7, "optimizer.lr": 0.1}
    sgd = {"optimizer._target_": "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9}
    configs = [
        {**same, **adam, "model.hidden": 32, "scheduler.max_lr": 0.1, "loss": None},
        {**same, **adam, "model.hidden": 64, "scheduler.max_lr": 0.1, "loss._target_": "x"},
        {**same, **sgd, "model.hidden": 32, "optimizer.lr": 0.2, "scheduler.max_lr": 0.2},
        {**same, **sgd, "model.hidden": 32, "scheduler.max_lr": 0.1},
    ]
    # momentum and eps depend on the optimizer, and max_lr equals lr; a loss is null or a part
    keys = ["optimizer._target_", "optimizer.lr", "model.hidden", "loss._target_"]
    assert ranking.differing(configs) == keys
    assert ranking.brief(1.0) != ranking.brief(1)  # limits: all batches, and one


@pytest.mark.parametrize("name", found.OF_A_GROUP)
def test_a_key_of_the_user_s_may_have_the_name_of_a_column(name, sweep, groups):
    for job, value in ((LOW_0, "a"), (LOW_1, "b"), (HIGH_0, "a"), (HIGH_1, "b")):
        change(sweep / job, {f"config.{name}": value})
    found = groups(sweep)
    assert sorted(row[f"+{name}"] for row in found) == ["a", "a", "b", "b"]
    assert [row["n"] for row in found] == [1, 1, 1, 1]


def test_runs_without_a_result_are_told_apart(sweep, groups, printed):
    wrong = {"type": "RuntimeError", "error": "out of | memory [/b]\nmore", "traceback": ""}
    unfinished(sweep, "x1", "failed.json", wrong)
    unfinished(sweep, "x2", "pruned.json", {"epoch": 2, "metric": "val/loss", "value": 2.5})
    unfinished(sweep, "x3", LOCK, "")
    held = unfinished(sweep, "x4", "history.csv", "")
    (add(sweep, "x5", LOW_0, {}) / "results.json").write_text('{"val/loss": 0.1, "conf')
    with FileLock(held / LOCK), FileLock(sweep / LOCK):  # a locked sweep is not a run
        said = printed(sweep, "--markdown", "-")
    for job, state in (("x2", "pruned"), ("x3", "interrupted"), ("x4", "running")):
        assert f"| {job} | {state} |  |" in said
    assert "| x1 | failed | out of \\| memory [/b] |" in said
    assert "| x5 | unreadable | ValueError: results.json: " in said
    assert [group["n"] for group in groups(sweep)] == [2, 2]


def test_no_half_written_file_is_a_crash(sweep):
    whole = (sweep / LOW_0 / "results.json").read_bytes()
    broken = [whole[:cut] for cut in range(0, len(whole) - 3, 97)]
    broken += [b"[]", b"null", b"\xff\xfe", b"{}", b'{"config": 3}', b'{"config": {}}']
    broken += [whole.replace(b'"val/loss": ', b'"val/loss": "x", "y": ', 1)]
    failures = [b"", b"3", b"{}", b'{"type": "", "error": ""}']
    broken += [whole.replace(b'"val/acc": ', b'"val/acc": 1%d, "y": ' % 10**400, 1)]
    for key, value in (("objective.metric", [3]), ("objective.mode", [3]), ("data.fingerprint", 3)):
        content = OmegaConf.create(json.loads(whole))
        OmegaConf.update(content, f"config.{key}", value)
        broken.append(json.dumps(OmegaConf.to_container(content)).encode())
    for name, contents in {"results": broken, "failed": failures}.items():
        folder = unfinished(sweep, name, f"{name}.json", "")
        for content in contents:
            (folder / f"{name}.json").write_bytes(content)
            run = found.read_run(folder, "x")
            assert (run["state"], bool(run["message"])) == ("unreadable", True)
    report.main([str(sweep)])


def test_a_wrong_command_line_is_told_in_one_line(sweep, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "bad" / "run").mkdir(parents=True)
    (tmp_path / "bad" / "run" / "failed.json").write_text("{}")
    low = sweep / LOW_0
    for argv, line in (
        (["no/such"], "no such folder"),
        ([tmp_path / "none"], "no runs"),
        ([sweep, "--csv", "no/such"], "no/such"),
        ([sweep, "--html", "no/such"], "--html must be .* no/such"),
        ([sweep, "--csv", tmp_path], "--csv must be a file in .* got /"),
        (
            [sweep, "--csv", "x", "--json", "./x"],
            "outputs csv, json must be paths that differ",
        ),
        ([sweep, "--compare", "1", "3"], "1 to 2"),
        ([sweep, "--compare", sweep, "1"], r"--compare must be .* differ in optimizer\.lr"),
        ([sweep, "--compare", "1", tmp_path / "bad"], "--compare must be .* without any"),
        ([sweep, "--compare", "1", "2", "--csv", "x"], "--compare must be given alone"),
        ([sweep, "--status", "--json", "-"], "--status must be given alone, got .*--json"),
        ([sweep, "--compare", "1"], "--compare must be two groups or more"),
        ([sweep, "--compare", "1", "1"], "--compare must be two groups .* without a common run"),
        ([sweep, "--compare", low, f"{low}/"], "without a common run"),
    ):
        with pytest.raises(SystemExit, match=rf"^error: .*{line}.*$"):
            report.main([*map(str, argv)])


@pytest.mark.parametrize(
    ("seed", "losses", "row", "sentence"),
    [
        # differences 0.09, 0.08 and 0.10; the t-table has 4.3027 for 2 degrees of freedom
        # t is 9 sqrt(3), and its p 1 - t / sqrt(t^2 + 2)
        (1, (0.21, 0.32, 0.40), ("+0.09", "+0.06516 to +0.1148", "0.0041", "3"), "same seed:"),
        # not paired; if one side has no spread, the degrees of freedom are the other's
        (9, (0.20, 0.20, 0.20), ("+0.2", "-0.04841 to +0.4484", "0.074", "5"), "Welch"),
    ],
)
def test_runs_of_the_same_seeds_are_compared_in_pairs(seed, losses, row, sentence, sweep, printed):
    for job, like in (("low-2", LOW_0), ("high-2", HIGH_0)):
        add(sweep, job, like, {"config.seed": 2})
    change(sweep / HIGH_1, {"config.seed": seed})
    jobs = (LOW_0, LOW_1, "low-2", HIGH_0, HIGH_1, "high-2")
    for job, loss in zip(jobs, (0.30, 0.40, 0.50, *losses), strict=True):
        change(sweep / job, {"val/loss": loss})
    said = printed(sweep, "--compare", "2", "1")
    line = next(line for line in said.splitlines() if "val/loss" in line)
    cells = re.split(r"\s{2,}", line.strip())
    assert cells[1] == "0.4 ± 0.1"
    assert tuple(cells[3:]) == row
    assert sentence in said


def compared(a: list[float], b: list[float]) -> dict[str, Any]:
    """Return the row of a comparison of two groups with these losses."""
    sides = [board_of(*({"seed": n} for n in range(len(v)))).members[0] for v in (a, b)]
    for side, losses in zip(sides, (a, b), strict=True):
        side["results"] = [{"val/loss": loss} for loss in losses]
    table, _ = comparison.compare(dict(zip("AB", sides, strict=True)))
    return {str(key): value for key, value in table.iloc[0].items()}


def test_a_spread_of_rounding_alone_is_none():
    row = compared([0.11, 0.12, 0.13], [0.21, 0.22, 0.23])  # differences of -0.1, nearly
    assert row["95 % interval"] == "-0.1 to -0.1"
    assert (row["p"], row["seeds"]) == ("0", "2")
    same = compared([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (same["A - B"], same["p"], same["seeds"]) == ("+0", "-", "-")


def test_a_diverged_run_leaves_no_difference():
    row = compared([0.1, float("nan"), 0.3], [0.2, 0.3, 0.4])
    assert [row[key] for key in ("A - B", "95 % interval", "p", "seeds")] == ["-"] * 4


@pytest.mark.parametrize(
    # Cohen (1988), tables 2.4.1 and 2.3.1: differences of 0.5, 0.8 and 1 standard deviations
    ("gap", "variances", "seeds"),
    [(0.5, [1, 1], "64"), (-0.8, [1, 1], "26"), (1, [1, 1], "17"), (0.5, [1], "34")],
)
def test_the_seeds_that_a_difference_needs_are_those_of_the_tables(gap, variances, seeds):
    assert comparison.needed_seeds(gap, variances, 0.05) == seeds


def test_a_comparison_begins_with_the_objective(sweep, printed):
    for job, error in zip(JOBS, (0.3, 0.4, 0.1, 0.2), strict=True):
        remove(sweep / job, "val/acc")
        content = results(sweep / job) | {"val/error": error}
        content["config"]["objective"] = {"metric": "val/error", "mode": "min"}
        (sweep / job / "results.json").write_text(json.dumps(content))
    rows = [line.split() for line in printed(sweep, "--compare", "1", "2").splitlines()]
    metrics = [row[0] for row in rows if "±" in row]
    assert metrics == ["val/error", "val/loss", "test/acc", "seconds"]


def test_p_of_several_comparisons_is_corrected(sweep, printed):
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for lr, losses in ((0.1, (0.9, 0.8)), (0.2, (0.31, 0.29))):
        for seed, (like, loss) in enumerate(zip((LOW_0, LOW_1), losses, strict=True)):
            add(sweep, f"{lr}-{seed}", like, {"config.optimizer.lr": lr, "val/loss": loss})
    rows = [line.split() for line in printed(sweep, "--compare", "1", "2", "3").splitlines()]
    assert [row[1] for row in rows if row[:1] == ["val/loss"]] == ["2", "3"]
    alone = [comparison.compare(groups)[0]["p"][0] for groups in pairs_of(sweep)]
    both = [row[-2] for row in rows if row[:1] == ["val/loss"]]
    least, other = sorted(zip(map(float, alone), map(float, both), strict=True))
    assert least[1] == pytest.approx(2 * least[0], rel=0.05)
    assert other[1] == max(other[0], least[1])


def test_every_run_is_shown_with_its_state_and_what_resumes_it(sweep, printed, monkeypatch):
    outputs = sweep.parents[2]
    monkeypatch.chdir(outputs.parent)
    monkeypatch.setenv("COLUMNS", "200")
    lone = shutil.copytree(sweep / LOW_0, outputs / "2026-01-02" / "a run")
    (lone / OVERRIDES).write_text("[]")
    called = shutil.copytree(sweep / LOW_0, outputs / "from Python")
    for run in (sweep / LOW_1, sweep / HIGH_0, sweep / HIGH_1, lone, called):
        (run / "results.json").unlink()
    (sweep / HIGH_0 / "failed.json").write_text('{"type": "ValueError", "error": "no space"}')
    best = pd.read_csv(sweep / LOW_1 / "history.csv")["val/loss"].min()
    with FileLock(sweep / HIGH_1 / LOCK):
        said = printed(outputs, "--status")
    rows = {
        cells[0]: cells
        for line in said.splitlines()
        if len(cells := re.split(r"\s{2,}", line.strip())) > 1
    }
    name = "sweeps/2026-01-01/12-00-00/{}".format
    assert rows[name(HIGH_1)][1:3] == ["running", "2/2"]
    assert rows["2026-01-02/a run"][1] == "interrupted"
    assert rows[name(LOW_1)][1:4] == ["interrupted", "2/2", f"val/loss {best:.4g}"]
    assert (rows[name(HIGH_0)][1], rows[name(HIGH_0)][-1]) == ("failed", "no space")
    assert rows[name(LOW_0)][1] == "finished"
    commands = [line for line in said.splitlines() if line.startswith("python")]
    assert sorted(shlex.split(command)[-1] for command in commands) == [
        "ckpt_path=outputs/2026-01-02/a run",
        "ckpt_path=outputs/sweeps/2026-01-01/12-00-00",
    ]
    assert "the call that started outputs/from Python resumes it" in said
    (sweep / SWEEP).write_text("application: app")
    said = printed(outputs, "--status")
    assert "the command of app with hydra.sweep.dir=outputs/sweeps/2026-01-01/12-00-00" in said


@pytest.mark.parametrize("row", ["x,0.5,0.5", "1,abc,0.5"])
def test_a_history_that_has_text_for_a_number_is_no_history(row, tmp_path, printed):
    run = unfinished(tmp_path, "run", LOCK, "")
    (run / "history.csv").write_text(f"epoch,train/loss,val/loss\n{row}\n")
    assert found.read_history(run).empty
    objective = {"objective": {"metric": "train/loss", "mode": "min"}}
    (run / ".hydra").mkdir()
    OmegaConf.save(objective, run / ".hydra" / "config.yaml")
    assert re.search(r"run +interrupted +- +- ", printed(tmp_path, "--status"))
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "results.json").symlink_to(tmp_path / "nowhere")  # as git-annex leaves
    assert re.search(r"absent +new +- +- ", printed(tmp_path, "--status"))


def pairs_of(sweep: Path) -> list[dict[str, pd.DataFrame]]:
    """Pair the first group of a sweep with the second, and with the third."""
    first, *others = ranking.Ranking(found.read_runs([sweep])).members[:3]
    return [{"1": first, "other": other} for other in others]


def test_data_sets_are_ranked_apart_and_not_compared(sweep, groups, printed):
    other = {"config.data.name": "kmnist", "val/loss": 1e-3}
    add(sweep, "k0", LOW_0, other)
    pictures = {"data.name": "folder", "data.root": "x"}
    for job, content in (("f0", "3fa9"), ("f1", "ab01")):
        config = pictures | {"data.fingerprint": content, "optimizer.lr": 0.1}
        add(sweep, job, LOW_0, {f"config.{key}": value for key, value in config.items()})
    found = [(group["data"], group["rank"], group["n"]) for group in groups(sweep)]
    assert found[:2] == [("mnist", 1, 2), ("mnist", 2, 2)]
    assert [rank for _, rank, _ in found] == [1, 2, 3, 4, 5]
    assert {name for name, *_ in found[2:]} == {"kmnist", "folder (3fa9)", "folder (ab01)"}
    assert "kmnist: ranked by val/loss" in printed(sweep)
    with pytest.raises(SystemExit, match=r"--compare must be .* one data set"):
        report.main([str(sweep), "--compare", "1", "3"])


def test_null_is_not_nan_and_a_whole_number_stays_one(sweep, groups, printed):
    for job, few in zip(JOBS, (None, None, 300, 300), strict=True):
        change(sweep / job, {"config.data.per_class": few})
    assert {group["data.per_class"] for group in groups(sweep)} == {None, 300}
    said = printed(sweep, "--markdown", "-")
    assert "nan" not in said
    assert {"null", "300"} <= set(said.split())


def printed_by(console: Console, table: Any) -> list[str]:
    with console.capture() as said:
        console.print(table, soft_wrap=False)
    return said.get().splitlines()


def board_of(*configs: dict[str, Any], **more: Any) -> ranking.Leaderboard:
    """Make a leaderboard of runs with these configurations, with losses in ascending order."""
    base = {"objective.metric": "val/loss", "objective.mode": "min", "data.name": "mnist"}
    run = {"state": "finished", "message": "", "checkpoint": "x", "folder": Path("x")}
    run |= {"logarithmic": set(), **more}
    rows = []
    for loss, config in enumerate(configs, 1):
        results = {"val/loss": loss / 100, "val/acc": 0.9, "test/acc": 0.9, "seconds": 12.345}
        rows.append({**run, "name": "x", "config": base | config, "results": results})
    (board,) = ranking.Ranking(pd.DataFrame(rows)).boards
    return board


@pytest.mark.parametrize("width", [80, 120])
def test_metrics_come_first_and_of_many_settings_those_of_the_most_values(width):
    keys = [f"model.argument_{letter}" for letter in "abcdefgh"]
    board = board_of(
        *({key: n >> k & 1 for k, key in enumerate(keys)} | {"z": n} for n in range(9))
    )
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)
    table, left_out = tables.fitted_table(board, console)
    lines = [line.rstrip() for line in printed_by(console, table)]
    head = lines[1].split()
    assert head[:7] == ["#", "val/loss", "val/acc", "test/acc", "seconds", "n", "z"]
    assert len(head[6:]) - head.count("run") * 2 == len(board.columns) - left_out
    assert max(map(len, lines)) <= width
    assert (left_out > 0) == (width == 80)


def test_titles_that_are_shortened_stay_apart():
    board = board_of(*({"model.n": n, "optimizer.lr": 10**-n} for n in range(3)))
    console = Console(width=60, file=io.StringIO(), soft_wrap=True)
    table, left_out = tables.fitted_table(board, console)
    titles = [column.header for column in table.columns]
    assert titles[-3:] == ["n", "model.n", "lr"]
    assert left_out == 0


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12_345.6, 4, "12,346"),
        (1234.5, 4, "1,234"),
        (123.4, 2, "123"),
        (12.345, 4, "12.35"),
        (0.00001, 4, "1e-05"),
        (1e30, 4, "1e+30"),
    ],
)
def test_a_large_number_is_a_whole_one(value, digits, text):
    assert tables.format_metric("seconds", value, digits=digits) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("acc", "530.00%"),
        ("acc_sound", "530.00%"),
        ("acc/dataloader_idx_0", "530.00%"),
        ("accumulated_error", "5.3000"),
        ("loss", "5.3000"),
    ],
)
def test_an_accuracy_alone_is_in_per_cent(name, text):
    assert metric_text(name, 5.3) == text


def test_runs_of_one_configuration_are_listed_on_the_narrowest_terminal():
    console = Console(width=20, file=io.StringIO(), soft_wrap=True)
    table, left_out = tables.fitted_table(board_of({}, {}), console)
    assert (table.row_count, left_out) == (1, 0)


def test_a_run_on_one_device_is_of_the_same_group_on_the_page():
    page = pytest.importorskip("mnist_cnn.analysis.page", reason="needs the extra sweep")
    board = board_of(*({"trainer.devices": devices} for devices in ([1], 2)))
    assert list(page.draw_setting(board, "trainer.devices").data[0].x) == [1, 2]


def test_a_class_is_named_without_its_module_where_that_tells_them_apart():
    optimizers = ("torch.optim.SGD", "mine.Best", "mine.Best")
    networks = ("a.Net", "b.Net", "a.Net")
    keys = ("optimizer._target_", "model._target_")
    names = zip(optimizers, networks, strict=True)
    board = board_of(*(dict(zip(keys, pair, strict=True)) for pair in names))
    titles, labels = tables.setting_labels(board)
    assert {*titles.values()} == {"optimizer", "model"}
    assert {*labels["optimizer._target_"].values()} == {"SGD", "Best"}
    assert {*labels["model._target_"].values()} == {"a.Net", "b.Net"}


@pytest.mark.parametrize(
    ("values", "searched", "kind"),
    [
        ((0.001178, 0.00884, 0.001339), {"x"}, "log"),
        ((1e-3, 1e-4, 1e-2), set(), "log"),  # of a grid
        ((0.3, 0.1, 0.2), set(), "linear"),
        ((0, 0.001, 1), {"x"}, "linear"),
        ((10, None, 9), set(), "category"),
        (("b", 10, 9.5), set(), "category"),
        ((True, False, True), set(), "category"),
    ],
)
def test_numbers_lie_on_an_axis_in_their_order(values, searched, kind):
    page = pytest.importorskip("mnist_cnn.analysis.page", reason="needs the extra sweep")
    board = board_of(
        *({"x": value, "k": n} for n, value in enumerate(values)), logarithmic=searched
    )
    figure = page.draw_setting(board, "x")
    assert (figure.layout.xaxis.type or "linear") == kind
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("x", "val/loss")
    if kind == "category":
        order = {(10, None, 9): ("9", "10", "null"), ("b", 10, 9.5): ("9.5", "10", "b")}
        assert figure.layout.xaxis.categoryarray == order.get(values, ("false", "true"))
    else:
        assert tuple(figure.data[0].x) == values


def test_what_a_search_was_told_to_draw_in_logs_is_known(tmp_path):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / SWEEP).write_text("task: ['a.b=tag(log,interval(1,2))', c=1]")
    text = "params:\n  optimizer.lr: tag(log, interval(1e-4, 1e-2))\n  x: interval(0,1)"
    (tmp_path / "0" / ".hydra" / "hydra.yaml").write_text(text)
    assert found.searched_in_logs(tmp_path / "0") == {"a.b", "optimizer.lr"}


def test_a_sweep_ends_with_its_page_and_without_plotly_with_a_sentence(sweep, capsys, monkeypatch):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    report.report(sweep)
    assert str(sweep / "report.html") in capsys.readouterr().out
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report.report(sweep)
    assert capsys.readouterr().out.splitlines()[-1].endswith(install("sweep"))


def test_a_page_that_is_asked_for_by_name_needs_plotly(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^error: --html: it needs plotly: "):
        report.main([str(tmp_path), "--html", str(tmp_path / "page.html")])


def test_a_page_replaces_its_own_alone_and_may_go_to_standard_output(sweep, printed, monkeypatch):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    monkeypatch.chdir(sweep)
    page = printed(sweep, "--html", "-")
    assert page.startswith("<!doctype html>")
    assert not (sweep / "-").exists()
    (sweep / "-").write_text("mine")
    assert printed(sweep, "--html", "-").startswith("<!doctype html>")
    assert (sweep / "-").read_text() == "mine"
    file = sweep / "report.html"
    for content in (page, "mine, on mnist_cnn"):
        file.write_text(content)
        said = printed(sweep)
        assert ("is not of this command" in said) == (content != page)
    assert file.read_text() == "mine, on mnist_cnn"


@pytest.mark.parametrize("kind", report.FORMATS)
def test_a_table_replaces_its_own_alone(kind, sweep, tmp_path):
    file, own = tmp_path / "table", sweep / LOW_0 / "results.json"
    for runs in (sweep, sweep, unfinished(tmp_path, "unfinished", LOCK, ""), sweep):
        report.main([str(runs), f"--{kind}", str(file)])
    before, link = own.read_bytes(), tmp_path / "link"
    link.symlink_to(file)
    notes = tmp_path / "notes"
    notes.write_text("date,rank,data\n")
    for foreign in (own, link, notes):
        with pytest.raises(SystemExit, match=f"^error: --{kind}: .* is not of this command"):
            report.main([str(sweep), f"--{kind}", str(foreign)])
    assert own.read_bytes() == before
    assert notes.read_text() == "date,rank,data\n"


def test_the_page_has_curves_and_no_section_without_content(sweep):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    shutil.rmtree(sweep / HIGH_0)
    shutil.rmtree(sweep / HIGH_1)
    history = pd.read_csv(sweep / LOW_0 / "history.csv").assign(gradient_norm=0.5)
    history.to_csv(sweep / LOW_0 / "history.csv", index=False)
    report.main([str(sweep)])
    page = (sweep / "report.html").read_text("utf-8")
    kinds = re.findall(r'<section class="(\w*)"', page)
    assert kinds == ["leaderboard", "curves"]  # one group, and every run has a result
    curves = re.findall(r'"yaxis":\{"title":\{"text":("[^"]+")', page.rpartition('"curves"')[2])
    metrics = [f"{stage}/{name}" for stage in ("train", "val") for name in ("acc", "loss")]
    assert sorted(map(json.loads, curves)) == ["gradient_norm", *metrics]
    (sweep / LOW_0 / "history.csv").unlink()
    (sweep / LOW_1 / "history.csv").write_bytes(b"\xff\x00")
    report.main([str(sweep)])
    assert '<section class="curves"' not in (sweep / "report.html").read_text("utf-8")


def test_the_page_draws_in_a_browser_and_asks_no_machine_for_anything(sweep, browser):
    pytest.importorskip("plotly", reason="needs the extra sweep")
    for job in range(4, 8):
        target = "<b>a$b$&" if job % 2 else "Adam"
        values = {"val/loss": 0.5, "config.optimizer._target_": target}
        add(sweep, f"x{job}", JOBS[job % 4], values)
    unfinished(sweep, "24", "failed.json", {"type": "OSError", "error": "<script>x()</script>"})
    report.main([str(sweep)])
    requests: list[str] = []
    wrong: list[str] = []
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.goto((sweep / "report.html").as_uri())
    tab.wait_for_selector(".settings .point")
    drawn, text = tab.locator(".settings .point").count(), tab.inner_text("main")
    overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    tab.close()
    assert wrong == []
    assert requests == [(sweep / "report.html").as_uri()]
    assert drawn == 2 * 8  # two settings of each run
    assert "<script>x()</script>" in text
    assert "<b>a$b$&" in text
    assert overflow <= 0
