"""Clutter on pages: scribbles, doodles, blots, patterns, edges, textures."""

import cv2
import numpy as np
from numpy.random import Generator

from mnist_cnn.data.synthetic.strokes import Array, spline

TURNS = (3, 8), (1, 8)  # frequencies of the two waves that loops are made of
HOLES = 2  # that a character has at most


def add_line(sheet: Array, points: Array, pen: float, strength: float) -> None:
    """Draw a polyline (N, 2) of x and y on a sheet (H, W), where it is not darker already."""
    where = (points * 16).round().astype(np.int32)
    if strength >= 1:
        cv2.polylines(sheet, [where], False, 1.0, max(1, round(pen)), cv2.LINE_AA, 4)
        return
    mask = np.zeros(sheet.shape, np.uint8)
    cv2.polylines(mask, [where], False, 255, max(1, round(pen)), cv2.LINE_AA, 4)
    np.maximum(sheet, mask * np.float32(strength / 255), out=sheet)


def pixel(rng: Generator, sheet: Array, place: Array | None) -> Array:
    """Return the pixel (2,) at a place in fractions of a sheet (H, W); None is anywhere."""
    return (rng.uniform(0, 1, 2) if place is None else place) * sheet.shape[::-1]


def scribble(rng: Generator, sheet: Array, size: float, place: Array | None = None) -> None:
    """Draw a tangle, a zigzag, a coil, a wave or loops of about `size` pixels.

    Args:
        rng: random generator.
        sheet: ink (H, W) to draw on.
        size: height of the digits on it, in pixels.
        place: middle of the scribble (2,), as fractions of the sheet; None places it anywhere.
    """
    kind = rng.integers(7)
    n = int(rng.integers(6, 22))
    if kind == 0:
        points = rng.normal(0, 0.5, (n // 2 + 3, 2)).cumsum(0) * 0.6
    elif kind == 1:
        along = np.linspace(-1, 1, n) * rng.uniform(0.3, 1.6)
        across = np.where(np.arange(n) % 2, 1, -1) * rng.uniform(0.3, 1, n)
        points = np.stack([along, across], 1)
    elif kind == 2:
        t = np.linspace(0, rng.uniform(2, 7) * 2 * np.pi, 60)
        points = np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.3, 1)
        points = points * (0.3 + t[:, None] / t[-1]) + t[:, None] * [rng.uniform(0, 0.15), 0]
    elif kind == 3:
        t = np.linspace(-2, 2, 50)
        points = np.stack([t, np.sin(t * rng.uniform(2, 9)) * rng.uniform(0.1, 0.7)], 1)
    elif kind == 4:
        points = rng.uniform(-1, 1, (n // 2 + 3, 2))
        points = np.concatenate([points, points[:1]])
    elif kind == 5:
        points = knot(rng)
    else:  # with too many turns to be a digit
        t = np.linspace(0, 2 * np.pi, 120)[:, None]
        fast, slow = (np.cos(rng.integers(*some, 2) * t + rng.uniform(0, 6, 2)) for some in TURNS)
        points = fast + rng.uniform(0, 0.7) * slow
    if rng.random() < 0.6:
        points = spline(points)
    points = points - (points.min(0) + points.max(0)) / 2
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points * rng.uniform(0.4, 1, 2) @ turn * size * rng.uniform(0.35, 1.6)
    points = points + pixel(rng, sheet, place)
    add_line(sheet, points, size * rng.uniform(0.03, 0.17), rng.uniform(0.5, 1.2))


def knot(rng: Generator) -> Array:
    """Return the points (N, 2) of a closed curve with too many holes to be a digit."""
    t, turns = np.linspace(0, 2 * np.pi, 120)[:, None, None], np.arange(1, 6)
    while True:
        size = rng.normal(0, turns**-0.5, (2, 5))
        points = (size * np.cos(turns * t + rng.uniform(0, 6, (2, 5)))).sum(2)
        points = points / np.abs(points).max()
        drawn = np.zeros((48, 48), np.uint8)
        cv2.polylines(drawn, [(24 + 20 * points).astype(np.int32)], False, 1, 2)
        if cv2.connectedComponents(1 - drawn, connectivity=4)[0] - 2 > HOLES:
            return points


def doodle(rng: Generator, sheet: Array, size: float, place: Array | None = None) -> None:
    """Draw an arrow, tick, star, heart, house, face, bracket or blot; see `scribble`."""
    t = np.linspace(0, 2 * np.pi, 30)
    ring = np.stack([np.cos(t), np.sin(t)], 1)
    star = np.stack([np.sin(t[::3] * 2 + 0.3), np.cos(t[::3] * 2 + 0.3)], 1)
    heart = np.stack(
        [np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t)) / 16], 1
    )
    tip = rng.uniform(0.2, 0.5)
    kinds = (
        [[(-1, 0), (1, 0)], [(1 - tip, -tip), (1, 0), (1 - tip, tip)]],
        [[(-1, 0), (1, 0)], [(1 - tip, -tip), (1, 0), (1 - tip, tip)]],
        [[(-0.6, 0), (-0.2, 0.5), (0.8, -0.8)]],
        [star],
        [heart],
        [
            [(-1, 0), (-1, 1), (1, 1), (1, 0), (-1, 0), (0, -1), (1, 0)],
            [(-0.2, 1), (-0.2, 0.4), (0.2, 0.4), (0.2, 1)],
        ],
        [ring, ring[3:13] * 0.5, ring * 0.08 - [0.35, 0.3], ring * 0.08 + [0.35, -0.3]],
        [[(0.2, -1), (-0.1, -0.8), (-0.1, -0.2), (-0.4, 0), (-0.1, 0.2), (-0.1, 0.8), (0.2, 1)]],
        [[(-1, -1), (1, 1)], [(-1, 1), (1, -1)]],
        [[(-1, -0.6), (1, -0.6), (0, 0.9), (-1, -0.6)]],
        [[(-0.9, -0.7), (0.9, -0.7), (0.9, 0.7), (-0.9, 0.7), (-0.9, -0.7)]],
        [[(-0.1, 0), (0.1, 0)]],  # a blot, of a wide pen
    )
    kind = int(rng.integers(len(kinds)))
    angle = rng.uniform(0, 2 * np.pi) if kind < 2 else rng.normal(0, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = size * rng.uniform(0.35, 1.3) * rng.uniform(0.7, 1.2, 2)
    middle = pixel(rng, sheet, place)
    pen, strength = size * rng.uniform(0.04, 0.13), rng.uniform(0.6, 1.3)
    pen *= 6 if kind == len(kinds) - 1 else 1
    for stroke in kinds[kind]:
        points = np.asarray(stroke, np.float64)
        points = (points + rng.normal(0, 0.05, points.shape)) * scale @ turn + middle
        add_line(sheet, points, pen, strength)


def blot(rng: Generator, sheet: Array, size: float, place: Array | None = None) -> None:
    """Draw a solid spot, polygon or blackened area; see `scribble`."""
    scale = size * rng.uniform(0.25, 0.7) * rng.uniform(0.4, 1, 2)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = pixel(rng, sheet, place)
    if rng.random() < 0.4:  # a zigzag whose strokes overlap
        n = int(rng.integers(7, 20))
        along, across = np.linspace(-1, 1, n), np.where(np.arange(n) % 2, 1, -1)
        points = np.stack([along, across * rng.uniform(0.8, 1, n)], 1) * scale
        add_line(sheet, points @ turn + middle, rng.uniform(2, 4) * scale[0] / n, strength)
        return
    t = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 10))))
    points = np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.7, 1, (len(t), 1))
    if rng.random() < 0.7:
        points = spline(np.concatenate([points, points[:1]]))
    mask = np.zeros(sheet.shape, np.uint8)
    where = ((points * scale @ turn + middle) * 16).round().astype(np.int32)
    cv2.fillPoly(mask, [where], 255, cv2.LINE_AA, 4)
    np.maximum(sheet, mask * np.float32(strength / 255), out=sheet)


def pattern(rng: Generator, sheet: Array) -> None:
    """Draw the fine wavy lines of security paper."""
    height, width = sheet.shape
    strength = rng.uniform(0.08, 0.5)
    mask = np.zeros(sheet.shape, np.uint8)
    slope, period = rng.uniform(-0.7, 0.7), rng.uniform(0.01, 0.14)
    high, phase = rng.uniform(0, 10), rng.uniform(0, 6)
    apart = rng.uniform(3, 14)
    xs = np.arange(0, width + 8, 4, dtype=np.float64)
    start = -abs(slope) * width - 20
    n = int((height + 2 * abs(slope) * width + 40) / apart)
    shift = rng.uniform(-0.4, 0.4)
    ways = [
        np.stack(
            [xs, start + k * apart + high * np.sin(period * xs + phase + k * shift) + slope * xs], 1
        )
        for k in range(min(n, 90))
    ]
    where = [(way * 16).round().astype(np.int32) for way in ways]
    cv2.polylines(mask, where, False, 255, 1, cv2.LINE_AA, 4)
    if rng.random() < 0.3:
        cv2.polylines(
            mask, [w * [1, -1] + [0, 16 * height] for w in where], False, 255, 1, cv2.LINE_AA, 4
        )
    np.maximum(sheet, mask * np.float32(strength / 255), out=sheet)


def edge(rng: Generator, sheet: Array) -> None:
    """Darken the area beyond the edge of the paper, or a shadow with an edge."""
    height, width = sheet.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.1)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - np.float32(far)
    soft = np.float32(rng.uniform(0.01, 0.15))
    dark = np.clip(0.5 + along / soft, 0, 1) * np.float32(rng.uniform(0.1, 1))
    if rng.random() < 0.5:  # a table with a grain
        dark *= (0.6 + 0.4 * grain(rng, sheet.shape, rng.uniform(1, 8))).clip(0, 1)
    np.maximum(sheet, dark, out=sheet)


def grain(rng: Generator, shape: tuple[int, ...], coarse: float) -> Array:
    """Return noise (H, W) with mean 0, standard deviation 1 and spots of `coarse` pixels."""
    small = rng.standard_normal(
        (int(shape[0] / coarse) + 2, int(shape[1] / coarse) + 2), np.float32
    )
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def texture(rng: Generator, sheet: Array) -> None:
    """Cover the sheet with textures as in photographs: blots, stripes, discs, polygons."""
    height, width = sheet.shape
    kind = rng.integers(4)
    if kind == 0:
        own = (grain(rng, sheet.shape, rng.uniform(2, 30)) * rng.uniform(0.3, 3)).clip(0, 1)
    elif kind == 1:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        own = (np.sin(along * rng.uniform(5, 60)) * rng.uniform(0.5, 4)).clip(0, 1)
    elif kind == 2:
        own = np.zeros_like(sheet)
        for _ in range(int(rng.integers(2, 12))):
            middle = (rng.uniform(0, 1, 2) * (width, height)).astype(int).tolist()
            axes = rng.uniform(3, 0.4 * width, 2).astype(int).tolist()
            fill = -1 if rng.random() < 0.5 else int(rng.integers(1, 5))
            cv2.ellipse(
                own,
                middle,
                axes,
                float(rng.uniform(0, 180)),
                0,
                360,
                float(rng.uniform(0.2, 1)),
                fill,
                cv2.LINE_AA,
            )
    else:
        own = np.zeros_like(sheet)
        for _ in range(int(rng.integers(2, 8))):
            points = (
                rng.uniform(-0.1, 1.1, (int(rng.integers(3, 6)), 2)) * (width, height)
            ).astype(np.int32)
            cv2.fillPoly(own, [points], float(rng.uniform(0.1, 1)), cv2.LINE_AA)
    np.maximum(sheet, own.astype(np.float32), out=sheet)


def speckle(rng: Generator, sheet: Array) -> None:
    """Add specks of dust and blots to the sheet."""
    height, width = sheet.shape
    for _ in range(int(rng.integers(1, 25))):
        x, y = (rng.uniform(0, 1, 2) * (width, height)).astype(int).tolist()
        cv2.circle(
            sheet, (x, y), int(rng.integers(0, 3)), float(rng.uniform(0.2, 1)), -1, cv2.LINE_AA
        )
