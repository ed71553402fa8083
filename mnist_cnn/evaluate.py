"""Evaluates one network or several: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.command import command
from mnist_cnn.config import own
from mnist_cnn.config.check import check
from mnist_cnn.internals import entry
from mnist_cnn.runs.claim import check_evaluation


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores a network, or several as one, on one split and fills cfg.run_dir.

    Several predict by the mean of their probabilities (B. Lakshminarayanan et al., Simple and
    scalable predictive uncertainty estimation using deep ensembles, NIPS 2017, section 2.4,
    https://arxiv.org/abs/1612.01474); a temperature is fitted to that mean.

    Args:
        cfg: what conf/evaluate.yaml composes to. From Python:
            `config.compose(runs.as_trained(["ckpt_path=..."]), entry="evaluate", run_dir=...)`.

    Returns:
        What evaluation.json holds.

    Raises:
        ValueError: a value that is not allowed, a file that is not what it should be, or a folder
            with files that no evaluation wrote.
    """
    folder = Path(cfg.run_dir)
    check(cfg, "evaluate")
    check_evaluation(folder)

    # the heavy imports: after the check, so that --help and mistakes are answered at once
    from mnist_cnn.analysis.evaluation import measure
    from mnist_cnn.analysis.outcome import print_outcome, write_outcome

    outcome, predictions, data = measure(cfg)
    write_outcome(cfg, outcome, predictions, data)
    print_outcome(folder, outcome)
    return outcome


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help"} & set(given)
    own.allow_given(given)  # before as_trained reads the file, and from nowhere but the command
    entry.run(evaluate, "evaluate", given if asks else as_trained(given))


if __name__ == "__main__":
    main()
