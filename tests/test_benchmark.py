"""The benchmarks run all of their ways and report their ratios. How fast they are is not tested."""

import json

import pandas as pd
import pytest

from benchmarks import records, service, speed


def table_of(printed: str) -> list[list[str]]:
    """The cells of the printed table's rows, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


@pytest.mark.slow
def test_a_small_benchmark_measures_each_way(capsys):
    speed.main(["--rounds", "1", "--batches", "8"])
    rows = table_of(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["usual", "ours", "loop"]
    assert rows[2][2] == "1.00 (1.00 to 1.00)"


@pytest.mark.slow
def test_a_small_load_on_the_service_is_answered_without_errors(capsys):
    service.main(["--clients", "1", "5", "--seconds", "2"])
    rows = table_of(capsys.readouterr().out)
    assert [int(row[0]) for row in rows] == [1, 5]
    assert all(int(row[1]) > 0 and int(row[-1]) == 0 for row in rows)


def test_ratios_are_taken_round_by_round():
    # a busy machine: the ratio of the medians is 1.01
    rounds = pd.DataFrame({"ours": [13.1, 10.0, 26.2], "loop": [10.0, 13.0, 20.0]})
    assert table_of(speed.table(rounds)) == [
        ["ours", "13.1", "1.31 (0.77 to 1.31)"],
        ["loop", "13", "1.00 (1.00 to 1.00)"],
    ]


@pytest.mark.slow
def test_a_whole_training_over_an_epoch_of_the_article_stands_in_its_record(tmp_path, monkeypatch):
    training = speed.own_training
    short = "trainer.limit_train_batches=3"
    monkeypatch.setattr(speed, "own_training", lambda *given: training(*given, short))
    monkeypatch.setattr(speed, "RECORDS", tmp_path)
    speed.main(["--fast", "robust", "--rounds", "2", "--write"])
    record = json.loads((tmp_path / "robust.json").read_text())
    ratio = record.pop("ratio")
    assert record == records.load_records()["robust"]
    whole, epoch = ratio["seconds"].values()
    assert ratio["ratios"] == [w / e for w, e in zip(whole, epoch, strict=True)]
    assert ratio["ratio"] == pytest.approx(sum(ratio["ratios"]) / 2)


@pytest.mark.parametrize("argv", [["--fast", "no"], ["--batches", "9999"], ["--write"]])
def test_a_wrong_option_is_named(argv, capsys):
    with pytest.raises(SystemExit):
        speed.main(argv)
    assert argv[0] in capsys.readouterr().err
