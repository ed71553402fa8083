"""Evaluates one network or several: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.analysis.networks import as_trained, check_folder
from mnist_cnn.command import command, hydra_main, one_line
from mnist_cnn.config import instantiate
from mnist_cnn.config.check import check
from mnist_cnn.sweeps.names import in_sweep


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate a network, or several as one, on one split and fill cfg.run_dir.

    Several predict by the mean of their probabilities (B. Lakshminarayanan et al., Simple and
    scalable predictive uncertainty estimation using deep ensembles, NIPS 2017, section 2.4,
    https://arxiv.org/abs/1612.01474); a temperature is fitted to that mean.

    Args:
        cfg: what conf/evaluate.yaml composes to. In Python it is, with analysis.networks and
            config.compose, `compose(as_trained(["ckpt_path=RUN"]), entry="evaluate", run_dir=...)`.

    Returns:
        The content of evaluation.json.

    Raises:
        ValueError: a value that is not allowed, a file that cannot be read, or a folder with files
            that no evaluation wrote.
    """
    folder = Path(cfg.run_dir)
    try:
        check(cfg, "evaluate")
        check_folder(folder)
        # torch and matplotlib take seconds, which a mistake need not wait for
        from mnist_cnn.analysis.evaluation import measure
        from mnist_cnn.analysis.outcome import print_outcome, write_outcome

        outcome, predictions, data = measure(cfg)
    except ValueError:
        with contextlib.suppress(OSError):  # where it is not empty
            folder.rmdir()  # Hydra has made it
        raise
    write_outcome(cfg, outcome, predictions, data)
    print_outcome(folder, outcome)
    return outcome


@hydra_main("evaluate")
def job(cfg: DictConfig) -> None:
    try:
        evaluate(cfg)
    except ValueError as e:
        if in_sweep():  # of which Hydra would print a traceback
            sys.exit(one_line(e))
        raise


@command
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help"} & set(argv)
    instantiate.allow_given(argv)  # before as_trained reads the file, from nowhere but the command
    sys.argv[1:] = argv if asks else as_trained(argv)
    job()


if __name__ == "__main__":
    main()
