"""Target maps of a page, and the loss of the network's maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_cnn.data.synthetic.sheet import STRIDE
from mnist_cnn.detection.network import CHANNELS

UNIT = 16.0  # pixels per unit of the box maps
NEAR = 0.5  # target of a centre above which a cell learns its box and class


def by_name(maps: Tensor) -> dict[str, Tensor]:
    """Split the maps (B, 32, h, w) by name."""
    return dict(zip(CHANNELS, maps.split(list(CHANNELS.values()), 1), strict=True))


def spread(size: Tensor) -> Tensor:
    """Return the standard deviation of a centre's Gaussian, in cells."""
    return (size / STRIDE * 0.09).clamp(min=0.7)


def targets(
    marks: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the target maps.

    Args:
        marks: (B, N, 7): class, left, top, right, bottom, size, and a flag: 1 for a character, 0 to
            ignore it, -1 for padding.
        height: h of the maps.
        width: w of the maps.

    Returns:
        centres (B, h, w), 1 at a centre and less around it; their mask (B, h, w); classes
        (B, h, w); boxes (B, 4, h, w); the mask of these two (B, h, w).
    """
    y = torch.arange(height, device=marks.device).view(1, 1, -1, 1)
    x = torch.arange(width, device=marks.device).view(1, 1, 1, -1)
    kind, left, top, right, bottom, size, flag = (part[..., None, None] for part in marks.unbind(2))
    cx, cy = ((a + b) / 2 / STRIDE - 0.5 for a, b in ((left, right), (top, bottom)))
    square = (x - cx) ** 2 + (y - cy) ** 2
    blobs = torch.exp(-square / (2 * spread(size) ** 2)) * (flag > 0)
    at_centre = (x == cx.round()) & (y == cy.round()) & (flag > 0)
    blobs = torch.where(at_centre, 1.0, blobs.clamp(max=0.999))
    heat, owner = blobs.max(1)  # (B, h, w)
    px, py = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
    inside = (px > left) & (px < right) & (py > top) & (py < bottom) & (flag == 0)
    counts = ~(inside.any(1) & (heat < NEAR))

    def of_owner(part: Tensor) -> Tensor:
        return part[..., 0, 0].gather(1, owner.flatten(1)).view_as(heat)

    boxes = torch.stack(
        [
            px[:, 0] - of_owner(left),
            py[:, 0] - of_owner(top),
            of_owner(right) - px[:, 0],
            of_owner(bottom) - py[:, 0],
        ],
        1,
    )
    return heat, counts, of_owner(kind).long().clamp(min=0), boxes / UNIT, heat > NEAR


def detection_loss(maps: Tensor, rules: Tensor, marks: Tensor) -> dict[str, Tensor]:
    """Return the parts of the loss: centre, symbol, box and rule; training minimises their sum.

    Args:
        maps: (B, 32, h, w), output of the network.
        rules: (B, 1, h, w), 1 on ruled lines.
        marks: (B, N, 7), see `targets`.
    """
    made = by_name(maps.float())
    heat, counts, kinds, boxes, near = targets(marks, *maps.shape[2:])
    logit = made["centre"][:, 0]
    p = logit.sigmoid()
    positive = heat.eq(1).float()
    # the focal loss of Objects as Points, equation 1
    found = positive * (1 - p) ** 2 * F.logsigmoid(logit)
    empty = (1 - positive) * (1 - heat) ** 4 * p**2 * F.logsigmoid(-logit)
    n = positive.sum().clamp(min=1)
    weight = heat * near
    total = weight.sum().clamp(min=1)
    symbol = F.cross_entropy(made["symbol"], kinds, reduction="none")
    box = (made["box"] - boxes).abs().sum(1)
    return {
        "centre": -((found + empty) * counts).sum() / n,
        "symbol": (symbol * weight).sum() / total,
        "box": (box * weight).sum() / total,
        "rule": 4 * F.binary_cross_entropy_with_logits(made["rule"], rules),
    }
