"""Calibration of scores: of characters with a score of 75 %, 75 % are right."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from torch import nn

from mnist_cnn.data.synthetic.characters import Sources
from mnist_cnn.data.synthetic.pages import page, strip
from mnist_cnn.data.synthetic.sheet import Page
from mnist_cnn.detection.find import best_of, scales
from mnist_cnn.detection.lines import evidence, lines, split
from mnist_cnn.detection.network import EVIDENCE
from mnist_cnn.detection.scores import line_texts, matches

SIDES = 360, 480  # height and width of the pages, like those of small pictures
STRIPS = 4
SEED = 1999  # of the pages
DECAY = 1e-4  # weight decay of the logistic regressions
Floats = NDArray[np.float64]


def made_pages(sources: Sources, pages: int, seed: int) -> Iterator[Page]:
    """Yield pages, each followed by STRIPS cut-out lines."""
    for index in range(pages):
        rng = np.random.default_rng((seed, index))
        yield page(rng, sources, *SIDES)
        for _ in range(STRIPS):
            yield strip(rng, sources)


def fit(evidence: Floats, right: Floats, start: torch.Tensor) -> Floats:
    """Fit the weights (N + 1,) of evidence (M, N) by logistic regression; the last is an offset.

    A small weight decay leaves uninformative evidence without weight. If all are right, or none
    is, nothing can be fitted, and the weights of the `start` are returned.
    """
    weights = start.double().numpy()
    if len(set(right.tolist())) < 2:
        return weights

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = evidence @ weights[:-1] + weights[-1]
        off = expit(z) - right
        slope = np.append(evidence.T @ off, off.sum()) / len(right) + DECAY * weights
        value = np.mean(np.logaddexp(0, z) - right * z) + DECAY / 2 * (weights**2).sum()
        return float(value), slope

    return np.asarray(minimize(loss, weights, jac=True, method="L-BFGS-B").x, np.float64)


def calibrate(net: nn.Module, sources: Sources, pages: int) -> None:
    """Calibrate the scores of a network's characters, then its lines, on synthetic pages."""
    character: torch.Tensor = net.character_weights  # type: ignore[assignment]  # buffers
    line: torch.Tensor = net.line_weights  # type: ignore[assignment]
    character.copy_(torch.tensor([1.0, 0.0]))
    drawn = [(made.ink, made.marks) for made in made_pages(sources, pages, SEED)]
    seen = [list(scales(net, ink).values()) for ink, _ in drawn]
    pairs = [
        (each.score, is_right)
        for (_, marks), zooms in zip(drawn, seen, strict=True)
        for each, is_right in matches(best_of(zooms)[0], marks)
    ]
    scores, right = np.array(pairs, np.float64).reshape(-1, 2).T
    character.copy_(torch.tensor(fit(logit(scores)[:, None], right, character)))
    slope, offset = character.tolist()
    rows, verdict = [], []
    # calibrated scores also choose the zooms
    for (ink, marks), zooms in zip(drawn, seen, strict=True):
        found, best = best_of([one.calibrated((slope, offset)) for one in zooms])
        kept, dropped, left = split(found, ink, best)
        for own in lines(kept):
            texts = line_texts(own, marks)
            if texts is not None:
                rows.append(evidence(own, dropped, left))
                verdict.append(texts[0] == texts[1])
    all_rows = np.array(rows).reshape(-1, EVIDENCE)
    line.copy_(torch.tensor(fit(all_rows, np.array(verdict, float), line)))
