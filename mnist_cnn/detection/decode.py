"""Decoding of the network's maps into characters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from mnist_cnn.data.synthetic.sheet import OTHER, STRIDE, SYMBOLS, Box
from mnist_cnn.detection.loss import UNIT, by_name

LEAST = 0.15  # minimum probability of a centre
# boxes of one character: minimum overlap as a fraction of the smaller one, and maximum distance of
# their centres as a fraction of the larger one's sides
SAME, NEAR = 0.45, 0.3
BLOCK = 512  # boxes that are compared with all others at a time: memory grows with their number


@dataclass(frozen=True)
class Character:
    """A detected character."""

    box: Box
    found: float  # height of the peak: the probability that a character is there
    probabilities: NDArray[np.float32]  # (26,) of SYMBOLS, given that a character is there
    weights: tuple[float, float] = (1.0, 0.0)  # slope and offset that calibrate its log-odds
    least: float = 1.0  # its lowest score in any view
    zoom: float = 1.0  # pixels that the network saw for one of the box

    @property
    def symbol(self) -> str:
        return SYMBOLS[int(self.probabilities.argmax())]

    @property
    def is_other(self) -> bool:
        """Whether the network found it to be neither a digit nor a sign."""
        return self.symbol == OTHER and self.least > 0

    @property
    def score(self) -> float:
        """The probability that this symbol is there."""
        return self.calibrated(float(self.probabilities.max()))

    @property
    def digit_score(self) -> float:
        """The probability that the most likely digit is there."""
        return self.calibrated(float(self.probabilities[:10].max()))

    def calibrated(self, share: float) -> float:
        """Return the probability that it is there and one of symbols with this total `share`."""
        p = min(max(self.found * share, 1e-6), 1 - 1e-6)
        slope, offset = self.weights
        return float(expit(slope * logit(p) + offset))

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    def moved(self, zoom: float, x: float, y: float) -> "Character":
        """Map the character back from a picture that was enlarged by `zoom` and cut at (x, y)."""
        left, top, right, bottom = self.box
        box = ((left + x) / zoom, (top + y) / zoom, (right + x) / zoom, (bottom + y) / zoom)
        return replace(self, box=box, zoom=self.zoom * zoom)


def characters(maps: Tensor) -> list[Character]:
    """Return the characters at the peaks of the maps (32, h, w) of one image, each once."""
    made = by_name(maps[None].float())
    centre = made["centre"][0, 0].sigmoid()
    peak = (F.max_pool2d(centre[None], 3, 1, 1)[0] == centre) & (centre > LEAST)
    ys, xs = peak.nonzero(as_tuple=True)
    found = centre[ys, xs].tolist()
    kinds = made["symbol"][0][:, ys, xs].softmax(0).T.cpu().numpy()
    sides = (made["box"][0][:, ys, xs].T * UNIT).clamp(min=0.5)
    middle = torch.stack([xs, ys], 1).float() * STRIDE + STRIDE / 2
    boxes = torch.cat([middle - sides[:, :2], middle + sides[:, 2:]], 1).tolist()
    every = [Character(tuple(b), p, k) for b, p, k in zip(boxes, found, kinds, strict=True)]
    return [group[0] for group in grouped(every)]


def shared(a: Box, b: Box) -> float:
    """Return the overlap of two boxes as a fraction of the smaller one."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high / max(1e-6, min(areas))


def are_one(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for pairs of boxes (N, 4) whether they are of one character, not of two that touch."""
    covered = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    sides, others = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    least = np.minimum(sides.prod(1), others.prod(1)).clip(1e-6)
    apart = np.abs(a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    is_near = (apart < NEAR * np.maximum(sides, others)).all(1)
    return is_near & (covered.clip(0).prod(1) / least >= SAME)


def grouped(found: Sequence[Character]) -> list[list[Character]]:
    """Group characters that lie on each other, the most probable one first."""
    ranked = sorted(found, key=lambda c: -c.score)
    boxes = np.array([each.box for each in ranked]).reshape(-1, 4)
    alike: list[list[int]] = [[] for _ in ranked]  # the ranks of more probable ones, in order
    left, top, right, bottom = boxes.T
    for start in range(0, len(boxes), BLOCK):
        some, first = slice(start, start + BLOCK), slice(start + BLOCK)
        overlap = (left[some, None] < right[first]) & (right[some, None] > left[first])
        overlap &= (top[some, None] < bottom[first]) & (bottom[some, None] > top[first])
        later, earlier = np.nonzero(np.tril(overlap, start - 1))
        later += start
        is_one = are_one(boxes[later], boxes[earlier])
        for k, n in zip(later[is_one].tolist(), earlier[is_one].tolist(), strict=True):
            alike[k].append(n)
    groups: dict[int, list[Character]] = {}  # by the rank of their first
    for k, each in enumerate(ranked):
        leader = next((n for n in alike[k] if n in groups), k)
        groups.setdefault(leader, []).append(each)
    return list(groups.values())


def merged(views: Sequence[Sequence[Character]]) -> list[Character]:
    """Merge the characters of several views of one picture, each once.

    Views that find the same character are averaged, like the members of an ensemble; the more a
    view finds a character there, the more it counts.
    """
    made = []
    view_of = {id(each): k for k, view in enumerate(views) for each in view}
    for group in grouped([each for view in views for each in view]):
        first = group[0]
        alike = [
            c
            for c in group
            if shared(c.box, first.box) > 0.7 and 0.6 < c.height / first.height < 1.7
        ]
        weights = np.array([max(c.found, 1e-6) for c in alike])
        mean = np.average([c.probabilities for c in alike], axis=0, weights=weights)
        best = int(mean.argmax())
        scores = [0.0] * len(views)
        for each in group:
            score = each.calibrated(float(each.probabilities[best]))
            scores[view_of[id(each)]] = max(scores[view_of[id(each)]], score)
        found = float(np.average([c.found for c in alike], weights=weights))
        mean = mean.astype(np.float32)
        exact = weights * np.array([c.zoom**2 for c in alike])  # errors are of the pixels seen
        box = tuple(np.average([c.box for c in alike], axis=0, weights=exact).tolist())
        made.append(replace(first, box=box, found=found, probabilities=mean, least=min(scores)))
    return made
