"""The digits that a network reads in a picture."""

import contextlib
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
    """One digit of a picture and what it was taken for, or something else that stands there.

    Attributes:
        digit: 0 to 9, or None where the network is unsure, or where it is no digit.
        confidence: the greatest of the probabilities; of digits that were cut apart, the least of
            theirs: one that is none makes the cuts doubtful.
        probabilities: of the digits 0 to 9, float32 (10,).
        box: (left, top, right, bottom) in pixels of the upright picture.
        image: uint8 (28, 28), what the network saw.
        row: the line of writing, from 0 at the top.
        is_candidate: False for punctuation, which is too small for a digit.
        rotation: degrees clockwise by which the picture must be rotated for `best`; the digit is
            then None, as a lone digit does not tell which side is up.
    """

    digit: int | None
    confidence: float
    probabilities: NDArray[np.float32]
    box: Box
    image: NDArray[np.uint8]
    row: int
    is_candidate: bool = True
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
    if not digits or not (angles := _rotations(digits)):
        return readings
    best, score = readings, _score(digits) + (BETTER if _is_level(digits) else 0)
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
    readings: list[Reading] = []
    start = 0
    for line in lines:
        end = start + len(line.candidates)
        readings += _read_line(line, probabilities[start:end], threshold)
        start = end
    return readings


def _read_line(line: Line, probabilities: NDArray[np.float32], threshold: float) -> list[Reading]:
    """The digits and the punctuation of a line, from left to right.

    Args:
        probabilities: of each candidate's digits, (N, 10).
    """
    none = np.full(10, NONE, np.float32)
    found = [(mark, none, NONE, False) for mark in line.punctuation]
    path = _best_path(line, probabilities)
    for k, confidence in zip(path, _confidences(line, path, probabilities), strict=True):
        found.append((line.candidates[k].digit, probabilities[k], confidence, True))
    readings = []
    for digit, chances, confidence, is_candidate in sorted(found, key=lambda f: f[0].place):
        read = int(chances.argmax()) if confidence >= threshold else None
        where = digit.box, digit.image, digit.row
        readings.append(Reading(read, confidence, chances, *where, is_candidate))
    return readings


def _score(readings: Sequence[Reading]) -> float:
    """The mean logarithm of the confidence; that of nothing is the least that there is."""
    if not readings:
        return -np.inf
    return float(np.mean([np.log(reading.confidence) for reading in readings]))


def _slope(digits: Sequence[Reading]) -> float | None:
    """Degrees clockwise by which the line through several digits slopes, in [-90, 90).

    None for a lone digit, and where they stand in several lines.
    """
    if len(digits) == 1:
        return None
    boxes = np.array([reading.box for reading in digits], float)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    _, spread, axes = np.linalg.svd(middles - middles.mean(0), full_matrices=False)
    if spread[1] > 0.25 * spread[0]:
        return None
    slope = np.degrees(np.arctan2(axes[0, 1], axes[0, 0]))  # clockwise, as y goes down
    return float((slope + 90) % 180 - 90)


def _is_level(digits: Sequence[Reading]) -> bool:
    """True for digits beside each other, False for digits above each other."""
    return abs(_slope(digits) or 0) < STEEP


def _rotations(digits: Sequence[Reading]) -> list[int]:
    """Degrees clockwise by which a sheet may have to be rotated; none where it is read well.

    The direction of several digits is that of the line through their middles, one way or the other.
    A lone digit is not rotated by 180 degrees: many are another digit then.
    """
    if _is_level(digits) and _score(digits) >= np.log(DOUBTFUL):
        return []
    slope = _slope(digits)
    if slope is None or abs(slope) < STEEP:
        return [90, 270] if len(digits) == 1 else [90, 180, 270]
    return [round(-slope) % 360, round(180 - slope) % 360]


def _best_path(line: Line, probabilities: NDArray[np.float32]) -> list[int]:
    """The candidates that make up a line with the greatest product of probabilities.

    Args:
        probabilities: of each candidate's digits, (N, 10).
    """
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


def _confidences(line: Line, path: list[int], probabilities: NDArray[np.float32]) -> list[float]:
    """The confidence in each candidate of a path, the same for those that were cut apart."""
    apart: list[list[int]] = []
    for k in path:
        if line.candidates[k].first in line.cuts:
            apart[-1].append(k)
        else:
            apart.append([k])
    return [float(probabilities[each].max(1).min()) for each in apart for _ in each]


def written(readings: Sequence[Reading]) -> str:
    """The readings as text: a line for each row, ? for what is unsure, · for what is no digit."""
    lines: dict[int, str] = {}
    for reading in readings:
        lines[reading.row] = lines.get(reading.row, "") + reading.symbol
    return "\n".join(lines[row] for row in sorted(lines))
