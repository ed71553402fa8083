"""The page of a report: its tables and a figure in one HTML file. Needs plotly, of `sweep`."""

from html import escape
from pathlib import Path
from string import Template

import pandas as pd
import plotly.express as px
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis import tables
from mnist_cnn.analysis.ranking import Leaderboard, brief

TEMPLATE = Path(__file__).with_name("report.html")


def fill_page(board: Leaderboard, path: Path, folder: Path) -> None:
    """Write the page of a folder's report: it needs no other file, and asks no other machine."""
    parts = tables.ranking_table(board), board.unfinished
    leaderboard, unfinished = (table.to_html(index=False, border=0) for table in parts)
    content = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(f"Report of {'/'.join(folder.resolve().parts[-2:])}"),
        facts=escape(tables.describe_ranking(board)),
        leaderboard=leaderboard,
        settings=draw_settings(board),
        unfinished=unfinished,
        plotly=get_plotlyjs(),
    )
    path.write_text(content, "utf-8")


def draw_settings(board: Leaderboard) -> str:
    """HTML of a figure: the objective of each run against each setting that tells groups apart."""
    rows = [
        {"run": escape(run["name"]), "setting": key, "value": brief(run["config"].get(key))}
        | {board.metric: run["value"]}
        for run in board.finished.to_dict("records")
        for key in board.columns
    ]
    if not rows:
        return ""
    grid = {"facet_col": "setting", "facet_col_wrap": 4, "template": "plotly_white"}
    figure = px.scatter(pd.DataFrame(rows), x="value", y=board.metric, **grid, hover_name="run")
    figure.for_each_annotation(lambda title: title.update(text=title.text.partition("=")[2]))
    figure.update_xaxes(matches=None, showticklabels=True, type="category")
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
