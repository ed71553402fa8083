"""The figures of a report, to look at in a browser.

Pure functions: numbers in, plotly Figure out. They need plotly, of the extra `sweep`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mnist_cnn.plots.axes import MARK, TRAIN, VAL, percent
from mnist_cnn.plots.scales import best_so_far, metric_name, scale_of

LOST, PALETTE = "#d98200", "viridis_r"  # dark is good
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
INK, EDGE = "#1f2a44", "#dde2ee"
HALO = ", ".join(["0 0 2px white"] * 4)  # keeps a text readable on lines


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


def trials(
    jobs: np.ndarray,
    values: np.ndarray,
    states: Sequence[str],
    metric: str,
    mode: str,
    labels: Sequence[str],
) -> go.Figure:
    """The objective of each run in order, the best so far, and the runs that did not finish.

    Args:
        jobs: (N,) numbers of the runs.
        values: (N,) the objective; of a pruned run its last; NaN where there is none.
        states: N of `finished`, `pruned`, or anything else, which is drawn as failed.
        labels: N texts, shown under the mouse.
    """
    state, text = np.array(states), np.array([hover(label) for label in labels])
    done = (state == "finished") & np.isfinite(values)
    pruned = (state == "pruned") & np.isfinite(values)
    size = 9 if len(jobs) <= 300 else 5
    figure = go.Figure()
    best = best_so_far(np.where(done, values, np.nan), mode)
    line = {"mode": "lines", "line": {"shape": "hv", "color": MARK, "width": 2}}
    figure.add_scatter(x=jobs, y=best, name="best so far", hoverinfo="skip", **line)

    def points(chosen: np.ndarray, name: str, heights: np.ndarray, **style: Any) -> None:
        if chosen.any():
            at = {"x": jobs[chosen], "y": heights[chosen], "text": text[chosen]}
            figure.add_scatter(**at, mode="markers", name=name, **style)

    value = f"%{{y:{d3_format(metric)}}}<br>%{{text}}"
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
    objective_axis(figure, metric, values[done | pruned])
    return figure.update_layout(
        xaxis_title="job",
        hovermode="closest",
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )


def parallel(
    parameters: Mapping[str, Sequence[Any]], values: np.ndarray, metric: str, mode: str
) -> go.Figure:
    """Each run as a line through its hyper-parameters to its objective, which colours it.

    Args:
        parameters: by name, N values each.
        values: (N,) the objective.
    """
    accuracy = metric.endswith("acc")
    scales = {name: scale_of(column) for name, column in parameters.items()}
    scales[metric_name(metric)] = scale_of(values.tolist(), linear=accuracy)
    dimensions = []
    for name, scale in scales.items():
        texts = [escape(text) for text in scale.labels]
        if accuracy and name not in parameters:
            texts = [percent(float(text)) for text in texts]
        dimensions.append(
            {
                "label": escape(name),
                "values": scale.at,
                "range": [scale.low, scale.high],
                # the axis is drawn from the first to the last tick
                "tickvals": [scale.low, *scale.ticks, scale.high],
                "ticktext": ["", *texts, " "],
            }
        )
    good = -scale.at if mode == "min" else scale.at  # a higher colour is drawn on top
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
    return figure.update_layout(margin={"l": 60, "r": 10, "t": 60, "b": 24})


def curves(runs: Sequence[tuple[str, Sequence[float], Sequence[float]]], metric: str) -> go.Figure:
    """The objective by epoch, the best run's before the others'.

    Args:
        runs: of each run its name, epochs and values, the best first.
    """
    figure, shown = go.Figure(), f"%{{y:{d3_format(metric)}}}"
    for k, (name, epochs, values) in reversed(list(enumerate(runs))):
        best, short = k == 0, escape(textwrap.shorten(name, 60, placeholder=" …"))
        figure.add_scatter(
            x=epochs,
            y=values,
            mode="lines+markers",
            line={"color": VAL if best else "#b9bfcc", "width": 3 if best else 1.2},
            marker={"size": 7 if best else 4},
            opacity=1 if best else 0.75,
            name=f"best: {short}" if best else f"{len(runs) - 1} others",
            legendgroup="best" if best else "others",
            showlegend=k <= 1,
            hovertemplate=f"epoch %{{x}}: {shown}<br>{hover(name)}<extra></extra>",
        )
    styled(figure, 400)
    objective_axis(figure, metric, np.concatenate([np.asarray(y, float) for _, _, y in runs]))
    whole = max(len(x) for _, x, _ in runs) <= 20
    figure.update_xaxes(title="epoch", dtick=1 if whole else None)
    return figure.update_layout(hovermode="closest", legend_traceorder="reversed")


def importance(shares: Mapping[str, float]) -> go.Figure:
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


def hover(text: str) -> str:
    """A text beside the mouse, in lines that fit into the page."""
    return "<br>".join(map(escape, textwrap.wrap(text, 60)))
