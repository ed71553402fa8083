"""Images that are no digit, made here: a network learns from them to refuse.

Every image is made as `reading.digits` makes one of a shape that it finds: white on black, the
longer side 20 pixels, centred by mass. Only what may be made offline is used: the DejaVu fonts that
Matplotlib brings, strokes drawn at random, and the training digits themselves.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mnist_cnn.data.augment import Augment
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import BatchLoader
from mnist_cnn.data.scribbles import scribbles

SIDE = 84  # of a drawing in pixels, three times MNIST's
Images = NDArray[np.uint8]

# without what some hand writes as a digit: O I l S Z B g q, and the like of other alphabets
LETTERS = "ACDEFGHJKLMNPQRTUVWXYabcdefhijkmnprtuvwxyÄÖÜßéçñ"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγεηκλμνξπρτυφχψω"
CYRILLIC = "БДЖИКЛПФЦШЩЭЮЯаджиклпфцшщъыэюя"
SIGNS = '+-=%&#@?*~^<>{}$€£±\u00d7÷≈∞√∑∂∫→←↑↓.:;"«»§¶'


class DigitsAndOthers(MNISTDataModule):
    """MNIST; among its training images, and nowhere else, some that are no digit.

    Their label is -1, which `losses.OutlierExposure` knows.

    Args:
        others: how many.
        options: those of `MNISTDataModule`.
    """

    training = "train and others"

    def __init__(self, *, others: int = 40_000, **options: Any):
        super().__init__(**options)
        self.others = others

    def train_dataloader(self) -> BatchLoader:
        if self.training not in self.splits:
            images, labels = self.splits["train"]
            made = make_others(images.cpu().numpy()[:, 0], self.others, self.seed)
            more = torch.from_numpy(made).unsqueeze(1).to(images.device)
            none = torch.full((len(more),), -1, device=labels.device)
            self.splits[self.training] = torch.cat([images, more]), torch.cat([labels, none])
        return super().train_dataloader()


def make_others(digits: Images, n: int, seed: int) -> Images:
    """n images (n, 28, 28) that are no digit; some are made of digits (N, 28, 28)."""
    rng = np.random.default_rng((seed, 1812_04606))
    drawn = [
        *_bent(_letters(rng, round(0.31 * n)), rng),
        *_bent(scribbles(rng, round(0.33 * n), SIDE), rng),
        *_bent(_neighbours(digits, rng, round(0.2 * n)), rng),
        *_framed(_spoilt_digits(digits, rng, round(0.08 * n))),
    ]
    return np.stack([*drawn, *_textures(rng, n - len(drawn))])


# drawings


def _letters(rng: Generator, n: int) -> Iterator[Image.Image]:
    """Letters and signs of several alphabets, one each."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [
        ImageFont.truetype(file, 56)
        for file in sorted(folder.glob("DejaVu*.ttf"))
        if "Display" not in file.name
    ]
    for _ in range(n):
        alphabet = (LETTERS, LETTERS, LETTERS, GREEK, CYRILLIC, SIGNS)[rng.integers(6)]
        letter = alphabet[rng.integers(len(alphabet))]
        sheet = Image.new("L", (SIDE, SIDE))
        font = fonts[rng.integers(len(fonts))]
        ImageDraw.Draw(sheet).text((SIDE / 2, SIDE / 2), letter, 255, font, "mm")
        yield sheet


def _bent(drawings: Iterator[Image.Image], rng: Generator) -> Iterator[Images]:
    """Drawings (SIDE, SIDE), as other hands and pens would have made them -> images (28, 28)."""
    change = Augment(degrees=12, scale=0.1, stretch=0.35, shear=18, elastic=2.2)
    generator = torch.Generator().manual_seed(int(rng.integers(2**32)))
    while batch := [np.asarray(drawing) for drawing, _ in zip(drawings, range(500), strict=False)]:
        x = torch.from_numpy(np.stack(batch)).unsqueeze(1).float() / 255
        x = change(x, torch.zeros(len(x)), generator)
        for part in x.chunk(10):
            yield from _framed((255 * sheet).byte().numpy() for sheet in _penned(part, rng)[:, 0])


def _penned(x: Tensor, rng: Generator) -> Tensor:
    """Drawings (B, 1, SIDE, SIDE) with their strokes wider or finer by the same amount."""
    finer = -F.max_pool2d(-x, 3, 1, 1)
    wider = F.max_pool2d(x, 3, 1, 1)
    # what is as fine as a hair is no pen's, and would vanish
    hair = finer.sum((1, 2, 3), keepdim=True) < 0.3 * x.sum((1, 2, 3), keepdim=True)
    changed = (finer, x, wider, F.max_pool2d(wider, 3, 1, 1))[rng.integers(4)]
    return torch.where(hair, wider, changed)


def _neighbours(digits: Images, rng: Generator, n: int) -> Iterator[Image.Image]:
    """Two or three digits beside each other, or one and a part of the next, as a cut leaves it."""
    for _ in range(n):
        first, second, third = digits[rng.integers(len(digits), size=3)]
        kind = rng.integers(10)
        if kind < 2:
            second = _beside(second, third, rng)
        elif kind < 4:
            second = second[:, second.max(0) > 60]
            middle = second.shape[1] // 2
            if middle > 3:  # half a 1 is one
                second = (second[:, :middle], second[:, middle:])[kind - 2]
        row = Image.fromarray(_beside(first, second, rng))
        zoom = 0.8 * SIDE / max(row.size)
        size = max(1, round(row.width * zoom)), max(1, round(row.height * zoom))
        sheet = Image.new("L", (SIDE, SIDE))
        sheet.paste(row.resize(size), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
        yield sheet


def _beside(one: Images, other: Images, rng: Generator) -> Images:
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


def _spoilt_digits(digits: Images, rng: Generator, n: int) -> Iterator[Images]:
    """Parts of digits, one digit above another, and digits that lie on their side."""
    half: list[Callable[[Images], Images]] = [
        lambda x: x[: rng.integers(11, 15)],
        lambda x: x[rng.integers(13, 17) :],
        lambda x: x[:, : rng.integers(11, 15)],
        lambda x: x[:, rng.integers(13, 17) :],
    ]
    for _ in range(n):
        first, second = digits[rng.integers(len(digits), size=2)]
        kind = rng.integers(5)
        if kind < 2:
            yield half[rng.integers(4)](first)
        elif kind < 4:
            yield np.concatenate([first[3:25], second[3:25]], int(rng.integers(2)))
        else:
            yield np.rot90(first, int(rng.choice([1, 3])))


def _textures(rng: Generator, n: int) -> Iterator[Images]:
    """What fills the frame: one grey, a gradient, noise, blots, bars, an edge, a filled area."""
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    for _ in range(n):
        kind = rng.integers(7)
        angle = rng.uniform(0, 2 * np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        if kind == 0:
            image = np.full((28, 28), rng.choice([0.0, 1.0, rng.random()]))
        elif kind == 1:
            image = 0.5 + along * rng.uniform(0.1, 1)
        elif kind == 2:
            image = rng.normal(rng.random(), rng.uniform(0.02, 0.6), (28, 28))
        elif kind == 3:  # blots
            coarse = Image.fromarray(rng.normal(0, 1, (6, 6)).astype(np.float32))
            image = 0.5 + np.asarray(coarse.resize((28, 28), 3)) * rng.uniform(0.5, 8)
        elif kind == 4:  # bars
            wave = np.sin(along * rng.uniform(6, 30) + angle)
            image = 0.5 + wave * rng.uniform(0.5, 5)
        elif kind == 5:  # an edge: a shadow, or the rim of the sheet
            image = 0.5 + (along - rng.uniform(-1, 1)) * rng.uniform(1, 20)
        else:  # a filled area
            wide, high = rng.uniform(0.25, 0.75, 2)
            box = np.maximum(np.abs(x) / wide, np.abs(y) / high)
            disc = np.hypot(x / wide, y / high)
            image = (1 - (box, disc)[rng.integers(2)]) * 20
        yield (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _framed(drawings: Iterator[Images]) -> Iterator[Images]:
    """Drawings of any size in MNIST's form (28, 28); what is empty stays so."""
    for drawing in drawings:
        image = np.zeros((28, 28), np.uint8)
        rows, columns = np.nonzero(drawing > 60)
        if len(rows):
            cut = drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            zoom = 20 / max(cut.shape)
            size = max(1, round(cut.shape[1] * zoom)), max(1, round(cut.shape[0] * zoom))
            small = np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BOX))
            total = max(1, int(small.sum(dtype=np.int64)))
            height, width = small.shape
            x = round(13.5 - float(small.sum(0) @ np.arange(width)) / total)
            y = round(13.5 - float(small.sum(1) @ np.arange(height)) / total)
            x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
            image[y : y + height, x : x + width] = small
        yield image
