"""Connected strokes, joined to the digits that they are parts of."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.reading.ink import Ink, Mask
from mnist_cnn.reading.strokes import SMALLEST, Box, Labels, Strokes
from mnist_cnn.reading.touching import split_touching

MOST_PIECES = 400  # a picture in more pieces is noise or a page of print


# --- strokes that make up digits ------------------------------------------------------------------


def join_pieces(ink: Ink, mask: Mask) -> list[Strokes]:
    """The digits among the strokes, in no order."""
    pieces, labels = _pieces(ink, mask)
    if not pieces:
        return []
    size = _typical_height(pieces)
    owner = np.arange(len(pieces) + 1)  # label -> label of the digit that it belongs to
    for label in sorted(range(1, len(pieces) + 1), key=lambda n: pieces[n - 1].extent):
        partner = _partner(label, pieces, labels, size)
        if partner:
            owner[owner == owner[label]] = owner[partner]
    digits = [_joined([pieces[n - 1] for n in np.flatnonzero(owner == o)]) for o in set(owner[1:])]
    smallest = max(SMALLEST * max(mask.shape), 0.35 * size)
    digits = [digit for digit in digits if digit.height >= smallest and _is_written(digit)]
    return [
        part
        for digit in digits
        for part in (split_touching(digit) if digit.height > 0.6 * size else [digit])
    ]


def _pieces(ink: Ink, mask: Mask) -> tuple[list[Strokes], Labels]:
    """Connected strokes without specks, clutter and noise; piece n has label n + 1."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keep = extent >= SMALLEST / 3 * max(mask.shape)
    keep[0] = False
    if keep.sum() > MOST_PIECES:
        keep[:] = False
    keep &= ~_is_clutter(ink, labels, keep & (extent >= SMALLEST * max(mask.shape)))
    number = np.zeros(len(stats), np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    pieces = []
    for label in np.flatnonzero(keep):
        left, top, width, height = (int(n) for n in stats[label, :4])
        part = labels[top : top + height, left : left + width] == label
        box = left, top, left + width, top + height
        pieces.append(Strokes(box, part.astype(np.uint8)))
    return pieces, number[labels]


def _is_clutter(ink: Ink, labels: Labels, large: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which labels are shadows or the paper's edge rather than a digit cut off by the border.

    They lie along the border, or their outline is less sharp than that of the writing. Where
    nothing large lies off the border, nothing is clutter.
    """
    count = len(large)
    sides = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    contact = np.array([np.bincount(side, minlength=count) / len(side) for side in sides]).max(0)
    if not (contact > 0).any() or not (large & (contact == 0)).any():
        return np.zeros(count, bool)
    smooth = cv2.GaussianBlur(ink, (0, 0), 1)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    inside = cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    outline = (labels > 0) & (inside == 0)
    # relative to the darkness of each: faint strokes are as sharp as dark ones
    sharpness = _means(slope[outline], labels[outline], count) / np.maximum(
        _means(ink[labels > 0], labels[labels > 0], count), 1e-3
    )
    sharpest = sharpness[large & (contact == 0)].max()
    return (contact > 0.2) | ((contact > 0) & (sharpness < 0.6 * sharpest))


def _means(values: Ink, labels: Labels, count: int) -> NDArray[np.float64]:
    """The mean of the values that have each label, 0 for none."""
    total = np.bincount(labels, values, minlength=count)
    return total / np.maximum(np.bincount(labels, minlength=count), 1)


def _typical_height(pieces: list[Strokes]) -> float:
    """The height at which half of all ink is in higher pieces: dots and dashes weigh little."""
    heights = np.array([piece.height for piece in pieces])
    weights = np.array([piece.mask.sum() for piece in pieces])
    order = np.argsort(heights)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(heights[order][middle])


def _partner(label: int, pieces: list[Strokes], labels: Labels, size: float) -> int:
    """The label of the piece that an incomplete piece belongs to, 0 if it stands alone.

    A 5's flag lies over its body; the halves of a broken 4 nearly touch.
    """
    piece = pieces[label - 1]
    speck = 0.2 * size  # what a digit does not miss; dots lie about
    if piece.height > 0.75 * size or piece.extent < speck:
        return 0
    left, top, right, bottom = piece.box
    reach = max(3, round(0.25 * size))
    y, x = max(0, top - reach), max(0, left - reach)
    around = labels[y : bottom + reach, x : right + reach]
    gap = cv2.distanceTransform((around != label).astype(np.uint8), cv2.DIST_L2, 5)
    best, least = 0, float(reach)
    for other in np.unique(around):
        if other in (0, label):
            continue
        mate = pieces[other - 1]
        if mate.extent < speck:
            continue
        both = _joined_box([piece.box, mate.box])
        if both[3] - both[1] > 1.5 * max(size, mate.height):
            continue
        shared = min(right, mate.box[2]) - max(left, mate.box[0])
        stacked = shared > 0.5 * min(piece.width, mate.width)
        near = float(gap[around == other].min())
        if near < least and (stacked or near < 0.1 * size):
            best, least = int(other), near
    return best


def _joined_box(boxes: list[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _joined(pieces: list[Strokes]) -> Strokes:
    box = _joined_box([piece.box for piece in pieces])
    mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    for piece in pieces:
        left, top = piece.box[0] - box[0], piece.box[1] - box[1]
        mask[top : top + piece.height, left : left + piece.width] |= piece.mask
    return Strokes(box, mask)


def _is_written(digit: Strokes) -> bool:
    """False for dashes, underlines and filled areas."""
    if digit.width > 3 * digit.height:
        return False
    filled = digit.mask.mean()
    return digit.width < 0.6 * digit.height or filled < 0.85
