"""A page being drawn: its ink, its ruled lines and the characters on it."""

from dataclasses import dataclass, field

import numpy as np

from mnist_cnn.data.synthetic import clutter
from mnist_cnn.data.synthetic.strokes import Array

HEIGHT, WIDTH = 128, 160  # of a page, in pixels
SIGNS = "+-×÷=/().,:%$#°"
OTHER = "?"  # other writing: letters, crossed-out and overwritten digits
SYMBOLS = "0123456789" + SIGNS + OTHER  # by class
STRIDE = 4  # pixels per cell of the maps of a page
SIZES = (20, 44)  # range of digit heights to detect, in pixels; others are ignored

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Mark:
    """A character on a page: its symbol, its box and the height of its hand's digits."""

    symbol: str
    box: Box
    size: float
    line: int = 0  # line of the text, from 0


@dataclass
class Page:
    """The ink (H, W) of a page in [0, 1], its ruled lines (H, W), and its characters."""

    ink: Array
    rules: Array
    marks: list[Mark] = field(default_factory=list)
    line: int = 0  # line being written

    @classmethod
    def empty(cls, height: int = HEIGHT, width: int = WIDTH) -> "Page":
        return cls(np.zeros((height, width), np.float32), np.zeros((height, width), np.float32))

    def draw(self, glyph: Array, left: float, top: float, strength: float = 1.0) -> Box | None:
        """Draw ink (h, w), and return the box of what is on the page, if anything is."""
        height, width = self.ink.shape
        x, y = round(left), round(top)
        h, w = glyph.shape
        t, b, l, r = max(0, y), min(height, y + h), max(0, x), min(width, x + w)  # noqa: E741
        if r <= l or b <= t:
            return None
        place = self.ink[t:b, l:r]
        np.maximum(place, glyph[t - y : b - y, l - x : r - x] * strength, out=place)
        return l, t, r, b

    def put(
        self, glyph: Array, left: float, top: float, symbol: str, size: float, strength: float = 1.0
    ) -> None:
        """Draw a character's ink and mark it, without a symbol if much of it is off the page."""
        seen = self.draw(glyph, left, top, strength)
        if seen is None:
            return
        x, y = round(left), round(top)
        h, w = glyph.shape
        l, t, r, b = seen  # noqa: E741
        if (r - l) * (b - t) > 0.75 * w * h:
            self.marks.append(Mark(symbol, (x, y, x + w, y + h), size, self.line))
        else:  # a part of a character is ambiguous: neither a positive nor a negative
            self.marks.append(Mark("", seen, size, self.line))

    def rule(self, points: list[tuple[float, float]], pen: float, strength: float) -> None:
        """Draw a ruled line."""
        way = np.array(points, np.float64)
        clutter.add_line(self.ink, way, pen, strength)
        clutter.add_line(self.rules, way, max(2.0, pen), 1.0)
