"""The digits that a network reads in a picture."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.reading.digits import Line, Sheet
from mnist_cnn.reading.picture import Source, load_picture
from mnist_cnn.reading.shapes import TooManyStrokesError
from mnist_cnn.reading.strokes import Box

THRESHOLD = 0.80  # confidence below which a digit is left unread
NONE = 0.1  # the probability of each digit in what is none
NO_DIGIT = 0.35  # below it no digit stands out among the ten

DOUBTFUL = 0.8  # below this mean confidence a sheet may have to be rotated
STEEP = 20  # degrees: so may a line that slopes more
BETTER = 0.25  # a rotated sheet must be read better than as it lies, as the logarithm of confidence
BATCH = 512  # candidates that the network sees at once
Net = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """One digit of a picture and what it was taken for, or something else that stands there."""

    digit: int | None  # None where the network is unsure, or where it is no digit
    # the greatest of the probabilities; of digits that were cut apart, the least of theirs: one
    # that is none makes the cuts doubtful
    confidence: float
    probabilities: NDArray[np.float32]  # (10,), of the digits 0 to 9
    box: Box  # (left, top, right, bottom) in pixels of the upright picture
    image: NDArray[np.uint8]  # (28, 28), what the network saw
    row: int  # the line of writing, from 0 at the top
    is_candidate: bool = True  # False for punctuation, which is too small for a digit
    # degrees clockwise by which the picture must be rotated for `best`; the digit is then None, as
    # a lone digit does not tell which side is up
    rotation: int = 0

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
        """The digit; ? where the network is unsure which, and a point where it is none."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else "·"


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
        OSError, ValueError: it cannot be read, see `load_picture`, or has too many strokes.
    """
    sheet = Sheet.of(picture if isinstance(picture, Image.Image) else load_picture(picture))
    readings = _read(sheet, net, threshold)
    filled: list[list[Reading]] = []
    with contextlib.suppress(TooManyStrokesError):  # what is paper to find_ink is noise here
        filled = [_read(each, net, threshold) for each in sheet.filled()]
    likeliest = max(filled, key=_score, default=[])
    if _score(likeliest) > max(_score(readings), np.log(NO_DIGIT)):
        readings = likeliest
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
        if len(digits) == 1:  # a lone 6 may be a 9: it is not read, but told
            read = [reading for reading in rotated if reading.digit is not None]
            rotated = [replace(reading, digit=None, rotation=angle) for reading in read]
        if _score(rotated) > score:
            best, score = rotated, _score(rotated)
    return best


def _read(sheet: Sheet, net: Net, threshold: float) -> list[Reading]:
    """The likeliest readings of the lines of writing on a sheet."""
    lines = sheet.lines()
    candidates = [candidate for line in lines for candidate in line.candidates]
    if not candidates:
        return []
    images = np.stack([candidate.digit.image for candidate in candidates])
    with torch.inference_mode():
        batches = torch.from_numpy(images).split(BATCH)
        probabilities = torch.cat([net(batch) for batch in batches]).float().cpu().numpy()
    probabilities[[candidate.is_mesh for candidate in candidates]] = NONE
    ends = np.cumsum([len(line.candidates) for line in lines])
    parts = zip(lines, np.split(probabilities, ends[:-1]), strict=True)
    return [reading for line, part in parts for reading in _read_line(line, part, threshold)]


def _read_line(line: Line, probabilities: NDArray[np.float32], threshold: float) -> list[Reading]:
    """The digits and the punctuation of a line, from left to right; probabilities (N, 10)."""
    none = np.full(10, NONE, np.float32)
    found = [
        (mark.place, Reading(None, NONE, none, mark.box, mark.image, mark.row, False))
        for mark in line.punctuation
    ]
    path = _best_path(line, probabilities)
    shapes = np.cumsum([line.candidates[k].first not in line.cuts for k in path])
    surest = probabilities[path].max(1)
    for k, shape in zip(path, shapes, strict=True):
        sure = float(surest[shapes == shape].min())  # the same for those that were cut apart
        digit, chances = line.candidates[k].digit, probabilities[k]
        read = int(chances.argmax()) if sure >= threshold else None
        found.append((digit.place, Reading(read, sure, chances, digit.box, digit.image, digit.row)))
    return [reading for _, reading in sorted(found, key=lambda each: each[0])]


def _score(readings: Sequence[Reading]) -> float:
    """The mean logarithm of the confidence; that of nothing is the least that there is."""
    if not readings:
        return -np.inf
    return float(np.mean([np.log(reading.confidence) for reading in readings]))


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


def _best_path(line: Line, probabilities: NDArray[np.float32]) -> list[int]:
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


def written(readings: Sequence[Reading]) -> str:
    """The readings as text: a line for each row, ? for what is unsure, · for what is no digit."""
    rows = itertools.groupby(readings, key=lambda reading: reading.row)
    return "\n".join("".join(reading.symbol for reading in row) for _, row in rows)
