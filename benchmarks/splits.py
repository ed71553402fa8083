"""Which validation predicts the test error: python -m benchmarks.splits [FOLDER ...] [--write]

Without a FOLDER the table of benchmarks/measurements/splits.json; with sweeps' folders their
finished runs join it, in place of those of the same seed, and --write keeps them. Its runs are of

  python -m mnist_cnn.train -m experiment=article data.split=writers seed=0,1,2,3,4,5,6,7,8,9
  python -m mnist_cnn.train -m experiment=fast data.val_fraction=0.2 data.split=rows,writers \
data.fold=0,1,2,3,4 seed=0,1

and of benchmarks/article.json, whose networks were validated by rows.
"""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import RECORDS, joined_runs, sweep_overrides
from benchmarks.tables import hardware, markdown_table
from mnist_cnn import terminal
from mnist_cnn.analysis.found import read_json
from mnist_cnn.command import command

RECORD = RECORDS / "measurements" / "splits.json"
KEYS = ("experiment", "split")  # of a row of the table
RUN = (*KEYS, "fold", "seed")  # of a run, which stands once


def entry(sweep: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """What the record holds of a finished run of a sweep."""
    (chosen,) = (o for o in sweep_overrides(sweep, "task") if o.startswith("experiment="))
    data = outcome["config"]["data"]
    return {
        "experiment": chosen.partition("=")[2],
        **{key: data[key] for key in ("split", "fold")},
        "seed": outcome["config"]["seed"],
        **{key: outcome[key] for key in ("val/acc", "test/acc")},
        "hardware": hardware(outcome),
    }


def article_by_rows() -> Iterator[dict[str, Any]]:
    """The same of the runs of benchmarks/article.json."""
    record = read_json(RECORDS / "article.json")
    for seed, val, test in zip(
        *(record[key] for key in ("seeds", "val/acc", "test/acc")), strict=True
    ):
        yield {
            **{"experiment": "article", "split": "rows", "fold": 0, "seed": seed},
            **{"val/acc": val, "test/acc": test, "hardware": hardware(record)},
        }


def table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table, as benchmarks/README.md has them."""

    def key(run: dict[str, Any]) -> tuple[str, ...]:
        return tuple(run[name] for name in KEYS)

    heads = ["`experiment=`", "validated by", "n", "validation error", "by fold", "test error"]
    rows = []
    for (experiment, split), group in itertools.groupby(sorted(runs, key=key), key):
        found = list(group)
        val, test = ([100 * (1 - run[k]) for run in found] for k in ("val/acc", "test/acc"))
        gaps = [a - b for a, b in zip(val, test, strict=True)]
        folds: dict[int, list[float]] = {}
        for run, error in zip(found, val, strict=True):
            folds.setdefault(run["fold"], []).append(error)
        means = [f"{statistics.mean(folds[fold]):.2f}" for fold in sorted(folds)]
        cells = [
            *(experiment, split, str(len(found))),
            f"{statistics.mean(val):.2f} %",
            ", ".join(means),
            f"{statistics.mean(test):.2f} %",
            f"{statistics.mean(gaps):+.2f} ± {statistics.stdev(gaps):.2f}",
        ]
        rows.append(cells)
    return markdown_table([*heads, "validation - test"], rows)


@command
def main(argv: Sequence[str] | None = None) -> None:
    rows = article_by_rows()
    runs, _ = joined_runs("benchmarks.splits", __doc__, argv, RECORD, RUN, entry, rows)
    terminal.console().print("\n".join(table(runs)), soft_wrap=True)


if __name__ == "__main__":
    main()
