"""The benchmarks run all of their ways and report their ratios. How fast they are is not tested."""

import json

import pandas as pd
import pytest

from benchmarks import recording, service, speed


def table_of(printed: str) -> list[list[str]]:
    """The cells of the printed table's rows, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


@pytest.mark.slow
def test_a_small_benchmark_measures_each_way_and_writes_it_down(tmp_path, capsys):
    speed.main(["--rounds", "1", "--batches", "8", "--out", str(tmp_path / "b.json")])
    record = json.loads((tmp_path / "b.json").read_text())
    assert list(record["images/s"]) == ["usual", "loop", "ours", "floor"]
    assert all(len(values) == 1 and values[0] > 0 for values in record["images/s"].values())
    assert record["ratio"] == record["images/s"]["ours"][0] / record["images/s"]["loop"][0]
    said = capsys.readouterr()
    assert [row[0] for row in table_of(said.out)] == list(record["images/s"])
    assert "warning" not in said.err  # one round does not differ from itself


@pytest.mark.slow
def test_a_small_load_on_the_service_is_answered_without_errors(capsys):
    service.main(["--clients", "1", "5", "--seconds", "2"])
    rows = table_of(capsys.readouterr().out)
    assert [int(row[0]) for row in rows] == [1, 5]
    for _, answers, *_, errors, wrong, _ in rows:
        assert int(answers) > 0
        assert (int(errors), int(wrong)) == (0, 0)


def test_ratios_are_taken_round_by_round_and_noise_is_warned_of(capsys):
    # a busy machine: the ratio of the medians is 1.01
    rounds = pd.DataFrame({"loop": [10.0, 13.0, 20.0], "ours": [13.1, 10.0, 26.2]})
    speed.print_table(rounds, "images/s", "loop")
    said = capsys.readouterr()
    assert table_of(said.out) == [
        ["loop", "13", "1.00 (1.00 to 1.00)"],
        ["ours", "13", "1.31 (0.77 to 1.31)"],
    ]
    assert said.err.startswith("warning: ")
    speed.print_table(pd.DataFrame({"loop": [1, 1], "ours": [0.8, 1]}), "images/s", "loop")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_whole_training_over_an_epoch_of_the_article_stands_in_its_record(tmp_path, monkeypatch):
    training = speed.own_training
    short = ["trainer.limit_train_batches=3"]
    monkeypatch.setattr(speed, "own_training", lambda *given: training(*given, *short))
    monkeypatch.setattr(speed, "RECORDS", tmp_path)
    speed.main(["--fast", "robust", "--rounds", "2", "--write"])
    record = json.loads((tmp_path / "robust.json").read_text())
    assert {**record, "ratio": None} == {**recording.load_records()["robust"], "ratio": None}
    ratio = record["ratio"]
    whole, epoch = ratio["seconds"]["robust"], ratio["seconds"]["article, one epoch"]
    assert ratio["ratios"] == [w / e for w, e in zip(whole, epoch, strict=True)]
    assert ratio["ratio"] == pytest.approx(sum(ratio["ratios"]) / 2)
    assert min(ratio["ratios"]) > 1  # 8 epochs over one


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["--fast", "nothing"], "--fast must be"),
        (["--batches", "10000"], "--batches must be"),
        (["--rounds", "0"], "--rounds must be"),
        (["--write"], "--write needs"),
    ],
)
def test_a_wrong_option_is_named(argv, key, capsys):
    with pytest.raises(SystemExit) as end:
        speed.main(argv)
    assert key in f"{end.value.code} {capsys.readouterr().err}"
