"""White-box attacks: changes of at most epsilon in each pixel that make a network err.

Each takes images x (B, 1, H, W) in [0, 1], labels y (B,), epsilon and a generator, and returns
attacked copies in [0, 1]. If FGSM alone fails, that is no evidence of robustness: it takes a single
step, where a network may mask its gradient. PGD with restarts is the least to report, and gives an
upper bound of the accuracy under attack.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

EPSILONS = (0.1, 0.2, 0.3)
STEPS, RESTARTS = 40, 3


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the loss with respect to the images."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(net(x), y, reduction="sum")
        return torch.autograd.grad(loss, x)[0]


@torch.no_grad()
def correct(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return whether each image is classified correctly, bool (B,)."""
    return net(x).argmax(1) == y


def fgsm(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, g: Generator) -> Tensor:
    """Attack with one step of epsilon along the sign of the gradient.

    I. Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015
    (https://arxiv.org/abs/1412.6572).
    """
    return (x + epsilon * gradient(net, x, y).sign()).clamp(0, 1)


def pgd(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, g: Generator) -> Tensor:
    """Attack with steps of 2.5 epsilon / STEPS along the gradient's sign, from a random start.

    A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018
    (https://arxiv.org/abs/1706.06083).
    """
    start = (2 * torch.rand(x.shape, generator=g) - 1).to(x.device)
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    moved = torch.clamp(x + epsilon * start, low, high)
    for _ in range(STEPS):
        step = 2.5 * epsilon / STEPS * gradient(net, moved, y).sign()
        moved = torch.clamp(moved + step, low, high)
    return moved


def restarted_pgd(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, g: Generator) -> Tensor:
    """Attack with PGD from RESTARTS random starts; each image keeps its first success."""
    moved = x.clone()
    for _ in range(RESTARTS):
        rows = correct(net, moved, y).nonzero().flatten()
        if len(rows):
            moved[rows] = pgd(net, x[rows], y[rows], epsilon, g)
    return moved
