"""Tables of ranked runs: on screen, as CSV, JSON and Markdown."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.analysis.ranking import ABSENT, PARTS, Leaderboard, brief

ROWS = 20  # of a table on screen
NUMBER = r"-|nan|inf|[-+]?[\d.]+(e[-+]?\d+)?( ± .*| \(.*)?"  # a cell that is read from the right


def format_metric(metric: str, value: float, sign: str = "") -> str:
    """A value of a metric in the unit of `metric_head`."""
    if metric.endswith("/acc"):
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.1f}" if metric == "seconds" else f"{value:{sign}.4f}"


def metric_head(metric: str) -> str:
    stage, _, kind = metric.partition("/")
    return f"{stage} acc, %" if kind == "acc" else f"{stage} {kind}".strip()


def format_summary(metric: str, group: Mapping[str, Any], usual: int | None = None) -> str:
    """Mean ± std of a metric in a group, with the number of runs where it is not the usual one."""
    n, mean, std = (group[f"{metric} {part}"] for part in PARTS)
    if n is None:
        return "-"
    spread = "" if std is None else f" ± {format_metric(metric, std)}"
    text = f"{format_metric(metric, mean)}{spread}"
    return text if n == usual else f"{text} (n={n})"


def ranking_table(board: Leaderboard, checkpoints: bool = False) -> pd.DataFrame:
    """The leaderboard as text, a row a group.

    Args:
        checkpoints: name the best run's checkpoint, from the folder that was reported.
    """
    table = pd.DataFrame({"#": board.groups["rank"].astype(str)})
    for key, name in board.columns.items():
        table[name] = board.groups[key].map(brief)
    table["n"] = board.groups["n"].astype(str)
    rows = board.groups.to_dict("records")
    for metric in board.metrics:
        table[metric_head(metric)] = [format_summary(metric, row, row["n"]) for row in rows]
    best = board.ranked.drop_duplicates("rank").sort_values("rank")
    if not checkpoints:
        return table.assign(**{"best run": best["name"].to_list()})
    places = zip(best["name"], best["folder"], best["checkpoint"], strict=True)
    files = [str(name / file.relative_to(folder)) if file else "-" for name, folder, file in places]
    return table.assign(**{"best checkpoint": files})


def unfinished_table(board: Leaderboard) -> pd.DataFrame:
    """The runs without a result as text."""
    return board.others[["name", "state", "message"]].rename(columns={"name": "run"})


def describe_ranking(board: Leaderboard) -> str:
    """A sentence that says by which numbers groups are ranked."""
    text = f"ranked by {board.metric}, {'lower' if board.mode == 'min' else 'higher'} is better"
    if not board.is_ranked:
        text = f"not ranked, since no run has {board.metric}"
    if len(board.ranked) < len(board.finished):
        text += "; exact repeats of a run count once"
    but = ", ".join(["seed", "fold", *board.over])
    return f"{text}; mean ± standard deviation over n runs alike but for {but}"


def count_states(board: Leaderboard) -> str:
    return ", ".join(f"{n:,} {state}" for state, n in board.runs["state"].value_counts().items())


def screen_table(texts: pd.DataFrame, title: str | None = None) -> Table:
    """The first rows as a table for the screen, columns of numbers to the right."""
    table = Table(title=title, title_justify="left")
    for name, column in texts.items():
        numbers = column.str.fullmatch(NUMBER).all()
        table.add_column(str(name), justify="right" if numbers else "left", overflow="fold")
    for row in texts.head(ROWS).itertuples(index=False):
        table.add_row(*row)
    return table


def print_leaderboard(board: Leaderboard, console: terminal.Console) -> None:
    """Prints the leaderboard, and apart from it the runs without a result."""
    parts = {None: ranking_table(board), "without a result": unfinished_table(board)}
    for title, table in parts.items():
        if len(table):
            console.print(screen_table(table, title), soft_wrap=False)
        if len(table) > ROWS:
            console.print(f"and {len(table) - ROWS:,} more: --json and --markdown have all")
    console.print(count_states(board))
    if len(board.groups):
        console.print(describe_ranking(board))
    if board.is_ranked:
        console.print(f"best checkpoint: {board.groups['checkpoint'][0] or '-'}")


def to_csv(board: Leaderboard) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    # a NaN stays nan
    texts = board.groups.map(lambda value: "" if value is None or value == ABSENT else str(value))
    return texts.to_csv(index=False, lineterminator="\n")


def to_json(board: Leaderboard) -> str:
    """Groups with their runs, and the runs without a result; NaN is null."""
    content = {
        "objective": {"metric": board.metric, "mode": board.mode},
        "groups": [group_record(group, board) for group in board.groups.to_dict("records")],
        "unfinished": board.others[["folder", "state", "message"]].to_dict("records"),
    }
    return json.dumps(content, indent=2, allow_nan=False, default=str) + "\n"


def group_record(group: Mapping[str, Any], board: Leaderboard) -> dict[str, Any]:
    """A group as JSON has it."""

    def finite(x: Any) -> Any:
        return None if x == ABSENT or (isinstance(x, float) and not math.isfinite(x)) else x

    config = {key: finite(group[key]) for key in board.columns}
    record: dict[str, Any] = {"rank": group["rank"], "config": config, "n": group["n"]}
    for metric in board.metrics:
        if group[f"{metric} n"]:
            record[metric] = {p: finite(group[f"{metric} {p}"]) for p in PARTS}
    record["checkpoint"] = group["checkpoint"]
    record["runs"] = [
        {
            "folder": run["folder"],
            "seed": run["config"].get("seed"),
            "fold": run["config"].get("data.fold"),
            **{metric: finite(run["results"].get(metric)) for metric in board.metrics},
        }
        for run in board.ranked[board.ranked["rank"] == group["rank"]].to_dict("records")
    ]
    return record


def to_markdown(board: Leaderboard) -> str:
    """The tables, whole."""
    text = ""
    for table in (ranking_table(board, checkpoints=True), unfinished_table(board)):
        lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
        if len(table):
            cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            text += "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"
    return text + describe_ranking(board) + "\n"
