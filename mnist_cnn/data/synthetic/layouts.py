"""How writing stands on a page: in rows, grids, tables and boxes, or anywhere."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

from mnist_cnn.data.synthetic import clutter
from mnist_cnn.data.synthetic.characters import (
    EASTERN,
    LATIN,
    LETTERS,
    TWINS,
    WESTERN,
    Hand,
    Sources,
)
from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, Mark, Page
from mnist_cnn.data.synthetic.strokes import spline
from mnist_cnn.data.synthetic.texts import SHARES, TEXTS, digits

POWERS = {"²": "2", "³": "3"}


@dataclass(frozen=True)
class Pen:
    """What the layouts write with."""

    rng: Generator
    sources: Sources
    page: Page
    size: float
    strength: float = 1.0

    def hand(self, size: float | None = None, source: str | None = None) -> Hand:
        return Hand.any(self.rng, self.sources, size or self.size, source)

    def text(
        self,
        hand: Hand,
        text: str,
        left: float,
        middle: float,
        slope: float = 0.0,
        gaps: tuple[float, float] = (0.0, 0.5),
    ) -> float:
        """Write a text and return where it ends.

        Args:
            hand: who writes it.
            text: digits, signs, letters and spaces.
            left: where it begins.
            middle: height of the line's middle there.
            slope: of the line, downwards.
            gaps: between two characters, as fractions of the size; below 0 they overlap.
        """
        rng, size, start = self.rng, hand.size, left
        drift = rng.uniform(0, 0.07) if rng.random() < 0.8 else rng.uniform(0.07, 0.15)
        before: tuple[float, float, float, float] | None = None  # the box of what it may join
        for character in text:
            if character == " ":
                left, before = left + size * rng.uniform(0.4, 1.2), None
                continue
            if character in POWERS:  # a small digit, raised
                small = self.hand(size * rng.uniform(0.45, 0.62), hand.source)
                glyph = small.write(POWERS[character], self.sources, rng)
                top = middle + slope * (left - start) - size * rng.uniform(0.55, 0.75)
                self.page.put(glyph, left, top, POWERS[character], small.size, self.strength)
                left += glyph.shape[1] + rng.uniform(0, 0.2) * size
                continue
            glyph = hand.write(character, self.sources, rng)
            h, w = glyph.shape
            foot = middle + 0.5 * size + slope * (left - start) + rng.normal(0, drift) * size
            top = (
                foot - h
                if character.isdecimal() or character in LETTERS or character in TWINS
                else self._sign_top(character, foot, size, h)
            )
            gap = rng.uniform(*gaps) * size
            if character in ".,:" or (character == "-" and rng.random() < 0.3):
                gap = rng.uniform(-0.12, 0.25) * size  # near the digit before
            symbol = character if character.isdecimal() or character in SIGNS else OTHER
            place = left + (gap if character in ".,:" else 0)
            self.page.put(glyph, place, top, symbol, size, self.strength)
            box = place, top, place + w, top + h
            if before and rng.random() < (hand.joins if character.isdecimal() else hand.cursive):
                self._join(before, box, hand.pen)
            before = None if hand.source == "font" or symbol in SIGNS else box
            left = place + w + (rng.uniform(-0.1, 0.25) * size if character in ".,:" else gap)
        return left

    def _join(
        self,
        one: tuple[float, float, float, float],
        other: tuple[float, float, float, float],
        pen: float,
    ) -> None:
        """Draw the stroke of a pen that was not lifted between two digits."""
        rng = self.rng
        start = one[2] - rng.uniform(0, 0.3) * (one[2] - one[0]), rng.uniform(one[1], one[3])
        end = other[0] + rng.uniform(0, 0.3) * (other[2] - other[0]), rng.uniform(*other[1::2])
        middle = (np.add(start, end) + rng.normal(0, 0.15, 2) * (one[3] - one[1])) / 2
        way = spline(np.array([start, middle, end]))
        clutter.add_line(self.page.ink, way, pen * rng.uniform(0.5, 1), self.strength)

    def _sign_top(self, sign: str, foot: float, size: float, h: int) -> float:
        rng = self.rng
        if sign == ".":
            return foot - h * rng.uniform(0.3, 1.1) - size * rng.uniform(0, 0.1)
        if sign == ",":
            return foot - size * rng.uniform(0.02, 0.2)
        if sign == "°":
            return foot - size * rng.uniform(0.95, 1.2)
        if sign == ":":
            return foot - h - size * rng.uniform(0, 0.2)
        # signs stand around the middle of the digits
        return foot - size * rng.uniform(0.4, 0.6) - h / 2


def rows(pen: Pen, kind: str | None = None) -> None:
    """Write lines of text, one below the other, some on ruled lines."""
    rng, page = pen.rng, pen.page
    height, width = page.ink.shape
    slope = rng.normal(0, 0.04)
    how = rng.choice(["apart", "tight", "touching"], p=[0.4, 0.3, 0.3])
    room = 2.0 if rng.random() < 0.3 else 1.0  # a page full of writing teaches more
    step = pen.size * rng.uniform(1.1, 0.7 + 0.8 * room)
    middle = rng.uniform(0, 0.9) * pen.size
    middle += rng.uniform(0, height / 2) if rng.random() < 0.15 * room else 0
    ruled = rng.random() < 0.3
    foot, rule = rng.uniform(0.45, 0.75), rng.uniform(1, max(1.2, pen.size / 14))
    strength = rng.uniform(0.2, 1.1)
    hand = pen.hand()
    overlap = rng.uniform(0.05, 0.25)
    alone = rng.random() < 0.2  # a number on an empty page
    if alone:
        middle, step = rng.uniform(0.1, 0.9) * height, height
    while middle < height + 0.3 * pen.size:
        if rng.random() < 0.25:
            hand = pen.hand()
        left = rng.uniform(0, 0.6) * width if alone else rng.uniform(-0.4, 0.75 * room) * pen.size
        while left < width:
            name = kind or str(rng.choice(list(TEXTS), p=SHARES))
            gaps = gaps_of(rng, how, overlap)
            left = pen.text(hand, TEXTS[name](rng), left, middle + slope * left, slope, gaps)
            left += width if alone else pen.size * rng.uniform(0.4, 1.3 * room)
        if ruled:
            y = middle + foot * pen.size
            end = y + slope * width * rng.uniform(0, 1.3)
            page.rule([(-5, y), (width + 5, end)], rule, strength)
        middle += step


def gaps_of(rng: Generator, how: str, overlap: float = 0.15) -> tuple[float, float]:
    """Draw how far characters stand from each other, least and most, as `Pen.text` takes it."""
    if how == "touching":
        low = rng.uniform(-0.2, -0.02)
        return low, low + 0.1
    low = rng.uniform(-overlap, 0.0) if how == "tight" else rng.uniform(0, 0.3)
    return low, low + rng.uniform(0.05, 0.2 if how == "tight" else 0.9)


def grid(pen: Pen) -> None:
    """Write single digits into the cells of a grid, some cells with small notes, some empty."""
    rng, page = pen.rng, pen.page
    side = pen.size * rng.uniform(1.1, 2.0)
    across, down = side * rng.uniform(0.85, 1.2), side
    x0, y0 = rng.uniform(-1, 0.4) * across, rng.uniform(-1, 0.4) * down
    columns, lines = int(rng.integers(3, 12)), int(rng.integers(3, 12))
    thin, strength = rng.uniform(1, max(1.2, pen.size / 12)), rng.uniform(0.25, 1.2)
    thick, every = thin + rng.uniform(0, 3), int(rng.choice([3, 100]))
    slant, lean = rng.normal(0, 0.03, 2)

    def at(column: float, row: float) -> tuple[float, float]:
        x, y = x0 + column * across, y0 + row * down
        return x + lean * y, y + slant * x

    for n in range(lines + 1):
        rule = thick if n % every == 0 else thin
        page.rule([at(0, n), at(columns, n)], rule, strength)
    for n in range(columns + 1):
        rule = thick if n % every == 0 else thin
        page.rule([at(n, 0), at(n, lines)], rule, strength)
    printed, written = pen.hand(pen.size * rng.uniform(0.85, 1), "font"), pen.hand()
    share, filled = rng.choice([0, 0.5, 0.5, 1]), rng.uniform(0.3, 1)
    notes = rng.random() < 0.35
    for row in range(lines):
        for column in range(columns):
            if rng.random() > filled:
                if notes and rng.random() < 0.4:
                    small = pen.hand(
                        pen.size * rng.uniform(0.3, 0.55), "pen" if rng.random() < 0.6 else "mnist"
                    )
                    x, y = at(column + rng.uniform(0.05, 0.35), row + rng.uniform(0.2, 0.4))
                    pen.text(small, digits(rng, 1, 4), x, y, 0, (0, 0.2))
                continue
            hand = printed if rng.random() < share else written
            symbol = digits(rng, 1, 1)
            glyph = hand.write(symbol, pen.sources, rng)
            x, y = at(column + 0.5, row + 0.5)
            shake = rng.normal(0, 0.02 if hand is printed else 0.07, 2) * side
            page.put(
                glyph,
                x - glyph.shape[1] / 2 + shake[0],
                y - glyph.shape[0] / 2 + shake[1],
                symbol,
                hand.size,
                pen.strength,
            )


def table(pen: Pen) -> None:
    """Write numbers into a table, with or without its rules."""
    rng, page = pen.rng, pen.page
    height, width = page.ink.shape
    most = int(rng.integers(1, 5))
    across, down = pen.size * (0.9 * most + rng.uniform(0.4, 1)), pen.size * rng.uniform(1.15, 1.9)
    x0, y0 = rng.uniform(-0.5, 0.5) * pen.size, rng.uniform(-0.5, 0.5) * pen.size
    thin, strength = rng.uniform(1, 3), rng.uniform(0.25, 1.1)
    level, upright = rng.random(2) < 0.8
    if level:
        for y in np.arange(y0, height + down, down):
            page.rule([(x0, y), (width + 9, y)], thin, strength)
    if upright:
        for x in np.arange(x0, width + across, across):
            page.rule([(x, y0), (x, height + 9)], thin, strength)
    hand = pen.hand()
    kind = rng.choice(["digits", "amount"], p=[0.8, 0.2])
    for y in np.arange(y0, height, down):
        for x in np.arange(x0, width, across):
            if rng.random() < 0.85:
                if kind == "digits":
                    text = digits(rng, 1, most)
                else:
                    whole = digits(rng, 1, max(1, most - 1))
                    text = f"{whole}{rng.choice(['.', ','])}{digits(rng, 1, 2)}"
                left, middle = rng.uniform(0.05, 0.4) * pen.size, down * rng.uniform(0.4, 0.6)
                pen.text(hand, text, x + left, y + middle, 0, (0, 0.25))


def comb(pen: Pen) -> None:
    """Write digits into the boxes of forms, one each."""
    rng, page = pen.rng, pen.page
    height, width = page.ink.shape
    y = rng.uniform(-0.3, 0.5) * pen.size
    while y < height:
        side, apart = pen.size * rng.uniform(1.05, 1.7), pen.size * rng.choice([0, 0, 0.15, 0.4])
        tall = pen.size * rng.uniform(1.05, 1.7)
        x, hand = rng.uniform(-0.5, 0.7) * pen.size, pen.hand()
        rule, strength = rng.uniform(1, max(1.2, pen.size / 14)), rng.uniform(0.25, 1.1)
        end = x + side * rng.integers(3, 12)
        closed = rng.random() < 0.8  # else only a foot and ticks between digits
        while x < min(width, end):
            top = y if closed else y + 0.6 * tall
            page.rule(
                [(x, top), (x, y + tall), (x + side, y + tall), (x + side, top)], rule, strength
            )
            if closed:
                page.rule([(x, y), (x + side, y)], rule, strength)
            if rng.random() < 0.85:
                character = digits(rng, 1, 1)
                glyph = hand.write(character, pen.sources, rng)
                shake = rng.normal(0, 0.06, 2) * pen.size
                page.put(
                    glyph,
                    x + (side - glyph.shape[1]) / 2 + shake[0],
                    y + (tall - glyph.shape[0]) / 2 + shake[1],
                    character,
                    pen.size,
                    pen.strength,
                )
            x += side + apart
        y += tall + pen.size * rng.uniform(0.1, 0.8)


def scattered(pen: Pen) -> None:
    """Write characters anywhere, each by another hand, without touching."""
    rng, page = pen.rng, pen.page
    height, width = page.ink.shape
    for _ in range(1 if rng.random() < 0.4 else int(rng.integers(2, 17))):
        hand = pen.hand(pen.size * rng.uniform(0.8, 1.25))
        # a pen writes i as 1; a font writes it with its dot
        alphabet = WESTERN + 4 * "itxX" if hand.source == "font" else LATIN
        character = digits(rng, 1, 1) if rng.random() < 0.8 else str(rng.choice(list(alphabet)))
        glyph = hand.write(character, pen.sources, rng)
        h, w = glyph.shape
        for _ in range(8):
            x = -0.1 * w + rng.random() * max(0.0, width - 0.8 * w)
            y = -0.1 * h + rng.random() * max(0.0, height - 0.8 * h)
            taken = any(
                x < r + 3 and x + w > l - 3 and y < b + 3 and y + h > t - 3
                for l, t, r, b in (m.box for m in page.marks)  # noqa: E741
            )
            if not taken:
                symbol = character if character.isdecimal() else OTHER
                page.put(glyph, x, y, symbol, hand.size, pen.strength)
                break


def lone(pen: Pen) -> None:
    """Write one digit onto an empty sheet, most often a 1 of one upright stroke."""
    rng, page = pen.rng, pen.page
    height, width = page.ink.shape
    digit = "1" if rng.random() < 0.5 else digits(rng, 1, 1)
    hand = pen.hand(source="pen" if rng.random() < 0.5 else None)
    hand = replace(hand, usual={**hand.usual, "1": 0})  # the form of one stroke
    glyph = hand.write(digit, pen.sources, rng)
    h, w = glyph.shape
    left, top = rng.uniform(0.05, 0.95, 2) * (width - w, height - h)
    page.put(glyph, left, top, digit, hand.size, pen.strength)


def coarse(pen: Pen) -> None:
    """Write one digit of a few rows of pixels that is cut off at its edges onto an empty sheet."""
    rng, page = pen.rng, pen.page
    digit, hand = digits(rng, 1, 1), pen.hand()
    glyph = hand.write(digit, pen.sources, rng)
    h, w = glyph.shape
    rows = int(rng.integers(7, 13))
    size = max(2, round(w * rows / h * rng.uniform(0.8, 1.25))), rows
    few = cv2.resize(glyph, size, interpolation=cv2.INTER_AREA)
    few = few / few.max()
    if digit not in "0689" and rng.random() < 0.5:  # whose holes a wide pen would fill
        few = cv2.dilate(few, np.ones((1, 2)))
    zoom = hand.size / rows
    glyph = cv2.resize(few, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    left, top = rng.uniform(0.05, 0.95, 2) * (np.array(page.ink.shape) - glyph.shape)[::-1]
    page.put(glyph, left, top, digit, hand.size, pen.strength)


def no_digit(pen: Pen) -> None:
    """Put a letter, a scribble, a doodle or a blot onto an empty sheet."""
    rng, page = pen.rng, pen.page
    kinds = {"scribble": clutter.scribble, "doodle": clutter.doodle, "blot": clutter.blot}
    kind = str(rng.choice(["letter", *kinds], p=[0.35, 0.25, 0.15, 0.25]))
    middle = rng.uniform(0.35, 0.65, 2)
    if kind in kinds:
        kinds[kind](rng, page.ink, pen.size * 3 ** rng.random(), middle)
    else:
        hand = pen.hand()
        glyph = hand.write(str(rng.choice(list(WESTERN + EASTERN))), pen.sources, rng)
        left, top = middle * page.ink.shape[::-1] - np.array(glyph.shape[::-1]) / 2
        page.put(glyph, left, top, OTHER, hand.size, pen.strength)


def spoilt(pen: Pen) -> None:
    """Write rows in which characters are crossed out or overwritten."""
    rng, page = pen.rng, pen.page
    first = len(page.marks)
    rows(pen, "number" if rng.random() < 0.7 else "amount")
    for k in range(first, len(page.marks)):
        mark = page.marks[k]
        if not mark.symbol.isdecimal() or rng.random() > 0.2:
            continue
        left, top, right, bottom = mark.box
        w, h = right - left, bottom - top
        if rng.random() < 0.35:  # another digit over it
            hand = pen.hand(mark.size)
            glyph = hand.write(digits(rng, 1, 1), pen.sources, rng)
            shake = rng.normal(0, 0.1, 2) * mark.size
            x, y = left + (w - glyph.shape[1]) / 2 + shake[0], bottom - glyph.shape[0] + shake[1]
            box = (
                min(left, x),
                min(top, y),
                max(right, x + glyph.shape[1]),
                max(bottom, y + glyph.shape[0]),
            )
            page.draw(glyph, x, y, pen.strength)
        else:
            pen_width = max(1.0, mark.size * rng.uniform(0.05, 0.12))
            ends = []
            kind = rng.integers(5)
            if kind == 0:  # level strokes
                for _ in range(int(rng.integers(1, 4))):
                    ends.append(
                        [
                            (left - 0.2 * mark.size, rng.uniform(top, bottom)),
                            (right + 0.2 * mark.size, rng.uniform(top, bottom)),
                        ]
                    )
            elif kind == 1:  # steep ones
                for _ in range(int(rng.integers(2, 6))):
                    xs = rng.uniform(left - 0.1 * mark.size, right + 0.1 * mark.size, 2)
                    ys = rng.uniform([top - 0.1 * h, bottom - 0.3 * h], [top + 0.3 * h, bottom])
                    ends.append(list(zip(xs, ys, strict=True)))
            elif kind == 2:
                ends = [
                    [(left - 2, top - 2), (right + 2, bottom + 2)],
                    [(left - 2, bottom + 2), (right + 2, top - 2)],
                ]
            else:
                n = int(rng.integers(5, 14))
                pen_width *= 1 if kind == 3 else rng.uniform(1.5, 3)  # blackened
                xs = np.linspace(left, right, n)
                ends = [[(x, bottom if i % 2 else top) for i, x in enumerate(xs)]]
            if len(ends) == 1 and kind == 0:  # one level stroke through a digit may be its own
                ends.append(
                    [
                        (left - 0.25 * mark.size, top + 0.35 * h),
                        (right + 0.25 * mark.size, top + 0.7 * h),
                    ]
                )
            for points in ends:
                clutter.add_line(
                    page.ink,
                    np.array(points, np.float64) + rng.normal(0, 1, (len(points), 2)),
                    pen_width,
                    1.0,
                )
            box = (left - 0.15 * mark.size, top, right + 0.15 * mark.size, bottom)
        page.marks[k] = Mark(OTHER, box, mark.size).within(page.box) or mark


def letters(pen: Pen) -> None:
    """Write words, print or handwriting, without any digit."""
    rng = pen.rng
    rows(pen, "word" if rng.random() < 0.8 else "mixed")


def blank(pen: Pen) -> None:
    """Leave the page to clutter."""


LAYOUTS: dict[str, tuple[float, Callable[[Pen], None]]] = {
    "rows": (0.4, rows),
    "grid": (0.15, grid),
    "table": (0.12, table),
    "comb": (0.07, comb),
    "scattered": (0.10, scattered),
    "lone": (0.05, lone),
    "coarse": (0.04, coarse),
    "no digit": (0.12, no_digit),
    "spoilt": (0.08, spoilt),
    "letters": (0.08, letters),
    "blank": (0.1, blank),
}
