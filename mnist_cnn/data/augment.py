"""Random changes to a batch of digits, of the kind in which other people's handwriting differs.

Shapes: B images in a batch; an image is (1, 28, 28), white ink on black, in [0, 1].
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mnist_cnn.config import schema


@functools.cache
def cubic(points: int, side: int, device: torch.device) -> Tensor:
    """(side, points): the weights of a bicubic interpolation along one axis, end to end.

    Two small products with it take a sixth of the time of `F.interpolate`.
    """
    one_each = torch.eye(points, device=device)[None, None]
    size = (side, points)
    return F.interpolate(one_each, size, mode="bicubic", align_corners=True)[0, 0]


@dataclass(frozen=True)
class Augment:
    """Turns, moves, bends, thickens, blurs, fades and strikes through a batch of digits.

    Every digit draws its own amounts; 0 switches a change off. All chance comes from the generator
    that each call is given.

    Args:
        degrees: greatest rotation to either side.
        shift: greatest move along x and along y, in pixels.
        scale: greatest relative change of size, the same for both axes, in [0, 1).
        stretch: greatest relative change of width against height, in [0, 1).
        shear: greatest slant to either side, in degrees.
        elastic: standard deviation of a smooth displacement field, in pixels.
        thickness: greatest share of a one-pixel dilation or erosion to blend in, in [0, 1].
        blur: greatest share of a 3x3 mean to blend in, in [0, 1].
        gamma: greatest change of the exponent of the ink's darkness, as a power of two.
        strike: probability of a straight stroke across the image, in [0, 1]: what is left of a
            ruled line.
        flourish: probability, in [0, 1], of what other schools teach and MNIST's American writers
            seldom wrote: a one's upstroke and foot, a seven's crossbar, a zero's slash.
        background: greatest grey of the paper, which rises evenly across it, in [0, 1]; half of
            the digits get none.
        noise: greatest standard deviation of noise in the pixels, in [0, 1]; half get none.
        erase: probability, in [0, 1], of a rectangle of one grey over the image: Z. Zhong et al.,
            Random erasing data augmentation, AAAI 2020 (https://arxiv.org/abs/1708.04896).
        unchanged: probability, in [0, 1], that an image stays as it is, as sharp as those that
            the network is to read: the moves blur it a little.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    thickness: float = 0.0
    blur: float = 0.0
    gamma: float = 0.0
    strike: float = 0.0
    flourish: float = 0.0
    background: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    unchanged: float = 0.0

    def __post_init__(self) -> None:
        for key, allowed in schema.Augment.model_json_schema()["properties"].items():
            value, greatest = getattr(self, key), allowed["maximum"]
            if not 0 <= value <= greatest:
                raise ValueError(f"augment.{key}={value}: must be in [0, {greatest:g}]")

    def __call__(self, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Changed copies (B, 1, 28, 28) in [0, 1] of images x (B, 1, 28, 28) in [0, 1].

        Labels y (B,) stay as they are. The generator must live on the device of x; equal
        generator states give equal results.
        """
        given = x
        if self.flourish:
            x = self._flourished(x, y, generator)
        if self.strike:
            x = self._struck(x, generator)
        x = self._moved(x, generator)
        if self.thickness:
            x = self._thickened(x, generator)
        if self.blur:
            share = self.blur * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
            x = torch.lerp(x, F.avg_pool2d(x, 3, stride=1, padding=1), share)
        if self.gamma:
            x = x.clamp(0, 1) ** (2 ** self._uniform(x, generator, self.gamma))
        if self.background:
            x = x + self._uniform(x, generator, self.background).clamp(min=0) * self._slope(
                x, generator
            )
        if self.erase:
            x = self._erased(x, generator)
        if self.noise:
            spread = self._uniform(x, generator, self.noise).clamp(min=0)
            x = x + spread * torch.randn(x.shape, generator=generator, device=x.device)
        x = x.clamp(0, 1)
        if self.unchanged:
            draw = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
            x = torch.where(draw < self.unchanged, given, x)
        return x

    @staticmethod
    def _uniform(x: Tensor, generator: Generator, greatest: float) -> Tensor:
        """One number in [-greatest, greatest] per image, (B, 1, 1, 1)."""
        draw = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
        return greatest * (2 * draw - 1)

    def _slope(self, x: Tensor, generator: Generator) -> Tensor:
        """A plane over each image, (B, 1, 28, 28) in [0, 1], that rises in some direction."""
        angle = self._uniform(x, generator, math.pi)
        steepness = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
        axis = torch.linspace(-0.5, 0.5, x.shape[-1], device=x.device)
        along = angle.cos() * axis + angle.sin() * axis[:, None]
        return (1 - steepness * (0.5 - along)).clamp(0, 1)

    def _erased(self, x: Tensor, generator: Generator) -> Tensor:
        """Covers a rectangle of 4 to 14 pixels a side in a share of the images."""
        side = x.shape[-1]
        draw = torch.rand(6, len(x), 1, 1, 1, generator=generator, device=x.device)
        axis = torch.arange(side, device=x.device)
        inside = [
            (axis >= side * draw[k] - 4) & (axis < side * draw[k] + 10 * draw[k + 1])
            for k in (0, 2)
        ]
        covered = inside[0] & inside[1].mT & (draw[4] < self.erase)
        return torch.where(covered, draw[5], x)

    def _moved(self, x: Tensor, generator: Generator) -> Tensor:
        """Rotation, slant, size and place in one affine map, bent by the elastic field.

        One bilinear sampling for all of them: each further one would blur the strokes.
        """
        half = x.shape[-1] / 2  # grid coordinates run over [-1, 1], so a pixel is 1 / half

        def draw(greatest: float) -> Tensor:
            return self._uniform(x, generator, greatest).flatten()  # (B,)

        angle = draw(math.radians(self.degrees))
        slant = torch.tan(draw(math.radians(self.shear)))
        size = torch.exp(draw(-math.log1p(-self.scale)))
        width = torch.exp(draw(-math.log1p(-self.stretch) / 2))
        cos, sin = torch.cos(angle), torch.sin(angle)
        # rotation @ slant @ diag(size * width, size / width)
        theta = torch.stack(
            [
                torch.stack([cos * size * width, (cos * slant - sin) * size / width], 1),
                torch.stack([sin * size * width, (sin * slant + cos) * size / width], 1),
            ],
            1,
        )  # (B, 2, 2)
        place = torch.stack([draw(self.shift), draw(self.shift)], 1) / half  # (B, 2)
        theta = torch.cat([theta, place.unsqueeze(2)], 2)  # (B, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)  # (B, 28, 28, 2)
        if self.elastic:
            # 6x6 control points bend a stroke without tearing it
            field = torch.randn(len(x), 2, 6, 6, generator=generator, device=x.device)
            spread = cubic(6, x.shape[-1], x.device)
            field = spread @ field @ spread.T  # (B, 2, 28, 28)
            grid = grid + field.permute(0, 2, 3, 1) * (self.elastic / half)
        return F.grid_sample(x, grid, align_corners=False)

    def _thickened(self, x: Tensor, generator: Generator) -> Tensor:
        """A blend with the grey dilation for half of the images, with the erosion for the rest."""
        amount = self._uniform(x, generator, self.thickness)
        thick = F.max_pool2d(x, 3, stride=1, padding=1)
        # a cross erodes half as much as a square: a thin pen must not vanish
        thin = torch.maximum(
            F.max_pool2d(-x, (1, 3), stride=1, padding=(0, 1)),
            F.max_pool2d(-x, (3, 1), stride=1, padding=(1, 0)),
        ).neg()
        return torch.where(amount > 0, x.lerp(thick, amount), x.lerp(thin, -amount))

    def _struck(self, x: Tensor, generator: Generator) -> Tensor:
        """Draws a straight stroke over a share of the images."""
        side = x.shape[-1]
        angle = self._uniform(x, generator, math.pi).flatten()
        # through the digit's neighbourhood, not through the empty corners
        offset = self._uniform(x, generator, side / 3).flatten()
        reach = self._uniform(x, generator, side / 6).flatten() + side / 3
        along = torch.stack([angle.cos(), angle.sin()], 1)  # (B, 2)
        across = torch.stack([-angle.sin(), angle.cos()], 1)
        middle = (side - 1) / 2 + offset.unsqueeze(1) * across
        half = reach.unsqueeze(1) * along
        chosen = torch.rand(len(x), generator=generator, device=x.device) < self.strike
        return self._inked(x, middle - half, middle + half, chosen, generator)

    def _flourished(self, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Gives ones an upstroke and perhaps a foot, sevens a crossbar and zeros a slash."""

        def draw(low: float, high: float) -> Tensor:
            draws = torch.rand(len(x), generator=generator, device=x.device)
            return low + (high - low) * draws  # (B,)

        def point(column: Tensor, row: Tensor) -> Tensor:
            return torch.stack([column, row], 1)  # (B, 2)

        side = x.shape[-1]
        axis = torch.arange(side, device=x.device, dtype=x.dtype)
        darkness = x.squeeze(1)  # (B, 28, 28)
        inked = (darkness.amax(2) > 0.5).int()  # (B, 28): rows
        top = inked.argmax(1)
        bottom = side - 1 - inked.flip(1).argmax(1)
        height = (bottom - top).to(x.dtype)

        def middle(row: Tensor) -> Tensor:
            """Where the ink of a row is on average, (B, 2)."""
            line = darkness[torch.arange(len(x), device=x.device), row]  # (B, 28)
            return point((line * axis).sum(1) / line.sum(1).clamp(min=1e-6), row.to(x.dtype))

        chosen = draw(0, 1) < self.flourish
        # the upstroke: back down to the left from the top of the one, in some schools far down
        angle, length = draw(math.radians(25), math.radians(70)), height * draw(0.2, 0.8)
        start = middle(top)
        end = start + point(-length * angle.sin(), length * angle.cos())
        x = self._inked(x, start, end, chosen & (y == 1), generator)
        # the foot, a level stroke
        half = point(height * draw(0.15, 0.4), height * draw(-0.03, 0.03))
        foot = chosen & (y == 1) & (draw(0, 1) < 0.4)
        x = self._inked(x, middle(bottom) - half, middle(bottom) + half, foot, generator)
        # the crossbar, at half of the seven's height
        row = (top + height * draw(0.4, 0.6)).round().long()
        half = point(height * draw(0.15, 0.3), height * draw(-0.08, 0.05))
        x = self._inked(x, middle(row) - half, middle(row) + half, chosen & (y == 7), generator)
        # the slash, from lower left to upper right
        angle, length = draw(math.radians(25), math.radians(65)), height * draw(0.35, 0.65)
        centre = point(torch.full_like(height, (side - 1) / 2), (top + bottom) / 2)
        half = point(length * angle.sin(), -length * angle.cos())
        return self._inked(x, centre - half, centre + half, chosen & (y == 0), generator)

    def _inked(
        self, x: Tensor, start: Tensor, end: Tensor, chosen: Tensor, generator: Generator
    ) -> Tensor:
        """Draws an anti-aliased stroke from start to end, (B, 2) as (column, row), where chosen."""
        axis = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        columns, rows = axis.view(1, 1, -1), axis.view(1, -1, 1)
        dx, dy = columns - start[:, :1, None], rows - start[:, 1:, None]  # (B, 28, 28) by broadcast
        way = end - start
        ahead, aside = way[:, :1, None], way[:, 1:, None]  # (B, 1, 1)
        share = (dx * ahead + dy * aside) / (ahead**2 + aside**2).clamp(min=1e-6)
        share = share.clamp(0, 1)
        distance = torch.hypot(dx - share * ahead, dy - share * aside)
        width = self._uniform(x, generator, 0.4) + 0.8  # half of the stroke's width
        stroke = (width + 0.5 - distance.unsqueeze(1)).clamp(0, 1)
        return torch.where(chosen.view(-1, 1, 1, 1), torch.maximum(x, stroke), x)
