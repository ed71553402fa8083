"""The figures of a report, to look at in a browser. They need plotly, of the extra `sweep`."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mnist_cnn.analysis.found import ABSENT, Run, read_history
from mnist_cnn.analysis.ranking import Leaderboard, most_varied, pairs
from mnist_cnn.analysis.tables import WIDE, is_wide
from mnist_cnn.config.messages import install
from mnist_cnn.plots.axes import MARK, TRAIN, VAL, percent
from mnist_cnn.plots.scales import metric_name, scale_of

LINES, CURVES = 500, 60  # of parallel lines, of curves in a figure
ENOUGH = 20  # finished runs for an importance, which looks at the best tenth
LOST, PALETTE = "#d98200", "viridis_r"  # dark is good
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
INK, EDGE = "#1f2a44", "#dde2ee"
HALO = ", ".join(["0 0 2px white"] * 4)  # keeps a text readable on lines

Part = tuple[str, go.Figure | None]  # what a figure shows or why it is skipped, and the figure


def trials(board: Leaderboard) -> Part:
    """The objective of each run in order, the best so far, and the runs that did not finish."""
    names, state = [run.name for run in board.runs], np.array([run.state for run in board.runs])
    jobs = np.array(names if all(map(str.isdecimal, names)) else range(len(names)), int)
    text = np.array([hover(describe_run(run, board)) for run in board.runs])
    values = np.array([run.results.get(board.metric, math.nan) for run in board.runs], float)
    for k, run in enumerate(board.runs):
        if run.state == "pruned" and run.results["metric"] == board.metric:
            values[k] = run.results["value"]
    if not np.isfinite(values).any():
        return f"Skipped: no run has a {board.metric}.", None
    done = (state == "finished") & np.isfinite(values)
    pruned = (state == "pruned") & np.isfinite(values)
    size = 9 if len(jobs) <= 300 else 5
    figure = go.Figure()
    better = np.fmin if board.mode == "min" else np.fmax
    best = better.accumulate(np.where(done, values, np.nan))
    line = {"mode": "lines", "line": {"shape": "hv", "color": MARK, "width": 2}}
    figure.add_scatter(x=jobs, y=best, name="best so far", hoverinfo="skip", **line)

    def points(chosen: np.ndarray, name: str, heights: np.ndarray, **style: Any) -> None:
        if chosen.any():
            at = {"x": jobs[chosen], "y": heights[chosen], "text": text[chosen]}
            figure.add_scatter(**at, mode="markers", name=name, **style)

    value = f"%{{y:{d3_format(board.metric)}}}<br>%{{text}}"
    cross = {"symbol": "x-thin-open", "color": TRAIN, "size": size, "line_width": 2}
    points(done, "finished", values, marker={"color": VAL, "size": size}, hovertemplate=value)
    points(pruned, "pruned", values, marker=cross, hovertemplate=value)
    points(
        ~done & ~pruned,
        "without a value",
        np.full(len(jobs), 0.02),  # at the bottom of an axis of their own
        marker={"symbol": "triangle-up", "color": LOST, "size": 10},
        hovertemplate="%{text}<extra></extra>",
        yaxis="y2",
        cliponaxis=False,
    )
    styled(figure, 380)
    objective_axis(figure, board.metric, values[done | pruned])
    figure.update_layout(
        xaxis_title="job",
        hovermode="closest",
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return "In the order of the runs' names; a job of a sweep by its number.", figure


def parallel(board: Leaderboard, ranked: Sequence[Run]) -> Part:
    """Each run as a line through its hyper-parameters to its objective, which colours it."""
    runs, accuracy = evenly(ranked, LINES), board.metric.endswith("acc")
    keys = most_varied(list(board.columns), [run.config for run in runs], WIDE)
    if not runs or not keys:
        return "Skipped: the runs have the same configuration.", None
    scales = {
        board.columns[key]: scale_of([run.config.get(key, ABSENT) for run in runs]) for key in keys
    }
    objective = scale_of([float(run.results[board.metric]) for run in runs], linear=accuracy)
    if accuracy:
        objective.labels = [percent(float(text)) for text in objective.labels]
    dimensions = [
        {
            "label": escape(name),
            "values": scale.at,
            "range": [scale.low, scale.high],
            # the axis is drawn from the first to the last tick
            "tickvals": [scale.low, *scale.ticks, scale.high],
            "ticktext": ["", *map(escape, scale.labels), " "],
        }
        for name, scale in {**scales, metric_name(board.metric): objective}.items()
    ]
    # a higher colour is drawn on top
    good = -objective.at if board.mode == "min" else objective.at
    # without the worst tenth, which may be far off
    low, high = float(np.quantile(good, 0.1)), float(good.max())
    line = {
        "color": good,
        "colorscale": PALETTE,
        "cmin": low if low < high else low - 1,
        "cmax": high,
        "showscale": True,
        "colorbar": {
            # the last axis has the numbers
            "title": {"text": "better   →", "side": "right"},
            "showticklabels": False,
            "thickness": 12,
            "outlinewidth": 0,
        },
    }
    figure = styled(go.Figure(go.Parcoords(dimensions=dimensions, line=line)), 420)
    figure.update_traces(
        labelfont={"size": 13, "color": INK}, tickfont={"size": 12, "color": INK, "shadow": HALO}
    )
    figure.update_layout(margin={"l": 60, "r": 10, "t": 60, "b": 24})
    some = f", {len(runs)} of {len(ranked):,} runs" if len(runs) < len(ranked) else ""
    varied = f" Of {len(board.columns)} the {WIDE} that vary most." if is_wide(board) else ""
    text = (
        f"Each line is a run{some}; dark is good. Drag along an axis to see only the runs that "
        f"pass there; click on it to see all again.{varied}"
    )
    return text, figure


def curves(board: Leaderboard, ranked: Sequence[Run]) -> Part:
    """The objective by epoch, the best run's before the others'."""
    drawn: list[tuple[str, list[float], list[float]]] = []
    for run in evenly(ranked, CURVES):
        rows = [row for row in read_history(run.folder) if {"epoch", board.metric} <= row.keys()]
        if rows or not drawn:  # the first is the best, and nothing else may stand for it
            epochs, values = ([row[key] for row in rows] for key in ("epoch", board.metric))
            drawn.append((describe_run(run, board), epochs, values))
    if not drawn or not drawn[0][1]:
        return "Skipped: the best run has no history.csv.", None
    figure, shown = go.Figure(), f"%{{y:{d3_format(board.metric)}}}"
    for k, (name, epochs, values) in reversed(list(enumerate(drawn))):
        best, short = k == 0, escape(textwrap.shorten(name, 60, placeholder=" …"))
        figure.add_scatter(
            x=epochs,
            y=values,
            mode="lines+markers",
            line={"color": VAL if best else "#b9bfcc", "width": 3 if best else 1.2},
            marker={"size": 7 if best else 4},
            opacity=1 if best else 0.75,
            name=f"best: {short}" if best else f"{len(drawn) - 1} others",
            legendgroup="best" if best else "others",
            showlegend=k <= 1,
            hovertemplate=f"epoch %{{x}}: {shown}<br>{hover(name)}<extra></extra>",
        )
    styled(figure, 400)
    objective_axis(figure, board.metric, np.concatenate([values for _, _, values in drawn]))
    whole = max(len(epochs) for _, epochs, _ in drawn) <= 20
    figure.update_xaxes(title="epoch", dtick=1 if whole else None)
    figure.update_layout(hovermode="closest", legend_traceorder="reversed")
    few = f", of {len(ranked):,} runs" if len(drawn) < len(ranked) else ""
    return f"The best run and {len(drawn) - 1} others{few}.", figure


def importance(board: Leaderboard, ranked: Sequence[Run]) -> Part:
    """Each hyper-parameter's share in what sets the best tenth of the runs apart."""
    keys = [key for key in board.columns if all(key in run.config for run in ranked)]
    if not keys:
        return "Skipped: there is no hyper-parameter that all runs have and that differs.", None
    if len(ranked) < ENOUGH:
        return f"Skipped: it takes {ENOUGH} finished runs; there are {len(ranked)}.", None
    try:
        import optuna
    except ModuleNotFoundError:
        return f"Skipped: it needs optuna: {install('sweep')}", None
    parameters: dict[str, Sequence[Any]] = {}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for key in keys:
        values = [run.config[key] for run in ranked]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            low, high = min(values), max(values)
            log = low > 0 and high / low >= 8
            distributions[key] = optuna.distributions.FloatDistribution(low, high, log=log)
        else:
            values = [str(v) for v in values]
            distributions[key] = optuna.distributions.CategoricalDistribution(sorted({*values}))
        parameters[key] = values
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of a study that nobody will look for
    try:
        study = optuna.create_study(direction="minimize" if board.mode == "min" else "maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        optuna.trial.create_trial(
            params={key: parameters[key][k] for key in keys},
            distributions=distributions,
            value=run.results[board.metric],
        )
        for k, run in enumerate(ranked)
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    if not any(shares.values()):
        return "Skipped: no hyper-parameter sets the best runs apart.", None
    text = (
        f"Share of each hyper-parameter in what sets the best tenth of {len(ranked)} runs apart "
        "(PED-ANOVA)."
    )
    return text, bars({board.columns[key]: x for key, x in shares.items()})


def bars(shares: Mapping[str, float]) -> go.Figure:
    """How much each hyper-parameter mattered, from 0 to 1, as bars: the greatest first."""
    figure = go.Figure(
        go.Bar(
            x=list(shares.values()),
            y=[escape(name) for name in shares],
            orientation="h",
            marker_color=VAL,
            texttemplate="%{x:.0%}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    styled(figure, 110 + 34 * len(shares))
    figure.update_xaxes(title="importance", tickformat=".0%", range=[0, 1.1 * max(shares.values())])
    return figure.update_yaxes(autorange="reversed", ticksuffix="  ")


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def describe_run(run: Run, board: Leaderboard) -> str:
    """A run's name and what tells it from the others."""
    settings = {name: run.config.get(key, ABSENT) for key, name in board.columns.items()}
    if is_wide(board):
        settings = board.apart(run.config)
    for key in ("seed", *board.averaged):
        settings[key.rpartition(".")[2]] = run.config.get(key, ABSENT)
    return f"{run.name} {pairs(settings)}".strip()


def styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 10, "r": 10, "t": 36, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 13}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    axis = {"automargin": True, "gridcolor": "#edf0f6", "zeroline": False}
    return figure.update_xaxes(axis).update_yaxes(axis)


def objective_axis(figure: go.Figure, metric: str, values: np.ndarray) -> None:
    accuracy = metric.endswith("acc")
    figure.update_yaxes(title=metric_name(metric), tickformat=".1%" if accuracy else None)
    known = values[np.isfinite(values)]
    if not accuracy and len(known) and known.min() > 0 and known.max() / known.min() >= 10:
        scale = scale_of(known.tolist())
        ticks = [10**tick for tick in scale.ticks]
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=scale.labels)


def d3_format(metric: str) -> str:
    """How D3 writes a value of a metric."""
    return ".2%" if metric.endswith("acc") else ".4f"


def hover(text: str) -> str:
    """A text beside the mouse, in lines that fit into the page."""
    return "<br>".join(map(escape, textwrap.wrap(text, 60)))
