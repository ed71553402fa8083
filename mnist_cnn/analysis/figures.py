"""What the figures of a report show."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from mnist_cnn.analysis.found import ABSENT, Run, read_history
from mnist_cnn.analysis.ranking import Leaderboard, most_varied, pairs, worse
from mnist_cnn.analysis.tables import WIDE, is_wide
from mnist_cnn.config.messages import install
from mnist_cnn.plots import interactive
from mnist_cnn.plots.scales import metric_name

LINES, CURVES = 500, 60  # of parallel lines, of curves in a figure
ENOUGH = 20  # finished runs for an importance, which looks at the best tenth


class Section(NamedTuple):
    """A part of the page: its title, a sentence, and a figure, HTML, or nothing more."""

    title: str
    text: str
    content: go.Figure | str | None


def figure_sections(board: Leaderboard) -> list[Section]:
    """The four figures of the page, each under a sentence on what it shows or why it is skipped."""
    ranked = [
        run for run in board.finished if math.isfinite(run.results.get(board.metric, math.nan))
    ]
    ranked.sort(key=lambda run: worse(run.results[board.metric], board.mode))
    shares, about = importances(ranked, board.columns, board.metric, board.mode)
    return [
        trials_section(board),
        parallel_section(board, ranked),
        curves_section(board, ranked),
        Section(
            "Importance of hyper-parameters",
            about,
            interactive.importance(shares) if shares else None,
        ),
    ]


def trials_section(board: Leaderboard) -> Section:
    values = np.array([run.results.get(board.metric, math.nan) for run in board.runs], float)
    for k, run in enumerate(board.runs):
        if run.state == "pruned" and run.results["metric"] == board.metric:
            values[k] = run.results["value"]
    title = f"{metric_name(board.metric).capitalize()} of each run"
    if not np.isfinite(values).any():
        return Section(title, f"Skipped: no run has a {board.metric}.", None)
    names = [run.name for run in board.runs]
    return Section(
        title,
        "In the order of the runs' names; a job of a sweep by its number.",
        interactive.trials(
            np.array(names if all(map(str.isdecimal, names)) else range(len(names)), int),
            values,
            [run.state for run in board.runs],
            board.metric,
            board.mode,
            [describe_run(run, board) for run in board.runs],
        ),
    )


def parallel_section(board: Leaderboard, ranked: Sequence[Run]) -> Section:
    title, lines = "Hyper-parameters", evenly(ranked, LINES)
    keys = most_varied(list(board.columns), [run.config for run in lines], WIDE)
    parameters = {
        board.columns[key]: [run.config.get(key, ABSENT) for run in lines] for key in keys
    }
    if not ranked or not parameters:
        return Section(title, "Skipped: the runs have the same configuration.", None)
    some = f", {len(lines)} of {len(ranked):,} runs" if len(lines) < len(ranked) else ""
    varied = f" Of {len(board.columns)} the {WIDE} that vary most." if is_wide(board) else ""
    values = np.array([run.results[board.metric] for run in lines])
    return Section(
        title,
        f"Each line is a run{some}; dark is good. Drag along an axis to see only the runs that "
        f"pass there; click on it to see all again.{varied}",
        interactive.parallel(parameters, values, board.metric, board.mode),
    )


def curves_section(board: Leaderboard, ranked: Sequence[Run]) -> Section:
    title, drawn = "Learning curves", list[tuple[str, list[float], list[float]]]()
    for run in evenly(ranked, CURVES):
        rows = [row for row in read_history(run.folder) if {"epoch", board.metric} <= row.keys()]
        if rows or not drawn:  # the first is the best, and nothing else may stand for it
            epochs, values = [r["epoch"] for r in rows], [r[board.metric] for r in rows]
            drawn.append((describe_run(run, board), epochs, values))
    if not drawn or not drawn[0][1]:
        return Section(title, "Skipped: the best run has no history.csv.", None)
    few = f", of {len(ranked):,} runs" if len(drawn) < len(ranked) else ""
    return Section(
        title,
        f"The best run and {len(drawn) - 1} others{few}.",
        interactive.curves(drawn, board.metric),
    )


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
    settings["seed"] = run.config.get("seed", ABSENT)
    for key in board.averaged:
        settings[key.rpartition(".")[2]] = run.config.get(key, ABSENT)
    return f"{run.name} {pairs(settings)}".strip()


def importances(
    finished: Sequence[Run], columns: Mapping[str, str], metric: str, mode: str
) -> tuple[dict[str, float], str]:
    """Each hyper-parameter's share in what sets the best tenth of the runs apart.

    Returns:
        Shares from 0 to 1 by short name, the greatest first, and what they are; no shares where
        they cannot be told, and why.
    """
    keys = [key for key in columns if all(key in run.config for run in finished)]
    if not keys:
        return {}, "Skipped: there is no hyper-parameter that all runs have and that differs."
    if len(finished) < ENOUGH:
        return {}, f"Skipped: it takes {ENOUGH} finished runs; there are {len(finished)}."
    try:
        import optuna
    except ModuleNotFoundError:
        return {}, f"Skipped: it needs optuna: {install('sweep')}"
    parameters: dict[str, Sequence[Any]] = {}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for key in keys:
        values = [run.config[key] for run in finished]
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
        study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        optuna.trial.create_trial(
            params={key: parameters[key][k] for key in keys},
            distributions=distributions,
            value=run.results[metric],
        )
        for k, run in enumerate(finished)
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    if not any(shares.values()):
        return {}, "Skipped: no hyper-parameter sets the best runs apart."
    return {columns[key]: share for key, share in shares.items()}, (
        f"Share of each hyper-parameter in what sets the best tenth of {len(finished)} runs apart "
        "(PED-ANOVA)."
    )
