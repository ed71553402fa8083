"""What is printed is what was meant, whatever it is made of."""

from pathlib import Path

import pytest

from mnist_cnn.analysis import results

ODD = "a[x]b :x: [red]"


def test_a_folder_with_brackets_and_colons_is_printed_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / "results.json").touch()
    numbers = {"best_epoch": 1, "epochs": 1, "seed": 0, "parameters": 1, "seconds": 1, "threads": 1}
    results.print_results({**numbers, "images/s": None}, folder)
    assert f"{folder}: results.json" in capsys.readouterr().out
