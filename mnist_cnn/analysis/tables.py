"""Tables of ranked runs: on screen, as CSV, JSON and Markdown."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.measure import Measurement
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.analysis.comparison import Difference
from mnist_cnn.analysis.found import ABSENT
from mnist_cnn.analysis.ranking import Group, Leaderboard, Summary, brief, pairs, peculiar_settings

ROWS = 20  # of a table on screen
WIDE = 10  # columns of hyper-parameters that can still be read
NUMBER = r"-|nan|inf|[-+]?[\d.]+(e[-+]?\d+)?( ± .*| \(.*)?"  # a cell that is read from the right


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


def settings_table(board: Leaderboard) -> pd.DataFrame:
    """The settings that tell the groups apart, as text."""
    rows = [[brief(g.config.get(key, ABSENT)) for key in board.columns] for g in board.groups]
    return pd.DataFrame(rows, columns=list(board.columns.values()))


def usual_settings(board: Leaderboard) -> str:
    """The most common value of each setting."""
    return pairs(dict(settings_table(board).agg(statistics.mode)))


def unusual_settings(board: Leaderboard) -> pd.Series:
    """Settings of each group that are not the usual ones."""
    settings = settings_table(board)
    unusual = settings.where(settings != settings.agg(statistics.mode), ABSENT)
    texts = [pairs(dict(row)) or "as usual" for _, row in unusual.iterrows()]
    return pd.Series(texts, name="settings")


def ranking_table(board: Leaderboard, narrow: bool, checkpoints: bool = False) -> pd.DataFrame:
    """The leaderboard as text, a row a group.

    Args:
        narrow: no column for each setting; one at the end has what is not as usual.
        checkpoints: name the best run's checkpoint, from the folder that was reported.
    """
    rows = []
    for group in board.groups:
        n, best = len(group.runs), group.runs[0]
        file = best.checkpoint if checkpoints else best.folder
        place = str(Path(best.name, file.relative_to(best.folder))) if file else "-"
        numbers = [format_summary(metric, group.summary(metric), n) for metric in board.metrics]
        rows.append([str(n), *numbers, place])
    last = "best checkpoint" if checkpoints else "best run"
    numbers = pd.DataFrame(rows, columns=["n", *map(metric_head, board.metrics), last])
    rank = pd.Series(numbers.index + 1, name="#").astype(str)
    parts = [numbers, unusual_settings(board)] if narrow else [settings_table(board), numbers]
    return pd.concat([rank, *parts], axis=1)


def unfinished_table(board: Leaderboard) -> pd.DataFrame:
    """The runs without a result as text."""
    rows = [(run.name, run.state, "", run.note) for run in board.others]
    table = pd.DataFrame(rows, columns=["run", "state", "overrides", "message"])
    return table.assign(overrides=peculiar_settings(board))


def is_wide(board: Leaderboard) -> bool:
    return len(board.columns) > WIDE


def describe_ranking(board: Leaderboard) -> str:
    """A sentence that says by which numbers groups are ranked."""
    finished = len(board.finished)
    text = f"ranked by {board.metric}, {'lower' if board.mode == 'min' else 'higher'} is better"
    if not board.is_ranked:
        text = f"not ranked, since no run has {board.metric}"
    elif board.n_ranked < finished:
        text += f" (the objective of {board.n_ranked} of {finished} runs)"
    if len(board.ranked) < finished:
        text += "; exact repeats of a run count once"
    names = [key.rpartition(".")[2] for key in board.averaged] or ["seed"]
    but = " and ".join(f"the {name}" for name in names)
    return f"{text}; mean ± standard deviation over n runs alike but for {but}"


def count_states(board: Leaderboard) -> str:
    states = Counter(run.state for run in board.runs)
    return ", ".join(f"{n:,} {state}" for state, n in states.most_common())


def screen_table(texts: pd.DataFrame, title: str | None = None) -> Table:
    """The first rows as a table for the screen, columns of numbers to the right."""
    table = Table(title=title, title_justify="left")
    for name, column in texts.items():
        numbers = column.str.fullmatch(NUMBER).all()
        table.add_column(str(name), justify="right" if numbers else "left", overflow="fold")
    for row in texts.head(ROWS).itertuples(index=False):
        table.add_row(*row)
    return table


def fits(table: Table, console: terminal.Console) -> bool:
    """Tell if a console has room for each word of a table."""
    room = console.options.update(max_width=10_000)
    return Measurement.get(console, room, table).minimum <= console.width


def print_leaderboard(board: Leaderboard, console: terminal.Console) -> None:
    """Prints the leaderboard, and apart from it the runs without a result."""

    def more(n: int) -> None:
        if n > ROWS:
            console.print(f"and {n - ROWS:,} more: --json and --markdown have all")

    if board.groups:
        table = screen_table(ranking_table(board, narrow=False))
        narrow = is_wide(board) or not fits(table, console)
        if narrow:
            table = screen_table(ranking_table(board, narrow=True).drop(columns="settings"))
        console.print(table, soft_wrap=False)
        if narrow and board.columns:
            console.print(f"usual {usual_settings(board)}", soft_wrap=False)
            for rank, settings in enumerate(unusual_settings(board)[:ROWS], 1):
                console.print(f"{rank:5} {settings}", soft_wrap=False)
        more(len(board.groups))
    if board.others:
        table = screen_table(unfinished_table(board), "without a result")
        console.print(table, soft_wrap=False)
        more(len(board.others))
    console.print(count_states(board))
    if board.groups:
        console.print(describe_ranking(board))
    if board.is_ranked:
        best = board.groups[0].runs[0]
        place = f"checkpoint: {best.checkpoint}" if best.checkpoint else f"run: {best.folder}"
        console.print(f"best {place}")


def to_csv(board: Leaderboard) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    metrics = [f"{metric} {part}" for metric in board.metrics for part in Summary._fields]
    rows = []
    for rank, group in enumerate(board.groups, 1):
        row = [rank, *(group.config.get(key) for key in board.columns), len(group.runs)]
        for metric in board.metrics:
            row += group.summary(metric) or [None] * 3
        rows.append([*row, group.runs[0].checkpoint])
    heads = ["rank", *board.columns, "n", *metrics, "checkpoint"]
    table = pd.DataFrame(rows, columns=heads, dtype=object)
    texts = table.map(lambda value: "" if value is None else str(value))  # a NaN stays nan
    return texts.to_csv(index=False, lineterminator="\n")


def to_json(board: Leaderboard) -> str:
    """Groups with their runs, and the runs without a result; NaN is null."""
    content = {
        "objective": {"metric": board.metric, "mode": board.mode},
        "groups": [
            {"rank": rank, **group_record(group, board)}
            for rank, group in enumerate(board.groups, 1)
        ],
        "unfinished": [
            {"folder": str(run.folder), "state": run.state, "message": run.note, **run.config}
            for run in board.others
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def group_record(group: Group, board: Leaderboard) -> dict[str, Any]:
    """A group as JSON has it, its rank apart."""

    def finite(x: Any) -> Any:
        return None if isinstance(x, float) and not math.isfinite(x) else x

    record: dict[str, Any] = {key: group.config.get(key) for key in board.columns}
    record = {"config": record, "n": len(group.runs)}
    for metric in board.metrics:
        if summary := group.summary(metric):
            record[metric] = {part: finite(x) for part, x in summary._asdict().items()}
    best = group.runs[0].checkpoint
    record["checkpoint"] = str(best) if best else None
    record["runs"] = [
        {
            "folder": str(run.folder),
            "seed": run.config.get("seed"),
            "fold": run.config.get("data.fold"),
            **{metric: finite(run.results.get(metric)) for metric in board.metrics},
        }
        for run in group.runs
    ]
    return record


def to_markdown(board: Leaderboard) -> str:
    """The tables, whole."""
    text = ""
    for table in (ranking_table(board, is_wide(board), checkpoints=True), unfinished_table(board)):
        lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
        if len(table):
            cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            text += "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"
    common = f"usual settings: {usual_settings(board)}\n\n" if is_wide(board) else ""
    return text + common + describe_ranking(board) + "\n"


def comparison_table(
    found: Mapping[str, Difference], names: tuple[str, str], lower: Collection[str]
) -> Table:
    """Differences of two groups, a row a metric; of those in `lower` less is better."""
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
