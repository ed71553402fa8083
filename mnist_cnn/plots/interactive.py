"""The figures of a report to look at in a browser, and the one page that holds them.

Pure functions: numbers in, plotly Figure or HTML out. They need plotly, of the extra `sweep`.
"""

import html
import re
import textwrap
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_cnn.plots.axes import (
    LOST,
    MARK,
    PALETTE,
    TRAIN,
    VAL,
    axis,
    best_so_far,
    name_of,
    percent,
    quality,
    wide,
)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
INK, EDGE = "#1f2a44", "#dde2ee"
HALO = ", ".join(["0 0 2px white"] * 4)  # keeps a text readable on lines

# Nothing but what is in the file itself; parallel coordinates compile their drawing code.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

STYLE = f"""
:root {{ color-scheme: light; --ink: {INK}; --quiet: #5c667e; --edge: {EDGE}; --accent: {VAL}; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f5f7fb; color: var(--ink); font: 15px/1.5 {FONT}; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }}
h1 {{ margin: 0; font-size: 28px; letter-spacing: -0.02em; overflow-wrap: anywhere; }}
h2 {{ margin: 0 0 4px; font-size: 18px; }}
p {{ margin: 0 0 8px; color: var(--quiet); overflow-wrap: anywhere; }}
code {{ font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
header {{ margin-bottom: 20px; }}
.facts {{ display: grid; gap: 12px; margin-bottom: 16px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }}
.facts div, section {{ background: white; border: 1px solid var(--edge); border-radius: 10px; }}
.facts div {{ padding: 12px 16px; }}
.facts b {{ display: block; font-size: 21px; font-variant-numeric: tabular-nums; }}
.facts span {{ color: var(--quiet); font-size: 13px; }}
section {{ padding: 18px 20px; margin-bottom: 16px; min-width: 0; }}
.scroll {{ overflow: auto; }}
.tall {{ max-height: 840px; }}
.wide {{ min-width: 620px; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 12px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--edge); }}
th {{ color: var(--quiet); font-weight: 600; font-size: 13px; vertical-align: bottom;
  position: sticky; top: 0; background: white; }}
th.text, td.text {{ text-align: left; }}
td.long {{ white-space: normal; overflow-wrap: anywhere; min-width: 220px; }}
tbody tr:last-child td {{ border-bottom: 0; }}
.best td {{ background: #eaf3fb; font-weight: 600; }}
@media (max-width: 600px) {{
  main {{ padding: 20px 10px 40px; }}
  section {{ padding: 14px 12px; }}
  h1 {{ font-size: 22px; }}
}}
"""


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
    figure.update_xaxes(automargin=True, gridcolor="#edf0f6", zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor="#edf0f6", zeroline=False)
    return figure


def objective_axis(figure: go.Figure, metric: str, values: np.ndarray) -> None:
    accuracy = metric.endswith("acc")
    figure.update_yaxes(title=name_of(metric), tickformat=".1%" if accuracy else None)
    if wide(values) and not accuracy:
        scale = axis(values[np.isfinite(values)].tolist())
        ticks = [10**tick for tick in scale.ticks]
        figure.update_yaxes(type="log", tickvals=ticks, ticktext=scale.labels)


def number(metric: str) -> str:
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
    """As plots.trials, with a text for each run that is shown under the mouse."""
    state, text = np.array(states), np.array([hover(label) for label in labels])
    done = (state == "finished") & np.isfinite(values)
    pruned = (state == "pruned") & np.isfinite(values)
    lost = ~done & ~pruned
    best = best_so_far(np.where(done, values, np.nan), mode)
    size = 9 if len(jobs) <= 300 else 5
    shown = f"%{{y:{number(metric)}}}<br>%{{text}}"
    figure = go.Figure()
    figure.add_scatter(
        x=jobs,
        y=best,
        mode="lines",
        line={"shape": "hv", "color": MARK, "width": 2},
        name="best so far",
        hoverinfo="skip",
    )
    for chosen, name, symbol, color, stroke in (
        (done, "finished", "circle", VAL, 0),
        (pruned, "pruned", "x-thin-open", TRAIN, 2),
    ):
        if chosen.any():
            figure.add_scatter(
                x=jobs[chosen],
                y=values[chosen],
                text=text[chosen],
                mode="markers",
                marker={"symbol": symbol, "color": color, "size": size, "line_width": stroke},
                name=name,
                hovertemplate=f"{shown}<extra>{name}</extra>",
            )
    if lost.any():  # at the lower edge, as they have no value
        figure.add_scatter(
            x=jobs[lost],
            y=np.full(lost.sum(), 0.02),
            yaxis="y2",
            text=text[lost],
            mode="markers",
            marker={"symbol": "triangle-up", "color": LOST, "size": 10},
            name="without a value",
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
        )
    styled(figure, 380)
    objective_axis(figure, metric, values[done | pruned])
    figure.update_layout(
        xaxis_title="job",
        hovermode="closest",
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )
    return figure


def parallel(
    parameters: Mapping[str, Sequence[Any]], values: np.ndarray, metric: str, mode: str
) -> go.Figure:
    """As plots.parallel; a part of an axis can be marked with the mouse to see only its runs."""
    accuracy = metric.endswith("acc")
    scales = {name: axis(column) for name, column in parameters.items()}
    scales[name_of(metric)] = axis(values.tolist(), linear=accuracy)
    dimensions = []
    for name, scale in scales.items():
        texts = [escape(text) for text in scale.labels]
        if accuracy and name not in parameters:
            texts = [percent(text) for text in texts]
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
    good, low, high = quality(scale, mode)  # a higher colour is drawn on top
    line = {
        "color": good,
        "colorscale": PALETTE,
        "cmin": low,
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
    """As plots.curves."""
    figure = go.Figure()
    for k, (name, epochs, values) in reversed(list(enumerate(runs))):
        best = k == 0
        figure.add_scatter(
            x=epochs,
            y=values,
            mode="lines+markers",
            line={"color": VAL if best else "#b9bfcc", "width": 3 if best else 1.2},
            marker={"size": 7 if best else 4},
            opacity=1 if best else 0.75,
            name=f"best: {escape(textwrap.shorten(name, 60, placeholder=' …'))}"
            if best
            else f"{len(runs) - 1} others",
            legendgroup="best" if best else "others",
            showlegend=k <= 1,
            hovertemplate=f"epoch %{{x}}: %{{y:{number(metric)}}}<br>{hover(name)}<extra></extra>",
        )
    styled(figure, 400)
    objective_axis(figure, metric, np.concatenate([np.asarray(y, float) for _, _, y in runs]))
    whole = max(len(x) for _, x, _ in runs) <= 20
    figure.update_xaxes(title="epoch", dtick=1 if whole else None)
    return figure.update_layout(hovermode="closest", legend_traceorder="reversed")


def importance(shares: Mapping[str, float]) -> go.Figure:
    """As plots.importance."""
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


def escape(text: str) -> str:
    return html.escape(str(text))


def hover(text: str) -> str:
    """A text beside the mouse, in lines that fit into the page."""
    return "<br>".join(map(escape, textwrap.wrap(text, 60)))


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Container[str], best: bool = False
) -> str:
    """An HTML table.

    Args:
        heads: one a column.
        rows: a text for each column.
        texts: the heads of columns that are text, to the left; the others are numbers.
        best: whether the first row stands out.
    """
    kinds = ["text" if head in texts else "" for head in heads]
    head = "".join(
        f'<th class="{kind}">{escape(text)}</th>' for kind, text in zip(kinds, heads, strict=True)
    )
    body = ""
    for k, row in enumerate(rows):
        cells = "".join(
            f'<td class="{kind}{" long" if kind and len(cell) > 30 else ""}">{escape(cell)}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        )
        body += f'<tr class="best">{cells}</tr>' if best and k == 0 else f"<tr>{cells}</tr>"
    return (
        f'<div class="scroll tall"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def page(
    title: str,
    subtitle: str,
    facts: Mapping[str, str],
    parts: Sequence[tuple[str, str, go.Figure | str | None]],
) -> str:
    """One HTML file that needs no other, and asks no machine for anything.

    Args:
        title, subtitle: what was reported.
        facts: a few numbers by what they mean.
        parts: of each its title, a sentence, and a figure, HTML, or nothing more.
    """
    cards = "".join(
        f"<div><b>{escape(number)}</b><span>{escape(meaning)}</span></div>"
        for meaning, number in facts.items()
    )
    sections = ""
    for name, sentence, content in parts:
        body = content or ""
        if isinstance(content, go.Figure):
            identity = re.sub(r"\W+", "-", name.lower())
            body = content.to_html(
                full_html=False,
                include_plotlyjs=False,
                div_id=identity,
                config={"responsive": True, "displaylogo": False},
            )
            wide = "wide" if content.data[0].type == "parcoords" else ""
            body = f'<div class="scroll"><div class="{wide}">{body}</div></div>'
        text = f"<p>{escape(sentence)}</p>" if sentence else ""
        sections += f"<section><h2>{escape(name)}</h2>{text}{body}</section>\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>
<div class="facts">{cards}</div>
{sections}</main>
</body>
</html>
"""
