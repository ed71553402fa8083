"""Images of 28x28 that show no digit, in a central box of 20x20, as MNIST's digits do.

Every function takes digits x (B, 1, 28, 28) in [0, 1], white on black, on the CPU, and a generator,
and returns as many other images. No training here uses any.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor

from mnist_cnn.analysis.robustness.corruptions import rotated
from mnist_cnn.data.fonts import load_font

# letters that do not look like a digit
LETTERS = "ACDEFHJKMNPRTUVWXYadefhkmnprtuvwxy"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Oblique", "STIXGeneral")


def letters(x: Tensor, g: Generator) -> Tensor:
    """Draw letters in fonts that ship with matplotlib, rotated by up to 10 degrees."""
    drawn = []
    for font in (load_font(name, 60) for name in FONTS):
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
    degrees = 20 * torch.rand(len(x), generator=g) - 10
    return rotated(chosen[:, 0], degrees.deg2rad())[:, None].clamp(0, 1)


def scribbles(x: Tensor, g: Generator) -> Tensor:
    """Draw a pen's path through 8 random points."""
    knots = 5 + 18 * torch.rand(len(x), 2, 8, generator=g)
    path = F.interpolate(knots[:, :, None], (1, 120), mode="bicubic", align_corners=True)[:, :, 0]
    axis = torch.arange(28.0)
    dx, dy = axis - path[:, 0, :, None, None], axis[:, None] - path[:, 1, :, None, None]
    distance = torch.hypot(dx, dy).amin(1)  # (B, 28, 28)
    return (1.6 - distance)[:, None].clamp(0, 1)


def noise(x: Tensor, g: Generator) -> Tensor:
    """Make white noise in every second image, else blots: smoothed noise above a threshold."""
    white = torch.rand(x.shape, generator=g)
    smooth = gaussian_blur(torch.randn(x.shape, generator=g), [9, 9], [1.8, 1.8])
    blots = (3 * smooth / smooth.std((1, 2, 3), keepdim=True) - 2).clamp(0, 1)
    return torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) % 2 == 0, white, blots)


def parts(x: Tensor, g: Generator) -> Tensor:
    """Return a random upper, lower, left or right half of each digit x, centered in the image."""
    flat = [F.pad(half, (0, 0, 7, 7)) for half in x.split(14, 2)]
    tall = [F.pad(half, (7, 7)) for half in x.split(14, 3)]
    halves = torch.stack(flat + tall)
    return halves[torch.randint(4, (len(x),), generator=g), torch.arange(len(x))]


OUTLIERS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    function.__name__: function for function in (letters, scribbles, noise, parts)
}
