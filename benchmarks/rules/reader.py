"""The digits that a network reads in a picture."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.rules.digits import Digit, Line, Sheet, line_of
from benchmarks.rules.frames import Box
from benchmarks.rules.shapes import TooManyStrokesError
from mnist_cnn.data.picture import Source, load_picture
from mnist_cnn.reading.reading import THRESHOLD, UNKNOWN

NONE = 0.1  # the probability of each digit in what is none
NO_DIGIT = 0.35  # below it no digit stands out among the ten

DOUBTFUL = 0.8  # below this mean confidence a sheet may have to be rotated
STEEP = 20  # degrees: so may a line that slopes more
MANY, TEXT = 6, 0.65  # of so many digits and dots this share is sure, or the sheet is text
WORDS = 0.3  # beside words of which fewer are, a line of which all are is a number
UNCERTAIN = "·.,:÷"  # signs that are anywhere in text and in objects
PAGE, PRINT = 40, 0.5  # of so many shapes as they are this share is sure, or they are no digits
LIKELY = 0.5  # a digit with it is what stands in a cell, where those in most cells are sure
SECOND = 0.9  # confidence in what is read only at a second look
STROKES = tuple("/()+×")  # signs that a digit may have the form of
UPRIGHT = (1, 7)  # the digits that an m or a w is cut into
ALIKE = (1, 4)  # the digits that a stroke and two that cross look like to the network
SIGNED = 0.9 * np.eye(10)[UPRIGHT[0]]  # of a sign that digits touch, as if it were an upright one
BETTER = 0.25  # a rotated sheet must be read better than as it lies, as the logarithm of confidence
BATCH = 512  # candidates that the network sees at once
Net = Callable[[Tensor], Tensor]
Chances = NDArray[np.float32]  # of the ten digits


@dataclass(frozen=True)
class Reading:
    """One digit of a picture and what it was taken for, or something else that stands there."""

    digit: int | None  # None where the network is unsure, or where it is no digit
    # the greatest of the probabilities; of digits that were cut apart, the least of theirs: one
    # that is none makes the cuts doubtful
    confidence: float
    probabilities: Chances  # (10,)
    box: Box  # (left, top, right, bottom) in pixels of the upright picture
    image: NDArray[np.uint8]  # (28, 28), which the network sees a little softer
    row: int  # the line of writing, from 0 at the top
    is_candidate: bool = True  # False for signs and empty cells, which the network has not read
    # degrees clockwise by which the picture must be rotated for `best`; the digit is then None, as
    # a lone digit does not tell which side is up
    rotation: int = 0
    column: int | None = None  # of a table or a grid, from 0 at the left
    sign: str = UNKNOWN  # of what is no digit, see `reading.signs`; a space for an empty cell
    line: float = 1.0  # the probability that the digits of its row are right

    @property
    def best(self) -> int:
        """The likeliest digit, whatever its confidence."""
        return int(self.probabilities.argmax())

    @property
    def is_digit(self) -> bool:
        """True for a digit, although the network may be unsure which."""
        return self.is_candidate and self.confidence >= NO_DIGIT

    @property
    def symbol(self) -> str:
        """The digit; ? where the network is unsure which; the sign where it is none."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else self.sign


def read_digits(
    picture: Source | Image.Image, net: Net, threshold: float = THRESHOLD
) -> list[Reading]:
    """Read the digits of a picture; an empty list where there is none.

    Of all ways to divide a line of writing into digits the likeliest is taken, by dynamic
    programming (LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998,
    section V).

    Args:
        picture: a picture, or what `load_picture` takes; rows are read from top to bottom, each
            from left to right.
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        threshold: the confidence below which a digit is left unread, in [0, 1].

    Raises:
        OSError, ValueError: it cannot be read, see `load_picture`, or has too many strokes; or the
            threshold is none.
    """
    if not 0 <= threshold <= 1:  # NaN is neither
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    sheet = Sheet.of(picture if isinstance(picture, Image.Image) else load_picture(picture))
    readings = _read_rotated(sheet, net, threshold)
    readings = _second_opinion(sheet, readings, net, threshold)
    marks = [reading for reading in readings if reading.sign in UNCERTAIN]
    if len(marks) >= MANY and sum(mark.digit is not None for mark in marks) < TEXT * len(marks):
        rows = [mark.row for mark in marks]
        words = {mark.row for mark in marks if mark.digit is None or rows.count(mark.row) < 2}
        sure = [mark.digit is not None for mark in marks if mark.row in words]
        text = words if sum(sure) < WORDS * len(sure) else rows
        readings = [replace(r, digit=None) if r.row in text else r for r in readings]
    return readings


def _second_opinion(
    sheet: Sheet, readings: list[Reading], net: Net, threshold: float
) -> list[Reading]:
    """The readings of a sheet in the picture, or with the picture as a single digit."""
    is_sure = any(reading.digit is not None or reading.rotation for reading in readings)
    count = sum(reading.is_candidate for reading in readings)
    # the network has told that it is none; a mesh may be a digit that is sketched
    is_none = any(r.is_candidate and np.float32(NONE) < r.confidence < NO_DIGIT for r in readings)
    is_doubtful = any(r.is_candidate and r.digit is None for r in readings)
    if count >= MANY or (count > 1 and not is_doubtful):
        return readings
    if not is_sure and (inner := sheet.on_table()):
        with contextlib.suppress(TooManyStrokesError):
            other = _read_rotated(inner, net, threshold)
            if _score(other) > _score(readings):
                return other
    best, least = readings, max(threshold, np.exp(_score(readings)))
    for digit in sheet.plain():
        width, height = digit.box[2] - digit.box[0], digit.box[3] - digit.box[1]
        # a digit that fills its picture leaves little paper to tell it from
        fills = max(width / sheet.size[0], height / sheet.size[1]) > 0.9
        if not fills and (is_sure or is_none):
            continue
        (chances,) = _probabilities(net, [digit])
        # what was seen as a digit before, but not surely, must be the same one
        agrees = all(r.best == chances.argmax() or r.confidence < NO_DIGIT for r in readings)
        if chances.max() > (least if fills else SECOND) and (fills or agrees):
            best, least = [_reading(digit, chances, float(chances.max()), threshold)], chances.max()
    return best


def _read_rotated(sheet: Sheet, net: Net, threshold: float) -> list[Reading]:
    """The likeliest readings of a sheet, whichever of its sides is up."""
    readings = _read(sheet, net, threshold)
    digits = [reading for reading in readings if reading.is_candidate]
    slope = _slope(digits)
    is_level = not abs(slope) >= STEEP  # NaN is level too
    if not digits or (is_level and _score(digits) >= np.log(DOUBTFUL)):
        return readings
    # several digits stand along the line through their middles, one way or the other; a lone digit
    # is not turned over: many are another digit then
    angles = [90, 270] if len(digits) == 1 else [90, 180, 270]
    if not is_level:
        angles = [round(-slope) % 360, round(180 - slope) % 360]
    best, score = readings, _score(digits) + (BETTER if is_level else 0)
    for angle in angles:
        rotated = _read(sheet.rotated(angle), net, threshold)
        is_lone = sum(each.is_candidate for each in rotated) == 1
        if len(digits) == 1 and not is_lone:
            continue
        if is_lone:  # a lone 6 may be a 9: it is not read, but told
            read = [reading for reading in rotated if reading.digit is not None]
            rotated = [replace(reading, digit=None, rotation=angle) for reading in read]
        if _score(rotated) > score:
            best, score = rotated, _score(rotated)
    return best


def _read(sheet: Sheet, net: Net, threshold: float) -> list[Reading]:
    """The likeliest readings of the lines of writing on a sheet."""
    rows = sheet.rows()
    if sum(len(row.shapes) for row in rows) >= PAGE:  # print takes long to cut apart
        whole = [sheet.digit(shape, row) for row in rows for shape in row.shapes]
        surest = (chances := _probabilities(net, whole)).max(1)
        if (surest >= threshold).mean() < PRINT:
            return [_reading(*of, np.inf) for of in zip(whole, chances, surest, strict=True)]
    lines = [line_of(sheet, row) for row in rows]
    if not lines:
        return []
    candidates = [candidate for line in lines for candidate in line.candidates]
    signs = [sign for line in lines for sign in line.signs]
    asked = _probabilities(net, [*(candidate.digit for candidate in candidates), *signs])
    probabilities, of_signs = np.split(asked, [len(candidates)])
    held = np.array([c.digit.column is not None and c.cost == 0 for c in candidates], bool)
    surest = probabilities.max(1)
    if (surest[held] >= threshold).sum() > TEXT * held.sum():
        held &= surest >= LIKELY
        # of the chance that it is none each of the ten has a tenth, and most have nothing else
        digits = (probabilities[held] - np.median(probabilities[held], 1, keepdims=True)).clip(0)
        probabilities[held] = digits / digits.sum(1, keepdims=True)
    probabilities[[candidate.is_mesh for candidate in candidates]] = NONE
    probabilities[[candidate.digit.sign is not None for candidate in candidates]] = SIGNED
    parts = np.split(probabilities, np.cumsum([len(line.candidates) for line in lines])[:-1])
    others = np.split(of_signs, np.cumsum([len(line.signs) for line in lines])[:-1])
    each = zip(lines, parts, others, strict=True)
    return [reading for of in each for reading in _read_line(*of, threshold)]


def _probabilities(net: Net, digits: Sequence[Digit]) -> Chances:
    """The probabilities (N, 10) that the network gives to shapes."""
    if not digits:
        return np.empty((0, 10), np.float32)
    # as soft as the sampling of augmentation leaves the images of training
    soft = [cv2.GaussianBlur(d.image, (3, 3), 0, None, 0, cv2.BORDER_CONSTANT) for d in digits]
    with torch.inference_mode():
        found = torch.cat([net(part) for part in torch.from_numpy(np.stack(soft)).split(BATCH)])
    return found.float().cpu().numpy()


def _reading(digit: Digit, chances: Chances, sure: float, threshold: float) -> Reading:
    place = digit.box, digit.image, digit.row
    if digit.sign is not None:
        none = np.full(10, NONE, np.float32)
        return Reading(None, NONE, none, *place, False, column=digit.column, sign=digit.sign)
    read = int(chances.argmax()) if sure >= threshold else None
    return Reading(read, sure, chances, *place, column=digit.column)


def _read_line(
    line: Line, probabilities: Chances, of_signs: Chances, threshold: float
) -> list[Reading]:
    """The digits and the signs of a line, from left to right; probabilities (N, 10)."""
    found = []
    for mark, chances in zip(line.signs, of_signs, strict=True):
        is_digit = chances.max() > SECOND and chances.argmax() not in ALIKE
        own = replace(mark, sign=None) if is_digit and mark.sign in STROKES else mark
        found.append((mark.place, _reading(own, chances, float(chances.max()), threshold)))
    path = _best_path(line, probabilities)
    shapes = np.cumsum([line.candidates[k].first not in line.cuts for k in path])
    surest, best = probabilities[path].max(1), probabilities[path].argmax(1)
    for k, shape in zip(path, shapes, strict=True):
        parts = shapes == shape
        is_letter = parts.sum() > 2 and np.isin(best[parts], UPRIGHT).all()
        sure = NONE if is_letter else float(surest[parts].min())  # the same for all of a shape
        digit, chances = line.candidates[k].digit, probabilities[k]
        found.append((digit.place, _reading(digit, chances, sure, threshold)))
    return [reading for _, reading in sorted(found, key=lambda each: each[0])]


def _score(readings: Sequence[Reading]) -> float:
    """The mean logarithm of the digits' confidence; that of none is the least that there is."""
    digits = [np.log(reading.confidence) for reading in readings if reading.is_candidate]
    return float(np.mean(digits)) if digits else -np.inf


def _slope(digits: Sequence[Reading]) -> float:
    """Degrees clockwise by which the line through several digits slopes, in [-90, 90).

    NaN for fewer than two, and where they stand in several lines.
    """
    if len(digits) < 2:
        return np.nan
    boxes = np.array([reading.box for reading in digits], float)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    _, spread, axes = np.linalg.svd(middles - middles.mean(0), full_matrices=False)
    if spread[1] > 0.25 * spread[0]:
        return np.nan
    slope = np.degrees(np.arctan2(axes[0, 1], axes[0, 0]))  # clockwise, as y goes down
    return float((slope + 90) % 180 - 90)


def _best_path(line: Line, probabilities: Chances) -> list[int]:
    """The candidates that make up a line with the greatest product of probabilities (N, 10)."""
    score = np.full(line.parts + 1, -np.inf)  # of the best way to each place between two parts
    score[0] = 0
    last = np.full(line.parts + 1, -1)  # the candidate that ends there on that way
    gain = np.log(probabilities.max(1).clip(1e-6)) - [c.cost for c in line.candidates]
    # by where they begin: the way to there is then known
    for k in sorted(range(len(gain)), key=lambda k: line.candidates[k].first):
        candidate = line.candidates[k]
        if score[candidate.first] + gain[k] > score[candidate.last]:
            score[candidate.last], last[candidate.last] = score[candidate.first] + gain[k], k
    path, place = [], line.parts
    while place:
        path.append(int(last[place]))
        place = line.candidates[path[-1]].first
    return path[::-1]
