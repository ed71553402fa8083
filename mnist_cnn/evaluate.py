"""Evaluate a network or an ensemble: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.analysis.networks import as_trained, check_folder
from mnist_cnn.command import command, hydra_main
from mnist_cnn.config.compose import resolved
from mnist_cnn.config.instantiate import is_custom
from mnist_cnn.config.parse import Evaluation, parse
from mnist_cnn.runs.errors import one_line
from mnist_cnn.runs.imports import without_collection
from mnist_cnn.runs.names import in_sweep


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate a network or an ensemble, and write the results to cfg.run_dir.

    An ensemble averages the probabilities of its networks: B. Lakshminarayanan et al., NIPS 2017
    (https://arxiv.org/abs/1612.01474).

    Args:
        cfg: in Python `compose(as_trained(["ckpt_path=RUN"]), entry="evaluate", run_dir=...)`, with
            `as_trained` of this package.

    Returns:
        The content of evaluation.json.

    Raises:
        ValueError: a value is invalid, or a file or folder cannot be used.
    """
    values = resolved(cfg)
    config = checked(values)
    # torch and matplotlib take seconds to import: after the checks
    with without_collection():
        from mnist_cnn.analysis.evaluation import measure, print_outcome, write_outcome

    outcome, predictions, data = measure(config)
    folder = Path(config.run_dir)
    write_outcome(folder, values, outcome, predictions, data)
    print_outcome(folder, outcome)
    return outcome


def preflight(cfg: DictConfig) -> None:
    """Raise ValueError for values, files and networks that do not fit together; writes nothing."""
    config = checked(resolved(cfg))
    with without_collection():
        from mnist_cnn.analysis.evaluation import load_networks, make_data

    networks = load_networks(config)
    if not is_custom(config.data):  # `evaluate` makes it, which may take long: once
        make_data(config, *networks)


def checked(values: Mapping[str, Any]) -> Evaluation:
    """Parse a resolved configuration, and check its folder."""
    config = parse(values, Evaluation)
    check_folder(Path(config.run_dir))
    return config


@hydra_main("evaluate")
def job(cfg: DictConfig) -> None:
    try:
        evaluate(cfg)
    except ValueError as e:
        if in_sweep():  # end here: Hydra would go on with the others, and print all overrides
            sys.exit(one_line(e))
        raise


@command
def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help"} & set(argv)
    sys.argv[1:] = argv if asks else as_trained(argv)
    job()


if __name__ == "__main__":
    main()
