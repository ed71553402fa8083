"""Negatives: drawings without a digit, generated differently from those in training.

Letters use the fonts STIX and Computer Modern, which come with Matplotlib, distorted and written
with other pens than the letters of synthetic pages. Scribbles are Lissajous curves, hatchings and
waves, drawn by other rules than those of training, and polygons as there, with fewer corners.
"""

import string
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mnist_cnn.data.fonts import load_font

ALIKE = "OoIlSsZzBgq"  # letters that some people write like a digit
SIDE = 240  # side of a drawing, in pixels


def letters(rng: Generator, alphabet: str) -> Iterator[Image.Image]:
    """Yield letters without end, one per sheet."""
    stix = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic")
    names = (*stix, "cmr10", "cmss10", "cmtt10", "cmti10")
    made = [load_font(name, 130) for name in names]
    while True:
        sheet = Image.new("L", (SIDE, SIDE))
        letter = alphabet[rng.integers(len(alphabet))]
        middle = (SIDE / 2, SIDE / 2)
        ImageDraw.Draw(sheet).text(middle, letter, 255, made[rng.integers(len(made))], "mm")
        yield _written(np.asarray(sheet), rng)


def scribbles(rng: Generator) -> Iterator[Image.Image]:
    """Yield scribbles without end."""
    t = np.linspace(0, 2 * np.pi, 400)
    while True:
        sheet = np.zeros((SIDE, SIDE), np.uint8)
        kind = rng.integers(4)
        if kind == 0:  # Lissajous
            a, b = rng.permutation(np.arange(2, 7))[:2]
            curves = [np.stack([np.sin(a * t + rng.uniform(0, 3)), np.sin(b * t)], 1)]
        elif kind == 1:  # a hatching
            y = np.linspace(-1, 1, int(rng.integers(6, 16)))
            curves = [
                np.stack([np.where(np.arange(len(y)) % 2, 1, -1) * rng.uniform(0.3, 1), y], 1)
            ]
        elif kind == 2:  # a closed polygon
            corners = rng.uniform(-1, 1, (int(rng.integers(5, 10)), 2))
            curves = [np.concatenate([corners, corners[:1]])]
        else:  # waves across each other
            curves = [
                np.stack([t / np.pi - 1, np.sin(rng.uniform(3, 9) * t) * rng.uniform(0.2, 1)], 1)
                @ np.array([[np.cos(w), np.sin(w)], [-np.sin(w), np.cos(w)]])
                for w in rng.uniform(0, 3, int(rng.integers(2, 4)))
            ]
        for curve in curves:
            points = (curve * rng.uniform(0.5, 1, 2) * 60 + SIDE / 2).round().astype(np.int32)
            cv2.polylines(sheet, [points], False, 255, int(rng.integers(4, 12)), cv2.LINE_AA)
        yield _written(sheet, rng)


def doodles(rng: Generator) -> Iterator[Image.Image]:
    """Yield doodles without end, as drawn on a phone: tangles, hearts, houses, faces and arrows."""
    t = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.sin(t), np.cos(t)], 1)
    heart = np.stack([np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t)) / 16], 1)
    wall = np.array([[-1, 0], [-1, 1], [1, 1], [1, 0], [-1, 0], [0, -1], [1, 0]], float)
    door = np.array([[-0.2, 1], [-0.2, 0.4], [0.2, 0.4], [0.2, 1]])
    smile = np.stack([0.5 * np.sin(t / 4 - np.pi / 4), 0.5 * np.cos(t / 4 - np.pi / 4)], 1)
    face = [circle, smile, *(circle * 0.08 + [x, -0.3] for x in (-0.35, 0.35))]
    arrow = [np.array([[-1, 0], [1, 0.0]]), np.array([[0.5, -0.4], [1, 0], [0.5, 0.4]])]
    while True:
        sheet = np.zeros((SIDE, SIDE), np.uint8)
        kind = rng.integers(5)
        curves = ([], [heart], [wall, door], face, arrow)[kind]
        if kind == 0:  # a randomly pushed point on a spring
            place, speed, way = np.zeros(2), np.zeros(2), []
            for _ in range(int(rng.integers(200, 500))):
                speed += rng.normal(0, 0.02, 2) - 0.01 * place
                place = place + 0.4 * speed
                way.append(place)
            curves = [np.array(way) / np.abs(way).max()]
        size, pen = rng.uniform(40, 80, 2), int(rng.integers(4, 12))
        for curve in curves:
            shaken = curve + rng.normal(0, 0.04, 2)
            points = (shaken * size + SIDE / 2).round().astype(np.int32)
            cv2.polylines(sheet, [points], False, 255, pen, cv2.LINE_AA)
        yield _written(sheet, rng)


def gradients(rng: Generator) -> Iterator[Image.Image]:
    """Yield gradients of light without end, linear in any direction or around a point."""
    y, x = np.mgrid[-1:1:240j, -1:1:240j]
    while True:
        angle = rng.uniform(0, 6.3)
        along = x * np.cos(angle) + y * np.sin(angle)
        along = along if rng.random() < 0.6 else np.hypot(x - rng.uniform(-1, 1), y)
        low, high = rng.uniform(0, 255, 2)
        yield Image.fromarray(
            (low + (high - low) * (along / 2 + 0.5)).clip(0, 255).astype(np.uint8)
        )


def blanks(rng: Generator) -> Iterator[Image.Image]:
    """Yield sheets of one colour without end, with camera noise."""
    while True:
        sheet = rng.normal(rng.uniform(0, 255), rng.uniform(0, 8), (SIDE, SIDE))
        yield Image.fromarray(sheet.clip(0, 255).astype(np.uint8))


def _written(strokes: NDArray[Any], rng: Generator) -> Image.Image:
    """Warp and slightly rotate strokes (SIDE, SIDE), and draw them dark on light paper."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    bend = [cv2.resize(rng.normal(0, 4, (4, 4)), (SIDE, SIDE), interpolation=2) for _ in "xy"]
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), rng.uniform(-8, 8), 1)
    strokes = cv2.warpAffine(strokes, turn, (SIDE, SIDE))
    strokes = cv2.remap(strokes, x + np.float32(bend[0]), y + np.float32(bend[1]), 1)
    paper = rng.normal(225, 3, strokes.shape)
    return Image.fromarray((paper * (1 - 0.8 * strokes / 255.0)).clip(0, 255).astype(np.uint8))


# endless drawings of each kind
KINDS: dict[str, Callable[[Generator], Iterator[Image.Image]]] = {
    "letters": partial(letters, alphabet="".join(sorted({*string.ascii_letters} - {*ALIKE}))),
    f"the letters {ALIKE}": partial(letters, alphabet=ALIKE),
    "scribbles": scribbles,
    "doodles": doodles,
    "gradients": gradients,
    "blanks": blanks,
}
