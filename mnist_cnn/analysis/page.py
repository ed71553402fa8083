"""The page of a report, and the figures in it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_cnn.analysis import found
from mnist_cnn.analysis import ranking as ranking_
from mnist_cnn.analysis.found import ABSENT, Run
from mnist_cnn.analysis.ranking import Leaderboard, pairs
from mnist_cnn.analysis.tables import (
    WIDE,
    count,
    facts,
    heads_of_text,
    is_wide,
    ranking,
    sentence,
    unfinished,
    usual,
)
from mnist_cnn.config.messages import install

PAGE_ROWS, LINES, CURVES = 200, 500, 60  # of a table, of parallel lines, of curves in a figure
ENOUGH = 20  # finished runs for an importance, which looks at the best tenth


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def label(run: Run, board: Leaderboard) -> str:
    """What a run was, in a few words."""
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


class Drawing(NamedTuple):
    """A figure by its function's name in plots and charts, its arguments, None to skip it."""

    name: str
    title: str
    text: str
    given: tuple[Any, ...] | None
    labels: dict[str, Sequence[str]] = {}  # noqa: RUF012, for charts alone


def drawings(board: Leaderboard) -> list[Drawing]:
    """What the page and the PNG files show."""
    import numpy as np

    from mnist_cnn.plots import axes as axes_

    metric, mode = board.metric, board.mode
    values = np.array([run.results.get(metric, math.nan) for run in board.runs], float)
    for k, run in enumerate(board.runs):
        if run.state == "pruned" and run.results["metric"] == metric:
            values[k] = run.results["value"]
    known_values = bool(np.isfinite(values).any())
    names = [run.name for run in board.runs]
    jobs = np.array(names if all(map(str.isdecimal, names)) else range(len(names)), int)
    ranked = [run for run in board.finished if math.isfinite(run.results.get(metric, math.nan))]
    ranked.sort(key=lambda run: ranking_.worse(run.results[metric], mode))

    lines = evenly(ranked, LINES)
    axes = ranking_.most_varied(list(board.columns), [run.config for run in lines], WIDE)
    parameters = {
        board.columns[key]: [run.config.get(key, ABSENT) for run in lines] for key in axes
    }
    varied = f" Of {len(board.columns)} the {WIDE} that vary most." if is_wide(board) else ""
    parallel = (parameters, np.array([run.results[metric] for run in lines]), metric, mode)
    some = f", {len(lines)} of {len(ranked):,} runs" if len(lines) < len(ranked) else ""

    curves: list[tuple[str, list[float], list[float]]] = []
    for run in evenly(ranked, CURVES):
        rows = [row for row in found.history(run.folder) if {"epoch", metric} <= row.keys()]
        if rows or not curves:  # the first is the best, and nothing else may stand for it
            curves.append(
                (label(run, board), [r["epoch"] for r in rows], [r[metric] for r in rows])
            )
    known = bool(curves and curves[0][1])
    few = f", of {len(ranked):,} runs" if len(curves) < len(ranked) else ""

    shares, about = importances(ranked, board.columns, metric, mode)
    goal = axes_.name_of(metric)
    return [
        Drawing(
            "trials",
            f"{goal.capitalize()} of each run",
            "In the order of the runs' names; a job of a sweep by its number."
            if known_values
            else f"Skipped: no run has a {metric}.",
            (jobs, values, [run.state for run in board.runs], metric, mode)
            if known_values
            else None,
            {"labels": [label(run, board) for run in board.runs]},
        ),
        Drawing(
            "parallel",
            "Hyper-parameters",
            f"Each line is a run{some}; dark is good. Drag along an axis to see only the runs that "
            f"pass there; click on it to see all again.{varied}"
            if ranked and parameters
            else "Skipped: the runs have the same configuration.",
            parallel if ranked and parameters else None,
        ),
        Drawing(
            "curves",
            "Learning curves",
            f"The best run and {len(curves) - 1} others{few}."
            if known
            else "Skipped: the best run has no history.csv.",
            (curves, metric) if known else None,
        ),
        Drawing(
            "importance", "Importance of hyper-parameters", about, (shares,) if shares else None
        ),
    ]


def write_page(board: Leaderboard, path: Path, title: str) -> list[str]:
    """Writes the page to `path`, and its figures beside it as <stem>.<figure>.png.

    Returns:
        What was written and what was not, in sentences.
    """
    from mnist_cnn.plots import sweep  # matplotlib takes its time, which the tables do not need

    try:
        from mnist_cnn.plots import interactive
    except ModuleNotFoundError as e:
        interactive = None  # type: ignore[assignment]
        missing = f"{path.name} was not written: it needs {e.name}: {install('sweep')}"
    drawn = drawings(board)
    written = []
    for name, heading, _, given, _ in drawn:
        png = path.with_name(f"{path.stem}.{name}.png")
        png.unlink(missing_ok=True)  # of an earlier report
        if given is not None:
            figure = getattr(sweep, name)(
                *given, title=f"{title}: {heading[0].lower()}{heading[1:]}"
            )
            figure.savefig(png, dpi=150)
            written.append(png.name)
    if interactive:
        parts = [
            (
                heading,
                text,
                None if given is None else getattr(interactive, name)(*given, **labels),
            )
            for name, heading, text, given, labels in drawn
        ]
        about, leaders = sentence(board), ranking(board, narrow=False)
        if is_wide(board):
            about += f"; usual settings: {usual(board)}"
            leaders = ranking(board, True, "best run", lambda run: run.name)
        for heading, (heads, rows), text in (
            ("Without a result", unfinished(board), count(board)),
            ("Leaderboard", leaders, about),
        ):
            if rows:
                more = f"; the first {PAGE_ROWS} of {len(rows):,}" if len(rows) > PAGE_ROWS else ""
                table = interactive.table(
                    heads, rows[:PAGE_ROWS], heads_of_text(board), best=heading == "Leaderboard"
                )
                parts.insert(0, (heading, f"{text[0].upper()}{text[1:]}{more}.", table))
        path.write_text(interactive.page(title, str(path.parent), facts(board), parts), "utf-8")
        written.insert(0, path.name)
    said = [f"{path.parent}: {', '.join(written)}"]
    return said if interactive else [*said, missing]


def title(folder: Path) -> str:
    kind = "Sweep" if (folder / found.SWEEP).exists() else "Runs in"
    return f"{kind} {'/'.join(folder.resolve().parts[-2:])}"
