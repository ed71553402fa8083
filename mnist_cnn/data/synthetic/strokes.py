"""Digits, signs and letters as pen strokes, in the forms of forms.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]  # float32; OpenCV's annotations leave the element type open
Points = NDArray[np.float64]  # (N, 2), x and y


class Form(NamedTuple):
    """One way to write a character in a box of width and height 1: smooth and straight strokes."""

    smooth: Sequence[Points]
    straight: Sequence[Points]

    @classmethod
    def of(cls, node: dict[str, list[str]]) -> "Form":
        """Parse a node of forms.yaml."""
        return cls(*(list(map(points, node.get(kind, ()))) for kind in cls._fields))


def points(text: str) -> Points:
    """Parse the points of a stroke, such as "0.5,0 1,1"."""
    return np.array([point.split(",") for point in text.split()], np.float64)


_FILE = yaml.safe_load(Path(__file__).with_name("forms.yaml").read_text("utf-8"))
DIGITS = {name: list(map(Form.of, forms)) for name, forms in _FILE["digits"].items()}
LETTERS = {name: list(map(Form.of, forms)) for name, forms in _FILE["letters"].items()}
SIGNS = {name: list(map(Form.of, sign["forms"])) for name, sign in _FILE["signs"].items()}
WIDTHS: dict[str, float] = {name: sign["width"] for name, sign in _FILE["signs"].items()}


def spline(way: Points) -> Points:
    """Return the Catmull-Rom spline (M, 2) through points (N, 2)."""
    padded = np.concatenate([2 * way[:1] - way[1:2], way, 2 * way[-1:] - way[-2:-1]])
    t = np.linspace(0, 1, 6, endpoint=False)[:, None, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), way[-1:]])


def draw(
    form: Form,
    size: float,
    aspect: float,
    slant: float,
    pen: float,
    shake: float,
    rng: Generator,
    bend: Points,
) -> Array:
    """Draw a form; return its ink (h, w) in [0, 1], cropped to its box.

    Args:
        form: smooth strokes and straight ones.
        size: height of the form's unit box in pixels.
        aspect: width of that box, as a fraction of its height.
        slant: tangent of the angle by which upright strokes lean to the right.
        pen: width of the pen in pixels.
        shake: standard deviation of each point, as a fraction of the size.
        rng: random generator of the shake.
        bend: exponents of x and y in the box; above 1 the right and the lower part grow.
    """
    turn = np.array([[aspect, 0.0], [-slant, 1.0]]) * size
    ways = []
    for k, stroke in enumerate((*form.smooth, *form.straight)):
        shaken = stroke + rng.normal(0, shake, stroke.shape)
        bent = np.sign(shaken) * np.abs(shaken) ** bend
        way = (bent - [0, 0.5]) @ turn
        ways.append(spline(way) if k < len(form.smooth) and len(way) > 2 else way)
    ends = np.concatenate(ways)
    low = ends.min(0) - pen
    wide, high = np.ceil(ends.max(0) - low + pen).astype(int)
    sheet = np.zeros((2 * high + 2, 2 * wide + 2), np.uint8)  # twice the size, for half pixels
    for way in ways:
        where = ((way - low) * 2 * 16).round().astype(np.int32)
        cv2.polylines(sheet, [where], False, 255, max(1, round(2 * pen)), cv2.LINE_AA, 4)
    ink = cv2.resize(sheet, (wide + 1, high + 1), interpolation=cv2.INTER_AREA)
    return ink.astype(np.float32) / 255
