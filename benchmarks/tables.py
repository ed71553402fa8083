"""Tables and figures of the records and of other measurements."""

import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedFormatter, FixedLocator
from matplotlib.transforms import Bbox

from mnist_cnn.config.compose import CONF
from mnist_cnn.plots.axes import TRAIN, VAL, finish, titled

RECORDS = CONF.parent / "benchmarks"
README = RECORDS / "README.md"
# in the order of the table; other experiments follow, under their own names
NETWORKS = {
    "article": "the same network and recipe, here",
    "usual": "the same network by the usual Lightning + torchvision recipe, 10 epochs",
    "robust": "a network for noise, blur and other conditions",
    "certified_tenth": "a network certified against changes of its pixels by up to 0.1",
    "certified": "a network certified against changes of its pixels by up to 0.3",
    "few_labels": "10 labels per class, and the other images unlabeled",
    "fast": "99 % in the fewest seconds",
    "tiny": "our best network of at most 8,000 parameters, in 15 epochs",
    "accurate": "our best network of at most 250,000 parameters",
    "shifts": "the same networks",
    "ensemble": "an ensemble of these",
}
BEGIN, END = "<!-- records: python -m benchmarks.records --readme -->", "<!-- end of records -->"
KERAS, KERAS_ACCURACY = "the Keras tutorial's own script", 0.9815
COLUMNS = ["network", "test accuracy", "n", "parameters", "sound labels", "corrected labels"]
COLUMNS += ["training", "wall time", "command"]
NOTE = """\
Mean ± standard deviation over n seeds on the official 10,000 test images, evaluated once per run, \
after training. 9,985 have *sound labels*, and 9,995 once wrong ones are *corrected*. *training* \
is one run without validation and test, *wall time* the time from the first run's start to the \
last one's end; n_jobs=2 trains two at a time. Other programs ran beside accurate and the \
certified networks; the three of `certified` were trained beside each other on two cores. \
Measured: {}. The ensemble is one result; its training is the sum over its networks."""
RATIO = """\
 `experiment={0}` takes {1:.2f} of the time of one epoch of the tutorial's network \
(median of {2} interleaved rounds, {3:.2f} to {4:.2f}: `python -m benchmarks.speed --fast {0}`)."""
# keys of a record, before the epsilon
BOUND, ATTACKED = "test/acc_certified_", "test/acc_autoattack_"
CERTIFIED = """\
 No change of each pixel by up to {1} lowers the test accuracy of `experiment={0}` below {2}, by \
interval arithmetic (n = {3})."""
UNDER_ATTACK = " AutoAttack, which may change each pixel by up to {0}, leaves {1}."
CLOCK = {1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h"}
ERRORS = {share: f"{100 - 100 * share:g}%" for share in (0.002, 0.003, 0.005, 0.01, 0.02)}
PICTURE = "![Test accuracy against time of training](accuracy.png)"

COMPARED = ("usual", "BitNetMCU")  # of others

Record = dict[str, Any]
Point = tuple[float, float]


def span(seconds: float) -> str:
    """Format a duration for people."""
    if seconds < 299.5:
        return f"{seconds:.0f} s" if seconds >= 20 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def accuracy(values: Sequence[float]) -> str:
    """Format mean ± sample standard deviation of accuracies in [0, 1], in per cent."""
    std = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f} %{std}"


def listed(values: Iterable[str]) -> str:
    """Join values for people: 0.1, 0.2 and 0.3."""
    *first, last = values
    return f"{', '.join(first)} and {last}" if first else last


def hardware(record: Mapping[str, Any]) -> str:
    """Return a short name for the hardware of a record or a results.json."""
    if record["device"] != "cpu":
        return str(record["device"])
    processor = re.sub(r"\((R|TM|tm)\)| CPU\b| Processor\b| @.*", "", record["processor"])
    threads = record["threads"]
    return f"{processor.strip()}, {threads} thread{'s' if threads > 1 else ''}"


def markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown."""
    rows = [" | ".join(map(str, row)) for row in (table.columns, *table.to_numpy())]
    lines = [f"| {row} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(table.columns) + "|", *lines[1:]])


def row(name: str, record: Record) -> list[Any]:
    """Return a record's row in the table of COLUMNS."""
    network, networks = NETWORKS.get(name, name), record.get("networks", 0)
    if networks > 1:
        network = f"an ensemble of {networks} of these"
    if networks:
        network += f", each image averaged over {(2 * record['shifts'] + 1) ** 2} shifts"
    accuracies, parameters = record["test/acc"], f"{record['parameters']:,}"
    times = span(statistics.mean(record["seconds"])), span(record["elapsed_seconds"])
    found = [record.get(f"test/acc_{name}") for name in ("sound", "corrected")]
    labels = [accuracy(values) if values else "-" for values in found]
    command = f"`{record['command']}`"
    return [network, accuracy(accuracies), len(accuracies), parameters, *labels, *times, command]


def records_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """Return the table of records, after the Keras script's row; the best accuracy is bold."""
    rows = [[f"{KERAS}, as printed there", accuracy([KERAS_ACCURACY]), 1, *"-----", ""]]
    rows += [row(name, record) for name, record in records.items()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    means = pd.Series([KERAS_ACCURACY, *(statistics.mean(r["test/acc"]) for r in records.values())])
    best = means == means.max()
    table.loc[best, "test accuracy"] = "**" + table["test accuracy"] + "**"
    return table


def by_epsilon(record: Record, prefix: str) -> dict[str, list[float]]:
    """Return the accuracies of a record whose keys are a prefix and an epsilon."""
    return {key.removeprefix(prefix): record[key] for key in record if key.startswith(prefix)}


def note(records: Mapping[str, Record]) -> str:
    """Describe the table's columns and the hardware of the measurements."""
    places: dict[str, list[str]] = {}
    for name, record in records.items():
        place = f"{hardware(record)}, PyTorch {record['versions']['torch'].split('+')[0]}"
        places.setdefault(place, []).append(name)
    text = NOTE.format("; ".join(f"{', '.join(names)} on {p}" for p, names in places.items()))
    for name, record in records.items():
        if "ratio" in record:
            ratio, ratios = record["ratio"]["ratio"], record["ratio"]["ratios"]
            text += RATIO.format(name, ratio, len(ratios), min(ratios), max(ratios))
        if bounds := by_epsilon(record, BOUND):
            accuracies = [accuracy(found) for found in bounds.values()]
            n = len(record["seeds"])
            text += CERTIFIED.format(name, listed(bounds), listed(accuracies), n)
        for epsilon, found in by_epsilon(record, ATTACKED).items():
            text += UNDER_ATTACK.format(epsilon, accuracy(found))
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def readme(records: Mapping[str, Record]) -> str:
    """Return the part of benchmarks/README.md between its two comments: table, note, picture."""
    return "\n\n".join([markdown(records_table(records)), note(records), PICTURE]) + "\n"


def write_readme(records: Mapping[str, Record]) -> None:
    """Write table and note to benchmarks/README.md, and draw its picture."""
    before, begin, rest = README.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{README} must have the lines {BEGIN} and {END}")
    README.write_text(f"{before}{begin}\n\n{readme(records)}\n{end}{after}", "utf-8")
    # single networks evaluated with shifts are points of another record
    points = {name: record for name, record in records.items() if record.get("networks") != 1}
    networks = pd.DataFrame(points).T[["seconds", "test/acc"]]
    networks["seconds"] = networks["seconds"].map(statistics.mean)
    draw_networks(networks, "time of training", CLOCK).savefig(RECORDS / "accuracy.png", dpi=150)


def draw_networks(networks: pd.DataFrame, cost: str, ticks: Mapping[float, str]) -> Figure:
    """Plot test accuracy against a cost, with a point and an error bar of ± std per network.

    Both axes are logarithmic, that of accuracy in the error, so that differences near 100 % show;
    higher is better. Networks shown for comparison are grey. A name of several networks is in the
    legend, other names are beside their points.

    Args:
        networks: one row per network: its cost, and the list of its runs' accuracies.
    """
    figure = titled(f"MNIST: accuracy on the 10,000 test images and {cost}", (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel=cost, ylabel="test accuracy")
    axes.margins(0.2, 0.15)  # room for the names
    series = networks.index[networks.index.duplicated()].unique()
    labels, bars = [], []
    for name, x, accuracies in networks.itertuples():
        errors = [1 - accuracy for accuracy in accuracies]
        error, std = statistics.mean(errors), statistics.stdev(errors) if errors[1:] else 0
        color = TRAIN if name in COMPARED else VAL
        axes.errorbar(x, error, std, fmt="o", ms=5.5, capsize=2.5, color=color)
        text = f"{1 - error:.2%}" if name in series else f"{name}\n{1 - error:.2%}"
        style: Any = {"textcoords": "offset points", "color": color, "fontsize": 9}
        labels.append(axes.annotate(text, (x, error), (0, 0), **style))
        bars.append([(x, error - std), (x, error + std)])
    axes.axhline(1 - KERAS_ACCURACY, color=TRAIN, lw=0.8, ls=":", zorder=0)
    style = {"transform": axes.get_yaxis_transform(), "fontsize": 8.5, "color": TRAIN}
    axes.text(0.01, 0.985 * (1 - KERAS_ACCURACY), f"{KERAS}, {KERAS_ACCURACY:.2%}", **style)
    axes.invert_yaxis()
    for axis, names in ((axes.xaxis, ticks), (axes.yaxis, ERRORS)):
        axis.set_major_locator(FixedLocator([*names]))
        axis.set_major_formatter(FixedFormatter([*names.values()]))
    axes.minorticks_off()
    finish(axes)
    for name in series:
        axes.plot([], [], "o", ms=5.5, color=TRAIN if name in COMPARED else VAL, label=name)
    if len(series):
        axes.legend(frameon=False, loc="lower right")
    figure.draw_without_rendering()  # the layout
    place_labels(labels, bars)
    return figure


def place_labels(labels: Sequence[Annotation], bars: Sequence[Sequence[Point]]) -> None:
    """Place each point's label where it covers neither another label nor an error bar, if it can.

    The figure's layout must be done.

    Args:
        labels: one per point, at the point.
        bars: both ends of each point's error bar, in data coordinates.
    """
    axes = labels[0].axes
    assert axes is not None
    own = [Bbox(np.sort(axes.transData.transform(bar), 0)) for bar in bars]
    taken = [bar.padded(4) for bar in own]
    for label, bar in zip(labels, own, strict=True):
        half = bar.height / 2 * 72 / axes.figure.dpi + 5  # points from the middle to a free place
        places = [("center", "bottom", 0.0, half), ("left", "center", 8.0, 0.0)]
        places += [("right", "center", -8.0, 0.0), ("center", "top", 0.0, -half)]
        for ha, va, *offset in places:
            label.set(ha=ha, va=va, position=offset)
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
