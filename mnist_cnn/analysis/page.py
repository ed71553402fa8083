"""Write a report's tables and figures as one HTML file. Needs plotly, of the extra `sweep`."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis import tables
from mnist_cnn.analysis.found import read_history
from mnist_cnn.analysis.ranking import Leaderboard, Ranking, brief, setting
from mnist_cnn.runs.folder import OF_EPOCH

TEMPLATE = Path(__file__).with_name("report.html")
FEW = 6  # up to so many values are labelled one by one


def fill_page(ranking: Ranking, folder: Path) -> str:
    """Return the report of a folder as a self-contained page."""
    sections = [part for board in ranking.boards for part in board_sections(board)]
    if len(ranking.unfinished):
        sections.append(section("Without a result", html_table(ranking.unfinished)))
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        mark=tables.GENERATOR,
        title=escape(f"Report of {'/'.join(folder.resolve().parts[-2:])}"),
        sections="\n".join(sections),
        plotly=get_plotlyjs(),
    )


def board_sections(board: Leaderboard) -> Iterator[str]:
    """Yield the sections of a data set: leaderboard, and settings and curves if there are any."""
    about = f"<p>{escape(tables.describe_ranking(board))}</p>"
    table = html_table(tables.ranking_table(board))
    yield section(board.data, about + table, "leaderboard" if board.is_ranked else "")
    if settings := [draw_setting(board, key) for key in board.columns]:
        yield section(f"{board.data}: each run by its settings", grid(settings), "settings")
    if curves := draw_curves(board):
        colors = zip(board.groups["rank"], qualitative.Plotly, strict=False)
        ranks = " ".join(f'<b style="color: {color}">#{rank}</b>' for rank, color in colors)
        yield section(f"{board.data}: learning curves", f"<p>{ranks}</p>{grid(curves)}", "curves")


def section(title: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{content}</section>'


def html_table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0)


def grid(figures: Sequence[go.Figure]) -> str:
    """Return the HTML of a grid of small figures, with as many columns as fit the window."""
    config = {"displaylogo": False, "responsive": True}
    options = {"full_html": False, "include_plotlyjs": False, "config": config}
    margin = {"l": 60, "r": 12, "t": 20, "b": 50}
    layout = {"template": "plotly_white", "font_size": 11, "height": 270, "margin": margin}
    parts = [figure.update_layout(**layout).to_html(**options) for figure in figures]
    return f'<div class="grid">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def draw_setting(board: Leaderboard, key: str) -> go.Figure:
    """Plot the objective of each run against a setting; numbers are on a numeric axis."""
    titles, labels = tables.setting_labels(board)
    title = titles[key]
    settings = [setting(config).get(key) for config in board.finished["config"]]
    runs = board.finished[["name", "value"]].reset_index(drop=True)
    runs["setting"] = pd.Series(settings, dtype=object)  # as objects: null must not become NaN
    numbers = runs[[is_number(value) for value in settings]]
    missing = runs["setting"].isna().sum()
    figure = go.Figure()
    if len(numbers) == len(runs) or (
        len(numbers) + missing == len(runs) and numbers["setting"].nunique() > FEW
    ):
        runs, title = numbers, f"{title} ({missing} without)" if missing else title
        searched = any(key in keys for keys in board.finished["logarithmic"])
        set_scale(figure.layout.xaxis, list(runs["setting"]), searched)
    else:
        runs["setting"] = [escape(labels[key][repr(v)]) for v in runs["setting"]]
        order = sorted({*runs["setting"]}, key=category_order)
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
    set_scale(figure.layout.yaxis, list(runs["value"].dropna()))
    figure.update_layout(xaxis_title=title, yaxis_title=board.metric)
    names = [escape(name) for name in runs["name"]]
    return figure.add_scatter(x=runs["setting"], y=runs["value"], mode="markers", hovertext=names)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def category_order(text: str) -> tuple[int, float, str]:
    """Return a sort key: numbers by size, then words, then null."""
    try:
        return 0, float(text), text
    except ValueError:
        return 2 if text == "null" else 1, 0.0, text


def set_scale(axis: Any, numbers: Sequence[float], logarithmic: bool = False) -> None:
    """Set the scale of an axis of these numbers.

    It is logarithmic if requested, or if the numbers span more than a factor of 5 and are spaced
    more evenly on it; it is never so unless all are positive.
    """
    low, high = min(numbers, default=0), max(numbers, default=0)
    if low <= 0:
        return
    wide = high > 5 * low and unevenness(map(math.log, numbers)) < unevenness(numbers)
    axis.update(exponentformat="e", type="log" if logarithmic or wide else "linear")
    if axis.type == "log" and len({*numbers}) <= FEW:
        axis.update(tickvals=numbers, ticktext=[brief(number) for number in numbers])
    elif axis.type == "log":  # labels at 1, 2 and 5, or at powers of ten
        axis.update(minorloglabels="complete", dtick="D2" if high < 50 * low else 1)


def unevenness(values: Iterable[float]) -> float:
    """Return the sum of squared gaps between distinct values, as fractions of their range."""
    known = sorted({*values})
    width = known[-1] - known[0] or 1
    return sum(((b - a) / width) ** 2 for a, b in itertools.pairwise(known))


def draw_curves(board: Leaderboard) -> list[go.Figure]:
    """Plot each metric of the histories, with a line for each run of the best groups."""
    figures: dict[str, go.Figure] = {}
    # as many groups as there are colors
    best = zip(board.groups["rank"], board.members, qualitative.Plotly, strict=False)
    for rank, members, color in best:
        for folder, name in members[["folder", "name"]].to_numpy():
            history = read_history(folder)
            for metric in map(str, history.columns.drop(list(OF_EPOCH), errors="ignore")):
                axes = {"xaxis_title": "epoch", "yaxis_title": metric}
                figure = figures.setdefault(metric, go.Figure(layout=axes))
                figure.add_scatter(
                    x=history["epoch"],
                    y=history[metric],
                    mode="lines+markers" if len(history) == 1 else "lines",
                    line={"color": color, "width": 1.5},
                    name=f"#{rank}",
                    showlegend=False,
                    hovertext=escape(name),
                )
    order = sorted(figures, key=lambda metric: (metric != board.metric, metric))
    return [figures[metric] for metric in order]
