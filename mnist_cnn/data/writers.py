"""Writers of the MNIST digits, and folds of the training file that share no writer.

Writer and series of all 70,000 images are columns 1 and 2 of QMNIST's extended labels, whose rows
are MNIST's: C. Yadav and L. Bottou, Cold Case: The Lost MNIST Digits, NeurIPS 2019
(https://arxiv.org/abs/1905.10498), facebookresearch/qmnist at commit
94061367ec2e099ea18c553c75727ecf849ddb9b, under the licence in bundled/mnist_writers.LICENSE.
The training file has 539 writers, the test file 297 others.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.mnist import BUNDLED

SERIES = {0: "employees", 4: "students"}  # at the US Census Bureau; at a high school


class Writers(NamedTuple):
    """Writers of the images of a file, in file order."""

    writer: Tensor  # int64 (N,), NIST's writer number
    series: Tensor  # int64 (N,), a key of SERIES


@functools.cache
def mnist_writers(split: str) -> Writers:
    """Load the writers of MNIST's `train` or `test` file."""
    with np.load(BUNDLED / "mnist_writers.npz") as file:
        columns = [file[f"{split}_{column}"].astype(np.int64) for column in Writers._fields]
    return Writers(*map(torch.from_numpy, columns))


def held_out(known: Writers, labels: Tensor, split: str, val_fraction: float, fold: int) -> Tensor:
    """Return the validation rows (M,) of the training file: all images of the fold's writers.

    Args:
        known: writers of the file.
        labels: int64 (N,), on the CPU.
        split: writers, for folds that are alike in series and classes; or writers_by_series, for
            fold 0 with the employees and fold 1 with the students.
        val_fraction: fraction of the images in a fold, above 0, as close as whole writers allow.
        fold: index of the fold, from 0; empty if there are more folds than writers can fill.
    """
    if split == "writers_by_series":
        chosen = known.series == list(SERIES)[fold]
    else:
        chosen = writer_folds(known, labels, val_fraction) == fold
    return chosen.nonzero().flatten()


def writer_folds(known: Writers, labels: Tensor, val_fraction: float) -> Tensor:
    """Return the fold int64 (N,) of each row; rows beyond the whole folds form one more.

    Writers are assigned greedily, those with the most images first, to the fold that lacks most of
    what they wrote, by series and class. All arithmetic is on integers, so the folds are the same
    on every machine.
    """
    _, person = known.writer.unique(return_inverse=True)  # (N,)
    cell = known.series * (int(labels.max()) + 1) + labels
    counts = torch.zeros(int(person.max()) + 1, int(cell.max()) + 1, dtype=torch.int64)
    counts.index_put_((person, cell), torch.tensor(1), accumulate=True)
    whole = int(1 / val_fraction + 1e-9)
    rest = 1 - whole * val_fraction
    shares = [val_fraction] * whole + [rest] * (rest > 1e-9)
    totals = counts.sum(0).tolist()
    lacking = torch.tensor([[round(share * total) for total in totals] for share in shares])
    fold_of = torch.zeros(len(counts), dtype=torch.int64)
    for k in counts.sum(1).argsort(descending=True, stable=True).tolist():
        fold = int((lacking @ counts[k]).argmax())
        fold_of[k] = fold
        lacking[fold] -= counts[k]
    return fold_of[person]
