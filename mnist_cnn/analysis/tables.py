"""Tables of ranked runs: on screen, as CSV, JSON and Markdown; the difference of two groups."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Column, Table

from mnist_cnn import terminal
from mnist_cnn.analysis.ranking import Leaderboard, brief, summarize

ROWS = 20  # of a table on screen
COMPARED = ("val/loss", "val/acc", "test/acc", "seconds")


def format_metric(metric: str, value: float, sign: str = "", digits: int = 4) -> str:
    """A value of a metric in so many digits, accuracies in hundredths of a per cent."""
    return f"{value:{sign}.2%}" if metric.endswith("/acc") else f"{value:{sign}.{digits}g}"


def format_summary(metric: str, group: Mapping[str, Any]) -> str:
    """Mean ± std of a metric in a group, with the number of runs where not all have it."""
    n, mean, std = (group[f"{metric} {part}"] for part in ("n", "mean", "std"))
    if not n:
        return "-"
    spread = f" ± {format_metric(metric, std, digits=2)}" if n > 1 else ""
    fewer = f" (n={n})" if n < group["n"] else ""
    return f"{format_metric(metric, mean)}{spread}{fewer}"


def ranking_table(board: Leaderboard) -> pd.DataFrame:
    """The leaderboard as text, a row a group."""
    rows = []
    for row, members in zip(board.groups.to_dict("records"), board.members, strict=True):
        texts = {"#": str(row["rank"])}
        texts |= {key: brief(row[key]) for key in board.columns}
        texts["n"] = str(row["n"])
        texts |= {metric: format_summary(metric, row) for metric in board.metrics}
        rows.append({**texts, "best run": members["name"].iloc[0]})
    return pd.DataFrame(rows)


def describe_ranking(board: Leaderboard) -> str:
    """A sentence that says by which numbers groups are ranked."""
    better = "lower" if board.mode == "min" else "higher"
    return f"ranked by {board.metric}, {better} is better; mean ± std over seeds and folds"


def screen_table(texts: pd.DataFrame) -> Table:
    """A table of text for the screen."""
    table = Table(*(Column(str(name), overflow="fold") for name in texts))
    for row in texts.itertuples(index=False):
        table.add_row(*row)
    return table


def print_leaderboard(board: Leaderboard, console: terminal.Console) -> None:
    """Prints the leaderboard, and apart from it the runs without a result."""
    for table in (ranking_table(board), board.unfinished):
        if len(table):
            console.print(screen_table(table.head(ROWS)), soft_wrap=False)
        if len(table) > ROWS:
            console.print(f"and {len(table) - ROWS:,} more: --markdown has all")
    if len(board.groups):
        console.print(describe_ranking(board))
        console.print(f"best checkpoint: {board.groups['checkpoint'][0] or '-'}")


def to_csv(board: Leaderboard) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    return board.groups.to_csv(index=False, lineterminator="\n")


def to_json(board: Leaderboard) -> str:
    """A record a group, as in `to_csv`, with the folders of its runs; NaN is null."""
    folders = [list(map(str, members["folder"])) for members in board.members]
    groups = board.groups.assign(runs=folders)
    return groups.to_json(orient="records", indent=2, double_precision=15) + "\n"


def to_markdown(board: Leaderboard) -> str:
    """The tables, whole."""
    lines = []
    for table in filter(len, (ranking_table(board), board.unfinished)):
        texts = table.map(lambda text: text.replace("|", "\\|"))
        rows = [list(texts), ["---"] * texts.shape[1], *texts.to_numpy().tolist()]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n".join([*lines, describe_ranking(board), ""])


def compare(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Compare the means of two groups of finished runs, in pairs where both have the same seeds.

    Returns:
        A row of text for each metric: the means, their difference and its 95 % confidence interval,
        in pairs Student's of the differences, otherwise Welch's; and a sentence that says which.
    """
    from scipy import stats  # takes a second, which other reports save

    unique = a["repeat"].is_unique and b["repeat"].is_unique
    paired = unique and {*a["repeat"]} == {*b["repeat"]}
    rows = []
    for metric in COMPARED:
        x, y = (
            pd.Series([r.get(metric) for r in side["results"]], side["repeat"], dtype=float)
            for side in (a, b)
        )
        with warnings.catch_warnings():
            # of one run, or of runs without spread
            warnings.simplefilter("ignore", RuntimeWarning)
            test = stats.ttest_1samp(x - y, 0) if paired else stats.ttest_ind(x, y, equal_var=False)
            interval = test.confidence_interval(0.95)
        means = [format_summary(metric, summarize(side, [metric])) for side in (a, b)]
        difference = format_metric(metric, x.mean() - y.mean(), "+")
        ends = " to ".join(format_metric(metric, float(end), "+") for end in interval)
        rows.append([metric, *means, difference, "-" if math.isnan(interval.low) else ends])
    sentence = "in pairs of the same seed: Student's t of the differences"
    if not paired:
        sentence = "not in pairs, as not every run has a partner of the same seed: Welch's t"
    return pd.DataFrame(rows, columns=["", "A", "B", "A - B", "95 % interval"]), sentence
