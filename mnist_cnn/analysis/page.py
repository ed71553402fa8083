"""The page of a report: its tables and figures in one HTML file. Needs plotly, of `sweep`."""

from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis import figures, tables
from mnist_cnn.analysis.ranking import Leaderboard

TEMPLATE = Path(__file__).with_name("report.html")
ROWS = 200  # of a table


def fill_page(board: Leaderboard, path: Path, folder: Path) -> None:
    """Writes the page of a folder's report: it needs no other file, and asks no other machine."""
    wide = tables.is_wide(board)
    seconds = pd.Series([run.results.get("seconds") for run in board.finished], dtype=float).sum()
    about = tables.describe_ranking(board)
    if wide:
        about += f"; usual settings: {tables.usual_settings(board)}"
    metric = figures.metric_name(board.metric).capitalize()
    parts = [
        ("Leaderboard", about, tables.ranking_table(board, narrow=wide, checkpoints=not wide)),
        ("Without a result", "", tables.unfinished_table(board)),
        ("Runs", f"{metric} of each run, in the order of their end.", figures.trials(board)),
        ("Settings", f"{metric} of each run by its settings.", figures.slices(board)),
        ("Curves", f"{metric} of the best {figures.CURVES} runs.", figures.curves(board)),
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
        return part.head(ROWS).to_html(index=False, border=0) if len(part) else ""
    config = {"responsive": True, "displaylogo": False}
    return part.to_html(full_html=False, include_plotlyjs=False, config=config) if part else ""
