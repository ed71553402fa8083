"""Scores that mean what they say: of characters at 75 %, 75 % are right."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn

from mnist_cnn.data.synthetic.characters import Sources
from mnist_cnn.data.synthetic.pages import page, strip
from mnist_cnn.data.synthetic.sheet import Page
from mnist_cnn.detection.decode import Character, shared
from mnist_cnn.detection.find import find
from mnist_cnn.detection.lines import TALL, band, evidence, lines, split, unexplained
from mnist_cnn.detection.network import EVIDENCE

SIDES = 360, 480  # height and width of the pages, as those of small pictures
STRIPS = 4
COVERED = 0.5  # of a character that is there, by one that is found
DECAY = 1e-4  # of the weights of evidence
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


def line_verdict(line: Sequence[Character], there: Page) -> bool | None:
    """Whether the digits of a line are right; None where a part of it is cut off."""
    left, top, right, bottom = band(line)
    marks = []
    for mark in there.marks:
        x, y = (mark.box[0] + mark.box[2]) / 2, (mark.box[1] + mark.box[3]) / 2
        is_tall = mark.box[3] - mark.box[1] > TALL * (bottom - top)
        if left < x < right and top < y < bottom and is_tall:
            marks.append((x, mark.symbol))
    if not all(symbol for _, symbol in marks):
        return None
    text = "".join(symbol for _, symbol in sorted(marks) if symbol.isdecimal())
    return text == "".join(each.symbol for each in line if each.symbol.isdecimal())


def made_pages(sources: Sources, pages: int, seed: int) -> Iterator[Page]:
    """Pages and, for each of them, STRIPS lines that were cut out."""
    for index in range(pages):
        rng = np.random.default_rng((seed, index))
        yield page(rng, sources, *SIDES)
        for _ in range(STRIPS):
            yield strip(rng, sources)


def fit(evidence: Floats, right: Floats) -> Floats:
    """Return the weights (N + 1,) of evidence (M, N) that are likeliest; the last is an offset.

    A logistic regression, with a little weight decay, so that what never tells of an error has no
    weight; 1 and 0, which change nothing, where all are right or none is.
    """
    weights = np.append(np.ones(evidence.shape[1]), 0.0)
    if len(set(right.tolist())) < 2:
        return weights

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = evidence @ weights[:-1] + weights[-1]
        off = 1 / (1 + np.exp(-z)) - right
        slope = np.append(evidence.T @ off, off.sum()) / len(right) + DECAY * weights
        value = np.mean(np.logaddexp(0, z) - right * z) + DECAY / 2 * (weights**2).sum()
        return float(value), slope

    return np.asarray(minimize(loss, weights, jac=True, method="L-BFGS-B").x, np.float64)


def log_odds(p: Floats) -> Floats:
    p = p.clip(1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def calibrate(net: nn.Module, sources: Sources, pages: int, seed: int = 1999) -> None:
    """Set the scores of a network's characters, then those of its lines, by made pages."""
    character: torch.Tensor = net.character_weights  # type: ignore[assignment]  # buffers
    line: torch.Tensor = net.line_weights  # type: ignore[assignment]
    character.copy_(torch.tensor([1.0, 0.0]))
    seen = [(find(net, made.ink), made) for made in made_pages(sources, pages, seed)]
    pairs = [pair for (found, _), made in seen for pair in verdicts(found, made)]
    scores, right = np.array(pairs, np.float64).reshape(-1, 2).T
    slope, offset = fit(log_odds(scores)[:, None], right)
    character.copy_(torch.tensor([slope, offset]))
    rows, verdict = [], []
    for (found, best), made in seen:
        scored = [replace(each, weights=(slope, offset)) for each in found]
        kept, dropped = split(scored)
        left = unexplained(made.ink, kept, best)
        for own in lines(kept):
            is_right = line_verdict(own, made)
            if is_right is not None:
                rows.append(evidence(own, dropped, left))
                verdict.append(is_right)
    line.copy_(torch.tensor(fit(np.array(rows).reshape(-1, EVIDENCE), np.array(verdict, float))))
