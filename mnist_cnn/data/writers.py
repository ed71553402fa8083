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

SERIES = {0: "employees", 4: "students"}  # of the US Census Bureau; of a high school


class Writers(NamedTuple):
    """Writers of the images of a file, in its order."""

    writer: Tensor  # int64 (N,), NIST's number of the writer
    series: Tensor  # int64 (N,), a key of SERIES


@functools.cache
def mnist_writers(split: str) -> Writers:
    """Writers of MNIST's `train` or `test` file."""
    with np.load(BUNDLED / "mnist_writers.npz") as file:
        columns = [file[f"{split}_{column}"].astype(np.int64) for column in Writers._fields]
    return Writers(*map(torch.from_numpy, columns))


def held_out(known: Writers, labels: Tensor, split: str, val_fraction: float, fold: int) -> Tensor:
    """Rows (M,) of the training file that validate: all images of writers, none of the others.

    Args:
        known: the writers of the file.
        labels: int64 (N,), on the CPU.
        split: writers, folds that are alike in series and classes; or writers_by_series, fold 0
            the employees and fold 1 the students.
        val_fraction: the share of a fold, above 0, as near as whole writers come to it.
        fold: which one, from 0; empty where there are more folds than writers can fill.
    """
    if split == "writers_by_series":
        chosen = known.series == list(SERIES)[fold]
    else:
        chosen = writer_folds(known, labels, val_fraction) == fold
    return chosen.nonzero().flatten()


def writer_folds(known: Writers, labels: Tensor, val_fraction: float) -> Tensor:
    """The fold int64 (N,) of each row; what is left beside whole folds has one more number.

    Each writer in turn, the most images first, goes to the fold that lacks most of what they wrote,
    by series and class. In whole numbers throughout, so it is the same on every machine.
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
