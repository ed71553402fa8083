"""Test that the benchmarks run and report ratios; their speed is not tested."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks import elsewhere, mean, pictures, records, rules, service, speed
from mnist_cnn.data import mnist
from mnist_cnn.data.drawn import pages, photographs
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import load_reader
from mnist_cnn.reading.answers import written
from mnist_cnn.reading.reading import Reading
from mnist_cnn.weights.files import write_weights
from mnist_cnn.weights.networks import build_network
from mnist_cnn.weights.predictor import load


def table_of(printed: str) -> list[list[str]]:
    """Return the cells of the printed table's rows, without its head."""
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
    speed.main(["--fast", "tiny", "--rounds", "2", "--write"])
    record = json.loads((tmp_path / "tiny.json").read_text())
    ratio = record.pop("ratio")
    assert record == records.load_records()["tiny"]
    whole, epoch = ratio["seconds"].values()
    assert ratio["ratios"] == [w / e for w, e in zip(whole, epoch, strict=True)]
    assert ratio["ratio"] == pytest.approx(sum(ratio["ratios"]) / 2)


@pytest.mark.parametrize(
    "argv", [["--fast", "no"], ["--batches", "9999"], ["--write"], ["--jobs", "--fast"]]
)
def test_a_wrong_option_is_named(argv, capsys):
    with pytest.raises(SystemExit):
        speed.main(argv)
    assert argv[0] in capsys.readouterr().err.splitlines()[-1]  # the first show the options


def read_as(text: str, confidence: float = 0.9, line: float = 0.8) -> list[Reading]:
    """Make the readings of a line; ? is an unsure 3."""
    blank = np.zeros((28, 28), np.uint8)
    return [
        Reading(
            None if sign == "?" else int(sign),
            confidence,
            np.eye(10, dtype=np.float32)[3 if sign == "?" else int(sign)],
            (0, 0, 9, 9),
            blank,
            0,
            line=line,
        )
        for sign in text
    ]


def test_verdicts_on_pictures_are_counted_by_kind():
    read = {"a": read_as("12"), "b": read_as("1?", line=0.4), "c": read_as("17"), "d": []}
    labels = {"a": "12", "b": "13", "c": "12", "d": ""}
    items = [
        pictures.Item("none" if not label else "row", Path(key), label)
        for key, label in labels.items()
    ]
    found = pictures.table(
        pd.DataFrame([pictures.measured(item, lambda path: read[path.name]) for item in items])
    )
    rows = found.loc["row"].to_dict()
    assert (rows["n"], rows["right"], rows["wrong"], rows["unsure"]) == (3, 1, 1, 1)
    assert rows["guessed"] == pytest.approx(2 / 3)
    assert rows["surely right"] == rows["surely wrong"] == pytest.approx(1 / 3)
    assert rows["errors"] == pytest.approx(1 / 6)
    assert found.loc["none", "surely right"] == 1
    assert found.loc["all with digits", "n"] == 3


def test_labels_are_corrected_where_file_and_label_are_known(tmp_path):
    (tmp_path / "index.csv").write_text("file,label\na.png,30\nb.png,44\n")
    (labels := tmp_path / "labels.csv").write_text("file,label,corrected\nb.png,44,49\n")
    assert [item.label for item in pictures.folder(tmp_path)] == ["30", "44"]
    assert [item.label for item in pictures.folder(tmp_path, labels)] == ["30", "49"]
    labels.write_text("file,label,corrected\nb.png,44,49\na.png,31,38\n")
    with pytest.raises(ValueError, match=r"labels\.csv: 1 of its files and labels are not in"):
        list(pictures.folder(tmp_path, labels))


def test_the_rules_that_it_replaces_still_read_rows_and_pages():
    items = [*photographs.pictures(photographs.KINDS["rows of 5"], 5, 0, "val")]
    items += [pages.page("dates", seed) for seed in range(5)]
    found = [written(rules.read_digits(picture)) for picture, _ in items]
    assert sum(read == label for read, (_, label) in zip(found, items, strict=True)) >= 8


@pytest.mark.slow
def test_pictures_are_measured_as_the_table_has_them(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="its digits of 8x8 pixels")
    (picture, label), *_ = photographs.pictures(photographs.KINDS["single digits"], 1, 0, "val")
    picture.save(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"file,label\na.png,{label}\n")
    pictures.main(["pictures", str(tmp_path), "--csv", str(tmp_path / "read.csv")])
    read = pd.read_csv(tmp_path / "read.csv")
    assert read.file.tolist() == [str(tmp_path / "a.png")]
    assert read.guessed.tolist() == [True]
    (grid := tmp_path / "sudokus").mkdir()
    picture, text = pages.page("sudoku", 1)
    picture.save(grid / "a.jpg")
    lines = text.replace(" ", "0").splitlines()
    (grid / "a.txt").write_text("\n".join(" ".join(line) for line in lines))
    capsys.readouterr()
    pictures.main(["sudokus", str(grid)])
    assert capsys.readouterr().out.split()[-4] == "1"  # grid found
    pictures.main(["small", "--n", "1"])
    assert "8x8" in capsys.readouterr().out


@pytest.mark.parametrize("size", [16, 56])
def test_digits_from_elsewhere_are_made_like_those_of_mnist(tmp_path, size):
    images, labels = mnist.load_split("mnist", "unused", "test")
    scaled = [Image.fromarray(image).resize((size, size)) for image in images[:200].numpy()]
    given: Any = {name: np.stack([np.asarray(each) for each in scaled]) for name in elsewhere.SETS}
    given |= {f"{name}_labels": labels[:200].numpy() for name in elsewhere.SETS}
    np.savez(tmp_path / "digits.npz", **given)
    for digits, truth in elsewhere.load_sets(tmp_path / "digits.npz").values():
        assert digits.shape == (200, 28, 28)
        assert (load()(digits).argmax(1) == truth).double().mean() > 0.97


def test_new_runs_on_digits_from_elsewhere_join_the_file(tmp_path, monkeypatch, capsys):
    file = tmp_path / "elsewhere.json"
    shutil.copy(elsewhere.FILE, file)
    known = json.loads(file.read_text())["rows"]
    new = {**known[0], "network": "mine", "mnist": 0.5}
    monkeypatch.setattr(elsewhere, "FILE", file)
    monkeypatch.setattr(elsewhere, "load_sets", lambda file: {})
    monkeypatch.setattr(elsewhere, "measure", lambda folder, sets: iter([new]))
    elsewhere.main(["digits.npz", "run"])
    assert "| mine |" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"] == [*known, new]
    assert file.with_suffix(".png").exists()


def test_the_mean_of_readers_is_written_with_its_metrics(tmp_path):
    torch.manual_seed(0)
    model = {"_target_": "mnist_cnn.detection.network.Detector", "width": 8, "deep_width": 8}
    nets: list[Any] = [build_network({**model, "blocks": 1}) for _ in range(2)]
    files = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for net, file in zip(nets, files, strict=True):
        write_weights(net, {"model": {**model, "blocks": 1}}, file)
    out = tmp_path / "out"
    made = ["--shares", "1", "3", "--out", str(out), "--set", "data.val_pages=4"]
    mean.main([*map(str, files), *made])
    first, second = (net.head.weight for net in nets)
    found = load_reader(out).head.weight
    torch.testing.assert_close(found, 0.25 * first + 0.75 * second)
    results = json.loads((out / "results.json").read_text())
    assert 0 < results["val/loss"] < 1000
    assert results["command"].endswith("RUN RUN --shares 1 3 --out FOLDER")
    with pytest.raises(SystemExit, match="exists"):  # nothing is overwritten
        mean.main([*map(str, files), *made])
    write_weights(Detector(), {"model": {**model, "blocks": 6}}, files[1])
    with pytest.raises(SystemExit, match="their networks differ"):
        mean.main([*map(str, files), "--shares", "1", "3", "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
