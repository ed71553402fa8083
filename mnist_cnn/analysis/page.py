"""The page of a report: its tables and figures in one HTML file. Needs plotly, of `sweep`."""

import math
import re
from collections.abc import Container, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis import figures
from mnist_cnn.analysis.ranking import Leaderboard
from mnist_cnn.analysis.tables import (
    count_states,
    describe_ranking,
    format_metric,
    heads_of_text,
    is_wide,
    ranking_rows,
    unfinished_rows,
    usual_settings,
)
from mnist_cnn.plots.scales import metric_name
from mnist_cnn.runs.folder import SWEEP

TEMPLATE = Path(__file__).with_name("report.html")
PAGE_ROWS = 200  # of a table

# Nothing but what is in the file itself; parallel coordinates compile their drawing code.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)


def fill_page(board: Leaderboard, path: Path, folder: Path) -> None:
    """Writes the page of a folder's report: it needs no other file, and asks no other machine."""
    known = [run for run in board.finished if board.metric in run.results]
    finite = [run for run in known if math.isfinite(run.results[board.metric])]
    ranked = sorted(finite, key=lambda run: board.worse(run.results[board.metric]))
    parts = {
        f"{metric_name(board.metric).capitalize()} of each run": figures.trials(board),
        "Hyper-parameters": figures.parallel(board, ranked),
        "Learning curves": figures.curves(board, ranked),
        "Importance of hyper-parameters": figures.importance(board, ranked),
    }
    sections = table_sections(board) + [
        section(title, text, figure_html(title, figure) if figure else "")
        for title, (text, figure) in parts.items()
    ]
    kind = "Sweep" if (folder / SWEEP).exists() else "Runs in"
    content = Template(TEMPLATE.read_text("utf-8")).substitute(
        policy=POLICY,
        ink=figures.INK,
        font=figures.FONT,
        title=escape(f"{kind} {'/'.join(folder.resolve().parts[-2:])}"),
        subtitle=escape(str(path.parent)),
        facts="".join(
            f"<div><b>{escape(value)}</b><span>{escape(meaning)}</span></div>"
            for meaning, value in facts(board).items()
        ),
        sections="".join(sections),
        plotly=get_plotlyjs(),
    )
    path.write_text(content, "utf-8")


def facts(board: Leaderboard) -> dict[str, str]:
    """A few numbers by what they mean."""
    found = {"runs finished": f"{len(board.finished):,} of {len(board.runs):,}"}
    if board.groups:
        found["configurations"] = f"{len(board.groups):,}"
        for metric in board.metrics[:-1]:
            if summary := board.groups[0].summary(metric):
                unit = " %" if metric.endswith("/acc") else ""
                mean = format_metric(metric, summary.mean)
                found[f"{metric_name(metric)} of the best"] = mean + unit
        seconds = sum(run.results.get("seconds", 0) for run in board.finished)
        found["of training"] = str(timedelta(seconds=round(seconds)))
    return found


def section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{body}</section>\n"


def table_sections(board: Leaderboard) -> list[str]:
    about, wide = describe_ranking(board), is_wide(board)
    leaders = ranking_rows(board, narrow=wide, checkpoints=not wide)
    if wide:
        about += f"; usual settings: {usual_settings(board)}"
    sections = []
    for title, (heads, rows), text in (
        ("Leaderboard", leaders, about),
        ("Without a result", unfinished_rows(board), count_states(board)),
    ):
        if rows:
            more = f"; the first {PAGE_ROWS} of {len(rows):,}" if len(rows) > PAGE_ROWS else ""
            best = title == "Leaderboard"
            table = table_html(heads, rows[:PAGE_ROWS], heads_of_text(board), best)
            sections.append(section(title, f"{text[0].upper()}{text[1:]}{more}.", table))
    return sections


def table_html(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Container[str], best: bool
) -> str:
    """An HTML table. The columns of `texts` are read from the left; the first row may stand out."""
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


def figure_html(title: str, figure: go.Figure) -> str:
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=re.sub(r"\W+", "-", title.lower()),
        config={"responsive": True, "displaylogo": False},
    )
    wide = "wide" if figure.data[0].type == "parcoords" else ""
    return f'<div class="scroll"><div class="{wide}">{html}</div></div>'
