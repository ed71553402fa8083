"""Test accuracy by number of parameters: python -m benchmarks.front [FOLDER ...] [--write]

Without a FOLDER the table of benchmarks/measurements/front.json and of the records; with sweeps'
folders their finished runs join it, in place of those of the same network and seed, and --write
keeps them and draws front.png. Its runs are of

  python -m mnist_cnn.train -m experiment=tiny seed=0,1,2,3,4 \
'model.stages=[[4],[4,4],[5]],[[5],[6,6],[8,8]],[[8],[10,10],[10,12]],[[16],[22,22],[30,30]]'
  python -m mnist_cnn.train -m experiment=accurate trainer.max_epochs=15 seed=0,1,2,3,4 \
data.augment.unchanged=0 'model.stages=[[24],[40,40],[70,70]]'
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.picture import label_axes, mean_and_bar
from benchmarks.recording import RECORDS, Record, joined_runs, load_records
from benchmarks.tables import accuracy, hardware, markdown_table
from mnist_cnn import terminal
from mnist_cnn.analysis.ranking import summarize
from mnist_cnn.command import command
from mnist_cnn.plots.axes import VAL, titled

RECORD = RECORDS / "measurements" / "front.json"
RUN = ("stages", "seed")  # of a run, which stands once
EXPERIMENTS = ("tiny", "fast", "accurate", "article")  # those of the records beside it
TITLE = "MNIST: accuracy on the 10,000 test images and number of parameters"
SIZES = {b * 10.0**e: f"{b * 10**e:,}" for e in range(2, 6) for b in (1, 2, 5)}  # ticks

Networks = dict[str, tuple[int, list[float]]]  # by name, parameters and the runs' test accuracies


def entry(_sweep: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """What the record holds of a finished run."""
    config = outcome["config"]
    return {
        "stages": str(config["model"]["stages"]),
        "seed": config["seed"],
        "epochs": config["trainer"]["max_epochs"],
        **{key: outcome[key] for key in ("parameters", "test/acc", "seconds")},
        "hardware": hardware(outcome),
    }


def networks(runs: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> Networks:
    """The networks of the runs and of the records, the smallest first."""
    found: Networks = {}
    for run in runs:
        found.setdefault(run["stages"], (run["parameters"], []))[1].append(run["test/acc"])
    for name in EXPERIMENTS:
        found[name] = (records[name]["parameters"], records[name]["test/acc"])
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def table(found: Networks) -> list[str]:
    """The lines of the table, as benchmarks/README.md has them."""
    rows = []
    for name, (parameters, values) in found.items():
        summary = summarize(values)
        assert summary is not None
        rows.append([f"{parameters:,}", name, str(summary.n), accuracy(summary)])
    return markdown_table(["parameters", "stages or experiment", "n", "test accuracy"], rows)


def draw(found: Networks) -> Figure:
    """Test accuracy against parameters, both axes logarithmic: a point with bars of ± std each."""
    figure = titled(TITLE, (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="test accuracy")
    for name, (parameters, values) in found.items():
        error, high = mean_and_bar([1 - value for value in values])
        axes.errorbar(parameters, error, high, fmt="o", ms=5.5, capsize=2.5, color=VAL)
        label = f"{name if name in EXPERIMENTS else f'{parameters:,}'}\n{1 - error:.2%}"
        place = (parameters, error)
        axes.annotate(label, place, (-7, 0), textcoords="offset points", ha="right", va="center")
    axes.invert_yaxis()
    axes.margins(0.2, 0.15)  # for the names
    label_axes(axes, SIZES)
    return figure


@command
def main(argv: Sequence[str] | None = None) -> None:
    runs, written = joined_runs("benchmarks.front", __doc__, argv, RECORD, RUN, entry)
    found = networks(runs, load_records())
    if written:
        draw(found).savefig(RECORD.with_suffix(".png"), dpi=110)
    terminal.console().print("\n".join(table(found)), soft_wrap=True)


if __name__ == "__main__":
    main()
