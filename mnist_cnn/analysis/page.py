"""The page of a report: its tables and figures in one HTML file. Needs plotly, of `sweep`."""

import math
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis import tables
from mnist_cnn.analysis.ranking import ABSENT, Leaderboard, brief
from mnist_cnn.runs.folder import FAILED, PRUNED, RESULTS

TEMPLATE = Path(__file__).with_name("report.html")


def fill_page(board: Leaderboard, path: Path, folder: Path) -> None:
    """Write the page of a folder's report: it needs no other file, and asks no other machine."""
    times = [results.get("seconds") for results in board.finished["results"]]
    seconds = pd.Series(times, dtype=float).sum()
    parts = [
        ("Leaderboard", tables.describe_ranking(board), tables.ranking_table(board, True)),
        ("Without a result", "", tables.unfinished_table(board)),
        ("Runs", f"{board.metric} of each run, in the order of their end.", trials(board)),
        ("Settings", f"{board.metric} of each run by its settings.", slices(board)),
    ]
    sections = [
        f'<section id="{title.split()[0].lower()}"><h2>{title}</h2>'
        f"<p>{escape(text)}</p>{content}</section>"
        for title, text, part in parts
        if (content := to_html(part))
    ]
    content = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(f"Report of {'/'.join(folder.resolve().parts[-2:])}"),
        facts=f"{tables.count_states(board)}; {timedelta(seconds=round(seconds))} of training",
        sections="\n".join(sections),
        plotly=get_plotlyjs(),
    )
    path.write_text(content, "utf-8")


def to_html(part: pd.DataFrame | go.Figure | None) -> str:
    """A table or figure; nothing of one without content."""
    if isinstance(part, pd.DataFrame):
        return part.to_html(index=False, border=0) if len(part) else ""
    config = {"responsive": True, "displaylogo": False}
    return part.to_html(full_html=False, include_plotlyjs=False, config=config) if part else ""


def with_objective(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Runs with their objective, and `run`, the text beside the mouse."""
    values = [float(results.get(metric, math.nan)) for results in runs["results"]]
    return runs.assign(run=runs["name"].map(escape), **{metric: pd.Series(values, runs.index)})


def ended(folder: Path) -> float:
    """Time when a run ended, in seconds since 1970; infinity where it has not."""
    files = (folder / name for name in (RESULTS, FAILED, PRUNED))
    return max((file.stat().st_mtime for file in files if file.exists()), default=math.inf)


def trials(board: Leaderboard) -> go.Figure | None:
    """The objective of each run in the order in which they ended, and the best so far."""
    order = board.runs["folder"].map(ended).sort_values(kind="stable").index
    table = with_objective(board.runs.loc[order], board.metric).reset_index(drop=True)
    table["job"] = table.index + 1
    known = table.dropna(subset=board.metric)
    if known.empty:
        return None
    points = {"x": "job", "y": board.metric, "color": "state", "symbol": "state"}
    figure = px.scatter(known, **points, hover_name="run")
    figure.update_traces(marker={"size": 9, "line_width": 2})
    done = table[board.metric].where(table["state"] == "finished")
    best = done.cummin() if board.mode == "min" else done.cummax()
    line = {"shape": "hv", "color": "#c1272d"}
    figure.add_scatter(x=table["job"], y=best.ffill(), mode="lines", line=line, name="best so far")
    figure.update_xaxes(title="run", dtick=math.ceil(len(table) / 20), rangemode="nonnegative")
    return styled(figure, board.metric)


def slices(board: Leaderboard) -> go.Figure | None:
    """The objective of each run against each setting that differs; None where none does."""
    runs = with_objective(board.ranked, board.metric).dropna(subset=board.metric)
    panels = []
    for key, name in board.columns.items():
        values = [brief(config.get(key, ABSENT)) for config in runs["config"]]
        panels.append(runs.assign(setting=name, value=values))
    if not panels or runs.empty:
        return None
    grid = {"facet_col": "setting", "facet_col_wrap": 5, "facet_row_spacing": 0.2}
    table = pd.concat(panels)
    figure = px.scatter(table, x="value", y=board.metric, **grid, hover_name="run")
    figure.for_each_annotation(lambda head: head.update(text=head.text.partition("=")[2]))
    figure.update_xaxes(matches=None, showticklabels=True, title=None)
    for panel in figure.data:
        values = pd.to_numeric(pd.Series(panel.x), errors="coerce")
        if values.min() > 0 and values.max() / values.min() >= 8 and values.notna().all():
            figure.update_xaxes(type="log", nticks=4, selector={"anchor": panel.yaxis})
    return styled(figure, board.metric)


def styled(figure: go.Figure, metric: str) -> go.Figure:
    """Style a figure whose vertical axes are a metric."""
    values = pd.concat([pd.Series(trace.y, dtype=float) for trace in figure.data])
    log = values.min() > 0 and values.max() / values.min() >= 10
    figure.update_layout(template="plotly_white", height=400, legend_title=None, yaxis_title=metric)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 40, "b": 10})
    return figure.update_yaxes(rangemode="nonnegative", type="log" if log else "linear")
