"""Which validation predicts the test error: python -m benchmarks.splits [FOLDER ...] [--write]

Without a FOLDER the table of benchmarks/measurements/splits.json; with sweeps' folders their runs
join it, in place of those of the same seed, and --write keeps them. Its runs are of

  python -m mnist_cnn.train -m experiment=article data.split=rows,writers seed=0,1,2,3,4,5,6,7,8,9
  python -m mnist_cnn.train -m experiment=fast data.val_fraction=0.2 data.split=rows,writers \
data.fold=0,1,2,3,4 seed=0,1
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from benchmarks.recording import joined_runs, read_runs
from benchmarks.tables import hardware, markdown
from mnist_cnn import terminal
from mnist_cnn.command import command
from mnist_cnn.runs.folder import OVERRIDES

GROUPS = ["experiment", "split"]  # of a row of the table


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The record's rows of a sweep's runs."""
    for run in read_runs(folder):
        overrides = map(str, OmegaConf.load(run["folder"] / OVERRIDES))
        (experiment,) = (o for o in overrides if o.startswith("experiment="))
        yield {
            "experiment": experiment.partition("=")[2],
            **{key: run["config"]["data"][key] for key in ("split", "fold")},
            **{key: run[key] for key in ("seed", "val/acc", "test/acc")},
            "hardware": hardware(run),
        }


def table(runs: pd.DataFrame) -> str:
    """The table as benchmarks/README.md has it."""
    runs = runs.assign(val=100 * (1 - runs["val/acc"]), test=100 * (1 - runs["test/acc"]))
    rows = []
    for group, found in runs.groupby(GROUPS):
        folds = found.groupby("fold")["val"].mean()
        gaps = found["val"] - found["test"]
        row = {
            **dict(zip(["`experiment=`", "validated by"], group, strict=True)),
            "n": len(found),
            "validation error": f"{found['val'].mean():.2f} %",
            "by fold": ", ".join(f"{mean:.2f}" for mean in folds),
            "test error": f"{found['test'].mean():.2f} %",
            "validation - test": f"{gaps.mean():+.2f} ± {gaps.std():.2f}",
        }
        rows.append(row)
    return markdown(pd.DataFrame(rows))


@command
def main(argv: Sequence[str] | None = None) -> None:
    runs, _ = joined_runs("splits", __doc__, argv, [*GROUPS, "fold", "seed"], read)
    terminal.console().print(table(runs))


if __name__ == "__main__":
    main()
