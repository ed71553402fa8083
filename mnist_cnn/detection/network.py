"""The network that finds characters on a page."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_cnn.data.synthetic.sheet import SYMBOLS

CHANNELS = {"centre": 1, "rule": 1, "box": 4, "symbol": len(SYMBOLS)}  # of the maps, in this order
COARSEST = 8  # pixels per cell of the deepest maps; divides the sides of the input

EVIDENCE = 5  # numbers that indicate errors in a line, see `lines.evidence`


class Block(nn.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Residual(nn.Module):
    """A block whose output is added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.block = Block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Detector(nn.Module):
    """A fully convolutional network: maps of characters and ruled lines at a quarter of the size.

    Centres of characters are peaks of a map (Zhou et al., Objects as Points, 2019); other maps have
    the sides of the box and the class at a centre. Residual blocks at an eighth of the size see the
    line around a character at a quarter of the cost; their output is added to the maps at a quarter
    of the size. It has 1,557,496 parameters with the default arguments.

    Args:
        width: channels at a quarter of the size.
        deep_width: channels at an eighth of the size.
        blocks: number of residual blocks at an eighth of the size.
    """

    def __init__(self, *, width: int = 48, deep_width: int = 160, blocks: int = 6):
        super().__init__()
        self.stem = nn.Sequential(
            Block(1, 24, 5, 2), Block(24, 48, 3, 2), Block(48, width), Residual(width)
        )
        self.deep = nn.Sequential(
            Block(width, deep_width, 3, 2), *(Residual(deep_width) for _ in range(blocks))
        )
        self.up = nn.Conv2d(deep_width, width, 1)
        self.last = nn.Sequential(Residual(width), Residual(width))
        self.head = nn.Conv2d(width, sum(CHANNELS.values()), 1)
        # weights of a character's log-odds and of a line's evidence, each with an offset at its
        # end, see `calibration.calibrate`
        self.register_buffer("character_weights", torch.tensor([1.0, 0.0]))
        self.register_buffer("line_weights", torch.tensor([-1.0] * EVIDENCE + [0.0]))
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.head.bias[:2], -4.0)  # type: ignore[index]  # few cells are centres

    @property
    def reach(self) -> int:
        """The number of pixels beside an area on which its maps depend.

        The area and its distance from the edges are multiples of COARSEST. A residual block at an
        eighth of the size adds 8 pixels, all other layers together 24.
        """
        blocks = len(self.deep) - 1
        return COARSEST * (blocks + 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, 32, H / 4, W / 4) of ink x (B, 1, H, W) in [0, 1].

        H and W are multiples of COARSEST. Channels: logits of a centre and of a ruled line; the
        distances from the middle of the cell to the left, top, right and bottom of the box, in
        units of 16 pixels; logits of SYMBOLS.
        """
        x = self.stem(x)  # (B, width, H / 4, W / 4)
        deep = self.up(self.deep(x))  # (B, width, H / 8, W / 8)
        x = x + F.interpolate(deep, scale_factor=2.0)
        return self.head(self.last(x))
