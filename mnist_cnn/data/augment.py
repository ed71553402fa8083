"""Random augmentation of a batch of digits, by ways in which people's handwriting differs.

Shapes: B images in a batch; an image is (1, 28, 28), white ink on black, in [0, 1].
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mnist_cnn.config import schema
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.mnist import DIGITS

FINEST = 0.4  # half of the width of the finest stroke drawn, in pixels


@dataclass(frozen=True)
class Augment:
    """Random affine maps, pens, papers and strokes for a batch of digits.

    Amounts are drawn for each digit, that of `coarse` for the batch; 0 disables a change. All
    randomness comes from the generator passed to each call.

    Args:
        degrees: maximum rotation in either direction.
        shift: maximum translation along x and along y, in pixels.
        scale: sizes change by a factor of 1 - scale to 1 / (1 - scale), the same for both axes.
        stretch: the same of the ratio of width to height.
        shear: maximum slant in either direction, in degrees.
        contrast: interpolate bicubically and multiply the distance from mid-grey by this; 0 for
            bilinear interpolation, which leaves more of the pixels grey.
        elastic: standard deviation of a smooth displacement field, in pixels.
        thickness: maximum weight of a blended one-pixel dilation or erosion.
        blur: maximum weight of a blended 3x3 mean.
        gamma: maximum change of the exponent of the darkness, as a power of two.
        strike: probability of a random line across the image, like the remains of a ruled line.
        flourish: probability of a stroke variant that is taught elsewhere and rare among MNIST's
            American writers: a one's upstroke and foot, an open four, a seven's crossbar, a zero's
            slash.
        pen: maximum half of the width of drawn strokes, in pixels; the minimum is 0.4.
        hollow: probability of replacing the strokes by their outline.
        gap: probability of a gap, a straight line across the strokes.
        coarse: probability of downsampling to 9 to 14 pixels a side and upsampling again.
        inverted: probability of inverting what lies beyond a random straight line.
        background: maximum grey of the paper, a linear gradient; half of the digits get none.
        noise: maximum standard deviation of pixel noise; half of the digits get none.
        erase: probability of covering a rectangle with one grey: Z. Zhong et al., Random erasing
            data augmentation, AAAI 2020 (https://arxiv.org/abs/1708.04896).
        unchanged: probability of leaving an image as sharp as at inference: the affine map blurs it
            slightly.

    Raises:
        ValueError: an amount is outside its range in `config.schema`.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    contrast: float = 0.0
    elastic: float = 0.0
    thickness: float = 0.0
    blur: float = 0.0
    gamma: float = 0.0
    strike: float = 0.0
    flourish: float = 0.0
    pen: float = 1.2
    hollow: float = 0.0
    gap: float = 0.0
    coarse: float = 0.0
    inverted: float = 0.0
    background: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    unchanged: float = 0.0

    def __post_init__(self) -> None:
        schema.check_values("", schema.Augment, dataclasses.asdict(self))

    def __call__(self, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Return augmented copies (B, 1, 28, 28) in [0, 1] of images x (B, 1, 28, 28) in [0, 1].

        Labels y (B,) select the strokes to vary. The generator must be on the device of x; equal
        generator states give equal results.
        """
        chance = Chance(x, generator, self.pen)
        given = x
        if self.flourish:
            x = vary_strokes(x, y, self.flourish, chance)
        if self.strike:
            x = draw_line(x, self.strike, chance)
        if self.gap:
            x = 1 - draw_line(1 - x, self.gap, chance)
        if self.hollow:
            outline = F.max_pool2d(x, 3, stride=1, padding=1) - x
            x = torch.where(chance.share() < self.hollow, outline, x)
        x = move(x, self, chance)
        if self.coarse:
            x = coarsen(x, self.coarse, chance)
        if self.thickness:
            x = thicken(x, chance.around(self.thickness))
        if self.blur:
            share = self.blur * chance.share()
            x = torch.lerp(x, F.avg_pool2d(x, 3, stride=1, padding=1), share)
        if self.gamma:
            x = x.clamp(0, 1) ** (2 ** chance.around(self.gamma))
        if self.background:
            grey = chance.around(self.background).clamp(min=0)
            x = x + grey * slope(x, chance)
        if self.inverted:
            x = invert(x, self.inverted, chance)
        if self.erase:
            x = erase(x, self.erase, chance)
        if self.noise:
            spread = chance.around(self.noise).clamp(min=0)
            x = x + spread * chance.normal(*x.shape)
        x = x.clamp(0, 1)
        if self.unchanged:
            x = torch.where(chance.share() < self.unchanged, given, x)
        return x


def check_amounts(
    key: str, amounts: Mapping[str, float], shape: Sequence[int], classes: Sequence[str]
) -> None:
    """Raise ValueError if images are not of a kind that `Augment` changes by these amounts.

    The strokes of other schools are chosen by the label: on anything but digits they would tell it.

    Args:
        key: the key of the amounts in the configuration.
        amounts: arguments of `Augment`.
        shape: (C, H, W) of the images.
        classes: their names by label.
    """
    channels, height, width = shape
    used = {name: amount for name, amount in amounts.items() if amount}
    if used and height != width:
        allowed = f"0, or in data.augment transforms by name, for images of {height} x {width}"
        raise ValueError(must_be(key, allowed, ", ".join(used)))
    if "flourish" in used and ((channels, height) != (1, 28) or tuple(classes) != DIGITS):
        allowed = "0 for images that are not 28x28 digits of the classes 0 to 9"
        raise ValueError(must_be(f"{key}.flourish", allowed, used["flourish"]))


class Chance:
    """Random numbers for a batch, from one generator on the batch's device."""

    def __init__(self, x: Tensor, generator: Generator, pen: float):
        self.n, self.device, self.generator, self.pen = len(x), x.device, generator, pen

    def share(self, *shape: int) -> Tensor:
        """Draw uniformly from [0, 1): one number per image, (B, 1, 1, 1), or of shape `shape`."""
        size = shape or (self.n, 1, 1, 1)
        return torch.rand(size, generator=self.generator, device=self.device)

    def around(self, greatest: float) -> Tensor:
        """Draw uniformly from [-greatest, greatest], (B, 1, 1, 1)."""
        return greatest * (2 * self.share() - 1)

    def between(self, low: float, high: float) -> Tensor:
        """Draw uniformly from [low, high], (B,)."""
        return low + (high - low) * self.share(self.n)

    def half_width(self) -> Tensor:
        """Draw half of a stroke's width in pixels, (B, 1, 1, 1)."""
        return self.around((self.pen - FINEST) / 2) + (self.pen + FINEST) / 2

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)


def move(x: Tensor, most: Augment, chance: Chance) -> Tensor:
    """Rotate, shear, scale, translate and elastically deform images by one sampling.

    Each further sampling would blur the strokes.
    """
    half = x.shape[-1] / 2  # grid coordinates run over [-1, 1], so a pixel is 1 / half

    def draw(greatest: float) -> Tensor:
        return chance.around(greatest).flatten()  # (B,)

    angle = draw(math.radians(most.degrees))
    slant = torch.tan(draw(math.radians(most.shear)))
    size = torch.exp(draw(-math.log1p(-most.scale)))
    width = torch.exp(draw(-math.log1p(-most.stretch) / 2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    # rotation @ slant @ diag(size * width, size / width)
    column = point(cos * size * width, sin * size * width)
    slanted = point(cos * slant - sin, sin * slant + cos) * size[:, None] / width[:, None]
    place = point(draw(most.shift), draw(most.shift)) / half
    theta = torch.stack([column, slanted, place], 2)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)  # (B, 28, 28, 2)
    if most.elastic:
        # 6x6 control points bend a stroke without tearing it
        field = chance.normal(len(x), 2, 6, 6)
        spread = cubic(6, x.shape[-1], x.device)
        field = spread @ field @ spread.T  # (B, 2, 28, 28)
        grid = grid + field.permute(0, 2, 3, 1) * (most.elastic / half)
    if not most.contrast:
        return F.grid_sample(x, grid, align_corners=False)
    sampled = F.grid_sample(x, grid, mode="bicubic", align_corners=False)
    return ((sampled - 0.5) * most.contrast + 0.5).clamp(0, 1)


@functools.cache
def cubic(points: int, side: int, device: torch.device) -> Tensor:
    """Return the weights (side, points) of bicubic interpolation along one axis, end to end.

    Two small products with it take a sixth of the time of `F.interpolate`.
    """
    one_each = torch.eye(points, device=device)[None, None]
    return F.interpolate(one_each, (side, points), mode="bicubic", align_corners=True)[0, 0]


def slope(x: Tensor, chance: Chance) -> Tensor:
    """Return a linear ramp over each image, (B, 1, 28, 28) in [0, 1], in a random direction."""
    angle, steepness = chance.around(math.pi), chance.share()
    axis = torch.linspace(-0.5, 0.5, x.shape[-1], device=x.device)
    along = angle.cos() * axis + angle.sin() * axis[:, None]
    return (1 - steepness * (0.5 - along)).clamp(0, 1)


def invert(x: Tensor, probability: float, chance: Chance) -> Tensor:
    """Invert what lies beyond a random straight line in a fraction of the images."""
    side = x.shape[-1]
    angle, offset = chance.around(math.pi), chance.around(side / 2)
    axis = torch.arange(side, device=x.device) - (side - 1) / 2
    beyond = angle.cos() * axis + angle.sin() * axis[:, None] > offset
    return torch.where(beyond & (chance.share() < probability), 1 - x, x)


def erase(x: Tensor, probability: float, chance: Chance) -> Tensor:
    """Cover a rectangle of 4 to 14 pixels a side in a fraction of the images."""
    side = x.shape[-1]
    left, width, top, height, draw, grey = chance.share(6, len(x), 1, 1, 1)
    axis = torch.arange(side, device=x.device)
    columns = (axis >= side * left - 4) & (axis < side * left + 10 * width)
    rows = (axis >= side * top - 4) & (axis < side * top + 10 * height)
    return torch.where(columns & rows.mT & (draw < probability), grey, x)


def thicken(x: Tensor, amount: Tensor) -> Tensor:
    """Blend with the grey dilation where the amount is positive, with the erosion elsewhere."""
    thick = F.max_pool2d(x, 3, stride=1, padding=1)
    # a cross erodes half as much as a square, so thin strokes survive
    across, down = F.max_pool2d(-x, (1, 3), 1, (0, 1)), F.max_pool2d(-x, (3, 1), 1, (1, 0))
    thin = -torch.maximum(across, down)
    return torch.where(amount > 0, x.lerp(thick, amount), x.lerp(thin, -amount))


def coarsen(x: Tensor, probability: float, chance: Chance) -> Tensor:
    """Downsample a fraction of the images, upsample them again and sharpen their edges."""
    cells = 9 + int(6 * chance.share(1))
    small = F.adaptive_avg_pool2d(x, cells)
    smooth = F.interpolate(small, x.shape[-2:], mode="bicubic", align_corners=False)
    darkest = smooth.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    sharp = ((smooth / darkest - 0.2) / 0.6).clamp(0, 1)  # as sharp as the reader's images
    return torch.where(chance.share() < probability, sharp, x)


def draw_line(x: Tensor, probability: float, chance: Chance) -> Tensor:
    """Draw a random straight line over a fraction of the images."""
    side = x.shape[-1]
    angle = chance.around(math.pi).flatten()
    # through the digit's neighbourhood, not through the empty corners
    offset = chance.around(side / 3).flatten()
    reach = chance.around(side / 6).flatten() + side / 3
    middle = (side - 1) / 2 + offset.unsqueeze(1) * point(-angle.sin(), angle.cos())
    half = reach.unsqueeze(1) * point(angle.cos(), angle.sin())
    chosen = chance.share(len(x)) < probability
    return ink(x, middle - half, middle + half, chosen, chance)


def vary_strokes(x: Tensor, y: Tensor, probability: float, chance: Chance) -> Tensor:
    """Add upstrokes and feet to ones, crossbars to sevens, slashes to zeros; open fours."""
    side, draw = x.shape[-1], chance.between
    axis = torch.arange(side, device=x.device, dtype=x.dtype)
    darkness = x.squeeze(1)  # (B, 28, 28)
    inked = (darkness.amax(2) > 0.5).int()  # (B, 28): rows
    top = inked.argmax(1)
    bottom = side - 1 - inked.flip(1).argmax(1)
    height = (bottom - top).to(x.dtype)

    def middle(row: Tensor) -> Tensor:
        """Return the mean position of the ink in a row of each image, (B, 2)."""
        line = darkness[torch.arange(len(x), device=x.device), row]  # (B, 28)
        return point((line * axis).sum(1) / line.sum(1).clamp(min=1e-6), row.to(x.dtype))

    chosen = draw(0, 1) < probability
    # the upstroke: back down to the left from the top of the one or below, in some schools far down
    below = draw(-0.3, 0.4).clamp(min=0)
    angle, length = draw(math.radians(25), math.radians(90)), height * draw(0.2, 0.8) * (1 - below)
    way = point(-length * angle.sin(), length * angle.cos())
    start = middle((top + height * below).round().long())
    x = ink(x, start, start + way, chosen & (y == 1), chance)
    # the foot, a level stroke
    half = point(height * draw(0.15, 0.4), height * draw(-0.03, 0.03))
    foot = chosen & (y == 1) & (draw(0, 1) < 0.4)
    x = ink(x, middle(bottom) - half, middle(bottom) + half, foot, chance)
    # the crossbar, at half of the seven's height
    row = (top + height * draw(0.4, 0.6)).round().long()
    half = point(height * draw(0.15, 0.3), height * draw(-0.08, 0.05))
    x = ink(x, middle(row) - half, middle(row) + half, chosen & (y == 7), chance)
    # a four of two strokes: down to the left and across, then down through the first
    open_four = chosen & (y == 4) & (draw(0, 1) < 0.5)
    x = torch.where(open_four.view(-1, 1, 1, 1), 0, x)
    corner = point(draw(5, 9), draw(13, 18))
    across = point(draw(6, 18), draw(-2, 2))
    x = ink(x, point(draw(8, 16), draw(3, 7)), corner, open_four, chance)
    x = ink(x, corner, corner + across, open_four, chance)
    x = ink(
        x, point(draw(12, 19), draw(5, 13)), point(draw(11, 18), draw(22, 25)), open_four, chance
    )
    # the slash, from lower left to upper right
    angle, length = draw(math.radians(25), math.radians(65)), height * draw(0.35, 0.65)
    half = point(length * angle.sin(), -length * angle.cos())
    centre = point(torch.full_like(height, (side - 1) / 2), (top + bottom) / 2)
    return ink(x, centre - half, centre + half, chosen & (y == 0), chance)


def point(column: Tensor, row: Tensor) -> Tensor:
    """Stack columns (B,) and rows (B,) into points (B, 2)."""
    return torch.stack([column, row], 1)


def ink(x: Tensor, start: Tensor, end: Tensor, chosen: Tensor, chance: Chance) -> Tensor:
    """Draw an anti-aliased stroke from start to end, (B, 2), on the chosen images, (B,)."""
    axis = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    dx, dy = axis - start[:, :1, None], axis[:, None] - start[:, 1:, None]  # (B, 1, 28), (B, 28, 1)
    ahead, aside = (end - start)[..., None, None].unbind(1)  # (B, 1, 1)
    share = (dx * ahead + dy * aside) / (ahead**2 + aside**2).clamp(min=1e-6)
    share = share.clamp(0, 1)  # (B, 28, 28)
    distance = torch.hypot(dx - share * ahead, dy - share * aside)
    darkness = (chance.half_width() + 0.5 - distance.unsqueeze(1)).clamp(0, 1)
    return torch.where(chosen.view(-1, 1, 1, 1), torch.maximum(x, darkness), x)
