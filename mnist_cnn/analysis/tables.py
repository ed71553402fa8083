"""Tables of ranked runs for the terminal and as CSV, JSON and Markdown."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from mnist_cnn.analysis.ranking import Leaderboard, Ranking, brief
from mnist_cnn.runs import terminal

ROWS = 20  # of a table on screen
GENERATOR = '<meta name="generator" content="mnist_cnn.report">'  # in the page of a report
# patterns of the files that a report replaces: its own, also those without a finished run
MARKS = {
    "csv": r"\Adata(,rank,|\n\Z)",
    "json": r'\A\[\n(  {\n    "data":|\n\])',
    "markdown": r"\A(.+; mean ± std over seeds and folds|without a result)\n",
    "html": re.escape(GENERATOR),
}


def format_metric(metric: str, value: float, sign: str = "", digits: int = 4) -> str:
    """Format a metric's value with so many digits, or from 1,000 on as a whole number.

    An accuracy is in per cent with two decimals.
    """
    if metric.endswith("/acc"):
        return f"{value:{sign}.2%}"
    text = f"{value:{sign},.{digits}g}"
    # from 1e10 on, such as the loss of a run that diverged, the exponent stays
    return f"{value:{sign},.0f}" if "e+0" in text else text


def format_summary(metric: str, group: Mapping[str, Any]) -> str:
    """Format mean ± std of a metric in a group, with the number of runs if some lack it."""
    n, mean, std = (group[f"{metric} {part}"] for part in ("n", "mean", "std"))
    if not n:
        return "-"
    spread = f" ± {format_metric(metric, std, digits=2)}" if n > 1 else ""
    fewer = f" (n={n})" if n < group["n"] else ""
    return f"{format_metric(metric, mean)}{spread}{fewer}"


def ranking_table(board: Leaderboard) -> pd.DataFrame:
    """Return the leaderboard as text, one row per group: rank, metrics, n, settings, best run."""
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
    """Return the titles of the settings by key, and the texts of their values by key and repr.

    Classes are named without their modules, and `optimizer._target_` is `optimizer`, unless names
    would collide.
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
    """Describe in a sentence how groups are ranked."""
    better = "lower" if board.mode == "min" else "higher"
    ranked = f"ranked by {board.metric}, {better} is better"
    if not board.is_ranked:
        ranked = f"not ranked, as no run has {board.metric}"
    return f"{board.data}: {ranked}; mean ± std over seeds and folds"


def screen_table(texts: pd.DataFrame) -> Table:
    """Make a rich table of text."""
    columns = [Column(str(name), overflow="fold") for name in texts]
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for row in texts.itertuples(index=False):
        table.add_row(*row)
    return table


def fitted_table(board: Leaderboard, console: terminal.Console) -> tuple[Table, int]:
    """Return the leaderboard fitted to the terminal, and the number of settings left out.

    On a narrow terminal deviations are in a second line, settings have the last part of their keys
    as titles, and the runs' names are left out. If the settings still do not fit beside the
    metrics, only the first of them are shown, with the runs' names.
    """

    def fits(table: Table) -> bool:
        endless = console.options.update(width=100_000)  # at the real width it would be shrunk
        return console.measure(table, options=endless).maximum <= console.width

    texts = ranking_table(board).head(ROWS)
    if fits(whole := screen_table(texts)):
        return whole, 0
    titles = list(setting_labels(board)[0].values())
    lasts = pd.Series([title.rpartition(".")[2] for title in titles], titles)
    others = [name for name in texts if name not in titles]
    texts = texts.rename(columns=lasts[~lasts.duplicated(keep=False) & ~lasts.isin(others)])
    texts[board.metrics] = texts[board.metrics].map(lambda text: text.replace(" ±", "\n±"))
    if fits(nameless := screen_table(texts.drop(columns="best run"))):
        return nameless, 0
    texts["best run"] = [
        "\n".join(textwrap.wrap(name, 20, break_on_hyphens=False)) for name in texts["best run"]
    ]
    settings = list(texts)[-1 - len(titles) : -1]
    for shown in range(max(len(titles) - 1, 0), -1, -1):  # once without any, too
        table = screen_table(texts.drop(columns=settings[shown:]))
        if fits(table):
            break
    return table, len(titles) - shown


def print_ranking(ranking: Ranking, console: terminal.Console) -> None:
    """Print the leaderboard of each data set, then the runs without a result."""
    for board in ranking.boards:
        table, settings = fitted_table(board, console)
        groups = len(board.groups) - ROWS
        left_out = [f"{groups:,} of {len(board.groups):,} groups"] if groups > 0 else []
        left_out += [f"{settings} of {len(board.columns)} settings"] if settings else []
        console.print(table, soft_wrap=False)
        if left_out:
            console.print(f"not shown: {' and '.join(left_out)}; the page and --markdown have all")
        console.print(describe_ranking(board))
        if board.is_ranked:
            console.print(f"best checkpoint: {board.groups['checkpoint'].fillna('-')[0]}")
    if len(ranking.unfinished):
        console.print(screen_table(ranking.unfinished.head(ROWS)), soft_wrap=False)
    if (runs := len(ranking.unfinished) - ROWS) > 0:
        console.print(f"and {runs:,} more: --markdown has all")


def all_groups(ranking: Ranking) -> pd.DataFrame:
    """Return one row per group, with the name of its data set in the first column."""
    groups = [pd.DataFrame({"data": []})]
    for board in ranking.boards:
        folders = [list(map(str, members["folder"])) for members in board.members]
        named = board.groups.assign(runs=folders)
        named.insert(0, "data", board.data)
        groups.append(named)
    return pd.concat(groups[1:] or groups, ignore_index=True)


def to_csv(ranking: Ranking) -> str:
    """Format the groups as CSV, one row per group, with unrounded numbers and full names."""
    groups = all_groups(ranking).drop(columns="runs", errors="ignore")
    return groups.to_csv(index=False, lineterminator="\n")


def to_json(ranking: Ranking) -> str:
    """Format the groups as JSON, one record per group with its runs' folders; NaN is null."""
    groups = all_groups(ranking)
    return groups.to_json(orient="records", indent=2, double_precision=15) + "\n"


def to_markdown(ranking: Ranking) -> str:
    """Format the tables as Markdown, in full."""
    tables = [(describe_ranking(board), ranking_table(board)) for board in ranking.boards]
    if len(ranking.unfinished):
        tables.append(("without a result", ranking.unfinished))
    lines = []
    for title, table in tables:
        texts = table.map(lambda text: text.replace("|", "\\|"))
        rows = [list(texts), ["---"] * texts.shape[1], *texts.to_numpy().tolist()]
        lines += [title, "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)
