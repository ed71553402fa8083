"""Reading of the digits and signs in a picture by a network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.picture import Source, is_decoded, load_picture, upright_size
from mnist_cnn.data.synthetic.sheet import SIGNS, SYMBOLS
from mnist_cnn.data.synthetic.strokes import Points
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.lines import confidence, evidence, inside, split
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import shipped
from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.ink import like_mnist
from mnist_cnn.reading.layout import cell_in, layout
from mnist_cnn.reading.reading import THRESHOLD, UNKNOWN, Reading
from mnist_cnn.reading.views import View, upright
from mnist_cnn.weights.predictor import Trained

Net = Callable[[Tensor], Tensor]


def read_digits(
    picture: Source | Image.Image,
    net: Net | None = None,
    threshold: float = THRESHOLD,
    *,
    reader: Detector | None = None,
) -> list[Reading]:
    """Read the digits and signs of a picture, row by row from the top, each from left to right.

    The list is empty if there are none. Signs lower than digits are left out where no row of other
    characters is near.

    Args:
        picture: a picture, or any source of `load_picture`.
        net: classifier of the digits that the reader finds: returns probabilities (N, 10) of uint8
            images (N, 28, 28), white on black. They are multiplied by the reader's probability that
            a digit is there. By default the reader classifies them.
        threshold: confidence in [0, 1] below which a digit is left unread. If that of a line is
            below it, the line's least certain digit is left unread, too, or all of its digits if
            there is other writing beside them. Digits among words are always left unread.
        reader: network that finds the characters, see `load_reader`; by default the shipped one.

    Raises:
        OSError, ValueError: the picture cannot be read, see `load_picture`; or the threshold, the
            net or the reader is invalid.
    """
    check(net, threshold, reader)
    loaded = load_picture(picture)
    grey = inks.grey_of(np.asarray(loaded))
    reader = shipped() if reader is None else reader
    seen = upright(reader, grey)
    found, dropped, left = split(seen.found, seen.ink, seen.best)
    found = classified(seen, found, net) if net is not None else found
    tables, lines = layout(seen, found)
    weights: list[float] = reader.line_weights.tolist()  # type: ignore[operator]  # a buffer
    turn = round(seen.degrees) % 360
    # a lone digit does not tell which side is up: a 6 may be a 9
    lone = turn if sum(len(line.digits) for line in lines) == 1 else 0
    # boxes are in the pixels that the caller has
    size = np.array(upright_size(picture if is_decoded(picture) else loaded))
    scale = size / grey.shape[::-1]
    readings = []
    for line in lines:
        about: dict[str, Any] = {"row": line.row, "rotation": turn}
        if line.cell:
            cell = on_picture(seen, cell_in(seen, tables, line.cell), scale, size)
            about |= {"column": line.cell[2], "cell": tuple(map(tuple, cell.round().tolist()))}
        if not line.characters:
            readings.append(empty(cell, about))
            continue
        right = confidence(evidence(line.characters, dropped, left), weights)
        unread = line.digits if lone else line.left_unread(right, threshold)
        illegible = line.illegible
        # the line is right if their guesses are, too
        about["line"] = right * math.prod(each.digit_score for each in illegible)
        for each in line.characters:
            digit = each.symbol.isdecimal()
            about["is_digit"] = digit or any(each is other for other in illegible)
            about["turned"] = lone if digit else 0
            least = math.inf if any(each is other for other in unread) else threshold
            place = on_picture(seen, corners_of(each.box), scale, size)
            readings.append(reading(seen, each, place, least, about))
    return readings


def check(net: object, threshold: float, reader: object) -> None:
    """Raise ValueError for an invalid argument of `read_digits`."""
    if not 0 <= threshold <= 1:  # NaN is neither
        raise ValueError(must_be("threshold", "in [0, 1]", threshold))
    unfit = isinstance(net, Detector) or (isinstance(net, Trained) and not net.reads_digits)
    if net is not None and (unfit or not callable(net)):
        what = "a network of 28x28 digits, white on black, as load(PATH) gives it"
        raise ValueError(must_be("net", what, type(net).__name__))
    if reader is not None and not hasattr(reader, "line_weights"):
        what = "what load_reader(PATH) gives"
        raise ValueError(must_be("reader", what, type(reader).__name__))


def classified(seen: View, found: Sequence[Character], net: Net) -> list[Character]:
    """Classify the digits among the characters by a network, in one batch."""
    digits = [each for each in found if each.symbol.isdecimal()]
    if not digits:
        return list(found)
    images = np.stack([crop(seen, each) for each in digits])
    with torch.inference_mode():
        chances = net(torch.from_numpy(images)).float().cpu().numpy()
    is_shaped = chances.shape == (len(images), 10)
    if not is_shaped or not ((chances >= 0) & (chances < 1.01)).all():  # NaN is neither
        got = f"numbers up to {chances.max():.3g}" if is_shaped else chances.shape
        raise ValueError(must_be("net", "one that gives probabilities (N, 10)", got))
    own = iter(np.pad(chances, ((0, 0), (0, len(SYMBOLS) - 10))))
    made = []
    for each in found:
        if each.symbol.isdecimal():
            there = each.calibrated(float(each.probabilities[:10].sum()))
            each = replace(each, found=there, probabilities=next(own), weights=(1.0, 0.0))
        made.append(each)
    return made


def crop(seen: View, each: Character) -> NDArray[np.uint8]:
    """Return a character in the format of MNIST: (28, 28), white on black."""
    return like_mnist(seen.ink[inside(each.box)])


def corners_of(box: Sequence[float]) -> Points:
    """Return the corners (4, 2) of a box."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def on_picture(seen: View, points: Points, scale: Points, size: Points) -> Points:
    """Convert points (N, 2) of the ink to pixels of the unrotated picture, none beyond its size."""
    unrotated = np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ seen.back.T
    return (unrotated * scale).clip(0, size)


def box_around(points: Points) -> Any:
    """Return the box around points (N, 2), in whole pixels."""
    return tuple(np.concatenate([points.min(0), points.max(0)]).round().astype(int).tolist())


def empty(cell: Points, about: dict[str, Any]) -> Reading:
    """Return the reading of an empty cell with corners (4, 2)."""
    none, blank = np.zeros(10, np.float32), np.zeros((28, 28), np.uint8)
    return Reading(None, 0.0, none, box_around(cell), blank, is_digit=False, sign=" ", **about)


def reading(
    seen: View, each: Character, place: Points, threshold: float, about: dict[str, Any]
) -> Reading:
    """Return the reading of a character with corners `place` (4, 2) in the picture."""
    chances = np.array([each.calibrated(float(p)) for p in each.probabilities[:10]], np.float32)
    sure = float(chances.max())
    return Reading(
        int(chances.argmax()) if each.symbol.isdecimal() and sure >= threshold else None,
        sure,
        chances,
        box_around(place),
        crop(seen, each),
        sign=each.symbol if each.symbol in SIGNS else UNKNOWN,
        **about,
    )
