"""Synthetic pages, the network that detects characters on them, and decoding its maps."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mnist_cnn.checks.folders import last, rows
from mnist_cnn.config.compose import compose
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.pages import (
    VALIDATION_SEED,
    EpochSampler,
    PageDataset,
    PageLoader,
    PagesDataModule,
    sources,
)
from mnist_cnn.data.synthetic import clutter, pages, strokes
from mnist_cnn.data.synthetic.camera import square
from mnist_cnn.data.synthetic.characters import (
    LETTERS,
    TRAINING_FONTS,
    TWINS,
    VALIDATION_FONTS,
    Hand,
)
from mnist_cnn.data.synthetic.layouts import Pen, lone
from mnist_cnn.data.synthetic.pages import lying, tilted, upright, upside_down
from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, SIZES, STRIDE, SYMBOLS, Mark, Page
from mnist_cnn.data.synthetic.texts import TEXTS
from mnist_cnn.detection.decode import Character, characters
from mnist_cnn.detection.find import REACH, maps_of
from mnist_cnn.detection.loss import detection_loss, targets
from mnist_cnn.detection.module import CharacterDetector
from mnist_cnn.detection.network import CHANNELS, COARSEST, Detector
from mnist_cnn.detection.scores import marks_of, page_scores
from mnist_cnn.detection.trained import SHIPPED, load_reader
from mnist_cnn.runs.folder import BEST
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train
from mnist_cnn.weights import predictor
from mnist_cnn.weights.files import read_file
from tests.helpers.training import FAULT

SMALL = {"width": 8, "deep_width": 8, "blocks": 1}
MODULE = {
    "model": {"_target_": "mnist_cnn.detection.network.Detector", **SMALL},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 1e-3},
}


@pytest.fixture(scope="module")
def dataset() -> PageDataset:
    return PageDataset(sources("train"), 0)


def perfect_maps(marks: torch.Tensor, height: int = 32, width: int = 40) -> torch.Tensor:
    """Return the maps (32, h, w) of a network without errors."""
    heat, _, kinds, boxes, _ = targets(marks[None], height, width)
    maps = torch.zeros(sum(CHANNELS.values()), height, width)
    maps[0] = torch.logit(heat[0], 1e-4)
    maps[1] = -10
    maps[2:6] = boxes[0]
    maps[6:] = 20 * torch.nn.functional.one_hot(kinds[0], len(SYMBOLS)).permute(2, 0, 1)
    return maps


def test_a_page_depends_on_seed_epoch_and_index_alone(dataset):
    first = dataset[3, 5]
    np.random.seed(1)
    torch.manual_seed(1)
    for one, other in zip(first, PageDataset(dataset.sources, 0)[3, 5], strict=True):
        assert torch.equal(one, other)
    for key in ((3, 6), (4, 5)):
        assert not torch.equal(first[0], dataset[key][0])
    assert not torch.equal(first[0], PageDataset(dataset.sources, 1)[3, 5][0])


def test_pages_have_every_digit_and_other_writing(dataset):
    seen = {SYMBOLS[int(row[0])] for k in range(200) for row in dataset[0, k][2] if row[6] > 0}
    assert seen >= {*"0123456789", OTHER}


def test_texts_have_every_sign():
    rng = np.random.default_rng(0)
    written = "".join(text(rng) for text in TEXTS.values() for _ in range(300))
    assert set(SIGNS) <= set(written)


def test_characters_of_other_sizes_are_no_targets(dataset):
    rows = torch.cat([dataset[0, k][2] for k in range(100)])
    size, flag = rows[:, 5], rows[:, 6]
    assert ((size[flag > 0] >= SIZES[0]) & (size[flag > 0] <= SIZES[1])).all()
    assert (flag >= 0).all()


def test_nothing_is_to_be_found_on_a_page_that_is_not_upright(dataset):
    for k, draw in enumerate([lying, tilted] * 10):
        made = draw(np.random.default_rng(k), dataset.sources, 128, 160)
        assert made.ink.shape == (128, 160)
        assert not any(mark.symbol for mark in made.marks)


def test_of_a_page_upside_down_only_letters_are_to_be_found(dataset):
    others = 0
    for k in range(20):
        usual, made = (
            draw(np.random.default_rng(k), dataset.sources, 128, 160)
            for draw in (upright, upside_down)
        )
        assert np.array_equal(made.ink, usual.ink[::-1, ::-1])
        assert np.array_equal(made.rules, usual.rules[::-1, ::-1])
        assert {mark.symbol for mark in made.marks} <= {"", OTHER}
        there = {m.box for m in usual.marks if m.symbol == OTHER}
        found = {m.box for m in made.marks if m.symbol == OTHER}
        assert found == {(160 - r, 128 - b, 160 - x, 128 - y) for x, y, r, b in there}
        gone = {m.symbol for m in usual.marks} - {"", OTHER, *pages.LIKE_ANOTHER}
        assert len(made.marks) <= len(usual.marks) - len(gone)
        others += len(found)
    assert others


def test_squared_paper_is_ruled_from_edge_to_edge_in_both_directions():
    for k in range(20):
        made = Page.empty(128, 160)
        square(made, 30, np.random.default_rng(k))
        assert 0.1 < made.ink.max() < 1
        assert (made.rules.max(0) > 0.4).all()  # a line meets each column, and each row
        assert (made.rules.max(1) > 0.4).all()
        assert not made.marks


def test_a_digit_that_is_alone_is_most_often_one_stroke(dataset):
    drawn = []
    for k in range(60):
        rng = np.random.default_rng(k)
        made = Page.empty(128, 160)
        lone(Pen(rng, dataset.sources, made, 40.0))
        (mark,) = made.marks
        left, top, right, bottom = mark.box
        assert 0 < left < right < 160
        assert 0 < top < bottom < 128
        drawn.append((mark.symbol, right - left < 0.5 * (bottom - top)))
    assert len({symbol for symbol, _ in drawn}) > 5
    assert drawn.count(("1", True)) > 12


def test_a_blot_is_solid():
    for k in range(20):
        sheet = np.zeros((400, 400), np.float32)
        clutter.blot(np.random.default_rng(k), sheet, 100)
        dark = sheet > 0.3
        around = cv2.convexHull(cv2.findNonZero(dark.astype(np.uint8)))
        assert dark.sum() > 0.6 * cv2.contourArea(around)


def test_boxes_hold_the_ink_of_their_characters(dataset):
    dark = []
    for k in range(100):
        ink, _, marks = dataset[1, k]
        for _, left, top, right, bottom, *_, flag in marks.tolist():
            part = ink[0, max(0, int(top)) : int(bottom) + 1, max(0, int(left)) : int(right) + 1]
            if flag > 0:
                dark.append(int(part.max()) > 60)
    assert np.mean(dark) > 0.98


def test_most_of_a_target_is_on_the_page(dataset):
    for index in range(150):
        ink, _, marks = dataset[0, index]
        left, top, right, bottom = marks[marks[:, 6] > 0, 1:5].unbind(1)
        height, width = ink.shape[1:]
        wide = right.clamp(max=width) - left.clamp(min=0)
        high = bottom.clamp(max=height) - top.clamp(min=0)
        assert (wide * high > 0.74 * (right - left) * (bottom - top)).all()


def test_a_page_is_turned_once(monkeypatch):
    """Twice may be not at all, and its characters are passed over."""
    monkeypatch.setattr(pages, "page", None)
    for turned in (lying, tilted):
        turned(np.random.default_rng(0), sources("train"), 128, 160)


def test_each_letter_that_has_a_form_is_written():
    assert set(strokes.LETTERS) <= {*LETTERS, *TWINS}


def test_a_digit_written_over_another_beside_the_page_takes_no_mark(dataset):
    made, glyph = Page.empty(20, 20), np.ones((9, 9), np.float32)
    made.put(glyph, 2, 2, "8", 9)
    made.draw(glyph, 30, 2)
    made.draw(glyph, 15, 2)
    assert [mark.symbol for mark in made.marks] == ["8"]
    assert made.ink.sum() == 81 + 45


@pytest.mark.parametrize("pen", [0.03, 0.1, 0.22])
def test_paper_around_a_digit_has_no_ink_however_wide_the_pen(dataset, pen):
    rng = np.random.default_rng(0)
    for digit in "0123456789":
        hand = replace(Hand.any(rng, dataset.sources, 40, "mnist"), pen=pen * 40, flourish=0.0)
        ink = hand.write(digit, dataset.sources, rng)
        corners = ink[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.min() == 0


def test_validation_has_other_writers_and_fonts_than_training():
    train, val = sources("train"), sources("val")
    assert len(train.images) + len(val.images) == 60_000
    assert not set(TRAINING_FONTS) & set(VALIDATION_FONTS)
    assert not {row.tobytes() for row in val.images} & {row.tobytes() for row in train.images}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_it_was_stopped(workers):
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3)  # starts OpenCV's threads
    module = PagesDataModule(pages=24, val_pages=8, batch_size=4, workers=workers)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(2)
    batches = list(loader)
    stopped, seen = module.train_dataloader(), []
    stopped.sampler.set_epoch(2)
    for batch in stopped:
        seen.append(batch)
        if len(seen) == 2:
            break
    resumed = module.train_dataloader()
    resumed.load_state_dict(stopped.state_dict())
    seen += list(resumed)
    assert len(batches) == len(seen) == 6
    for one, other in zip(batches, seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_loader_draws_no_random_numbers_of_the_training():
    loader = PagesDataModule(pages=4, batch_size=2, workers=0).train_dataloader()
    state = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), state)


def test_each_validation_has_the_same_pages():
    loader = PagesDataModule(val_pages=4, batch_size=2, workers=0).val_dataloader()
    first = [batch[0] for batch in loader]
    loader.sampler.set_epoch(3)
    assert all(torch.equal(a, b[0]) for a, b in zip(first, loader, strict=True))


def test_overfitting_sees_the_same_pages_in_each_epoch():
    module: Any = PagesDataModule(pages=4, batch_size=2, workers=0)
    module.trainer = SimpleNamespace(overfit_batches=1, global_rank=0, world_size=1)
    loader = module.train_dataloader()
    first = list(loader)
    loader.sampler.set_epoch(1)
    resumed = module.train_dataloader()
    resumed.load_state_dict(loader.state_dict())  # at the end of the epoch before
    resumed.sampler.set_epoch(2)
    for epoch in (loader, resumed):
        for one, other in zip(first, epoch, strict=True):
            assert torch.equal(one[0], other[0])


def test_a_reader_overfits_at_a_constant_rate(tmp_path):
    small = (f"model.{key}={value}" for key, value in SMALL.items())
    options = ["experiment=reader", "debug=overfit", *small, "trainer.max_epochs=2"]
    options += ["data.pages=8", "data.val_pages=4", "data.batch_size=2", "data.workers=0"]
    options += ["trainer.accelerator=cpu", "trainer.precision=32-true", "logger=none"]
    train(compose(options, run_dir=tmp_path))
    assert [float(row["lr"]) for row in rows(tmp_path)] == pytest.approx([0.002] * 2)
    assert (tmp_path / BEST).is_file()  # by train/loss


def test_a_network_that_no_reader_could_be_is_refused_at_the_start():
    model = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 32, "kernel_size": 4}
    with pytest.raises(ValueError, match=r"^model\._target_ must be .*Detector.*, got torch"):
        CharacterDetector(**{**MODULE, "model": model})


def test_a_schedule_by_epochs_is_refused_at_the_start():
    schedule: Any = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "interval": "epoch"}
    with pytest.raises(ValueError, match=r"^scheduler\.interval must be step .*, got epoch$"):
        CharacterDetector(**{**MODULE, "scheduler": schedule})
    plateau: Any = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "interval": "epoch"}
    with pytest.raises(ValueError, match=r"^scheduler\._target_ must be stepped .*Plateau$"):
        CharacterDetector(**{**MODULE, "scheduler": plateau})


def test_data_on_which_no_score_could_be_calibrated_are_refused_at_the_start():
    module: Any = CharacterDetector(**MODULE)
    module.trainer = SimpleNamespace(datamodule=MNISTDataModule())
    with pytest.raises(ValueError, match=r"^data\._target_ must .* val_pages.*, got MNIST"):
        module.setup("fit")


def test_two_processes_make_the_pages_of_one():
    keys = [list(EpochSampler(11, rank, 2)) for rank in range(2)]
    assert sorted(keys[0] + keys[1]) == list(EpochSampler(11))


def test_every_page_is_validated_and_training_has_whole_batches():
    module = PagesDataModule(pages=6, val_pages=6, batch_size=4, workers=0)
    assert [len(batch[0]) for batch in module.val_dataloader()] == [4, 2]
    assert [len(batch[0]) for batch in module.train_dataloader()] == [4]


def test_maps_without_error_give_the_characters_of_a_page(dataset):
    right = there = 0.0
    for k in range(40):
        if not len(marks := dataset[2, k][2]):
            continue
        own, n = page_scores(characters(perfect_maps(marks)), marks_of(marks))["recall"]
        right, there = right + own, there + n
    assert right > 0.97 * there  # overlapping characters may have their centers in one cell


def character(symbol: str, x: float, score: float = 0.9) -> Character:
    chances = np.zeros(len(SYMBOLS), np.float32)
    chances[SYMBOLS.index(symbol)] = 1
    return Character((x, 0.0, x + 20, 30.0), score, chances)


def test_what_is_found_on_an_empty_page_counts_as_an_error(monkeypatch):
    module = CharacterDetector(**MODULE)
    there = torch.tensor([[[7, 40, 20, 60, 52, 32, 1.0]]])
    monkeypatch.setattr(module, "forward", lambda ink: perfect_maps(there[0])[None])
    ink, rules = torch.zeros(1, 1, 128, 160, dtype=torch.uint8), torch.zeros(1, 1, 32, 40)
    module.on_validation_epoch_start()
    module.validation_step((ink, rules, there), 0)
    module.validation_step((ink, rules, torch.full((1, 1, 7), -1.0)), 1)
    assert module.totals["error"] == (1, 1)
    assert module.totals["precision"] == (1, 2)
    assert module.totals["loss"][1] == 2


@pytest.mark.slow
def test_two_processes_validate_all_pages(tmp_path):
    small = [f"model.{key}={value}" for key, value in SMALL.items()]
    options = ["experiment=reader", "callbacks=no_early_stopping", "logger=none", *small]
    options += ["data.pages=8", "data.val_pages=8", "data.batch_size=4", "data.workers=0"]
    options += ["trainer=ddp", "trainer.devices=2", "trainer.max_epochs=1"]
    options += ["trainer.precision=32-true", f"hydra.run.dir={tmp_path}"]
    subprocess.run([sys.executable, "-m", "mnist_cnn.train", *options], check=True)
    module = CharacterDetector(**MODULE)
    module.load_state_dict(last(tmp_path)["state_dict"])
    module.eval().on_validation_epoch_start()
    dataset = PageDataset(sources("val"), VALIDATION_SEED)
    with torch.inference_mode():
        for rank in range(2):
            sampler = EpochSampler(8, rank, 2, fixed=True)
            for index, batch in enumerate(PageLoader(dataset, sampler, 2, 0)):
                module.validation_step(batch, index)
    (row,) = rows(tmp_path)
    for name, (total, n) in module.totals.items():
        assert not n or float(row[f"val/{name}"]) == pytest.approx(total / n)


def test_scores_of_a_page_count_what_is_missed_wrong_and_invented():
    there = [Mark(symbol, (25 * k, 0, 25 * k + 20, 30), 30) for k, symbol in enumerate("123")]
    found = [character("1", 0), character("7", 25), character("5", 90)]
    scores = page_scores(found, there)
    assert scores.pop("edits") == pytest.approx((2, 3))
    assert scores == {"precision": (1, 3), "recall": (1, 3), "error": (4, 3), "rows": (0, 1)}
    right = [character(symbol, 25 * k) for k, symbol in enumerate("123")]
    assert page_scores(right, there)["rows"] == (1, 1)
    assert page_scores(right, [*there[:2], Mark("", there[2].box, 30)])["rows"] == (0, 0)


def test_a_box_is_found_where_it_is():
    marks = torch.tensor([[7, 40, 20, 60, 52, 32, 1.0]])
    (found,) = characters(perfect_maps(marks))
    assert found.symbol == "7"
    np.testing.assert_allclose(found.box, (40, 20, 60, 52), atol=1e-3)


def test_what_is_passed_over_changes_no_loss():
    torch.manual_seed(0)
    maps, rules = torch.randn(1, 32, 8, 10), torch.zeros(1, 1, 8, 10)
    marks = torch.tensor([[[3, 4, 4, 12, 28, 24, 1.0], [0, 20, 4, 36, 28, 24, 0.0]]])
    before = detection_loss(maps, rules, marks)["centre"]
    x = int(28 / STRIDE)
    maps[0, 0, 3, x] += 5.0
    assert torch.equal(before, detection_loss(maps, rules, marks)["centre"])


def test_every_part_of_the_loss_falls_to_nothing_for_maps_without_error():
    marks = torch.tensor([[7, 40, 20, 60, 52, 32, 1.0], [1, 80, 20, 96, 52, 32, 1.0]])
    parts = detection_loss(perfect_maps(marks)[None], torch.zeros(1, 1, 32, 40), marks[None])
    assert all(part < 0.05 for part in parts.values())


def test_the_network_sees_a_page_as_it_sees_its_parts():
    torch.manual_seed(0)
    net = Detector(width=8, deep_width=8, blocks=2).eval()
    x = torch.rand(1, 1, 160, 160)
    whole, part = net(x), net(x[..., :96, :96])
    torch.testing.assert_close(whole[..., :12, :12], part[..., :12, :12], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 8])
def test_maps_depend_on_the_reach_of_the_network_and_no_further(blocks):
    net, side = Detector(width=8, deep_width=8, blocks=blocks).eval(), 320
    for weight in net.parameters():
        torch.nn.init.constant_(weight, 1 / weight[0].numel())  # all that is seen changes the maps
    x = torch.full((1, 1, side, side), 0.5, requires_grad=True)
    first, end = (place // STRIDE for place in (side // 2, side // 2 + 2 * COARSEST))
    net(x)[..., first:end, first:end].sum().backward()
    seen = x.grad[0, 0].any(0).nonzero().flatten()  # type: ignore[index]
    assert side // 2 - seen[0] == net.reach
    beyond = seen[-1] + 1 - side // 2 - 2 * COARSEST
    assert net.reach - COARSEST < beyond <= net.reach


def test_ink_is_seen_with_all_that_its_maps_depend_on():
    net, ink, shapes = Detector(width=8, deep_width=8, blocks=14).eval(), np.zeros((640, 640)), []
    net.register_forward_hook(lambda net, given, maps: shapes.append(given[0].shape[2:]))
    ink[320:328, 320:328] = 1
    maps_of(net, ink)
    assert shapes == [(8 + 2 * (REACH + net.reach),) * 2]


def test_a_loaded_reader_computes_what_the_trained_network_does():
    module = CharacterDetector(**{**MODULE, "model": {"_target_": MODULE["model"]["_target_"]}})
    module.load_weights(SHIPPED)
    x = torch.rand(1, 1, 128, 160)
    with torch.no_grad():
        loaded, trained = load_reader()(x), module.net.eval()(x)
    torch.testing.assert_close(loaded, trained, atol=1e-4, rtol=1e-4)


def test_a_module_is_rebuilt_from_its_plain_values():
    module = CharacterDetector(**MODULE)
    again = CharacterDetector(**module.hparams)
    assert again.net.state_dict().keys() == module.net.state_dict().keys()


def test_a_reader_starts_from_the_weights_of_another():
    module = CharacterDetector(**{**MODULE, "model": {"_target_": MODULE["model"]["_target_"]}})
    assert module.load_weights(SHIPPED) == []
    weights = read_file(SHIPPED)[0]
    assert all(torch.equal(new, weights[name]) for name, new in module.net.state_dict().items())
    with pytest.raises(ValueError, match="does not fit"):
        CharacterDetector(**MODULE).load_weights(SHIPPED)


def test_a_reader_in_training_is_resumed_within_an_epoch(tmp_path, monkeypatch):
    options = [
        *("experiment=reader", "data.pages=24", "data.batch_size=4", "data.val_pages=4"),
        *("data.workers=0", *(f"model.{k}={v}" for k, v in SMALL.items()), "trainer.max_epochs=2"),
        *("trainer.accelerator=cpu", "trainer.precision=32-true", "logger=none", FAULT),
    ]
    whole, stopped = (compose(options, run_dir=tmp_path / n, run_name="x") for n in "ab")
    train(whole)
    for step in (3, 9):
        monkeypatch.setenv("FAULT", f"on_train_batch_start {step} SIGINT")
        with pytest.raises(Interrupted):
            train(stopped)
    monkeypatch.delenv("FAULT")
    train(stopped)
    one, other = last(tmp_path / "a")["state_dict"], last(tmp_path / "b")["state_dict"]
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows(tmp_path / "a")[-1]["val/loss"] == rows(tmp_path / "b")[-1]["val/loss"]
    load_reader(tmp_path / "b")
    for place in (tmp_path / "b", tmp_path / "b" / "weights.safetensors"):
        with pytest.raises(ValueError, match="a reader of pictures"):
            predictor.load(place)
    with pytest.raises(ValueError, match=r"last\.ckpt: a checkpoint, whose scores are not calibr"):
        load_reader(tmp_path / "b" / "checkpoints" / "last.ckpt")
    module = CharacterDetector(**MODULE)
    assert module.load_weights(tmp_path / "b" / "checkpoints" / "last.ckpt") == []
