"""The benchmark runs all of its ways and reports their ratios. How fast they are is not tested."""

import json

import pytest

from mnist_cnn import benchmark


def test_a_small_benchmark_measures_each_way_and_writes_it_down(tmp_path, capsys):
    benchmark.main(["--rounds", "1", "--batches", "8", "--out", str(tmp_path / "b.json")])
    record = json.loads((tmp_path / "b.json").read_text())
    assert set(record["images/s"]) == {"usual", "loop", "ours", "floor"}
    assert all(len(values) == 1 and values[0] > 0 for values in record["rounds"].values())
    assert record["ours/loop"] == pytest.approx(
        record["rounds"]["ours"][0] / record["rounds"]["loop"][0]
    )
    assert "of the bare loop" in capsys.readouterr().out


def test_a_wrong_option_is_named(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--batches", "10000"])
    assert "--batches: allowed: 4 to 750" in capsys.readouterr().err
