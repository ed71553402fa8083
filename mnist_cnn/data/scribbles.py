"""Scribbles, each of which is more than a digit: drawings for a network to learn to refuse."""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]  # (N, 2), x and y of a stroke; the unit is free


def scribbles(rng: Generator, n: int, side: int) -> Iterator[Image.Image]:
    """n drawings in white on black, side pixels each way, of pens of several widths."""
    kinds = (_tangle, _tangle, _zigzag, _zigzag, _coil, _knot, _rosette, _grid)
    for _ in range(n):
        strokes = kinds[rng.integers(len(kinds))](rng)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        sheet = Image.new("L", (side, side))
        draw = ImageDraw.Draw(sheet)
        pen = int(rng.integers(3, 9))
        for points in _fitted([stroke @ turn for stroke in strokes], rng, side):
            draw.line([tuple(point) for point in points.tolist()], 255, pen, joint="curve")
        yield sheet


def _fitted(strokes: list[Points], rng: Generator, side: int) -> list[Points]:
    """Strokes scaled to most of the sheet; half of them as wide as high."""
    ends = np.concatenate(strokes)
    low, extent = ends.min(0), np.maximum(np.ptp(ends, 0), 1e-6)
    if rng.random() < 0.5:
        extent[:] = extent.max()
    size = side * rng.uniform(0.5, 0.8, 2)
    return [(stroke - low - extent / 2) / extent * size + side / 2 for stroke in strokes]


def _tangle(rng: Generator) -> list[Points]:
    """Two to five strokes, where one alone may be a digit: curves, zigzags, lines, loops."""
    return [_any_stroke(rng) for _ in range(rng.integers(2, 6))]


def _any_stroke(rng: Generator) -> Points:
    kind = rng.integers(4)
    if kind == 0:  # a curve: its direction wanders
        turns = rng.normal(rng.normal(0, 0.15), rng.uniform(0.05, 0.6), 60).cumsum()
        steps = rng.uniform(1, 4) * np.stack([np.cos(turns), np.sin(turns)], 1)
        return rng.uniform(20, 64, 2) + steps[: rng.integers(15, 60)].cumsum(0)
    if kind == 1:  # a zigzag
        return rng.uniform(14, 70, (int(rng.integers(3, 9)), 2))
    if kind == 2:
        return rng.uniform(14, 70, (2, 2))
    # a loop around some point, not closed
    angle = rng.uniform(0, 6.3) + np.linspace(0, rng.uniform(2, 20), 50)
    inner, outer = rng.uniform(4, 26, 2).tolist()
    loop = np.stack([np.cos(angle), np.sin(angle)], 1) * np.linspace(inner, outer, 50)[:, None]
    return loop * rng.uniform(0.5, 1, 2) + rng.uniform(30, 54, 2)


def _zigzag(rng: Generator) -> list[Points]:
    """To and fro, five times or more; where it is dense it fills an area."""
    n = int(rng.integers(6, 20))
    along = rng.uniform(0.5, 1.5, n).cumsum()
    across = np.where(np.arange(n) % 2, 1, -1) * rng.uniform(rng.uniform(0.2, 1), 1, n)
    bow = rng.normal(0, 0.3) * np.linspace(-1, 1, n) ** 2
    points = np.stack([along / n, rng.uniform(0.15, 1.2) * across + bow], 1)
    return [_rounded(points) if rng.random() < 0.4 else points]


def _coil(rng: Generator) -> list[Points]:
    """Turns around a point, which may move along: a spiral, a spring."""
    t = np.linspace(0, rng.uniform(2.5, 7), 200)[:, None]
    circle = np.concatenate([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)], 1)
    if rng.random() < 0.4:
        return [circle * (rng.uniform(0, 0.5) + t)]
    return [circle * rng.uniform(0.3, 1) + t * [rng.uniform(0.3, 1.2), 0]]


def _knot(rng: Generator) -> list[Points]:
    """A closed way through points at random, which crosses itself."""
    points = rng.uniform(-1, 1, (int(rng.integers(5, 12)), 2))
    points = np.concatenate([points, points[:1]])
    return [_rounded(points) if rng.random() < 0.5 else points]


def _rosette(rng: Generator) -> list[Points]:
    """What a spirograph draws: petals, stars, meshes."""
    t = np.linspace(0, 2 * np.pi * rng.integers(2, 6), 300)
    reach = 1 + rng.uniform(0.4, 2) * np.cos(rng.uniform(2.3, 6) * t)
    return [np.stack([np.cos(t), np.sin(t)], 1) * reach[:, None]]


def _grid(rng: Generator) -> list[Points]:
    """Lines beside each other and others across, or all of them through one point."""
    n, m = rng.integers(2, 6, 2)
    if rng.random() < 0.25:
        angles = np.arange(n + 1) * np.pi / (n + 1) + rng.normal(0, 0.1, n + 1)
        rays = np.stack([np.cos(angles), np.sin(angles)], 1)
        return [np.stack([-ray, ray]) + rng.normal(0, 0.05, (2, 2)) for ray in rays]
    down = [np.array([[x, -1], [x, 1]]) for x in np.linspace(-0.8, 0.8, n)]
    across = [np.array([[-1, y], [1, y]]) for y in np.linspace(-0.8, 0.8, m)]
    return [line + rng.normal(0, 0.08, (2, 2)) for line in down + across]


def _rounded(points: Points) -> Points:
    """The way without its corners (G. Chaikin, An algorithm for high-speed curves, 1974)."""
    for _ in range(3):
        first, second = points[:-1], points[1:]
        corners = np.stack([0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second], 1)
        points = corners.reshape(-1, 2)
    return points
