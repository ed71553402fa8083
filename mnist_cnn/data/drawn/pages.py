"""Synthetic pages like those people have, not for training: forms, tables, dates, prices, sums.

Digits are the first 12,000 of MNIST's training file, on four fifths of which the reader was
trained; signs are strokes of the same pen, drawn from one seed.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

from mnist_cnn.data.drawn.photographs import digits_of


def circle(x: float, y: float, width: float = 0.34) -> list[tuple[float, float]]:
    """Return a small circle around a point, as a stroke."""
    angles = np.linspace(0, 2 * np.pi, 13)
    return [(x + width / 2 * np.sin(a), y - 0.2 * np.cos(a)) for a in angles]


# strokes of signs in a unit box that stands on the digits' baseline; and the width, as a fraction
# of a digit's height
SIGNS: dict[str, tuple[list[list[tuple[float, float]]], float]] = {
    "+": ([[(0, 0.5), (1, 0.5)], [(0.5, 0.2), (0.5, 0.8)]], 0.6),
    "-": ([[(0, 0.5), (1, 0.5)]], 0.45),
    "=": ([[(0, 0.38), (1, 0.38)], [(0, 0.62), (1, 0.62)]], 0.55),
    "×": ([[(0, 0.25), (1, 0.75)], [(0, 0.75), (1, 0.25)]], 0.5),
    "÷": ([[(0, 0.5), (1, 0.5)], [(0.5, 0.25), (0.5, 0.26)], [(0.5, 0.74), (0.5, 0.75)]], 0.55),
    "/": ([[(0, 1.1), (1, -0.15)]], 0.45),
    "(": ([[(1, -0.1), (0.3, 0.15), (0, 0.5), (0.3, 0.85), (1, 1.1)]], 0.25),
    ")": ([[(0, -0.1), (0.7, 0.15), (1, 0.5), (0.7, 0.85), (0, 1.1)]], 0.25),
    ".": ([[(0.5, 0.97), (0.5, 0.98)]], 0.2),
    ",": ([[(0.6, 0.95), (0.3, 1.2)]], 0.2),
    ":": ([[(0.5, 0.3), (0.5, 0.31)], [(0.5, 0.8), (0.5, 0.81)]], 0.2),
    "%": ([circle(0.2, 0.2), circle(0.8, 0.8), [(0.2, 1), (0.8, 0)]], 0.75),
    "°": ([circle(0.5, 0.2, 1)], 0.3),
    "#": (
        [
            [(0.4, 0), (0.25, 1)],
            [(0.75, 0), (0.6, 1)],
            [(0, 0.35), (1, 0.35)],
            [(0, 0.65), (1, 0.65)],
        ],
        0.65,
    ),
}


class Pen:
    """Pen that writes digits and signs on a sheet: float32 (H, W), 1 where the ink is."""

    def __init__(self, rng: Generator, height: int, width: int):
        self.images, self.labels = digits_of("val")
        self.rng, self.ink = rng, np.zeros((height, width), np.float32)

    def digit(self, digit: str, left: float, top: float, size: int) -> float:
        """Write a digit whose longer side has that size; return its right end."""
        image = self.images[self.rng.choice(np.flatnonzero(self.labels == int(digit)))]
        x, y, w, h = cv2.boundingRect(image)
        wide, high = (max(2, round(side * size / max(w, h))) for side in (w, h))
        own = cv2.resize(image[y : y + h, x : x + w] / np.float32(255), (wide, high), None, 0, 0, 2)
        foot = round(top) + size
        place = self.ink[foot - high : foot, round(left) : round(left) + wide]
        np.maximum(place, (own.clip(0, 1) * 1.6 - 0.3).clip(0, 1), out=place)
        return left + wide

    def line(self, points: list[tuple[float, float]], pen: int) -> None:
        where = (np.array(points) * 16).round().astype(np.int32)
        cv2.polylines(self.ink, [where], False, 1.0, pen, cv2.LINE_AA, 4)

    def text(self, text: str, left: float, top: float, size: int) -> float:
        """Write digits and signs in a row and return its right end."""
        pen = max(2, round(size / 10))
        for sign in text:
            if sign.isdigit():
                left = self.digit(sign, left, top, size)
            else:
                strokes, wide = SIGNS[sign]
                wide *= self.rng.uniform(0.85, 1.15)
                for stroke in strokes:
                    shaken = self.rng.normal(0, 0.02, (len(stroke), 2)) + stroke
                    self.line(
                        [(left + x * wide * size, top + y * size) for x, y in shaken.tolist()],
                        pen if len(stroke) > 2 or stroke[0][0] != stroke[1][0] or sign == "+"
                        else round(1.6 * pen),
                    )  # fmt: skip
                left += wide * size
            left += self.rng.uniform(0.15, 0.35) * size
        return left

    def picture(self) -> Image.Image:
        """Render the sheet like a scan or a photograph."""
        rng = self.rng
        turn = cv2.getRotationMatrix2D((self.ink.shape[1] / 2, self.ink.shape[0] / 2), 0, 1)
        turn[:, :2] += np.array([[0, 1], [-1, 0]]) * np.tan(np.radians(rng.uniform(-1, 1)))
        ink = cv2.warpAffine(self.ink, turn, self.ink.shape[::-1])
        ink = cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.3, 1.0))
        paper = rng.uniform(200, 250) - rng.uniform(120, 190) * ink
        return Image.fromarray((paper + rng.normal(0, 3, ink.shape)).clip(0, 255).astype(np.uint8))


def numbers(rng: Generator, low: int, high: int) -> str:
    return "".join(map(str, rng.integers(0, 10, int(rng.integers(low, high + 1)))))


def grid(rng: Generator, rows: int, columns: int, filled: float, most: int) -> tuple[Pen, str]:
    """Draw a table; return the pen and the text, in the format of `written`."""
    size = int(rng.integers(30, 56))
    side = round(size * rng.uniform(1.4, 2.0))
    wide = side if most == 1 else round(size * 1.1 * most + side)
    pen = Pen(rng, rows * side + 80, columns * wide + 80)
    rule = int(rng.integers(1, 4))
    for n in range(rows + 1):
        y = 40 + n * side
        pen.line(
            [(40, y), (40 + columns * wide, y)], rule + (most == 1 and rows == 9 and n % 3 == 0)
        )
    for n in range(columns + 1):
        x = 40 + n * wide
        pen.line([(x, 40), (x, 40 + rows * side)], rule + (most == 1 and rows == 9 and n % 3 == 0))
    texts = [
        [numbers(rng, 1, most) if rng.random() < filled else "" for _ in range(columns)]
        for _ in range(rows)
    ]
    for n, row in enumerate(texts):
        for k, text in enumerate(row):
            left = 40 + k * wide + (wide - size * len(text)) * rng.uniform(0.35, 0.6)
            top = 40 + n * side + (side - size) * rng.uniform(0.3, 0.7)
            pen.text(text, left, top, size)
    lines = []
    for row in texts:
        joint = "" if max(map(len, row)) < 2 else " | "
        lines.append(joint.join(text or " " for text in row))
    return pen, "\n".join(lines)


def row(rng: Generator, text: str, below: bool = False) -> tuple[Pen, str]:
    size = int(rng.integers(40, 90))
    pen = Pen(rng, size * 3, round(size * (len(text) + 3)))
    right = pen.text(text, size, size, size)
    if below:
        y = 2 * size + rng.uniform(-0.04, 0.15) * size
        slope = rng.uniform(-0.02, 0.02) * (right - size)
        pen.line([(0.8 * size, y), (right, y + slope)], max(2, round(size / rng.uniform(10, 25))))
    return pen, text


def crossed_out(rng: Generator) -> tuple[Pen, str]:
    """Write a row of digits, one of them crossed out."""
    size, text = int(rng.integers(40, 90)), numbers(rng, 3, 6)
    pen, which = Pen(rng, size * 3, size * (len(text) + 3)), int(rng.integers(len(text)))
    start = pen.text(text[:which], size, size, size)
    end = pen.text(text[which], start, size, size)
    pen.text(text[which + 1 :], end, size, size)
    for _ in range(int(rng.integers(3, 6))):
        x = rng.uniform(start, end - 0.3 * size, 2)
        y = size * rng.uniform([0.9, 1.6], [1.4, 2.1])
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), max(2, round(size / 10)))
    return pen, f"{text[:which]}?{text[which + 1 :]}"


def date(rng: Generator) -> str:
    sign = "/" if rng.random() < 0.6 else str(rng.choice([".", "-"]))
    return sign.join((f"{rng.integers(1, 32)}", f"{rng.integers(1, 13):02}", numbers(rng, 4, 4)))


def phone(rng: Generator) -> str:
    forms = ["+{}-{}-{}".format, "({}){}-{}".format, "{}/{}-{}".format]
    return forms[rng.integers(3)](numbers(rng, 2, 3), numbers(rng, 3, 3), numbers(rng, 3, 4))


def price(rng: Generator) -> str:
    return f"{numbers(rng, 1, 3)}{rng.choice(['.', ','])}{numbers(rng, 2, 2)}"


def total(rng: Generator) -> str:
    a, b, c = numbers(rng, 1, 2), numbers(rng, 1, 2), numbers(rng, 1, 3)
    return f"{a}{rng.choice(list('+-×÷'))}{b}={c}"


def percent(rng: Generator) -> str:
    return f"{numbers(rng, 1, 3)}%"


KINDS: dict[str, Callable[[Generator], tuple[Pen, str]]] = {
    "boxes": lambda rng: grid(rng, 1, int(rng.integers(4, 10)), 1, 1),
    "sudoku": lambda rng: grid(rng, 9, 9, 0.4, 1),
    "tables": lambda rng: grid(rng, int(rng.integers(3, 7)), int(rng.integers(2, 6)), 0.9, 3),
    "dates": lambda rng: row(rng, date(rng)),
    "phones": lambda rng: row(rng, phone(rng)),
    "prices": lambda rng: row(rng, price(rng)),
    "sums": lambda rng: row(rng, total(rng)),
    "underlines": lambda rng: row(rng, numbers(rng, 2, 6), below=True),
    "shadows": lambda rng: row(rng, numbers(rng, 2, 6)),
    "percents": lambda rng: row(rng, percent(rng)),
    "hashes": lambda rng: row(rng, f"#{numbers(rng, 1, 3)}"),
    "degrees": lambda rng: row(rng, f"{numbers(rng, 2, 2)}°"),
    "crossed out": crossed_out,
}


def page(kind: str, seed: int) -> tuple[Image.Image, str]:
    """Draw a page of a kind; return the picture and its text."""
    rng = np.random.default_rng((seed, list(KINDS).index(kind)))
    pen, text = KINDS[kind](rng)
    picture = pen.picture()
    if kind == "shadows":  # with a hard edge, across the sheet at any angle
        y, x = np.mgrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
        angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
        dark = np.where(x * np.cos(angle) + y * np.sin(angle) > edge, rng.uniform(0.5, 0.8), 1)
        light = cv2.GaussianBlur(dark, (0, 0), 1)
        picture = Image.fromarray((np.asarray(picture) * light).astype(np.uint8))
    return picture, text


def common(one: str, other: str) -> int:
    """Return the length of the longest common subsequence."""
    best = np.zeros(len(other) + 1, int)
    for sign in one:
        same = np.array([sign == each for each in other], bool)
        longer = np.maximum(best[1:], (best[:-1] + 1) * same)
        best[1:] = np.maximum.accumulate(longer)
    return int(best[-1])
