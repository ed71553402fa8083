"""The tables of the records and of other measurements, for the terminal and for README.md."""

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.recording import (
    KERAS,
    KERAS_ACCURACY,
    NETWORKS,
    PICTURE,
    README,
    ROOT,
    Record,
)

BEGIN, END = "<!-- records: python -m benchmarks.records --readme -->", "<!-- end of records -->"


def span(seconds: float) -> str:
    """A time for people."""
    if seconds < 299.5:
        return f"{seconds:.0f} s" if seconds >= 20 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def accuracy(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n - 1) of accuracies in [0, 1], in per cent."""
    std = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f} %{std}"


def hardware(record: Mapping[str, Any]) -> str:
    """The device that a record or a results.json is of, short."""
    if record["device"] != "cpu":
        return str(record["device"])
    processor = re.sub(r"\((R|TM|tm)\)| CPU\b| Processor\b| @.*", "", record["processor"])
    threads = record["threads"]
    return f"{processor.strip()}, {threads} thread{'s' if threads > 1 else ''}"


def markdown(table: pd.DataFrame) -> str:
    """A table of text in Markdown."""
    rows = [" | ".join(map(str, row)) for row in (table.columns, *table.to_numpy())]
    lines = [f"| {row} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(table.columns) + "|", *lines[1:]])


def record_row(name: str, record: Record) -> dict[str, str]:
    """A record's row of the table."""
    network, networks = NETWORKS.get(name, name), record.get("networks", 0)
    if networks > 1:
        network = f"an ensemble of {networks} of these"
    if networks:
        network += f", each image averaged over {(2 * record['shifts'] + 1) ** 2} shifts"
    return {
        "network": network,
        "test accuracy": accuracy(record["test/acc"]),
        "n": str(len(record["test/acc"])),
        "parameters": f"{record['parameters']:,}",
        "training": span(statistics.mean(record["seconds"])),
        "in all": span(record["elapsed_seconds"]),
        "command": f"`{record['command']}`",
    }


def records_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """A row a record, after that of the Keras tutorial's script; the best accuracy in bold."""
    printed = {
        "network": KERAS,
        "test accuracy": accuracy([KERAS_ACCURACY]),
        "n": "1",
        "command": "",
    }
    rows = [record_row(name, record) for name, record in records.items()]
    table = pd.DataFrame([printed, *rows], columns=pd.DataFrame(rows or [printed]).columns)
    best = table["test accuracy"] == table["test accuracy"].max()
    table.loc[best, "test accuracy"] = "**" + table["test accuracy"] + "**"
    return table.fillna("-")


def note(records: Mapping[str, Record]) -> str:
    """The meaning of the table's columns, and what they were measured on."""
    sentences = [
        "Mean ± standard deviation over n seeds on the official 10,000 test images, evaluated once "
        "per run, after training. *training* is one run without validation and test, *in all* the "
        "time from the first run's start to the last one's end; n_jobs=2 trains two at a time."
    ]
    places: dict[str, list[str]] = {}
    for name, record in records.items():
        place = f"{hardware(record)}, PyTorch {record['versions']['torch'].split('+')[0]}"
        places.setdefault(place, []).append(name)
    measured = "; ".join(f"{', '.join(names)} on {place}" for place, names in places.items())
    sentences.append(f"Measured: {measured}.")
    if "ensemble" in records:
        sentences.append("The ensemble is one result; its training is the sum over its networks.")
    for name, record in records.items():
        if ratio := record.get("ratio"):
            low, high = min(ratio["ratios"]), max(ratio["ratios"])
            sentences.append(
                f"All of `experiment={name}` takes {ratio['ratio']:.2f} of the time of one epoch "
                f"of the tutorial's network (median of {len(ratio['ratios'])} interleaved rounds, "
                f"{low:.2f} to {high:.2f}: `python -m benchmarks.speed --fast {name}`)."
            )
    text = " ".join(sentences)
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def readme(records: Mapping[str, Record]) -> str:
    """The part of README.md between its two comments: table, note and picture."""
    parts = [markdown(records_table(records)), note(records)]
    if (ROOT / PICTURE).exists():
        parts.append(f"![Test accuracy against time of training]({PICTURE})")
    return "\n\n".join(parts) + "\n"


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
    README.write_text(f"{before}{BEGIN}\n\n{readme(records)}\n{END}{after}", "utf-8")
