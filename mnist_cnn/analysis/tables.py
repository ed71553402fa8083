"""Tables of ranked runs: on screen, as CSV, JSON and Markdown."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.measure import Measurement
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.analysis.comparison import Difference
from mnist_cnn.analysis.found import ABSENT
from mnist_cnn.analysis.ranking import Leaderboard, Summary, brief, pairs, peculiar_settings

ROWS = 20  # of a table on screen
WIDE = 10  # columns of hyper-parameters, and axes of a figure, that can still be read

Rows = tuple[list[str], list[list[str]]]  # heads and cells


def format_metric(metric: str, value: float, sign: str = "") -> str:
    """A value of a metric in the unit of `metric_head`."""
    if metric.endswith("/acc"):
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.1f}" if metric == "seconds" else f"{value:{sign}.4f}"


def metric_head(metric: str) -> str:
    stage, _, kind = metric.partition("/")
    return f"{stage} acc, %" if kind == "acc" else f"{stage} {kind}".strip()


def format_summary(metric: str, summary: Summary | None, n: int | None = None) -> str:
    """Mean ± std, with the number of runs where it is not n."""
    if summary is None:
        return "-"
    text = format_metric(metric, summary.mean)
    text += "" if summary.std is None else f" ± {format_metric(metric, summary.std)}"
    return text if summary.n == n else f"{text} (n={summary.n})"


def ranking_rows(board: Leaderboard, narrow: bool, checkpoints: bool = False) -> Rows:
    """The leaderboard as text.

    Args:
        narrow: no column for each hyper-parameter; one at the end has what is not as usual.
        checkpoints: name the best run's checkpoint, from the folder that was reported.
    """
    columns = {} if narrow else board.columns
    last = "best checkpoint" if checkpoints else "best run"
    heads = ["#", *columns.values(), "n", *map(metric_head, board.metrics), last]
    rows = []
    for rank, group in enumerate(board.groups, 1):
        n, best = len(group.runs), group.runs[0]
        settings = [brief(group.config.get(key, ABSENT)) for key in columns]
        numbers = [format_summary(metric, group.summary(metric), n) for metric in board.metrics]
        place = best.name
        if checkpoints:
            file = best.checkpoint
            place = str(Path(best.name, file.relative_to(best.folder))) if file else "-"
        own = [pairs(board.apart(group.config)) or "as usual"] if narrow else []
        rows.append([str(rank), *settings, str(n), *numbers, place, *own])
    return heads + ["settings"] * narrow, rows


def is_wide(board: Leaderboard) -> bool:
    return len(board.columns) > WIDE


def usual_settings(board: Leaderboard) -> str:
    """The most common settings."""
    return pairs({board.columns[key]: value for key, value in board.usual.items()})


def unfinished_rows(board: Leaderboard) -> Rows:
    """The runs without a result as text."""
    rows = [
        [run.name, run.state, settings, run.note]
        for run, settings in zip(board.others, peculiar_settings(board), strict=True)
    ]
    return ["run", "state", "overrides", "message"], rows


def heads_of_text(board: Leaderboard) -> set[str]:
    """The columns of both tables that are read from the left."""
    words = {
        name
        for key, name in board.columns.items()
        if any(isinstance(group.config.get(key), str | list) for group in board.groups)
    }
    plain = {"run", "state", "overrides", "message", "best checkpoint", "best run", "settings"}
    return words | plain


def describe_ranking(board: Leaderboard) -> str:
    """What the leaderboard ranks by."""
    finished = len(board.finished)
    text = f"ranked by {board.metric}, {'lower' if board.mode == 'min' else 'higher'} is better"
    if not board.is_ranked:
        text = f"not ranked, since no run has {board.metric}"
    elif board.n_ranked < finished:
        text += f" (the objective of {board.n_ranked} of {finished} runs)"
    if board.repeats:
        text += "; exact repeats of a run count once"
    names = [key.rpartition(".")[2] for key in board.averaged] or ["seed"]
    but = " and ".join(f"the {name}" for name in names)
    return f"{text}; mean ± standard deviation over n runs alike but for {but}"


def count_states(board: Leaderboard) -> str:
    states = Counter(run.state for run in board.runs)
    return ", ".join(f"{n:,} {state}" for state, n in states.most_common())


def tabulate(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Collection[str], title: str = ""
) -> Table:
    """The first rows as a table for the screen; the columns of `texts` are read from the left."""
    table = Table(title=title or None, title_justify="left")
    for name in heads:
        table.add_column(name, justify="left" if name in texts else "right", overflow="fold")
    for row in rows[:ROWS]:
        table.add_row(*row)
    return table


def fits(table: Table, console: terminal.Console) -> bool:
    """Whether a console has room for each word of a table."""
    room = console.options.update(max_width=10_000)
    return Measurement.get(console, room, table).minimum <= console.width


def print_leaderboard(board: Leaderboard, console: terminal.Console) -> None:
    """Prints the leaderboard, and apart from it the runs without a result."""
    texts = heads_of_text(board)

    def more(rows: Sequence[Sequence[str]]) -> None:
        if len(rows) > ROWS:
            console.print(f"and {len(rows) - ROWS:,} more: --json and --markdown have all")

    if board.groups:
        heads, rows = ranking_rows(board, narrow=False)
        table = tabulate(heads, rows, texts)
        narrow = is_wide(board) or not fits(table, console)
        if narrow:
            heads, rows = ranking_rows(board, narrow=True)
            table = tabulate(heads[:-1], [row[:-1] for row in rows], texts)
        console.print(table, soft_wrap=False)
        if narrow and board.columns:
            listed = Table.grid(padding=(0, 1))
            listed.add_column(justify="right")
            listed.add_column(overflow="fold")
            listed.add_row("usual", usual_settings(board))
            for row in rows[:ROWS]:
                listed.add_row(row[0], row[-1])
            console.print(listed, soft_wrap=False)
        more(rows)
    if board.others:
        heads, rows = unfinished_rows(board)
        console.print(tabulate(heads, rows, texts, "without a result"), soft_wrap=False)
        more(rows)
    console.print(count_states(board))
    if board.groups:
        console.print(describe_ranking(board))
    if board.is_ranked:
        best = board.groups[0].runs[0]
        place = f"checkpoint: {best.checkpoint}" if best.checkpoint else f"run: {best.folder}"
        console.print(f"best {place}")


def to_csv(board: Leaderboard) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    metrics = [f"{metric} {part}" for metric in board.metrics for part in ("n", "mean", "std")]
    writer.writerow(["rank", *board.columns, "n", *metrics, "checkpoint"])
    for rank, group in enumerate(board.groups, 1):
        settings = [group.config.get(key, "") for key in board.columns]
        numbers: list[Any] = []
        for metric in board.metrics:
            numbers += group.summary(metric) or ("", "", "")
        best = group.runs[0].checkpoint or ""
        writer.writerow([rank, *settings, len(group.runs), *numbers, best])
    return file.getvalue()


def to_json(board: Leaderboard) -> str:
    """All of it: groups with their runs, and the runs without a result; NaN is null."""

    def finite(x: Any) -> Any:
        return None if isinstance(x, float) and not math.isfinite(x) else x

    content = {
        "objective": {"metric": board.metric, "mode": board.mode},
        "groups": [
            {
                "rank": rank,
                "config": {key: group.config.get(key) for key in board.columns},
                "n": len(group.runs),
                **{
                    metric: {key: finite(x) for key, x in summary._asdict().items()}
                    for metric in board.metrics
                    if (summary := group.summary(metric))
                },
                "checkpoint": str(best) if (best := group.runs[0].checkpoint) else None,
                "runs": [
                    {
                        "folder": str(run.folder),
                        "seed": run.config.get("seed"),
                        "fold": run.config.get("data.fold"),
                        **{m: finite(run.results.get(m)) for m in board.metrics},
                    }
                    for run in group.runs
                ],
            }
            for rank, group in enumerate(board.groups, 1)
        ],
        "unfinished": [
            {"folder": str(run.folder), "state": run.state, "message": run.note, **run.config}
            for run in board.others
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def to_markdown(board: Leaderboard) -> str:
    """The tables, whole."""
    text = ""
    for heads, rows in (ranking_rows(board, is_wide(board), True), unfinished_rows(board)):
        if rows:
            for line in [heads, ["---"] * len(heads), *rows]:
                cells = [cell.replace("|", "\\|") for cell in line]
                text += f"| {' | '.join(cells)} |\n"
            text += "\n"
    common = f"usual settings: {usual_settings(board)}\n\n" if is_wide(board) else ""
    return text + common + describe_ranking(board) + "\n"


def comparison_table(
    found: Mapping[str, Difference], names: tuple[str, str], lower: Collection[str]
) -> Table:
    """How two groups of runs differ, a row a metric; of those in `lower` less is better."""
    first, second = names
    table = Table("")
    for head in (first, second, f"{first} - {second}", "95 % interval"):
        table.add_column(head, justify="right")
    table.add_column("")
    for metric, d in found.items():
        gap = "-" if d.mean is None else format_metric(metric, d.mean, "+")
        interval, verdict = "-", d.why
        if d.interval:
            low, high = d.interval
            interval = f"{format_metric(metric, low, '+')} to {format_metric(metric, high, '+')}"
            better = first if (high < 0) == (metric in lower) else second
            verdict = "no difference shown" if low <= 0 <= high else f"{better} is better"
        sides = (format_summary(metric, side) for side in (d.first, d.second))
        table.add_row(metric_head(metric), *sides, gap, interval, verdict)
    return table
