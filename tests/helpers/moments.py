"""Train a run in several processes, once without and once with many interruptions.

It is started by torchrun, with the options of a command; the runs' folders are `whole` and `cut`.
An interruption is an error or a signal in all processes, which then resume, as starting new ones
takes seconds.
"""

import os
import sys

import torch

from mnist_cnn.config.compose import compose
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train

STEPS = (1, 3, 5, 10, 11, 14, 19, 20, 24, 30)  # of three epochs of ten


def faults() -> list[str]:
    """Return a fault of checks/faults.py for each of the steps."""
    kinds = ("SIGTERM", "raise") * len(STEPS)
    return [f"on_train_batch_start {at} {kind}" for at, kind in zip(STEPS, kinds, strict=False)]


def main() -> None:
    options = sys.argv[1:]
    train(compose(options, run_dir="whole"))
    for fault in faults():
        os.environ["FAULT"] = fault
        try:
            train(compose(options, run_dir="cut"))
        except (Interrupted, RuntimeError) as e:
            if not isinstance(e, Interrupted) and "a fault in" not in str(e):
                raise
        else:
            sys.exit(f"was not stopped: {fault}")
        torch.manual_seed(99)  # the resumed run must not depend on this state
    os.environ["FAULT"] = "- 0 -"
    train(compose(options, run_dir="cut"))


if __name__ == "__main__":
    main()
