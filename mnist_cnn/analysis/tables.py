"""Tables of ranked runs: on screen, as CSV, JSON and Markdown."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from mnist_cnn import terminal
from mnist_cnn.analysis.ranking import Leaderboard, Ranking, brief

ROWS = 20  # of a table on screen


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
    """The leaderboard as text, a row a group: rank, metrics, n, settings, the best run's name."""
    titles, labels = setting_labels(board)
    rows = []
    for row, members in zip(board.groups.to_dict("records"), board.members, strict=True):
        texts = {"#": str(row["rank"])}
        texts |= {metric: format_summary(metric, row) for metric in board.metrics}
        texts["n"] = str(row["n"])
        texts |= {titles[key]: labels[key][repr(row[key])] for key in board.columns}
        rows.append({**texts, "best run": members["name"].iloc[0]})
    return pd.DataFrame(rows)


def setting_labels(board: Leaderboard) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The titles of the settings by key, and the texts of their values by key and repr.

    A class is named without its module, and `optimizer._target_` is `optimizer`, where that leaves
    different names different.
    """
    titles, labels = {}, {}
    for key in board.columns:
        part, _, last = key.rpartition(".")
        values = {repr(value): value for value in board.groups[key]}
        labels[key] = {text: brief(value) for text, value in values.items()}
        titles[key] = part if last == "_target_" and part not in board.columns else key
        if last == "_target_":
            classes = {text: label.rpartition(".")[2] for text, label in labels[key].items()}
            labels[key] = classes if len({*classes.values()}) == len(classes) else labels[key]
    return titles, labels


def describe_ranking(board: Leaderboard) -> str:
    """A sentence that says by which numbers groups are ranked."""
    better = "lower" if board.mode == "min" else "higher"
    ranked = f"ranked by {board.metric}, {better} is better"
    return f"{board.data}: {ranked}; mean ± std over seeds and folds"


def screen_table(texts: pd.DataFrame) -> Table:
    """A table of text for the screen."""
    columns = [Column(str(name), overflow="fold") for name in texts]
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for row in texts.itertuples(index=False):
        table.add_row(*row)
    return table


def fitted_table(board: Leaderboard, console: terminal.Console) -> tuple[Table, int]:
    """The leaderboard for the screen, and the number of settings that it leaves out.

    A narrow screen has deviations in a second line, and settings by the last part of their keys.
    Where not even these all fit beside the metrics, the runs are named and the first settings are
    shown.
    """

    def fits(table: Table) -> bool:
        endless = console.options.update(width=100_000)  # a narrow one would shrink the table
        return console.measure(table, options=endless).maximum <= console.width

    texts = ranking_table(board).head(ROWS)
    if fits(whole := screen_table(texts)):
        return whole, 0
    titles = list(setting_labels(board)[0].values())
    lasts = pd.Series([title.rpartition(".")[2] for title in titles], titles)
    texts = texts.rename(columns=lasts[~lasts.duplicated(keep=False)])
    texts[board.metrics] = texts[board.metrics].map(lambda text: text.replace(" ±", "\n±"))
    if fits(nameless := screen_table(texts.drop(columns="best run"))):
        return nameless, 0
    texts["best run"] = [
        "\n".join(textwrap.wrap(name, 20, break_on_hyphens=False)) for name in texts["best run"]
    ]
    settings = list(texts)[-1 - len(titles) : -1]
    for shown in range(len(titles) - 1, -1, -1):
        table = screen_table(texts.drop(columns=settings[shown:]))
        if fits(table):
            break
    return table, len(titles) - shown


def print_ranking(ranking: Ranking, console: terminal.Console) -> None:
    """Print the leaderboard of each data set, and apart from them the runs without a result."""
    for board in ranking.boards:
        table, settings = fitted_table(board, console)
        groups = len(board.groups) - ROWS
        left_out = [f"{groups:,} of {len(board.groups):,} groups"] if groups > 0 else []
        left_out += [f"{settings} of {len(board.columns)} settings"] if settings else []
        console.print(table, soft_wrap=False)
        if left_out:
            console.print(f"not shown: {' and '.join(left_out)}; the page and --markdown have all")
        console.print(describe_ranking(board))
        console.print(f"best checkpoint: {board.groups['checkpoint'][0] or '-'}")
    if len(ranking.unfinished):
        console.print(screen_table(ranking.unfinished.head(ROWS)), soft_wrap=False)
    if (runs := len(ranking.unfinished) - ROWS) > 0:
        console.print(f"and {runs:,} more: --markdown has all")


def all_groups(ranking: Ranking) -> pd.DataFrame:
    """A row a group, the name of its data set first."""
    groups = [pd.DataFrame({"data": []})]
    for board in ranking.boards:
        folders = [list(map(str, members["folder"])) for members in board.members]
        named = board.groups.assign(runs=folders)
        named.insert(0, "data", board.data)
        groups.append(named)
    return pd.concat(groups[1:] or groups, ignore_index=True)


def to_csv(ranking: Ranking) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    groups = all_groups(ranking).drop(columns="runs", errors="ignore")
    return groups.to_csv(index=False, lineterminator="\n")


def to_json(ranking: Ranking) -> str:
    """A record a group, as in `to_csv`, with the folders of its runs; NaN is null."""
    groups = all_groups(ranking)
    return groups.to_json(orient="records", indent=2, double_precision=15) + "\n"


def to_markdown(ranking: Ranking) -> str:
    """The tables, whole."""
    tables = [(describe_ranking(board), ranking_table(board)) for board in ranking.boards]
    if len(ranking.unfinished):
        tables.append(("without a result", ranking.unfinished))
    lines = []
    for title, table in tables:
        texts = table.map(lambda text: text.replace("|", "\\|"))
        rows = [list(texts), ["---"] * texts.shape[1], *texts.to_numpy().tolist()]
        lines += [title, "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)
