"""The learned reader on pictures."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from scipy.special import logit
from torchmetrics.functional.text import char_error_rate

from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.data.drawn import pages
from mnist_cnn.data.drawn.photographs import KINDS, pictures
from mnist_cnn.data.fonts import load_font
from mnist_cnn.data.pages import sources
from mnist_cnn.detection import calibration
from mnist_cnn.detection.find import find, resized
from mnist_cnn.detection.lines import evidence, lines, split
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import load_reader
from mnist_cnn.export import main
from mnist_cnn.reading.answers import written
from mnist_cnn.reading.networks import Digits, load_network
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.runs.file_format import KEY, VERSION
from mnist_cnn.weights.files import SHIPPED, write_weights
from mnist_cnn.weights.predictor import load

SMALL = {"width": 8, "deep_width": 8, "blocks": 1}


@pytest.fixture(scope="module")
def net() -> Detector:
    return load_reader()


def guess(picture: Image.Image, net: Detector) -> str:
    return "".join(str(each.best) for each in read_digits(picture, reader=net) if each.is_digit)


@pytest.mark.parametrize(("kind", "least"), [("single digits", 10), ("rows of 5", 9)])
def test_photographs_of_digits_are_read(net, kind, least):
    made = list(pictures(KINDS[kind], 12, 7, "val"))
    assert sum(guess(picture, net) == label for picture, label in made) >= least


def test_rows_that_are_turned_by_45_degrees_are_read(net):
    made = list(pictures(KINDS["turned 45"], 6, 7, "val"))
    assert sum(guess(picture, net) == label for picture, label in made) >= 4


def test_small_writing_on_a_long_strip_is_read(net):
    pen = pages.Pen(np.random.default_rng(0), 150, 6000)
    text = "0123456789" * 4
    pen.text(text, 60, 45, 60)
    assert char_error_rate(guess(pen.picture(), net), text) < 0.1


def test_a_doubtful_line_with_letters_has_no_sure_digits(net):
    sheet = Image.new("L", (900, 160), 235)
    font = load_font("STIXGeneralItalic", 80)
    ImageDraw.Draw(sheet).text((30, 30), "To be or not", 40, font)
    assert not any(each.digit is not None for each in read_digits(sheet, reader=net))


def test_chalk_on_a_board_is_read_as_ink_on_paper(net):
    picture, text = pages.page("underlines", 3)
    assert guess(picture, net) == guess(ImageOps.invert(picture.convert("L")), net) == text


def test_a_picture_that_lies_on_its_side_is_read_and_told(net):
    picture, text = pages.page("underlines", 3)
    lying = picture.rotate(90, expand=True, fillcolor=230)
    readings = read_digits(lying, reader=net, threshold=1.0)
    assert "".join(str(each.best) for each in readings) == text
    # they are not left unread because of the rotation
    assert {(each.rotation, each.turned) for each in readings} == {(90, 0)}


def test_boxes_are_where_the_digits_stand(net):
    sheet = np.full((300, 500), 235, np.uint8)
    part = pages.Pen(np.random.default_rng(0), 60, 60)
    part.digit("4", 5, 5, 50)
    sheet[120:180, 300:360] -= (part.ink * 200).astype(np.uint8)
    (reading,) = read_digits(Image.fromarray(sheet), reader=net)
    assert reading.digit == 4
    left, top, right, bottom = reading.box
    assert 295 <= left < right <= 365
    assert 115 <= top < bottom <= 185
    assert reading.image.shape == (28, 28)


def test_cells_of_a_grid_have_rows_and_columns_and_may_be_empty(net):
    picture, text = pages.page("sudoku", 1)
    readings = read_digits(picture, reader=net)
    lines = written(readings).split("\n")
    assert [len(line) for line in lines] == [9] * 9
    same = sum(a == b for a, b in zip("".join(lines), text.replace("\n", ""), strict=True))
    assert same >= 76  # of 81


@pytest.mark.parametrize("light", [0, 128, 255])
def test_an_empty_sheet_has_nothing_on_it(net, light):
    assert read_digits(Image.new("L", (320, 200), light), reader=net) == []


def test_below_the_threshold_a_digit_is_left_unread(net):
    picture, _ = pages.page("underlines", 3)
    assert all(each.digit is None for each in read_digits(picture, reader=net, threshold=1.0))
    assert all(each.digit is not None for each in read_digits(picture, reader=net, threshold=0.0))


def test_a_fine_pen_is_still_there_in_a_small_copy():
    ink = np.zeros((600, 600), np.float32)
    ink[:, 300:302] = 1
    assert resized(ink, 0.05).max() < 0.2
    assert resized(ink, 0.05, pen=2).max() > 0.7


def test_lines_are_calibrated_on_the_evidence_that_reading_computes(monkeypatch):
    net, fitted = copy.deepcopy(load_reader()), []
    bent = np.array([1.8, 0.9])

    def fit(evidence, right, start):
        fitted.append(evidence)
        return bent if len(start) == 2 else start.double().numpy()

    monkeypatch.setattr(calibration, "fit", fit)
    calibration.calibrate(net, sources("val"), 1)
    seen = []
    for made in calibration.made_pages(sources("val"), 1, 1999):
        found, best = find(net, made.ink)
        kept, dropped, left = split(found, made.ink, best)
        seen += [evidence(line, dropped, left) for line in lines(kept)]
    assert net.state_dict()["character_weights"].tolist() == pytest.approx(bent)
    assert len(fitted[1]) >= 3
    assert {tuple(row) for row in fitted[1]} <= {tuple(row) for row in seen}


def test_calibration_finds_the_line_by_which_scores_were_bent():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.02, 0.98, 20_000)
    true = 1 / (1 + np.exp(-(1.7 * logit(scores) + 0.8)))
    verdicts = (rng.random(len(scores)) < true).astype(float)
    start = torch.tensor([1.0, 0.0])
    slope, offset = calibration.fit(logit(scores)[:, None], verdicts, start)
    assert slope == pytest.approx(1.7, abs=0.1)
    assert offset == pytest.approx(0.8, abs=0.1)
    for alike in (0.0, 1.0):  # nothing tells right from wrong
        assert calibration.fit(
            logit(scores)[:, None], np.full_like(verdicts, alike), start
        ).tolist() == [1, 0]


def test_a_file_of_another_network_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"weights.safetensors: a network of images, no reader"):
        load_reader(SHIPPED)
    with pytest.raises(ValueError, match=r"no such checkpoint"):
        load_reader(tmp_path / "none.safetensors")
    broken = Detector(**SMALL)
    torch.nn.init.constant_(broken.head.weight, torch.nan)
    about = {"_target_": "mnist_cnn.detection.network.Detector", **SMALL}
    write_weights(broken, {"model": about}, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="not all numbers"):
        load_reader(tmp_path / "nan.safetensors")


@pytest.fixture(scope="module")
def reader_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files of a run of experiment=reader: a checkpoint and calibrated weights."""
    run = tmp_path_factory.mktemp("run")
    about = {"_target_": "mnist_cnn.detection.network.Detector", **SMALL}
    module = {"model": about, "optimizer": {}, "scheduler": {}}
    weights = {f"net.{name}": value for name, value in Detector(**SMALL).state_dict().items()}
    content = {"state_dict": weights, "hyper_parameters": module, "epoch": 0, KEY: VERSION}
    (run / "checkpoints").mkdir()
    torch.save(content, run / "checkpoints" / "best.ckpt")
    write_weights(Detector(**SMALL), {"model": about, "data": {}}, run / "weights.safetensors")
    return run


@pytest.mark.parametrize("place", ["", "weights.safetensors", "checkpoints/best.ckpt"])
def test_what_is_for_images_says_of_a_reader_that_it_is_one(reader_run: Path, place: str):
    line = rf"{reader_run}.*(best.ckpt|weights.safetensors): a reader of pictures"
    with pytest.raises(ValueError, match=rf"^{line}"):
        load(reader_run / place)
    with pytest.raises(ValueError, match=rf"^ckpt_path={line}"):
        as_trained([f"ckpt_path={reader_run / place}"])
    with pytest.raises(SystemExit, match=rf"^error: {line}"):
        main([f"ckpt_path={reader_run / place}"])


def test_a_reader_s_run_reads_but_not_its_checkpoint_which_is_not_calibrated(reader_run: Path):
    for place in (reader_run, reader_run / "weights.safetensors"):
        network = load_network(place)
        assert isinstance(network, Digits)
        assert network.net is None
        assert network.reader is not None
        assert network.reader.character_weights.shape == (2,)
    with pytest.raises(ValueError, match=r"best.ckpt: a checkpoint, whose scores"):
        load_network(reader_run / "checkpoints" / "best.ckpt")
