"""Test accuracy by number of parameters: python -m benchmarks.front [FOLDER ...] [--write]

Without a FOLDER the table of benchmarks/measurements/front.json and of the records; with sweeps'
folders their runs join it, in place of those of the same network and seed, and --write keeps them
and draws front.png. Its runs are of

  python -m mnist_cnn.train -m experiment=tiny seed=0,1,2,3,4 \
'model.stages=[[4],[4,4],[5]],[[5],[6,6],[8,8]],[[8],[10,10],[10,12]],[[16],[22,22],[30,30]]'
  python -m mnist_cnn.train -m experiment=accurate trainer.max_epochs=15 seed=0,1,2,3,4 \
data.augment.unchanged=0 'model.stages=[[24],[40,40],[70,70]]'
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.picture import Point, draw_points
from benchmarks.recording import MEASUREMENTS, Record, joined_runs, load_records, read_runs
from benchmarks.tables import accuracy, hardware, markdown
from mnist_cnn import terminal
from mnist_cnn.command import command

EXPERIMENTS = ["tiny", "fast", "accurate", "article"]  # those of the records beside it
SIZES = {b * 10.0**e: f"{b * 10**e:,}" for e in range(2, 6) for b in (1, 2, 5)}  # ticks


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The record's rows of a sweep's runs."""
    for run in read_runs(folder):
        yield {
            "stages": str(run["config"]["model"]["stages"]),
            "seed": run["seed"],
            "epochs": run["config"]["trainer"]["max_epochs"],
            **{key: run[key] for key in ("parameters", "test/acc", "seconds")},
            "hardware": hardware(run),
        }


def networks(runs: pd.DataFrame, records: Mapping[str, Record]) -> pd.DataFrame:
    """`parameters` and the list `test/acc` of each network, by its name, the smallest first."""
    groups = runs.groupby("stages")
    found = pd.DataFrame(
        {"parameters": groups["parameters"].first(), "test/acc": groups["test/acc"].agg(list)}
    )
    recorded = pd.DataFrame(records).T.loc[EXPERIMENTS, found.columns]
    return pd.concat([found, recorded]).sort_values("parameters")


def table(found: pd.DataFrame) -> str:
    """The table as benchmarks/README.md has it."""
    rows = {
        "parameters": [f"{n:,}" for n in found["parameters"]],
        "stages or experiment": found.index,
        "n": found["test/acc"].map(len),
        "test accuracy": found["test/acc"].map(accuracy),
    }
    return markdown(pd.DataFrame(rows))


@command
def main(argv: Sequence[str] | None = None) -> None:
    runs, written = joined_runs("front", __doc__, argv, ["stages", "seed"], read)
    found = networks(runs, load_records())
    if written:
        points = [
            Point(name if name in EXPERIMENTS else f"{n:,}", [n], values, (-7, 0))
            for name, n, values in found.itertuples()
        ]
        figure = draw_points("number of parameters", points, SIZES)
        figure.savefig(MEASUREMENTS / "front.png", dpi=110)
    terminal.console().print(table(found))


if __name__ == "__main__":
    main()
