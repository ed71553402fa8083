"""The benchmark runs all of its ways and reports their ratios. How fast they are is not tested."""

import functools
import json

import pytest

from benchmarks import service, speed


@pytest.mark.slow
def test_a_small_benchmark_measures_each_way_and_writes_it_down(tmp_path, capsys):
    speed.main(["--rounds", "1", "--batches", "8", "--out", str(tmp_path / "b.json")])
    record = json.loads((tmp_path / "b.json").read_text())
    assert set(record["images/s"]) == {"usual", "loop", "ours", "floor"}
    assert all(len(values) == 1 and values[0] > 0 for values in record["rounds"].values())
    one = record["rounds"]["ours"][0] / record["rounds"]["loop"][0]
    assert record["ratios"]["ours/loop"] == pytest.approx({"median": one, "low": one, "high": one})
    said = capsys.readouterr()
    assert "of the bare loop" in said.out
    assert "warning" not in said.err  # one round does not differ from itself


@pytest.mark.slow
def test_a_small_load_on_the_service_is_answered_without_errors(capsys):
    service.main(["--clients", "1", "5", "--seconds", "2"])
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [int(row[0]) for row in rows] == [1, 5]
    for _, answers, *_, errors, wrong, _ in rows:
        assert int(answers) > 0
        assert (int(errors), int(wrong)) == (0, 0)


SPEEDS = {  # of a busy machine: the ratio of the medians is 1.01
    "usual": [3.0, 3.0, 3.0],
    "loop": [10.0, 13.0, 20.0],
    "ours": [13.1, 10.0, 26.2],
    "floor": [20.0, 26.0, 40.0],
}


def test_table_and_sentence_have_one_ratio_with_its_spread(capsys, monkeypatch):
    monkeypatch.setattr(speed, "measure_speeds", lambda rounds, batches: SPEEDS)
    speed.main([])
    said = capsys.readouterr()
    (row,) = [line for line in said.out.splitlines() if "its Trainer" in line]
    assert "13 │ 1.31 (0.77 to 1.31)" in row
    assert "times the usual recipe and 1.31 (0.77 to 1.31) of the bare loop" in said.out
    assert said.err.startswith(
        "warning: the rounds differ by more than a third, ours/usual: 3.33 to 8.73; "
    )
    assert said.err.count("\n") == 1


def test_even_rounds_are_no_warning(capsys):
    speed.warn_of_noise({"ours/loop": speed.ratio([0.8, 0.9, 1.0], [1, 1, 1])})
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_whole_training_is_measured_over_an_epoch_of_the_article(tmp_path, capsys, monkeypatch):
    short = functools.partial(speed.measure_fast, overrides=["trainer.limit_train_batches=3"])
    monkeypatch.setattr(speed, "measure_fast", short)
    argv = ["--fast", "robust", "--rounds", "2", "--out", str(tmp_path / "f.json")]
    speed.main(argv)
    record = json.loads((tmp_path / "f.json").read_text())
    whole, epoch = record["seconds"]["robust"], record["seconds"]["article, one epoch"]
    assert record["ratios"] == [w / e for w, e in zip(whole, epoch, strict=True)]
    assert record["ratio"] == pytest.approx(sum(record["ratios"]) / 2)
    assert min(record["ratios"]) > 1  # 8 epochs over one
    assert "medians over 2 rounds" in capsys.readouterr().out


def test_an_experiment_that_is_not_there_is_named():
    with pytest.raises(SystemExit) as end:
        speed.main(["--fast", "nothing"])
    assert str(end.value.code).startswith("error: --fast must be ")


def test_a_wrong_option_is_named(capsys):
    with pytest.raises(SystemExit):
        speed.main(["--batches", "10000"])
    assert "--batches must be 4 to 750" in capsys.readouterr().err
