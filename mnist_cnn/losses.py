"""Losses beside cross-entropy."""

import torch
from torch import Tensor, nn


class OutlierExposure(nn.Module):
    """Cross-entropy with negatives, images that are no digit: there, every class is equally likely.

    D. Hendrycks et al., Deep Anomaly Detection with Outlier Exposure, ICLR 2019, section 3,
    https://arxiv.org/abs/1812.04606.

    Args:
        weight: of a negative; a digit's is 1.
    """

    def __init__(self, weight: float = 0.5):
        super().__init__()
        self.weight = float(weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of logits (B, C) and labels (B,); a label of -1 is no class."""
        scores = logits.log_softmax(1)
        negative = labels < 0
        correct = scores.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
        return -torch.where(negative, self.weight * scores.mean(1), correct).mean()
