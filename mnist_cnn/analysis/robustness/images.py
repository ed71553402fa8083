"""Fifteen corruptions of digits, and out-of-distribution images.

The corruptions are those of MNIST-C (N. Mu and J. Gilmer, MNIST-C: A Robustness Benchmark for
Computer Vision, 2019, https://arxiv.org/abs/1906.02337), reimplemented from their description:
accuracies are not comparable with published ones. The other images lie in a central box of 20x20,
as MNIST's digits do. No training here uses any of these.

Every function takes images x (B, 1, H, W) in [0, 1], white on black, on the CPU, and a generator,
and returns corrupted copies in [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur, pil_to_tensor

# letters that do not look like a digit
LETTERS = "ACDEFHJKMNPRTUVWXYadefhkmnprtuvwxy"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Oblique", "STIXGeneral")

Corruption = Callable[[Tensor, Generator], Tensor]
Numbers = Sequence[float | Tensor]  # each a number for all images, or (B,)


def uniform(x: Tensor, g: Generator, low: float, high: float) -> Tensor:
    """Draw a uniform random number for each image, (B,)."""
    return low + (high - low) * torch.rand(len(x), generator=g)


def signed(x: Tensor, g: Generator, low: float, high: float) -> Tensor:
    """Draw a number as `uniform` does, with a random sign."""
    sign = torch.randint(2, (len(x),), generator=g) * 2.0 - 1
    return sign * uniform(x, g, low, high)


def affine(x: Tensor, matrix: Numbers = (1, 0, 0, 1), move: Numbers = (0, 0)) -> Tensor:
    """Sample images through a matrix (a, b, c, d), and move them right and down by pixels."""
    a, b, c, d = matrix
    right, down = (-2 * pixels / x.shape[-1] for pixels in move)
    theta = torch.empty(len(x), 2, 3)
    for k, value in enumerate((a, b, right, c, d, down)):
        theta[:, k // 3, k % 3] = value
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).clamp(0, 1)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images counter-clockwise by degrees (B,)."""
    cos, sin = torch.cos(degrees.deg2rad()), torch.sin(degrees.deg2rad())
    return affine(x, (cos, -sin, sin, cos))


def impulse_noise(x: Tensor, g: Generator) -> Tensor:
    """Make one pixel in six black or white."""
    draw = torch.rand(x.shape, generator=g)
    return torch.where(draw < 1 / 12, 0, torch.where(draw > 11 / 12, 1, x))


def glass_blur(x: Tensor, g: Generator) -> Tensor:
    """Blur, take each pixel from up to two pixels away, and blur again."""
    batch, _, height, width = x.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = torch.randint(-2, 3, (2, batch, height, width), generator=g)
    row, column = (rows + away[0]).clamp(0, height - 1), (columns + away[1]).clamp(0, width - 1)
    smooth = gaussian_blur(x, [5, 5], [0.7, 0.7])
    moved = smooth.flatten(2).gather(2, (row * width + column).flatten(1)[:, None]).view(x.shape)
    return gaussian_blur(moved, [5, 5], [0.7, 0.7])


def motion_blur(x: Tensor, g: Generator) -> Tensor:
    """Average along 7 pixels in a random direction."""
    angle = uniform(x, g, 0, math.pi)
    right, down = torch.cos(angle), torch.sin(angle)
    copies = [affine(x, move=(k * right, k * down)) for k in range(-3, 4)]
    return torch.stack(copies).mean(0)


def scale(x: Tensor, g: Generator) -> Tensor:
    """Shrink to between half and two thirds of the size."""
    zoom = 1 / uniform(x, g, 0.5, 0.67)
    return affine(x, (zoom, 0, 0, zoom))


def stripe(x: Tensor, g: Generator) -> Tensor:
    """Invert a vertical stripe through the middle."""
    x = x.clone()
    middle = x.shape[-1] // 2
    x[..., middle - 3 : middle + 3] = 1 - x[..., middle - 3 : middle + 3]
    return x


def fog(x: Tensor, g: Generator) -> Tensor:
    """Add noise whose amplitude halves with its wavelength."""
    noise = torch.zeros_like(x)
    for side, share in ((2, 1.0), (4, 0.5), (8, 0.25), (16, 0.125)):
        coarse = torch.rand(len(x), 1, side, side, generator=g)
        noise += share * F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=True)
    low, high = noise.amin((1, 2, 3), keepdim=True), noise.amax((1, 2, 3), keepdim=True)
    return ((x + (noise - low) / (high - low)) / 1.5).clamp(0, 1)


def spatter(x: Tensor, g: Generator) -> Tensor:
    """Add drops of ink where smoothed noise is high."""
    drops = gaussian_blur(torch.randn(x.shape, generator=g), [7, 7], [1.2, 1.2])
    spread = drops.std((1, 2, 3), keepdim=True)
    return torch.maximum(x, ((drops / spread - 1.4) * 3).clamp(0, 1))


def dotted_line(x: Tensor, g: Generator, corners: int = 2) -> Tensor:
    """Add a dotted line from one side to the other, through points at random heights."""
    height, width = x.shape[-2:]
    knots = 3 + (height - 7) * torch.rand(len(x), 1, corners, generator=g)
    level = F.interpolate(knots, width, mode="linear", align_corners=True)[:, 0]  # (B, W)
    rows = torch.arange(height).view(1, -1, 1)
    line = (1.2 - (rows - level[:, None]).abs()).clamp(0, 1)
    dots = (torch.arange(width) % 4 < 2).float()
    return torch.maximum(x, (line * dots)[:, None])


def canny_edges(x: Tensor, g: Generator) -> Tensor:
    """Detect edges: J. Canny, A computational approach to edge detection, PAMI 8 (1986)."""
    smooth = gaussian_blur(x, [5, 5], [1.0, 1.0])
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    dx, dy = F.conv2d(F.pad(smooth, (1,) * 4, "replicate"), kernels).unbind(1)  # (B, H, W)
    size = torch.hypot(dx, dy)
    # an edge is a maximum along the gradient, in one of four directions
    direction = (torch.atan2(dy, dx) / (math.pi / 4)).round().long() % 4
    padded = F.pad(size, (1,) * 4)
    highest = torch.zeros_like(size, dtype=torch.bool)
    height, width = size.shape[-2:]
    for k, (row, column) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = padded[:, 1 - row : 1 - row + height, 1 - column : 1 - column + width]
        highest |= (direction == k) & (size >= ahead) & (size > behind)
    weak, edges = highest & (size > 0.4), highest & (size > 0.8)
    for _ in range(height):  # a weak edge counts if it is connected to a strong one
        grown = weak & (F.max_pool2d(edges.float()[:, None], 3, 1, 1)[:, 0] > 0)
        if torch.equal(grown, edges):
            break
        edges = grown
    return edges.float()[:, None]


CORRUPTIONS: dict[str, Corruption] = {
    "shot_noise": lambda x, g: (torch.poisson(x * 5, generator=g) / 5).clamp(0, 1),
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": lambda x, g: affine(x, (1, signed(x, g, 0.4, 0.7), 0, 1)),
    "scale": scale,
    "rotate": lambda x, g: rotated(x, signed(x, g, 20, 40)),
    "brightness": lambda x, g: (x + uniform(x, g, 0.4, 0.7).view(-1, 1, 1, 1)).clamp(0, 1),
    "translate": lambda x, g: affine(x, move=(signed(x, g, 3, 6), signed(x, g, 3, 6))),
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": lambda x, g: dotted_line(x, g, corners=7),
    "canny_edges": canny_edges,
}


def letters(x: Tensor, g: Generator) -> Tensor:
    """Draw letters in fonts that ship with matplotlib, rotated by up to 10 degrees."""
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


OUTLIERS: dict[str, Corruption] = {
    function.__name__: function for function in (letters, scribbles, noise, parts)
}
