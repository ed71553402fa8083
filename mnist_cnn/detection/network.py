"""The network that finds characters on a page."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_cnn.data.synthetic.sheet import SYMBOLS

CHANNELS = {"centre": 1, "rule": 1, "box": 4, "symbol": len(SYMBOLS)}  # of the maps, in this order


class Block(nn.Module):
    """A convolution, batch normalisation and ReLU, at least as wide as `inputs` sees."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, dilation: int = 1
    ):
        super().__init__()
        padding = dilation * (size // 2)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Detector(nn.Module):
    """A fully convolutional network: maps of characters and ruled lines at a quarter of the size.

    Centres of characters are peaks of a map (Zhou et al., Objects as Points, 2019); at a centre
    other maps have the sides of the box and the class. Dilated convolutions (Yu and Koltun, 2016)
    see the line around a character without losing its place.

    Args:
        width: channels at a quarter of the size.
        dilations: of the residual convolutions there.

    336,904 parameters with these.
    """

    def __init__(self, *, width: int = 64, dilations: Sequence[int] = (1, 2, 4, 1, 2, 4, 1, 1)):
        super().__init__()
        self.stem = nn.Sequential(Block(1, 24, 5, 2), Block(24, 48, 3, 2), Block(48, width))
        self.body = nn.ModuleList([Block(width, width, dilation=d) for d in dilations])
        self.head = nn.Conv2d(width, sum(CHANNELS.values()), 1)
        # slope and offset of the log-odds of what is found, see `calibration.calibrate`
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.head.bias[:2], -4.0)  # type: ignore[index]  # few cells are centres

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, 32, H / 4, W / 4) of ink x (B, 1, H, W) in [0, 1].

        Channels: logits of a centre and of a ruled line; the distances from the middle of the cell
        to the left, top, right and bottom of the box, in units of 16 pixels; logits of SYMBOLS.
        """
        x = self.stem(x)  # (B, width, H / 4, W / 4)
        for block in self.body:
            x = x + block(x)
        return self.head(x)
