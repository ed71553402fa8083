"""Attack certified networks: python -m benchmarks.autoattack EPSILON RUN [RUN ...]

The attack is AutoAttack of F. Croce and M. Hein, Reliable evaluation of adversarial robustness with
an ensemble of diverse parameter-free attacks, ICML 2020 (https://arxiv.org/abs/2003.01690), as in
torchattacks, which is installed separately. Of the 10,000 test images those that are classified
correctly and not certified are attacked: no attack succeeds on a certified one.
"""

import copy
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.analysis.robustness.intervals import certified
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.data import mnist
from mnist_cnn.runs.terminal import track
from mnist_cnn.weights.predictor import load

BATCH = 500
INSTALL = "pip install --no-deps torchattacks==3.5.1"  # with its dependencies: an old requests


def check_package() -> None:
    """Raise ValueError if torchattacks is not installed."""
    if importlib.util.find_spec("torchattacks") is None:
        raise ValueError(f"AutoAttack needs torchattacks: {INSTALL}")


def accuracy(run: Path, epsilon: float) -> float:
    """Return the fraction of test images that are correct after changes of up to epsilon."""
    from torchattacks import AutoAttack

    net = load(run).net.eval()
    exact = copy.deepcopy(net).double()
    attack, survived = AutoAttack(net, norm="Linf", eps=epsilon, seed=0), 0
    images, labels = mnist.load_split("mnist", "", "test")
    parts = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    for digits, y in track(parts, f"{run.name} under AutoAttack"):
        x = digits[:, None].double() / 255
        safe = certified(exact, x, y, epsilon)
        exposed = ~safe & (net(x.float()).argmax(1) == y)
        survived += int(safe.sum())
        if exposed.any():
            moved = attack(x[exposed].float(), y[exposed])
            survived += int((net(moved).argmax(1) == y[exposed]).sum())
    return survived / len(labels)


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.autoattack", __doc__)
    parser.add_argument("epsilon", type=float, metavar="EPSILON")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    args = parser.parse_args(argv)
    check_package()
    for run in args.runs:
        print(f"{accuracy(run, args.epsilon):.4f}  {run}")


if __name__ == "__main__":
    main()
