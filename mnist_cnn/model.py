"""The networks: plain torch, no Lightning, no Hydra.

Shapes: B images in a batch, 10 classes; an image is (1, 28, 28).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class CNN(nn.Module):
    """The article's network: two 3x3 convolutions, each pooled, then two dense layers.

    Glorot-uniform weights and zero biases, as Keras starts its layers.

    Args:
        channels: output channels of the two convolutions.
        hidden: units of the first dense layer.
        dropout: probability of dropping a unit of the first dense layer while training, 0 for none.

    225,034 parameters with channels=(32, 64), hidden=128.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3)
        self.dense1 = nn.Linear(channels[1] * 5 * 5, hidden)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(hidden, 10)
        for layer in (self.conv1, self.conv2, self.dense1, self.dense2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of normalised images x (B, 1, 28, 28)."""
        # pool before ReLU: the same function and gradient, a quarter of the work
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 32, 13, 13)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 5, 5)
        x = F.relu(self.dense1(x.flatten(1)))  # (B, 128)
        return self.dense2(self.dropout(x))
