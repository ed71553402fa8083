"""The page of a report: its tables and figures in one HTML file."""

import re
from collections.abc import Container, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

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
from mnist_cnn.config.messages import install
from mnist_cnn.runs.state import SWEEP

if TYPE_CHECKING:
    from mnist_cnn.analysis.figures import Section

TEMPLATE = Path(__file__).with_name("report.html")
PAGE_ROWS = 200  # of a table

# Nothing but what is in the file itself; parallel coordinates compile their drawing code.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)


def write_page(board: Leaderboard, path: Path, title: str) -> str:
    """Writes one HTML file that needs no other, and asks no machine for anything.

    Returns:
        What was written, or left out, in a sentence.
    """
    try:
        from mnist_cnn.analysis import figures
    except ModuleNotFoundError as e:
        return (
            f"{path.name} with the figures was not written: it needs {e.name}: {install('sweep')}"
        )
    from plotly.offline import get_plotlyjs

    from mnist_cnn.plots.interactive import FONT, INK

    cards = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(meaning)}</span></div>"
        for meaning, value in facts(board).items()
    )
    sections = [*table_sections(board), *figures.figure_sections(board)]
    content = Template(TEMPLATE.read_text("utf-8")).substitute(
        policy=POLICY,
        ink=INK,
        font=FONT,
        title=escape(title),
        subtitle=escape(str(path.parent)),
        facts=cards,
        sections="".join(map(section_html, sections)),
        plotly=get_plotlyjs(),
    )
    path.write_text(content, "utf-8")
    return str(path)


def page_title(folder: Path) -> str:
    kind = "Sweep" if (folder / SWEEP).exists() else "Runs in"
    return f"{kind} {'/'.join(folder.resolve().parts[-2:])}"


def facts(board: Leaderboard) -> dict[str, str]:
    """A few numbers by what they mean."""
    from mnist_cnn.plots.scales import metric_name

    finished = board.finished
    found = {"runs finished": f"{len(finished):,} of {len(board.runs):,}"}
    if board.groups:
        best = board.groups[0]
        found["configurations"] = f"{len(board.groups):,}"
        for metric in board.metrics[:-1]:
            if summary := best.summary(metric):
                unit = " %" if metric.endswith("/acc") else ""
                found[f"{metric_name(metric)} of the best"] = (
                    format_metric(metric, summary.mean) + unit
                )
        seconds = sum(run.results.get("seconds", 0) for run in finished)
        found["of training"] = str(timedelta(seconds=round(seconds)))
    return found


def table_sections(board: Leaderboard) -> "list[Section]":
    from mnist_cnn.analysis.figures import Section

    about, leaders = describe_ranking(board), ranking_rows(board, narrow=False)
    if is_wide(board):
        about += f"; usual settings: {usual_settings(board)}"
        leaders = ranking_rows(board, True, "best run", lambda run: run.name)
    sections = []
    for title, (heads, rows), text in (
        ("Leaderboard", leaders, about),
        ("Without a result", unfinished_rows(board), count_states(board)),
    ):
        if rows:
            more = f"; the first {PAGE_ROWS} of {len(rows):,}" if len(rows) > PAGE_ROWS else ""
            best = title == "Leaderboard"
            table = table_html(heads, rows[:PAGE_ROWS], heads_of_text(board), best)
            sections.append(Section(title, f"{text[0].upper()}{text[1:]}{more}.", table))
    return sections


def table_html(
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


def section_html(section: "Section") -> str:
    body = section.content or ""
    if not isinstance(body, str):
        figure = body.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=re.sub(r"\W+", "-", section.title.lower()),
            config={"responsive": True, "displaylogo": False},
        )
        wide = "wide" if body.data[0].type == "parcoords" else ""
        body = f'<div class="scroll"><div class="{wide}">{figure}</div></div>'
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>{body}</section>\n"
    )
