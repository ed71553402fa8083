"""Scores that mean what they say: of characters at 75 %, 75 % are right."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn

from mnist_cnn.data.synthetic.characters import Sources
from mnist_cnn.data.synthetic.pages import page
from mnist_cnn.data.synthetic.sheet import Page
from mnist_cnn.detection.decode import Character, shared
from mnist_cnn.detection.find import find

SIDES = 360, 480  # height and width of the pages, as those of small pictures
COVERED = 0.5  # of a character that is there, by one that is found
Floats = NDArray[np.float64]


def verdicts(found: Sequence[Character], there: Page) -> list[tuple[float, bool]]:
    """The score of each character that is found, and whether it is right.

    What lies on a character that is cut off counts neither way.
    """
    pairs = []
    for each in found:
        over = max(there.marks, key=lambda mark: shared(each.box, mark.box), default=None)
        covered = shared(each.box, over.box) if over else 0.0
        if over and covered > COVERED and not over.symbol:
            continue
        pairs.append((each.score, bool(over and covered > COVERED and over.symbol == each.symbol)))
    return pairs


def measured(net: nn.Module, sources: Sources, pages: int, seed: int) -> tuple[Floats, Floats]:
    """Scores (N,) on made pages, and 1 for those that are right (N,)."""
    pairs: list[tuple[float, bool]] = []
    for index in range(pages):
        made = page(np.random.default_rng((seed, index)), sources, *SIDES)
        pairs += verdicts(find(net, made.ink)[0], made)
    scores, right = np.array(pairs, np.float64).reshape(-1, 2).T
    return scores, right


def fit(scores: Floats, right: Floats) -> tuple[float, float]:
    """The slope and the offset of the log-odds that are likeliest (Platt, 1999).

    1 and 0, which change nothing, where all are right or none is.
    """
    if len(set(right.tolist())) < 2:
        return 1.0, 0.0
    x = log_odds(scores)

    def loss(line: Floats) -> float:
        z = line[0] * x + line[1]
        return float(np.mean(np.logaddexp(0, z) - right * z))

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return float(slope), float(offset)


def log_odds(p: Floats) -> Floats:
    p = p.clip(1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def calibrate(net: nn.Module, sources: Sources, pages: int, seed: int = 1999) -> None:
    """Set the calibration of a network by what it finds on made pages."""
    calibration: torch.Tensor = net.calibration  # type: ignore[assignment]  # a buffer
    calibration.copy_(torch.tensor([1.0, 0.0]))
    calibration.copy_(torch.tensor(fit(*measured(net, sources, pages, seed))))
