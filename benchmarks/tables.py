"""The table of the records, for the terminal and for README.md."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.recording import (
    KERAS,
    KERAS_ACCURACY,
    NETWORKS,
    PICTURE,
    README,
    ROOT,
    Record,
    invocation,
    result_names,
    stated_result,
    summary_of,
)
from mnist_cnn import terminal
from mnist_cnn.analysis.ranking import Summary
from mnist_cnn.config.compose import files

HEADS = ("network", "test accuracy", "n", "parameters", "training", "in all", "on", "command")
BEGIN, END = "<!-- records: python -m benchmarks.records --readme -->", "<!-- end of records -->"


def span(seconds: float) -> str:
    """A time for people."""
    if seconds < 299.5:
        return f"{seconds:.0f} s" if seconds >= 20 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def accuracy(summary: Summary) -> str:
    std = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f} %{std}"


def hardware(record: Mapping[str, Any]) -> str:
    """What it ran on, short."""
    if record["device"] != "cpu":
        return str(record["device"])
    processor = re.sub(r"\((R|TM|tm)\)| CPU\b| Processor\b| @.*", "", record["processor"])
    threads = record["threads"]
    return f"{processor.strip()}, {threads} thread{'s' if threads > 1 else ''}"


def record_rows(records: Mapping[str, Record]) -> list[tuple[str, ...]]:
    """The table: what is measured, and what experiments state that have no record yet."""
    printed = accuracy(Summary(1, KERAS_ACCURACY, None))
    found: list[tuple[str, ...]] = [(KERAS, printed, "1", "-", "-", "-", "-", "")]
    for name in result_names():
        network = NETWORKS.get(name, name)
        if record := records.get(name):
            if "networks" in record:
                shifts = (2 * record["shifts"] + 1) ** 2
                if record["networks"] > 1:
                    network = f"an ensemble of {record['networks']} of these"
                network += f", each image averaged over {shifts} shifts" if shifts > 1 else ""
            tested = summary_of(record, "test/acc")
            row = (
                network,
                accuracy(tested),
                str(tested.n),
                f"{record['parameters']:,}",
                span(summary_of(record, "seconds").mean),
                span(record["elapsed_seconds"]),
                hardware(record),
                record["command"],
            )
            found.append(row)
        elif name in files("experiment") and (stated := stated_result(name)):
            rest = ("-", "-", "-", "no record yet", invocation(name, range(stated.n)))
            found.append((network, accuracy(stated), str(stated.n), *rest))
    return found


def print_records(records: Mapping[str, Record], console: terminal.Console) -> None:
    table = Table()
    for head in HEADS:
        right = head in ("n", "parameters", "training", "in all")
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in record_rows(records):
        table.add_row(*row)
    console.print(table, soft_wrap=False)
    console.print(
        "accuracy: mean ± standard deviation over n runs; training: one run, first batch to last\n"
        "in all: from the first run's start to the last one's end; to measure a result again:\n"
        "python -m benchmarks.records NAME"
    )


def markdown(records: Mapping[str, Record]) -> str:
    """What README.md has between its two comments: table, note and picture."""
    listed = record_rows(records)
    best = max(figure for _, figure, *_ in listed)
    rows = []
    for network, figure, *numbers, _, command in listed:
        shown = f"**{figure}**" if figure == best else figure
        rows.append([network, shown, *numbers, f"`{command}`" if command else ""])
    lines = markdown_table([head for head in HEADS if head != "on"], rows)
    lines += ["", *note(records)]
    if (ROOT / PICTURE).exists():
        lines += ["", f"![Test accuracy against time of training]({PICTURE})"]
    return "\n".join(lines) + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return [first, "|---" * len(heads) + "|", *others]


def note(records: Mapping[str, Record]) -> list[str]:
    """What the table's columns mean, and what they were measured on: lines for README.md."""
    lines = [
        "Mean ± standard deviation over n seeds on the official 10,000 test images, evaluated once "
        "per run, after training. *training* is one run without validation and test, *in all* the "
        "time from the first run's start to the last one's end; n_jobs=2 trains two at a time."
    ]
    places: dict[str, list[str]] = {}
    for name, record in records.items():
        place = f"{hardware(record)}, PyTorch {record['versions']['torch'].split('+')[0]}"
        places.setdefault(place, []).append(name)
    if len(places) == 1:
        lines.append(f"Measured on {next(iter(places))}.")
    elif places:
        on = (f"{', '.join(who)} on {place}" for place, who in places.items())
        lines.append(f"Measured: {'; '.join(on)}.")
    if "ensemble" in records:
        lines.append("The ensemble is one result; its training is the sum over its networks.")
    for name, record in records.items():
        if ratio := record.get("ratio"):
            low, high = min(ratio["ratios"]), max(ratio["ratios"])
            lines.append(
                f"All of `experiment={name}` takes {ratio['ratio']:.2f} of the time of one epoch "
                f"of the tutorial's network (median of {len(ratio['ratios'])} "
                f"interleaved rounds, {low:.2f} to {high:.2f}: "
                f"`python -m benchmarks.speed --fast {name}`)."
            )
    return textwrap.wrap(" ".join(lines), 100, break_long_words=False, break_on_hyphens=False)


def write_readme(records: Mapping[str, Record]) -> None:
    """Puts table, note and picture into README.md.

    Raises:
        ValueError: it has not the two comments.
    """
    text = README.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} must have the lines {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n\n{markdown(records)}\n{END}{after}", "utf-8")
