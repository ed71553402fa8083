"""Negatives: images that are no digit, made here, from which a network learns to refuse.

Every image is made as `reading.digits` makes one of a shape that it finds: white on black, the
longer side 20 pixels, centred by mass. Only what may be made offline is used: the DejaVu fonts that
Matplotlib brings, strokes drawn at random, and the training digits themselves.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_cnn.data.augment import Augment
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import BatchLoader

SIDE = 84  # of a drawing in pixels, three times MNIST's
Images = NDArray[np.uint8]
Points = NDArray[np.float64]  # (N, 2), x and y of a stroke; the unit is free

# without what some hand writes as a digit: O I l S Z B g q, and the like of other alphabets
LETTERS = "ACDEFGHJKLMNPQRTUVWXYabcdefhijkmnprtuvwxyÄÖÜßéçñ"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγεηκλμνξπρτυφχψω"
CYRILLIC = "БДЖИКЛПФЦШЩЭЮЯаджиклпфцшщъыэюя"
SIGNS = '+-=%&#@?*~^<>{}$€£±\u00d7÷≈∞√∑∂∫→←↑↓.:;"«»§¶'


class MNISTWithNegatives(MNISTDataModule):
    """MNIST; among its training images, and nowhere else, some that are no digit.

    Their label is -1, which `losses.OutlierExposure` knows.

    Args:
        negatives: how many.
        options: those of `MNISTDataModule`.
    """

    training = "train and negatives"

    def __init__(self, *, negatives: int = 40_000, **options: Any):
        super().__init__(**options)
        self.negatives = negatives

    def train_dataloader(self) -> BatchLoader:
        if self.training not in self.splits:
            images, labels = self.splits["train"]
            made = make_negatives(images.cpu().numpy()[:, 0], self.negatives, self.seed)
            more = torch.from_numpy(made).unsqueeze(1).to(images.device)
            none = torch.full((len(more),), -1, device=labels.device)
            self.splits[self.training] = torch.cat([images, more]), torch.cat([labels, none])
        return super().train_dataloader()


def make_negatives(digits: Images, n: int, seed: int) -> Images:
    """n images (n, 28, 28) that are no digit; some are made of digits (N, 28, 28)."""
    rng = np.random.default_rng((seed, 1812_04606))
    made = [
        *bend(lambda: letter(rng), round(0.31 * n), rng),
        *bend(lambda: scribble(rng), round(0.33 * n), rng),
        *bend(lambda: neighbours(digits, rng), round(0.2 * n), rng),
        *(frame(spoilt_digit(digits, rng)) for _ in range(round(0.08 * n))),
    ]
    return np.stack([*made, *(texture(rng) for _ in range(n - len(made)))])


def bend(draw: Callable[[], Image.Image], n: int, rng: Generator) -> Iterator[Images]:
    """Images (28, 28) of n drawings (SIDE, SIDE), as other hands and pens would have made them."""
    change = Augment(degrees=12, scale=0.1, stretch=0.35, shear=18, elastic=2.2)
    generator = torch.Generator().manual_seed(int(rng.integers(2**32)))
    for start in range(0, n, 501):  # of 501 the last is drawn in vain, in all recorded trainings
        drawings = [np.asarray(draw()) for _ in range(min(501, n - start))][:500]
        whole = torch.from_numpy(np.stack(drawings)).unsqueeze(1).float() / 255
        for x in change(whole, torch.zeros(len(whole)), generator).chunk(10):
            finer, wider = -F.max_pool2d(-x, 3, 1, 1), F.max_pool2d(x, 3, 1, 1)
            drawn = (finer, x, wider, F.max_pool2d(wider, 3, 1, 1))[rng.integers(4)]
            # what is as fine as a hair is no pen's, and would vanish
            hair = finer.sum((1, 2, 3), keepdim=True) < 0.3 * x.sum((1, 2, 3), keepdim=True)
            drawn = 255 * torch.where(hair, wider, drawn)
            yield from map(frame, drawn.byte()[:, 0].numpy())


def frame(drawing: Images) -> Images:
    """A drawing of any size in MNIST's form (28, 28); what is empty stays so."""
    image = np.zeros((28, 28), np.uint8)
    rows, columns = np.nonzero(drawing > 60)
    if len(rows):
        cut = drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        small = np.asarray(resize(cut, 20, Image.Resampling.BOX))
        (height, width), (y, x) = small.shape, np.indices(small.shape)
        top = round(13.5 - np.average(y, weights=small))
        left = round(13.5 - np.average(x, weights=small))
        top, left = min(max(top, 0), 28 - height), min(max(left, 0), 28 - width)
        image[top : top + height, left : left + width] = small
    return image


def resize(drawing: Images, longer: float, resampling: Image.Resampling) -> Image.Image:
    """A drawing whose longer side gets that many pixels."""
    zoom = longer / max(drawing.shape)
    height, width = (max(1, round(side * zoom)) for side in drawing.shape)
    return Image.fromarray(drawing).resize((width, height), resampling)


@functools.cache
def fonts() -> list[ImageFont.FreeTypeFont]:
    import matplotlib  # takes a second

    files = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVu*.ttf"))
    return [ImageFont.truetype(file, 56) for file in files if "Display" not in file.name]


def letter(rng: Generator) -> Image.Image:
    """A letter or sign of several alphabets."""
    alphabet = (LETTERS, LETTERS, LETTERS, GREEK, CYRILLIC, SIGNS)[rng.integers(6)]
    text = alphabet[rng.integers(len(alphabet))]
    sheet, font = Image.new("L", (SIDE, SIDE)), fonts()[rng.integers(len(fonts()))]
    ImageDraw.Draw(sheet).text((SIDE / 2, SIDE / 2), text, 255, font, "mm")
    return sheet


def neighbours(digits: Images, rng: Generator) -> Image.Image:
    """Two or three digits beside each other, or one and a part of the next, as a cut leaves it."""
    first, second, third = digits[rng.integers(len(digits), size=3)]
    kind = rng.integers(10)
    if kind < 2:
        second = beside(second, third, rng)
    elif kind < 4:
        second = second[:, second.max(0) > 60]
        middle = second.shape[1] // 2
        if middle > 3:  # half a 1 is one
            second = (second[:, :middle], second[:, middle:])[kind - 2]
    row = resize(beside(first, second, rng), 0.8 * SIDE, Image.Resampling.BICUBIC)
    sheet = Image.new("L", (SIDE, SIDE))
    sheet.paste(row, ((SIDE - row.width) // 2, (SIDE - row.height) // 2))
    return sheet


def beside(one: Images, other: Images, rng: Generator) -> Images:
    """Two drawings side by side, in either order, most of them so near that they touch."""
    pair = [drawing[:, drawing.max(0) > 60] for drawing in (one, other)]
    left, right = (pair, pair[::-1])[rng.integers(2)]
    height = max(len(left), len(right)) + 10
    gap = max(int(rng.integers(-4, 7)), -min(left.shape[1], right.shape[1]) // 3)
    start = left.shape[1] + gap
    sheet = np.zeros((height, start + right.shape[1]), np.uint8)
    for drawing, x in ((left, 0), (right, start)):
        y = int(rng.integers(height - len(drawing) + 1))
        room = sheet[y : y + len(drawing), x : x + drawing.shape[1]]
        np.maximum(room, drawing, out=room)
    return sheet


def spoilt_digit(digits: Images, rng: Generator) -> Images:
    """A part of a digit, one digit above or beside another, or a digit that lies on its side."""
    first, second = digits[rng.integers(len(digits), size=2)]
    kind = rng.integers(5)
    if kind < 2:
        side = rng.integers(4)  # top, bottom, left, right
        cut = rng.integers(13, 17) if side % 2 else rng.integers(11, 15)
        part = slice(cut, None) if side % 2 else slice(cut)
        return first[part] if side < 2 else first[:, part]
    if kind < 4:
        return np.concatenate([first[3:25], second[3:25]], int(rng.integers(2)))
    return np.rot90(first, int(rng.choice([1, 3])))


def texture(rng: Generator) -> Images:
    """An image that fills the frame: grey, a gradient, noise, blots, bars, an edge, an area."""
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    kind = rng.integers(7)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    if kind == 0:
        image = np.full((28, 28), rng.choice([0.0, 1.0, rng.random()]))
    elif kind == 1:
        image = 0.5 + along * rng.uniform(0.1, 1)
    elif kind == 2:
        image = rng.normal(rng.random(), rng.uniform(0.02, 0.6), (28, 28))
    elif kind == 3:
        coarse = Image.fromarray(rng.normal(0, 1, (6, 6)).astype(np.float32))
        image = 0.5 + np.asarray(coarse.resize((28, 28), 3)) * rng.uniform(0.5, 8)
    elif kind == 4:
        image = 0.5 + np.sin(along * rng.uniform(6, 30) + angle) * rng.uniform(0.5, 5)
    elif kind == 5:  # a shadow, or the rim of the sheet
        image = 0.5 + (along - rng.uniform(-1, 1)) * rng.uniform(1, 20)
    else:  # a box or a disc
        wide, high = rng.uniform(0.25, 0.75, 2)
        distance = (np.maximum, np.hypot)[rng.integers(2)]
        image = (1 - distance(np.abs(x) / wide, np.abs(y) / high)) * 20
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def scribble(rng: Generator) -> Image.Image:
    """A drawing (SIDE, SIDE) of more than a digit, in white on black, of pens of several widths."""
    kinds = ("tangle", "tangle", "zigzag", "zigzag", "coil", "knot", "rosette", "grid")
    strokes = draw_strokes(kinds[rng.integers(len(kinds))], rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    strokes = [stroke @ turn for stroke in strokes]
    pen = int(rng.integers(3, 9))
    # most of the sheet; half of them as wide as high
    ends = np.concatenate(strokes)
    low, extent = ends.min(0), np.maximum(np.ptp(ends, 0), 1e-6)
    if rng.random() < 0.5:
        extent[:] = extent.max()
    size = SIDE * rng.uniform(0.5, 0.8, 2)
    sheet = Image.new("L", (SIDE, SIDE))
    for stroke in strokes:
        points = (stroke - low - extent / 2) / extent * size + SIDE / 2
        ImageDraw.Draw(sheet).line(points.ravel().tolist(), 255, pen, joint="curve")
    return sheet


def draw_strokes(kind: str, rng: Generator) -> list[Points]:
    """The strokes of one scribble."""
    if kind == "tangle":  # of several, where one alone may be a digit
        return [any_stroke(rng) for _ in range(rng.integers(2, 6))]
    if kind == "zigzag":  # to and fro, five times or more; where it is dense it fills an area
        n = int(rng.integers(6, 20))
        along = rng.uniform(0.5, 1.5, n).cumsum()
        across = np.where(np.arange(n) % 2, 1, -1) * rng.uniform(rng.uniform(0.2, 1), 1, n)
        bow = rng.normal(0, 0.3) * np.linspace(-1, 1, n) ** 2
        points = np.stack([along / n, rng.uniform(0.15, 1.2) * across + bow], 1)
        return [smooth(points) if rng.random() < 0.4 else points]
    if kind == "coil":  # turns around a point, which may move along: a spiral, a spring
        t = np.linspace(0, rng.uniform(2.5, 7), 200)
        turns = circle(2 * np.pi * t)
        if rng.random() < 0.4:
            return [turns * (rng.uniform(0, 0.5) + t[:, None])]
        return [turns * rng.uniform(0.3, 1) + t[:, None] * [rng.uniform(0.3, 1.2), 0]]
    if kind == "knot":  # a closed way through points at random, which crosses itself
        points = rng.uniform(-1, 1, (int(rng.integers(5, 12)), 2))
        points = np.concatenate([points, points[:1]])
        return [smooth(points) if rng.random() < 0.5 else points]
    if kind == "rosette":  # a spirograph's drawing: petals, stars, meshes
        t = np.linspace(0, 2 * np.pi * rng.integers(2, 6), 300)
        reach = 1 + rng.uniform(0.4, 2) * np.cos(rng.uniform(2.3, 6) * t)
        return [circle(t) * reach[:, None]]
    # a grid: lines beside each other and others across, or all of them through one point
    n, m = rng.integers(2, 6, 2)
    if rng.random() < 0.25:
        rays = circle(np.arange(n + 1) * np.pi / (n + 1) + rng.normal(0, 0.1, n + 1))
        return [np.stack([-ray, ray]) + rng.normal(0, 0.05, (2, 2)) for ray in rays]
    lines = [np.array([[x, -1], [x, 1]]) for x in np.linspace(-0.8, 0.8, n)]
    lines += [np.array([[-1, y], [1, y]]) for y in np.linspace(-0.8, 0.8, m)]
    return [line + rng.normal(0, 0.08, (2, 2)) for line in lines]


def any_stroke(rng: Generator) -> Points:
    """A curve, a zigzag, a line or a loop."""
    kind = rng.integers(4)
    if kind == 0:  # its direction wanders
        turns = rng.normal(rng.normal(0, 0.15), rng.uniform(0.05, 0.6), 60).cumsum()
        steps = rng.uniform(1, 4) * circle(turns)
        return rng.uniform(20, 64, 2) + steps[: rng.integers(15, 60)].cumsum(0)
    if kind < 3:
        return rng.uniform(14, 70, (int(rng.integers(3, 9)) if kind == 1 else 2, 2))
    # around some point, not closed
    angle = rng.uniform(0, 6.3) + np.linspace(0, rng.uniform(2, 20), 50)
    inner, outer = rng.uniform(4, 26, 2).tolist()
    loop = circle(angle) * np.linspace(inner, outer, 50)[:, None]
    return loop * rng.uniform(0.5, 1, 2) + rng.uniform(30, 54, 2)


def circle(angles: NDArray[np.float64]) -> Points:
    """The points of the unit circle at some angles (N,)."""
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def smooth(points: Points) -> Points:
    """The way without its corners (G. Chaikin, An algorithm for high-speed curves, 1974)."""
    for _ in range(3):
        first, second = points[:-1], points[1:]
        corners = np.stack([0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second], 1)
        points = corners.reshape(-1, 2)
    return points
