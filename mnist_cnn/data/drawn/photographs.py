"""Simulated photographs of MNIST digits, not used for training.

Paper and its texture, light and shadow, ruled lines, pen colour and width, slope, size, blur,
noise and JPEG quality are all drawn from one seed, so that two networks, or two ways of finding
digits, are given the same pictures.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.data import mnist

Array = NDArray[Any]  # float32; OpenCV's annotations leave the element type open

VALIDATION = 12_000  # number of first rows of MNIST's training images
# black, blue, pencil, red, green
PENS = ((30, 30, 35), (35, 50, 140), (105, 105, 110), (180, 35, 45), (25, 105, 60))
PAPERS = ((245, 243, 238), (235, 238, 245), (250, 240, 215), (215, 215, 212))
CHALKS = ((240, 240, 235), (245, 230, 150), (180, 215, 245))
BOARDS = ((30, 40, 38), (25, 60, 45), (20, 20, 24), (55, 55, 60))
TABLES = ((95, 65, 45), (150, 110, 75), (60, 62, 68), (30, 30, 34), (120, 125, 130))


@dataclass(frozen=True)
class Kind:
    """Properties that distinguish a kind of photograph."""

    digits: int = 1  # number of digits in a row
    tight: bool = False  # cropped to the ink
    faint: bool = False  # the ink absorbs 10 to 20 % of the light
    behind: bool = False  # writing shows through, and a corner lies in shadow
    ruled: float = 0.35  # probability of ruled paper
    colours: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...] = ()  # pens and papers
    gaps: tuple[float, float] = (-0.05, 0.6)  # range of gaps between digits, in digit heights
    turned: float = 0  # rotation in degrees, counterclockwise
    sheet: int = 0  # side in pixels of a sheet on which digits are 28 pixels high; 0: none
    table: bool = False  # the sheet lies on a darker table, which surrounds it


# pens about as light as their paper: red on green, blue on red, magenta on green
COLOURS = (
    ((220, 60, 50), (120, 150, 90)),
    ((60, 90, 200), (200, 90, 80)),
    ((200, 60, 180), (110, 145, 110)),
    ((230, 90, 30), (90, 150, 150)),
)
KINDS = {
    "single digits": Kind(),
    "rows of 5": Kind(digits=5),
    "tight": Kind(tight=True),
    "faint": Kind(faint=True),
    "show-through": Kind(digits=3, behind=True),
    "ruled": Kind(digits=5, ruled=1),
    "unruled": Kind(digits=5, ruled=0),
    "small": Kind(sheet=2000),
    "coloured": Kind(colours=COLOURS),
    "turned 45": Kind(digits=5, turned=45),
    "turned 90": Kind(digits=5, turned=90),
    "touching": Kind(digits=5, gaps=(-0.12, -0.02)),
    "on a table": Kind(digits=5, ruled=0, table=True),
}


def photograph(
    digits: Sequence[NDArray[np.uint8]], rng: Generator, kind: Kind = KINDS["single digits"]
) -> Image.Image:
    """Render a photograph of MNIST digits (28, 28), written side by side."""
    strokes = _writing(digits, rng, kind)
    height, width = strokes.shape
    dark = rng.random() < 0.25 and not kind.table
    board = _pick(BOARDS if dark else PAPERS, rng)
    pen = _pick(CHALKS if dark else PENS, rng)
    if kind.colours:
        pen, board = np.array(kind.colours[int(rng.integers(len(kind.colours)))], np.float32)
    if kind.faint:
        pen = board + (pen - board) * rng.uniform(0.1, 0.2) / (abs(pen - board).mean() / 255)
    paper: Array = board * (1 + _texture(height, width, rng)[..., None])
    if not kind.sheet and rng.random() < kind.ruled:
        paper = _ruled(paper, dark, rng)
    # a pen does not cover evenly
    cover = strokes * np.clip(rng.uniform(0.8, 1) + 2 * _texture(height, width, rng), 0, 1)
    if kind.behind:
        through = cv2.GaussianBlur(np.roll(strokes[:, ::-1], height // 4, 0), (0, 0), 2)
        cover = np.maximum(cover, rng.uniform(0.12, 0.25) * through)
    picture: Array = paper + cover[..., None] * (pen - paper)
    if not kind.sheet:
        picture = picture * _light(height, width, rng)[..., None]
    if kind.behind:
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        corner = 1 / (1 + np.exp(((x + y) - rng.uniform(0.15, 0.4)) / 0.03))
        picture = picture * (1 - rng.uniform(0.3, 0.7) * corner[..., None])
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 0.012 * min(height, 250)))
    picture = picture + rng.normal(0, rng.uniform(0.5, 2 if kind.faint else 6), picture.shape)
    if kind.tight:
        x, y, w, h = cv2.boundingRect((strokes > 0.5).astype(np.uint8))
        picture = picture[y : y + h, x : x + w]
    if kind.sheet:
        picture = _on_sheet(picture, strokes, kind.sheet, rng)
    if kind.table:
        picture = _on_table(picture, rng)
    file = io.BytesIO()
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=int(rng.integers(35, 95)))
    return Image.open(file)


def _on_sheet(picture: Array, strokes: Array, side: int, rng: Generator) -> Array:
    """Shrink a picture until its digit is 28 pixels high; put it at random on a large sheet."""
    zoom = 28 / cv2.boundingRect((strokes > 0.5).astype(np.uint8))[3]
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    # the paper continues the picture's rim
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    grain = rng.normal(0, 1.5, (side, side, 1)).astype(np.float32)
    sheet: Array = np.median(rim, 0) + grain
    x, y = (int(rng.integers(50, side - 50 - n)) for n in small.shape[1::-1])
    sheet[y : y + small.shape[0], x : x + small.shape[1]] = small
    return sheet * _light(side, side, rng)[..., None]


def _on_table(sheet: Array, rng: Generator) -> Array:
    """Put a sheet, in perspective and with a soft shadow, on a table with wood grain."""
    height, width = sheet.shape[:2]
    size = int(width * rng.uniform(1.15, 1.9)), int(height * rng.uniform(1.15, 1.9))
    grain = cv2.GaussianBlur(rng.normal(0, 1, size[::-1]), (0, 0), rng.uniform(2, 30), None, 1)
    table = _pick(TABLES, rng) * (1 + rng.uniform(0, 0.1) * grain / grain.std())[..., None]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-8, 8), 1)
    aside = (np.array(size) - (width, height)) * rng.uniform(0.4, 0.6, 2)
    askew = rng.uniform(-0.03, 0.03, (4, 2)) * (width, height)
    ends = cv2.transform(corners[None], turn)[0] + aside + askew
    place = cv2.getPerspectiveTransform(corners, ends.astype(np.float32))
    covered = cv2.warpPerspective(np.ones((height, width)), place, size)[..., None]
    shadow = cv2.GaussianBlur(covered, (0, 0), rng.uniform(3, 15))[..., None]
    table *= 1 - 0.35 * shadow
    return table + covered * (cv2.warpPerspective(sheet, place, size) - table)


def _pick(colours: Sequence[tuple[int, int, int]], rng: Generator) -> Array:
    return np.array(colours[int(rng.integers(len(colours)))], np.float32)


def _writing(digits: Sequence[NDArray[np.uint8]], rng: Generator, kind: Kind) -> Array:
    """Return the coverage in [0, 1] (height, width) of a row of digits on its sheet."""
    size = int(rng.integers(60, 260 if len(digits) == 1 else 140))  # of a digit, in pixels
    width = rng.uniform(-0.04, 0.035)  # added on either side of a stroke, in digit heights
    slope = rng.uniform(-15, 15) if len(digits) == 1 else rng.uniform(-5, 5)
    glyphs = [_glyph(digit, size, width, rng, 10 if len(digits) > 1 else 0) for digit in digits]
    low, high = kind.gaps
    gaps = [int(size * rng.uniform(low, high)) for _ in glyphs]
    length = sum(glyph.shape[1] for glyph in glyphs) + sum(gaps)
    around = [int(size * rng.uniform(0.3, 1.8)) for _ in range(4)]
    tilt = int(abs(np.sin(np.radians(slope))) * length / 2) + size // 4
    sheet = np.zeros(
        (2 * size + 2 * tilt + around[0] + around[1], length + around[2] + around[3]), np.float32
    )
    x, base = around[2], around[0] + tilt + size // 2
    for glyph, gap in zip(glyphs, gaps, strict=True):
        y = base + (size - glyph.shape[0]) // 2 + int(size * rng.uniform(-0.08, 0.08))
        room = sheet[y : y + glyph.shape[0], x : x + glyph.shape[1]]
        np.maximum(room, glyph, out=room)
        x += glyph.shape[1] + gap
    centre = (around[2] + length / 2, base + size / 2)
    turn = cv2.getRotationMatrix2D(centre, slope, 1)
    sheet = cv2.warpAffine(sheet, turn, sheet.shape[::-1], flags=cv2.INTER_LINEAR)
    if not kind.turned:
        return sheet
    turn, side = cv2.getRotationMatrix2D(centre, kind.turned, 1), int(np.hypot(*sheet.shape))
    turn[:, 2] = turn[:, 2] + side / 2 - np.array(centre)
    return cv2.warpAffine(sheet, turn, (side, side), flags=cv2.INTER_LINEAR)


def _glyph(
    digit: NDArray[np.uint8], size: int, width: float, rng: Generator, degrees: float
) -> Array:
    """Enlarge a digit to about `size` pixels, sharpen it and change the width of its pen."""
    size = int(size * rng.uniform(0.85, 1.15))
    zoom = size / 20
    large = cv2.resize(
        digit / np.float32(255), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC
    )
    smooth = cv2.GaussianBlur(large, (0, 0), 0.35 * zoom)
    inside = (smooth > 0.42).astype(np.uint8)
    # signed distance from the outline, in pixels
    outline: Array = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    outline -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    # a finer pen must not erase the finest stroke
    spare = -0.5 * float(np.percentile(outline[inside > 0], 70)) if inside.any() else 0.0
    outline += max(width * size, spare)
    if degrees:
        middle = (outline.shape[1] / 2, outline.shape[0] / 2)
        turn = cv2.getRotationMatrix2D(middle, rng.uniform(-degrees, degrees), 1)
        outline = cv2.warpAffine(outline, turn, outline.shape[::-1], borderValue=-size)
    glyph = np.clip(outline + 0.5, 0, 1)
    x, y, w, h = cv2.boundingRect((glyph > 0).astype(np.uint8))
    return glyph[y : y + h, x : x + w]


def _texture(height: int, width: int, rng: Generator) -> Array:
    """Return paper grain of two sizes, with mean zero."""
    total = np.zeros((height, width), np.float32)
    for coarseness in (1.0, 6.0):
        shape = (int(height / coarseness) + 2, int(width / coarseness) + 2)
        grain = rng.normal(0, rng.uniform(0.002, 0.02), shape).astype(np.float32)
        total += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    return total


def _light(height: int, width: int, rng: Generator) -> Array:
    """Return a gradient of light, for half of the sheets with a soft-edged shadow."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 0.8 + rng.uniform(0, 0.25) * (x * np.cos(angle) + y * np.sin(angle)) / 1.4
    if rng.random() < 0.5:
        angle, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.8, 0.8)
        side = (x * np.cos(angle) + y * np.sin(angle) - edge) / rng.uniform(0.03, 0.5)
        light *= 1 - rng.uniform(0.15, 0.5) / (1 + np.exp(-side.clip(-30, 30)))
    return light


def _ruled(paper: Array, dark: bool, rng: Generator) -> Array:
    """Draw ruled or squared paper, with lines fainter than any pen."""
    height, width = paper.shape[:2]
    spacing = int(rng.integers(25, 120))
    thick = int(rng.integers(1, 3))
    lines = np.zeros((height, width), np.float32)
    for y in range(int(rng.integers(spacing)), height, spacing):
        lines[y : y + thick] = 1
    if rng.random() < 0.4:
        for x in range(int(rng.integers(spacing)), width, spacing):
            lines[:, x : x + thick] = 1
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-2, 2), 1.1)
    lines = cv2.warpAffine(lines, turn, (width, height)) * rng.uniform(0.4, 1)
    colour = np.array((90, 110, 110) if dark else (150, 175, 215), np.float32)
    return paper + lines[..., None] * (colour - paper)


def pictures(
    kind: Kind, n: int, seed: int, split: str = "test"
) -> Iterator[tuple[Image.Image, str]]:
    """Yield n photographs of a kind and the digits written on them."""
    images, labels = digits_of(split)
    rng = np.random.default_rng((seed, kind.digits))
    for _ in range(n):
        chosen = rng.integers(len(images), size=kind.digits)
        yield photograph(list(images[chosen]), rng, kind), "".join(str(labels[i]) for i in chosen)


def digits_of(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return MNIST's images (N, 28, 28) and labels: of `test`, or of the rows of validation."""
    parts = mnist.load_split("mnist", "", "test" if split == "test" else "train")
    images, labels = (part.numpy() for part in parts)
    return (images, labels) if split == "test" else (images[:VALIDATION], labels[:VALIDATION])
