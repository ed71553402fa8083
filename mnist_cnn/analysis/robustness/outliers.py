"""Out-of-distribution images, made offline, and how well a network tells digits from them.

Each kind is a function of digits x (N, 1, 28, 28) in [0, 1] and a generator that returns as many
images of that shape, white on black and placed as MNIST's are: in a box of 20x20 around the middle.
They are for evaluation alone: no training here sees them.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor

from mnist_cnn.analysis.robustness.corruptions import Corruption, rotated, uniform
from mnist_cnn.data import mnist
from mnist_cnn.data.loader import generator

# letters that are written like no digit
LETTERS = "ACDEFHJKMNPRTUVWXYadefhkmnprtuvwxy"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Oblique", "STIXGeneral")


def letters(x: Tensor, g: Generator) -> Tensor:
    """Letters from the fonts that come with matplotlib, each rotated by up to 10 degrees."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    drawn = []
    for font in (ImageFont.truetype(str(folder / f"{name}.ttf"), 60) for name in FONTS):
        for letter in LETTERS:
            picture = Image.new("L", (120, 120))
            ImageDraw.Draw(picture).text((30, 20), letter, fill=255, font=font)
            cut = picture.crop(picture.getbbox())
            width, height = (max(1, round(20 * side / max(cut.size))) for side in cut.size)
            image = Image.new("L", (28, 28))
            small = cut.resize((width, height), Image.Resampling.BOX)
            image.paste(small, ((28 - width) // 2, (28 - height) // 2))
            drawn.append(pil_to_tensor(image) / 255)
    chosen = torch.stack(drawn)[torch.randint(len(drawn), (len(x),), generator=g)]
    return rotated(chosen, uniform(chosen, g, -10, 10))


def scribbles(x: Tensor, g: Generator) -> Tensor:
    """A pen's path through 8 random points."""
    knots = 5 + 18 * torch.rand(len(x), 2, 8, generator=g)
    path = F.interpolate(knots[:, :, None], (1, 120), mode="bicubic", align_corners=True)[:, :, 0]
    axis = torch.arange(28.0)
    dx, dy = axis - path[:, 0, :, None, None], axis[:, None] - path[:, 1, :, None, None]
    distance = torch.hypot(dx, dy).amin(1)  # (B, 28, 28)
    return (1.6 - distance)[:, None].clamp(0, 1)


def noise(x: Tensor, g: Generator) -> Tensor:
    """White noise in every second image, else blots: smoothed noise above a threshold."""
    white = torch.rand(x.shape, generator=g)
    smooth = gaussian_blur(torch.randn(x.shape, generator=g), [9, 9], [1.8, 1.8])
    blots = (3 * smooth / smooth.std((1, 2, 3), keepdim=True) - 2).clamp(0, 1)
    return torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) % 2 == 0, white, blots)


def parts(x: Tensor, g: Generator) -> Tensor:
    """The upper, lower, left or right half of each digit x, in the middle of the image."""
    flat = [F.pad(half, (0, 0, 7, 7)) for half in x.split(14, 2)]
    tall = [F.pad(half, (7, 7)) for half in x.split(14, 3)]
    halves = torch.stack(flat + tall)
    return halves[torch.randint(4, (len(x),), generator=g), torch.arange(len(x))]


OUTLIERS: dict[str, Corruption] = {
    function.__name__: function for function in (letters, scribbles, noise, parts)
}


def make_outliers(digits: Tensor, root: str | Path | None) -> dict[str, Tensor]:
    """All kinds of out-of-distribution images (N, 1, 28, 28) in [0, 1], the same on every machine.

    Args:
        digits: what parts are taken of, none of them a one: half of a one is a one.
        root: the folder of the data; Fashion-MNIST and KMNIST are used where they lie there.
    """
    kinds = {
        name: torch.cat([make(part, generator(k, b)) for b, part in enumerate(digits.split(500))])
        for k, (name, make) in enumerate(OUTLIERS.items())
    }
    for name in ("fashion_mnist", "kmnist"):
        if root:
            with contextlib.suppress(OSError):  # it does not lie there
                kinds[name] = mnist.load_split(name, root, "test")[0].unsqueeze(1).float() / 255
    return kinds


def separation(digits: Tensor, others: Tensor) -> dict[str, Any]:
    """How well scores tell digits (N,) from other images (M,).

    `auroc` is the probability that a digit's score is above another image's, a tie half; `fpr_95`
    the share of other images above the score that 95 % of the digits reach.
    """
    ordered = others.sort().values
    below = torch.searchsorted(ordered, digits)
    up_to = torch.searchsorted(ordered, digits, right=True)
    threshold = digits.sort().values[int((1 - 0.95) * len(digits))]
    return {
        "images": len(others),
        "auroc": (below + up_to).double().mean().item() / (2 * len(others)),
        "fpr_95": (others >= threshold).double().mean().item(),
    }
