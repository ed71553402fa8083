"""Holes in strokes: of a digit there are few."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.reading.ink import Mask

PINPRICK = 0.001  # area of what is no hole in a stroke, as a share of the squared height
MOST_HOLES = 3  # of 6,000 validation digits none has more, and 8 have 3


def holes(mask: Mask) -> NDArray[np.float64]:
    """The middles (N, 2) of what strokes enclose, as shares of the sides, the highest first."""
    paper = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels, stats, middles = cv2.connectedComponentsWithStats(paper, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= PINPRICK * max(mask.shape) ** 2
    large[[0, labels[0, 0]]] = False  # the ink, and the paper around
    return (middles[large] - 0.5) / mask.shape[::-1]
