"""The fifteen corruptions of MNIST-C.

N. Mu and J. Gilmer, MNIST-C: A robustness benchmark for computer vision, 2019
(https://arxiv.org/abs/1906.02337). Severities and formulas are those of the authors' program
(https://github.com/google-research/mnist-c, commit bba57e4, Apache-2.0) with the libraries of its
day: scikit-image 0.15 and ImageMagick. With the same random choices the images are the same; the
published ones were drawn with others. No training here uses any of these.

Each corruption takes images x (B, 28, 28), float64 in [0, 1], white on black, on the CPU, and a
generator. It returns changed copies, which `corrupt` clamps and rounds to 8 bits.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Generator, Tensor

Corruption = Callable[[Tensor, Generator], Tensor]
SIDE = 28
CENTER = (SIDE - 1) / 2
PIXELS = torch.arange(SIDE)


def corrupt(x: Tensor, name: str, g: Generator) -> Tensor:
    """Return corrupted copies of images x (B, 1, 28, 28) in [0, 1], both in steps of 1/255."""
    exact = (255 * x[:, 0]).round().double() / 255
    changed = 255 * CORRUPTIONS[name](exact, g).clamp(0, 1)
    # single precision before rounding, as there: brightness adds 127.5, and ties go to even numbers
    return changed.float().round()[:, None] / 255


def signs(x: Tensor, g: Generator) -> Tensor:
    """Draw -1 or 1 for each image, (B,)."""
    return torch.randint(2, (len(x),), generator=g).double() * 2 - 1


def integers(x: Tensor, g: Generator, low: int, high: int) -> Tensor:
    """Draw an integer from low to high - 1 for each image, (B,)."""
    return torch.randint(low, high, (len(x),), generator=g).double()


def blurred(x: Tensor, down: float, across: float) -> Tensor:
    """Blur images with a Gaussian of so many pixels along columns and along rows."""
    return torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, down, across), mode="nearest"))


def sampled(x: Tensor, *matrix: Tensor | float, right: Tensor | float = 0) -> Tensor:
    """Take each pixel of images (B, 28, 28) from where an affine map leads, bilinearly, or black.

    The map is about the image's center: (column, row) to (a column + b row, c column + d row) for
    the matrix a, b, c, d, all numbers or (B,), then `right` pixels to the right.
    """
    theta = x.new_zeros(len(x), 2, 3)
    for k, value in enumerate(matrix):
        theta[:, k // 2, k % 2] = value
    theta[:, 0, 2] = right / CENTER
    grid = F.affine_grid(theta, [len(x), 1, SIDE, SIDE], align_corners=True)
    return F.grid_sample(x[:, None], grid, align_corners=True)[:, 0]


def shot_noise(x: Tensor, g: Generator) -> Tensor:
    """Count photons, three of which make a pixel white."""
    return torch.poisson(3 * x, generator=g) / 3


def impulse_noise(x: Tensor, g: Generator) -> Tensor:
    """Make 17 % of the pixels black or white."""
    hit, white = torch.rand(2, *x.shape, generator=g)
    return torch.where(hit < 0.17, (white < 0.5).double(), x)


def glass_blur(x: Tensor, g: Generator) -> Tensor:
    """Blur along columns, swap half of the pixels with a neighbour, twice, and blur again.

    The authors' program means to blur along rows too, but declares the columns to be channels.
    """
    swaps, up, left = torch.randint(2, (3, 2, 26, 26, len(x)), generator=g)
    return shattered(x, swaps * (SIDE * up + left))


def shattered(x: Tensor, steps: Tensor) -> Tensor:
    """Blur images, swap pixels with others so many `steps` (2, 26, 26, B) before them, and blur.

    Steps are those of two rounds, each from the last pixel to the third of the third row.
    """
    pixels = (255 * blurred(x, 0.7, 0)).floor().flatten(1)  # (B, 784)
    inner = range(SIDE - 1, 1, -1)
    order = [SIDE * row + column for row in inner for column in inner]
    for here, step in zip(2 * order, steps.flatten(0, 2), strict=True):
        there = (here - step)[:, None]
        kept = pixels[:, [here]]
        pixels[:, [here]] = pixels.gather(1, there)
        pixels.scatter_(1, there, kept)
    return blurred(pixels.view_as(x) / 255, 0.7, 0)


def motion_blur(x: Tensor, g: Generator) -> Tensor:
    """Blur in a direction of up to 45 degrees up or down."""
    return dragged(x, math.pi / 2 * (torch.rand(len(x), generator=g, dtype=x.dtype) - 0.5))


def dragged(x: Tensor, angle: Tensor) -> Tensor:
    """Average each pixel and the 20 from there at angles (B,) in radians, as ImageMagick does.

    Their weights are half of a Gaussian of 3 pixels. The edges are continued outside.
    """
    images = torch.arange(len(x))[:, None, None]
    weights = torch.exp(-(torch.arange(21, dtype=x.dtype) ** 2) / (2 * 3**2))
    blurry = torch.zeros_like(x)
    for k, weight in enumerate(weights / weights.sum()):
        down, right = ((k * part - 0.5).ceil().long() for part in (angle.sin(), angle.cos()))
        rows, columns = ((PIXELS + by[:, None]).clamp(0, SIDE - 1) for by in (down, right))
        blurry += weight * x[images, rows[:, :, None], columns[:, None]]
    # it rounds to 16 bits, but builds without HDRI, as Debian's, truncate these to 8
    return (255 * blurry + 0.5 / 257).floor() / 255


def shear(x: Tensor, g: Generator) -> Tensor:
    """Slant by 0.4 radians to either side, as scikit-image 0.15 did: rows come nearer, too."""
    angle = 0.4 * signs(x, g)
    return sampled(x, 1, -angle.sin(), 0, angle.cos())


def scale(x: Tensor, g: Generator) -> Tensor:
    """Shrink to 70 %."""
    return sampled(x, 1 / 0.7, 0, 0, 1 / 0.7)


def rotate(x: Tensor, g: Generator) -> Tensor:
    """Rotate by 0.4 radians to either side."""
    return rotated(x, 0.4 * signs(x, g))


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate images counter-clockwise by angles (B,) in radians."""
    return sampled(x, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def brightness(x: Tensor, g: Generator) -> Tensor:
    """Add half of the range."""
    return x + 0.5


def translate(x: Tensor, g: Generator) -> Tensor:
    """Move by three pixels along each axis."""
    moved = sampled(x, 1, 0, 0, 1, right=3 * signs(x, g))
    # the same along the other axis
    return sampled(moved.mT, 1, 0, 0, 1, right=3 * signs(x, g)).mT


def stripe(x: Tensor, g: Generator) -> Tensor:
    """Invert the 7 columns at each side."""
    sides = (PIXELS < 7) | (PIXELS >= 21)
    return torch.where(sides, 1 - x, x)


def fog(x: Tensor, g: Generator) -> Tensor:
    """Add three times a cloud, and scale the sum back to the greatest value of the image."""
    clouds = torch.cat([cloud(len(part), g) for part in x.split(100)])
    brightest = x.amax((1, 2), keepdim=True)
    return (x + 3 * clouds) * brightest / (brightest + 3)


def cloud(n: int, g: Generator, side: int = 256) -> Tensor:
    """Return the corners (n, 28, 28) of n clouds in [0, 1], made by the diamond-square algorithm.

    Each round puts points midway between those that there are, at the mean of four and up to
    `amount` above or below it, and wraps around.
    """
    height = torch.zeros(n, side, side)
    step, amount = side, 100.0**2

    def near(total: Tensor, amount: float) -> Tensor:
        return total / 4 + amount * (2 * torch.rand(total.shape, generator=g) - 1)

    while step >= 2:
        half = step // 2
        corners = height[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        centers = near(pairs + pairs.roll(-1, 2), amount)
        sides = centers + centers.roll(1, 1) + corners + corners.roll(-1, 2)
        height[:, half::step, half::step] = centers
        height[:, ::step, half::step] = near(sides, amount)
        height[:, half::step, ::step] = near(centers + centers.roll(1, 2) + pairs, amount)
        step, amount = half, amount / 1.4**2
    low, high = height.amin((1, 2), keepdim=True), height.amax((1, 2), keepdim=True)
    return ((height[:, :SIDE, :SIDE] - low) / (high - low)).double()


def spatter(x: Tensor, g: Generator) -> Tensor:
    """Cover spots with a dark grey: where smoothed noise is above its mean nearly everywhere."""
    noise = 0.65 + 0.3 * torch.randn(x.shape, generator=g, dtype=x.dtype)
    spots = blurred((blurred(noise, 1, 1) > 0.65).double(), 1.5, 1.5)
    spots[spots < 0.8] = 0
    return x * (1 - spots) + spots * 63 / 255


def line(c0: Tensor, r0: Tensor, c1: Tensor, r1: Tensor) -> Tensor:
    """Draw lines from columns and rows to columns and rows, (B,) each, on images (B, 28, 28).

    Ink falls from 1 to 0 within 1.5 pixels above and below the line.
    """
    c0, r0, c1, r1 = (end.view(-1, 1, 1) for end in (c0, r0, c1, r1))
    distance = (PIXELS[:, None] - r0 - (r1 - r0) / (c1 - c0) * (PIXELS - c0)).abs()
    ink = 1 + (1 - distance / 2.3).clamp(min=1e-9).log()
    return ink.clamp(0, 1) * ((c0.floor() <= PIXELS) & (c1.ceil() > PIXELS))


def dotted_line(x: Tensor, g: Generator) -> Tensor:
    """Add a line from the left to the right side, at random heights, of dots of two columns."""
    left, right = integers(x, g, 0, 27), integers(x, g, 0, 27)
    side = torch.zeros_like(left)
    return x + line(side, left, side + 27, right) * (PIXELS // 2 % 2)


def zigzag(x: Tensor, g: Generator) -> Tensor:
    """Add a zigzag of 23 columns about a nearly level line at a random height."""
    row = integers(x, g, 0, 27)
    rise = integers(x, g, -5, 5)
    length = torch.hypot(rise, torch.full_like(rise, 23.0))
    cos, sin = 23 / length, rise / length
    # along the line and across it, before it is turned; the last corner is an odd one there, too
    along = [torch.full_like(length, k) for k in (0, 2, 6, 10, 14, 18, 22)] + [length]
    across = [torch.full_like(length, k) for k in (0, 2, -2, 2, -2, 2, -2)] + [-1 / (length - 20)]
    corners = [
        (2 + cos * a - sin * b, row + sin * a + cos * b) for a, b in zip(along, across, strict=True)
    ]
    return x + sum(line(*start, *end) for start, end in itertools.pairwise(corners))


def canny_edges(x: Tensor, g: Generator) -> Tensor:
    """Detect edges as scikit-image does: a Gaussian of 1 pixel, thresholds 0.1 and 0.2.

    J. Canny, A computational approach to edge detection, PAMI 8 (1986).
    """

    def smooth(images: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(images, (0, 1, 1), mode="constant")

    picture = smooth(x.numpy()) / (smooth(np.ones((1, SIDE, SIDE))) + np.finfo(float).eps)
    dy, dx = (
        ndimage.correlate1d(ndimage.correlate1d(picture, [-1, 0, 1], axis), [1, 2, 1], 3 - axis)
        for axis in (1, 2)
    )
    size = np.hypot(dy, dx)
    # an edge is a maximum along the gradient: between a neighbour along the axis that is nearer to
    # the gradient and one along the diagonal
    down, right = np.sign(dy).astype(int), np.sign(dx).astype(int)
    steep = abs(dy) >= abs(dx)
    slant = np.minimum(abs(dy), abs(dx)) / np.maximum(np.maximum(abs(dy), abs(dx)), 1e-300)
    image, row, column = np.indices(size.shape)
    highest = np.zeros(size.shape, bool)
    highest[:, 1:-1, 1:-1] = True
    for way in (1, -1):
        rows, columns = (row + way * down) % SIDE, (column + way * right) % SIDE
        diagonal = size[image, rows, columns]
        straight = size[image, np.where(steep, rows, row), np.where(steep, column, columns)]
        highest &= diagonal * slant + straight * (1 - slant) <= size
    # a weak edge counts if it is connected to a strong one
    weak, strong = highest & (size >= 0.1), highest & (size >= 0.2)
    edges = ndimage.binary_propagation(strong, np.ones((1, 3, 3)), weak)
    return torch.from_numpy(edges).double()


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        shot_noise,
        impulse_noise,
        glass_blur,
        motion_blur,
        shear,
        scale,
        rotate,
        brightness,
        translate,
        stripe,
        fog,
        spatter,
        dotted_line,
        zigzag,
        canny_edges,
    )
}
