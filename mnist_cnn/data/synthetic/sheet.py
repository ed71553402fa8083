"""A page being drawn: its ink, its ruled lines and the characters on it."""

from dataclasses import dataclass, field, replace

import numpy as np

from mnist_cnn.data.synthetic import clutter
from mnist_cnn.data.synthetic.strokes import Array

HEIGHT, WIDTH = 128, 160  # of a page, in pixels
SIGNS = "+-×÷=/().,:%$#°"
OTHER = "?"  # other writing: letters, crossed-out and overwritten digits
SYMBOLS = "0123456789" + SIGNS + OTHER  # by class
STRIDE = 4  # pixels per cell of the maps of a page
WHOLE = 0.75  # minimum fraction of a character's box on the page for it to be a target
SIZES = (20, 44)  # pixels of the digits to detect; those near are ignored, others are background

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Mark:
    """A character on a page: its symbol, its box and the height of its hand's digits."""

    symbol: str
    box: Box
    size: float

    def within(self, box: Box) -> "Mark | None":
        """Return the mark of what is in a box, if anything is.

        A part of a character is ambiguous, neither a positive nor a negative: it has no symbol.
        """
        sides = list(zip(self.box, box, strict=True))
        left, top = (max(pair) for pair in sides[:2])
        right, bottom = (min(pair) for pair in sides[2:])
        if right <= left or bottom <= top:
            return None
        area = (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])
        if (right - left) * (bottom - top) > WHOLE * area:
            return self
        return replace(self, symbol="", box=(left, top, right, bottom))


@dataclass
class Page:
    """The ink (H, W) of a page in [0, 1], its ruled lines (H, W), and its characters."""

    ink: Array
    rules: Array
    marks: list[Mark] = field(default_factory=list)

    @classmethod
    def empty(cls, height: int = HEIGHT, width: int = WIDTH) -> "Page":
        return cls(np.zeros((height, width), np.float32), np.zeros((height, width), np.float32))

    def draw(self, glyph: Array, left: float, top: float, strength: float = 1.0) -> None:
        """Draw the ink (h, w) that is on the page."""
        height, width = self.ink.shape
        x, y = round(left), round(top)
        h, w = glyph.shape
        t, b, l, r = max(0, y), min(height, y + h), max(0, x), min(width, x + w)  # noqa: E741
        if r > l and b > t:
            place = self.ink[t:b, l:r]
            np.maximum(place, glyph[t - y : b - y, l - x : r - x] * strength, out=place)

    def put(
        self, glyph: Array, left: float, top: float, symbol: str, size: float, strength: float = 1.0
    ) -> None:
        """Draw a character's ink and mark it."""
        self.draw(glyph, left, top, strength)
        x, y = round(left), round(top)
        h, w = glyph.shape
        self.mark(Mark(symbol, (x, y, x + w, y + h), size))

    @property
    def box(self) -> Box:
        height, width = self.ink.shape
        return 0, 0, width, height

    def mark(self, *marks: Mark, box: Box | None = None) -> None:
        """Mark what is on the page of characters, or in a box of it."""
        seen = (mark.within(box or self.box) for mark in marks)
        self.marks += [mark for mark in seen if mark]

    def rule(self, points: list[tuple[float, float]], pen: float, strength: float) -> None:
        """Draw a ruled line."""
        way = np.array(points, np.float64)
        clutter.add_line(self.ink, way, pen, strength)
        clutter.add_line(self.rules, way, max(2.0, pen), 1.0)
