"""What a network reads in a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.reading.digits import Digit, Line, Sheet
from mnist_cnn.reading.strokes import Box

SURE = 0.80  # below it a digit is left unread
NONE = 0.1  # the probability of each digit in what is none
NO_DIGIT = 0.35  # below it no digit stands out among the ten

DOUBTFUL = 0.8  # below this mean confidence a sheet may lie turned
STEEP = 20  # degrees: so may a line that slopes more
BETTER = 0.25  # a turned sheet must be read better than as it lies, as the logarithm of confidence
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
        turned: degrees clockwise by which the picture must be turned for `best`; the digit is then
            None, as a lone digit does not tell which side is up.
        is_candidate: False for a sign that is too small for a digit.
    """

    digit: int | None
    confidence: float
    probabilities: NDArray[np.float32]
    box: Box
    image: NDArray[np.uint8]
    row: int
    turned: int = 0
    is_candidate: bool = True

    @property
    def best(self) -> int:
        """The likeliest digit, sure or not."""
        return int(self.probabilities.argmax())

    @property
    def is_digit(self) -> bool:
        """Whether it is a digit, although the network may be unsure which."""
        return self.is_candidate and self.confidence >= NO_DIGIT

    @property
    def sign(self) -> str:
        """The digit; ? where the network is unsure which, and a point where it is none."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else "·"


def read_digits(image: Image.Image, net: Net, sure: float = SURE) -> list[Reading]:
    """Reads the digits of a picture in one batch; an empty list where there is none.

    Of all ways to divide a line of writing into digits the likeliest is taken, by dynamic
    programming (LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998,
    section V).

    Args:
        image: any picture; rows are read from top to bottom, each from left to right.
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        sure: the confidence below which a digit is left unread, in [0, 1].
    """
    sheet = Sheet(image)
    readings = _read(sheet.lines(), net, sure)
    filled = [_read(lines, net, sure) for lines in sheet.filled_lines()]
    likeliest = max(filled, key=_score, default=[])
    if _score(likeliest) > max(_score(readings), np.log(NO_DIGIT)):
        readings = likeliest
    digits = [reading for reading in readings if reading.is_candidate]
    if not digits or not (angles := _doubtful_turns(digits)):
        return readings
    best, score = readings, _score(digits) + (BETTER if _is_level(digits) else 0)
    for angle in angles:
        turned = _read(sheet.lines(angle), net, sure)
        if len(digits) == 1:  # a lone 6 may be a 9: it is not read, but told
            turned = [
                replace(reading, digit=None, turned=angle)
                for reading in turned
                if reading.digit is not None
            ]
        if _score(turned) > score:
            best, score = turned, _score(turned)
    return best


def _read(lines: list[Line], net: Net, sure: float) -> list[Reading]:
    """The likeliest readings of lines of writing."""
    seen = [candidate.digit.image for line in lines for candidate in line.candidates]
    if not seen:
        return []
    with torch.inference_mode():
        batches = torch.from_numpy(np.stack(seen)).split(BATCH)
        probabilities = torch.cat([net(batch) for batch in batches]).float().cpu().numpy()
    meshes = [candidate.is_mesh for line in lines for candidate in line.candidates]
    probabilities[meshes] = NONE
    readings: list[Reading] = []
    start = 0
    for line in lines:
        end = start + len(line.candidates)
        own = probabilities[start:end]
        path = _best_path(line, own)
        found = [(sign, np.full(10, NONE, np.float32), NONE, False) for sign in line.signs]
        for k, confidence in zip(path, _confidences(line, path, own), strict=True):
            found.append((line.candidates[k].digit, own[k], confidence, True))
        for digit, chances, confidence, is_candidate in sorted(found, key=lambda f: f[0].place):
            reading = _reading(digit, chances, confidence, sure)
            readings.append(replace(reading, is_candidate=is_candidate))
        start = end
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
    """Whether digits stand beside each other, and not above."""
    return abs(_slope(digits) or 0) < STEEP


def _doubtful_turns(digits: Sequence[Reading]) -> list[int]:
    """Degrees clockwise by which a sheet may have to be turned; none where it is read well.

    The direction of several digits is that of the line through their middles, one way or the other.
    A lone digit is not turned over: many are another digit then.
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


def _reading(
    digit: Digit, probabilities: NDArray[np.float32], confidence: float, sure: float
) -> Reading:
    best = int(probabilities.argmax())
    return Reading(
        digit=best if confidence >= sure else None,
        confidence=confidence,
        probabilities=probabilities,
        box=digit.box,
        image=digit.image,
        row=digit.row,
    )


def written(readings: Sequence[Reading]) -> str:
    """The readings as text: a line for each row, ? for what is unsure, · for what is no digit."""
    lines: dict[int, str] = {}
    for reading in readings:
        lines[reading.row] = lines.get(reading.row, "") + reading.sign
    return "\n".join(lines[row] for row in sorted(lines))
