"""Figures of a report, to look at in a browser. They need plotly, of the extra `sweep`."""

import math
import textwrap
from html import escape

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from mnist_cnn.analysis.found import ABSENT, Run, read_history
from mnist_cnn.analysis.ranking import Leaderboard, brief, pairs
from mnist_cnn.analysis.tables import WIDE
from mnist_cnn.runs.folder import FAILED, PRUNED, RESULTS

CURVES = 60  # in a figure
COLORS = {"finished": "#0b62a4", "pruned": "#8c8c8c", "best": "#0b62a4", "others": "#b9bfcc"}
SYMBOLS = {"finished": "circle", "pruned": "x-thin-open"}


def metric_name(metric: str) -> str:
    """Name of a metric on an axis."""
    stage, _, kind = metric.partition("/")
    stage = {"train": "training", "val": "validation"}.get(stage, stage)
    return f"{stage} {'accuracy' if kind == 'acc' else kind}".strip()


def describe_run(run: Run, board: Leaderboard) -> str:
    """A run's name and what tells it from the others, in lines beside the mouse."""
    settings = {name: run.config.get(key, ABSENT) for key, name in board.columns.items()}
    averaged = {key.rpartition(".")[2]: run.config.get(key, ABSENT) for key in board.averaged}
    lines = textwrap.wrap(f"{run.name} {pairs(settings | averaged)}", 60)
    return "<br>".join(map(escape, lines))


def ended(run: Run) -> float:
    """Time when a run ended, in seconds since 1970; infinity where it has not."""
    files = (run.folder / name for name in (RESULTS, FAILED, PRUNED))
    return max((file.stat().st_mtime for file in files if file.exists()), default=math.inf)


def trials(board: Leaderboard) -> go.Figure | None:
    """The objective of each run in the order in which they ended, and the best so far."""
    runs = sorted(board.runs, key=ended)
    table = pd.DataFrame({"state": [run.state for run in runs]})
    table["job"] = table.index + 1
    table[board.metric] = [float(run.results.get(board.metric, math.nan)) for run in runs]
    table["run"] = [describe_run(run, board) for run in runs]
    points = {"x": "job", "y": board.metric, "color": "state", "symbol": "state"}
    looks = {"color_discrete_map": COLORS, "symbol_map": SYMBOLS}
    known = table.dropna()
    if known.empty:
        return None
    figure = px.scatter(known, **points, **looks, hover_name="run")
    figure.update_traces(marker={"size": 9, "line_width": 2})
    done = table[board.metric].where(table["state"] == "finished")
    best = done.cummin() if board.mode == "min" else done.cummax()
    line = {"shape": "hv", "color": "#c1272d"}
    figure.add_scatter(x=table["job"], y=best.ffill(), mode="lines", line=line, name="best so far")
    return by_whole_numbers(styled(figure, board.metric), "run", len(runs))


def curves(board: Leaderboard) -> go.Figure | None:
    """The objective by epoch of the best runs; None where they have no history.csv."""
    histories = []
    for place, run in enumerate(board.ranked[:CURVES]):
        rows = pd.DataFrame(read_history(run.folder), columns=["epoch", board.metric])
        kind = "others" if place else "best"
        histories.append(rows.assign(run=describe_run(run, board), kind=kind))
    table = pd.concat(histories).dropna() if histories else pd.DataFrame()
    if table.empty:
        return None
    lines = {"x": "epoch", "y": board.metric, "line_group": "run", "color": "kind"}
    # the best is drawn last, above the others
    looks = {"category_orders": {"kind": ["others", "best"]}, "color_discrete_map": COLORS}
    figure = px.line(table, **lines, **looks, hover_name="run", markers=True)
    figure.update_traces(line={"width": 3}, selector={"name": "best"})
    return by_whole_numbers(styled(figure, board.metric), "epoch", int(table["epoch"].max()))


def slices(board: Leaderboard) -> go.Figure | None:
    """The objective of each run against each setting that differs; None where none does."""
    rows = [
        (describe_run(run, board), run.results[board.metric], name, run.config.get(key, ABSENT))
        for run in board.ranked
        for key, name in list(board.columns.items())[:WIDE]
        if board.metric in run.results
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["run", board.metric, "setting", "value"])
    table["value"] = table["value"].map(brief)
    grid = {"facet_col": "setting", "facet_col_wrap": 5, "facet_row_spacing": 0.2}
    figure = px.scatter(table, x="value", y=board.metric, **grid, hover_name="run")
    figure.for_each_annotation(lambda head: head.update(text=head.text.partition("=")[2]))
    figure.update_xaxes(matches=None, showticklabels=True, title=None, type="category")
    for panel in figure.data:
        values = pd.to_numeric(pd.Series(panel.x), errors="coerce").sort_values().unique()
        if not pd.isna(values).any():
            log = values[0] > 0 and values[-1] / values[0] >= 8
            space = np.geomspace if log else np.linspace
            ticks = values if len(values) <= 4 else space(values[0], values[-1], 3)
            texts = [f"{tick:.3g}" for tick in ticks]
            axis = {"type": "log" if log else "linear", "tickvals": ticks, "ticktext": texts}
            figure.update_xaxes(axis, selector={"anchor": panel.yaxis})
    return styled(figure, board.metric)


def styled(figure: go.Figure, metric: str) -> go.Figure:
    """Style a figure whose vertical axes are a metric."""
    values = pd.concat([pd.Series(trace.y, dtype=float) for trace in figure.data])
    accuracy = metric.endswith("/acc")
    log = not accuracy and values.min() > 0 and values.max() / values.min() >= 10
    figure.update_layout(template="plotly_white", font_size=13, height=400, legend_title=None)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 40, "b": 10})
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_layout(yaxis_title=metric_name(metric))
    figure.update_yaxes(rangemode="nonnegative", type="log" if log else "linear")
    formats = {"tickformat": ".1%", "hoverformat": ".2%"} if accuracy else {"hoverformat": ".4f"}
    return figure.update_yaxes(formats)


def by_whole_numbers(figure: go.Figure, title: str, last: int) -> go.Figure:
    """Put whole numbers, at most 20, on the horizontal axis."""
    step = max(1, math.ceil(last / 20))
    return figure.update_xaxes(title=title, dtick=step, rangemode="nonnegative")
