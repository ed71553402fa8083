"""The page of a report: its tables and figures in one HTML file. Needs plotly, of `sweep`."""

import math
import re
from collections.abc import Container, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mnist_cnn.analysis.found import ABSENT, Run, read_history
from mnist_cnn.analysis.ranking import Leaderboard, most_varied, pairs
from mnist_cnn.analysis.tables import (
    WIDE,
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
from mnist_cnn.plots import interactive
from mnist_cnn.plots.scales import metric_name
from mnist_cnn.runs.state import SWEEP

TEMPLATE = Path(__file__).with_name("report.html")
PAGE_ROWS = 200  # of a table
LINES, CURVES = 500, 60  # of parallel lines, of curves in a figure
ENOUGH = 20  # finished runs for an importance, which looks at the best tenth

# Nothing but what is in the file itself; parallel coordinates compile their drawing code.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

Part = tuple[str, go.Figure | None]  # what a figure shows or why it is skipped, and the figure


def fill_page(board: Leaderboard, path: Path, folder: Path) -> None:
    """Writes the page of a folder's report: it needs no other file, and asks no other machine."""
    known = [run for run in board.finished if board.metric in run.results]
    finite = [run for run in known if math.isfinite(run.results[board.metric])]
    ranked = sorted(finite, key=lambda run: board.worse(run.results[board.metric]))
    figures = {
        f"{metric_name(board.metric).capitalize()} of each run": trials_part(board),
        "Hyper-parameters": parallel_part(board, ranked),
        "Learning curves": curves_part(board, ranked),
        "Importance of hyper-parameters": importance_part(board, ranked),
    }
    sections = table_sections(board) + [
        section(title, text, figure_html(title, figure) if figure else "")
        for title, (text, figure) in figures.items()
    ]
    kind = "Sweep" if (folder / SWEEP).exists() else "Runs in"
    content = Template(TEMPLATE.read_text("utf-8")).substitute(
        policy=POLICY,
        ink=interactive.INK,
        font=interactive.FONT,
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


def trials_part(board: Leaderboard) -> Part:
    values = np.array(
        [
            run.results["value"]
            if run.state == "pruned" and run.results["metric"] == board.metric
            else run.results.get(board.metric, math.nan)
            for run in board.runs
        ],
        float,
    )
    if not np.isfinite(values).any():
        return f"Skipped: no run has a {board.metric}.", None
    names = [run.name for run in board.runs]
    return "In the order of the runs' names; a job of a sweep by its number.", interactive.trials(
        np.array(names if all(map(str.isdecimal, names)) else range(len(names)), int),
        values,
        [run.state for run in board.runs],
        board.metric,
        board.mode,
        [describe_run(run, board) for run in board.runs],
    )


def parallel_part(board: Leaderboard, ranked: Sequence[Run]) -> Part:
    lines = evenly(ranked, LINES)
    keys = most_varied(list(board.columns), [run.config for run in lines], WIDE)
    parameters = {
        board.columns[key]: [run.config.get(key, ABSENT) for run in lines] for key in keys
    }
    if not ranked or not parameters:
        return "Skipped: the runs have the same configuration.", None
    some = f", {len(lines)} of {len(ranked):,} runs" if len(lines) < len(ranked) else ""
    varied = f" Of {len(board.columns)} the {WIDE} that vary most." if is_wide(board) else ""
    text = (
        f"Each line is a run{some}; dark is good. Drag along an axis to see only the runs that "
        f"pass there; click on it to see all again.{varied}"
    )
    values = np.array([run.results[board.metric] for run in lines])
    return text, interactive.parallel(parameters, values, board.metric, board.mode)


def curves_part(board: Leaderboard, ranked: Sequence[Run]) -> Part:
    drawn: list[tuple[str, list[float], list[float]]] = []
    for run in evenly(ranked, CURVES):
        rows = [row for row in read_history(run.folder) if {"epoch", board.metric} <= row.keys()]
        if rows or not drawn:  # the first is the best, and nothing else may stand for it
            epochs, values = ([row[key] for row in rows] for key in ("epoch", board.metric))
            drawn.append((describe_run(run, board), epochs, values))
    if not drawn or not drawn[0][1]:
        return "Skipped: the best run has no history.csv.", None
    few = f", of {len(ranked):,} runs" if len(drawn) < len(ranked) else ""
    text = f"The best run and {len(drawn) - 1} others{few}."
    return text, interactive.curves(drawn, board.metric)


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


def importance_part(board: Leaderboard, ranked: Sequence[Run]) -> Part:
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
    return text, interactive.importance({board.columns[key]: x for key, x in shares.items()})
