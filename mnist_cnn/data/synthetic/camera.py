"""Distortions of a page: rotation, edges, patterns, low resolution, blur, noise."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.random import Generator

from mnist_cnn.data.synthetic import clutter
from mnist_cnn.data.synthetic.sheet import Page


def finish(made: Page, size: float, rng: Generator) -> None:
    """Warp and rotate the page slightly, add clutter, and simulate a camera, in place."""
    height, width = made.ink.shape
    if rng.random() < 0.4:
        buckle(made, rng)
    if rng.random() < 0.4:
        turn(made, rng.normal(0, 4))
    if rng.random() < 0.06:  # a fold, or the edge of the sheet
        clutter.edge(rng, made.ink)
    if rng.random() < 0.3:
        clutter.pattern(rng, made.ink)
    if rng.random() < 0.08:  # the other side of the sheet shows through
        through = cv2.GaussianBlur(made.ink[:, ::-1], (0, 0), rng.uniform(0.8, 2))
        shifted = np.roll(through, rng.integers(-30, 30, 2), (0, 1))
        np.maximum(made.ink, shifted * np.float32(rng.uniform(0.1, 0.3)), out=made.ink)
    if rng.random() < 0.15:
        clutter.speckle(rng, made.ink)
    r = rng.random()
    if r < 0.2:  # ruled lines unrelated to the text
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(0, 1, 2) * (width, height)
            ends = (
                [(-5, y), (width + 5, y + rng.normal(0, 4))]
                if rng.random() < 0.6
                else [(x, -5), (x + rng.normal(0, 4), height + 5)]
            )
            made.rule(ends, rng.uniform(1, max(1.5, size / 10)), rng.uniform(0.2, 1.1))
    elif r < 0.24:
        square(made, size, rng)
    ink = made.ink
    if rng.random() < 0.2:  # low resolution
        coarse = rng.random() < 0.2  # a digit has as few rows as can be read
        zoom = min(0.9, rng.uniform(7, 12) / size) if coarse else rng.uniform(0.3, 0.9)
        small = cv2.resize(
            ink, (round(width * zoom), round(height * zoom)), interpolation=cv2.INTER_AREA
        )
        ink = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    blur = rng.uniform(0.25, 1.1) if rng.random() < 0.9 else rng.uniform(1.1, 2)
    ink = cv2.GaussianBlur(ink, (0, 0), blur)
    if rng.random() < 0.3:  # sharpened, as by phones
        ink = ink + rng.uniform(0.3, 1.2) * (ink - cv2.GaussianBlur(ink, (0, 0), 1.5))
    if rng.random() < 0.35:  # the pen or the paper is uneven
        ink = ink * (1 + rng.uniform(0.03, 0.25) * clutter.grain(rng, ink.shape, rng.uniform(1, 4)))
    ink = ink * rng.uniform(0.6, 1.15)
    noise = rng.uniform(0, 0.03) if rng.random() < 0.7 else rng.uniform(0.03, 0.1)
    ink = ink + noise * rng.standard_normal(ink.shape, np.float32)
    if rng.random() < 0.3:
        ink = ink + rng.uniform(0, 0.06) * clutter.grain(rng, ink.shape, rng.uniform(2, 12))
    ink = np.clip(ink, 0, 1).astype(np.float32)
    if rng.random() < 0.15:  # JPEG artifacts
        _, file = cv2.imencode(
            ".jpg",
            (255 * ink).astype(np.uint8),
            (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 75))),
        )
        ink = cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) / np.float32(255)
    made.ink = ink
    if rng.random() < 0.15:
        crop(made, rng)
    if rng.random() < 0.02:  # light on dark, taken for dark on light: a negative
        made.ink, made.rules, made.marks = 1 - made.ink, np.zeros_like(made.rules), []


def square(made: Page, size: float, rng: Generator) -> None:
    """Rule a page into squares whose sides do not depend on its text, in place."""
    height, width = made.ink.shape
    side = size * rng.uniform(0.4, 1.6)
    pen, strength = rng.uniform(1, max(1.5, size / 16)), rng.uniform(0.15, 0.7)
    slope = rng.normal(0, 0.03)
    dx, dy = width * slope, height * slope
    for y in np.arange(-abs(dx) - side * rng.random(), height + abs(dx), side):
        made.rule([(-5, y), (width + 5, y + dx)], pen, strength)
    for x in np.arange(-abs(dy) - side * rng.random(), width + abs(dy), side):
        made.rule([(x, -5), (x - dy, height + 5)], pen, strength)


def crop(made: Page, rng: Generator) -> None:
    """Crop a page to a random rectangle, with blank paper around it."""
    height, width = made.ink.shape
    left, right = sorted(rng.uniform(-0.2, 1.2, 2) * width)
    top, bottom = sorted(rng.uniform(-0.2, 1.2, 2) * height)
    if right - left < 0.3 * width or bottom - top < 0.3 * height:
        return
    left, right = np.clip([left, right], 0, width)
    top, bottom = np.clip([top, bottom], 0, height)
    inside = np.zeros_like(made.ink)
    inside[int(top) : int(bottom), int(left) : int(right)] = 1
    made.ink, made.rules = made.ink * inside, made.rules * inside
    marks, made.marks = made.marks, []
    made.mark(*marks, box=(left, top, right, bottom))


def buckle(made: Page, rng: Generator) -> None:
    """Warp a page slightly, strokes included; boxes stay, as the shifts are small."""
    height, width = made.ink.shape
    coarse = round(height / rng.uniform(10, 40)) + 2, round(width / rng.uniform(10, 40)) + 2
    shift = rng.normal(0, rng.uniform(0.4, 1.6), (2, *coarse)).astype(np.float32)
    dx, dy = (cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in shift)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    made.ink = cv2.remap(made.ink, x + dx, y + dy, cv2.INTER_LINEAR)
    made.rules = cv2.remap(made.rules, x + dx, y + dy, cv2.INTER_LINEAR)


def turn(made: Page, degrees: float) -> None:
    """Rotate a page and its boxes about its centre."""
    height, width = made.ink.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    made.ink = cv2.warpAffine(made.ink, matrix, (width, height))
    made.rules = cv2.warpAffine(made.rules, matrix, (width, height))
    marks, made.marks = made.marks, []
    lean = abs(np.sin(np.radians(degrees)))
    for mark in marks:
        left, top, right, bottom = mark.box
        x, y = matrix @ [(left + right) / 2, (top + bottom) / 2, 1]
        # ink seldom fills the corners of its box
        w = (right - left) + 0.5 * lean * (bottom - top)
        h = (bottom - top) + 0.5 * lean * (right - left)
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        made.mark(replace(mark, box=box))
