"""Summarizes runs and sweeps: python -m mnist_cnn.report [FOLDER ...] [--compare A B]

Runs are found at any depth and grouped by everything in their configuration but the seed and the
fold (data.fold). Groups are ranked by the validation objective alone; test accuracy is shown and
never ranks.

report.html, a page to explore, and its figures as PNG files go into the folder that was reported,
unless --csv, --json, --markdown or --html say what to write instead; - is standard output.
"""

import argparse
import csv
import functools
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from rich.measure import Measurement
from rich.progress import track
from rich.table import Table

from mnist_cnn import leaderboard, terminal
from mnist_cnn.command import command
from mnist_cnn.config import install
from mnist_cnn.leaderboard import ABSENT, Leaderboard, Run, Summary, brief, pairs

OUTPUTS, PAGE = Path("outputs"), "report.html"
ROWS = 20  # of a table on screen
WIDE = 10  # columns of hyper-parameters, and axes of a figure, that can still be read
PAGE_ROWS, LINES, CURVES = 200, 500, 60  # of a table, of parallel lines, of curves in a figure
ENOUGH = 20  # finished runs for an importance, which looks at the best tenth


def collect(folders: Sequence[Path], over: Sequence[str] = ()) -> Leaderboard:
    """Finds, reads, groups and ranks all runs in some folders.

    Args:
        over: more keys, beside seed and fold, that do not tell groups apart.

    Raises:
        ValueError: a folder does not exist, or there is no run in any of them; or no such key.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for top in folders:
        if not top.is_dir():
            raise ValueError(f"{top}: no such folder")
        for folder in leaderboard.find(top):
            name = folder.relative_to(top) if len(folders) == 1 else folder
            found.setdefault(folder.resolve(), (str(name), folder))
    if not found:
        raise ValueError(f"{', '.join(map(str, folders))}: no runs in there")
    console = terminal.console(stderr=True, soft_wrap=False)
    ordered = track(
        sorted(found.values(), key=lambda pair: leaderboard.natural(pair[0])),
        "reading",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    return leaderboard.build([leaderboard.read(folder, name) for name, folder in ordered], over)


def number(metric: str, value: float, sign: str = "") -> str:
    """A value of a metric in the unit of `head`."""
    if metric.endswith("/acc"):
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.1f}" if metric == "seconds" else f"{value:{sign}.4f}"


def head(metric: str) -> str:
    stage, _, kind = metric.partition("/")
    return f"{stage} acc, %" if kind == "acc" else f"{stage} {kind}".strip()


def spread(metric: str, summary: Summary | None, n: int | None = None) -> str:
    """Mean ± std, with the number of runs where it is not n."""
    if summary is None:
        return "-"
    text = number(metric, summary.mean)
    text += "" if summary.std is None else f" ± {number(metric, summary.std)}"
    return text if summary.n == n else f"{text} (n={summary.n})"


def checkpoint(run: Run) -> str:
    """Where a run's best checkpoint lies, from the folder that was reported."""
    file = run.checkpoint
    return str(Path(run.name, file.relative_to(run.folder))) if file else "-"


def ranking(
    board: Leaderboard,
    narrow: bool,
    last: str = "best checkpoint",
    place: Callable[[Run], str] = checkpoint,
) -> tuple[list[str], list[list[str]]]:
    """The leaderboard as text, heads and rows, with something about the best run at the end.

    Args:
        narrow: no column for each hyper-parameter; one at the end has what is not as usual.
    """
    columns = {} if narrow else board.columns
    heads = ["#", *columns.values(), "n", *map(head, board.metrics), last]
    rows = [
        [
            str(rank),
            *(brief(group.config.get(key, ABSENT)) for key in columns),
            str(len(group.runs)),
            *(spread(metric, group.summary(metric), len(group.runs)) for metric in board.metrics),
            place(group.runs[0]),
            *([pairs(board.apart(group.config)) or "as usual"] if narrow else []),
        ]
        for rank, group in enumerate(board.groups, 1)
    ]
    return [*heads, "settings"] if narrow else heads, rows


def is_wide(board: Leaderboard) -> bool:
    return len(board.columns) > WIDE


def usual(board: Leaderboard) -> str:
    """The most common settings."""
    return pairs({board.columns[key]: value for key, value in board.usual.items()})


def unfinished(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """The runs without a result as text: heads and rows."""
    rows = [
        [run.name, run.state, settings, run.note]
        for run, settings in zip(board.others, leaderboard.peculiar(board), strict=True)
    ]
    return ["run", "state", "overrides", "message"], rows


def heads_of_text(board: Leaderboard) -> set[str]:
    """The columns of both tables that are read from the left."""
    words = {
        name
        for key, name in board.columns.items()
        if any(isinstance(group.config.get(key), str | list) for group in board.groups)
    }
    words |= {"run", "state", "overrides", "message"}
    return words | {"best checkpoint", "best run", "settings"}


def facts(board: Leaderboard) -> dict[str, str]:
    """A few numbers by what they mean."""
    from mnist_cnn import plots

    finished = board.finished
    found = {"runs finished": f"{len(finished):,} of {len(board.runs):,}"}
    if board.groups:
        best = board.groups[0]
        found["configurations"] = f"{len(board.groups):,}"
        for metric in board.metrics[:-1]:
            if summary := best.summary(metric):
                unit = " %" if metric.endswith("/acc") else ""
                found[f"{plots.name_of(metric)} of the best"] = number(metric, summary.mean) + unit
        seconds = sum(run.results.get("seconds", 0) for run in finished)
        found["of training"] = str(timedelta(seconds=round(seconds)))
    return found


def sentence(board: Leaderboard) -> str:
    """What the leaderboard ranks by."""
    finished = len(board.finished)
    text = f"ranked by {board.metric}, {'lower' if board.mode == 'min' else 'higher'} is better"
    if board.judged < finished:
        text += f" (the objective of {board.judged} of {finished} runs)"
    if board.repeats:
        text += "; exact repeats of a run count once"
    names = [key.rpartition(".")[2] for key in board.averaged] or ["seed"]
    but = " and ".join(f"the {name}" for name in names)
    return f"{text}; mean ± standard deviation over n runs alike but for {but}"


def count(board: Leaderboard) -> str:
    states = Counter(run.state for run in board.runs)
    return ", ".join(f"{n:,} {state}" for state, n in states.most_common())


def tabulate(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Collection[str], title: str = ""
) -> Table:
    """The first rows as a table for the screen; the columns of `texts` are read from the left."""
    table = Table(title=title or None, title_justify="left")
    for name in heads:
        table.add_column(name, justify="left" if name in texts else "right", overflow="fold")
    for row in rows[:ROWS]:
        table.add_row(*row)
    return table


def fits(table: Table, console: terminal.Console) -> bool:
    """Whether a console has room for each word of a table."""
    room = console.options.update(max_width=10_000)
    return Measurement.get(console, room, table).minimum <= console.width


def show(board: Leaderboard, console: terminal.Console) -> None:
    """Prints the leaderboard, and apart from it the runs without a result."""
    texts = heads_of_text(board)

    def leaders(narrow: bool) -> tuple[list[str], list[list[str]]]:
        return ranking(board, narrow, "best run", lambda run: run.name)

    def more(rows: Sequence[Sequence[str]]) -> None:
        if len(rows) > ROWS:
            console.print(f"and {len(rows) - ROWS:,} more: --json and --markdown have all")

    if board.groups:
        heads, rows = leaders(narrow=False)
        table = tabulate(heads, rows, texts)
        if is_wide(board) or not fits(table, console):
            heads, rows = leaders(narrow=True)
            table = tabulate(heads[:-1], [row[:-1] for row in rows], texts)
        console.print(table, soft_wrap=False)
        if heads[-1] == "settings" and board.columns:
            listed = Table.grid(padding=(0, 1))
            listed.add_column(justify="right")
            listed.add_column(overflow="fold")
            listed.add_row("usual", usual(board))
            for row in rows[:ROWS]:
                listed.add_row(row[0], row[-1])
            console.print(listed, soft_wrap=False)
        more(rows)
    if board.others:
        heads, rows = unfinished(board)
        console.print(tabulate(heads, rows, texts, "without a result"), soft_wrap=False)
        more(rows)
    console.print(count(board))
    if board.groups:
        console.print(sentence(board))
        best = board.groups[0].runs[0]
        place = f"checkpoint: {best.checkpoint}" if best.checkpoint else f"run: {best.folder}"
        console.print(f"best {place}")


def to_csv(board: Leaderboard) -> str:
    """One row a group, numbers in full; keys and metrics by their whole names."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    metrics = [f"{metric} {part}" for metric in board.metrics for part in ("n", "mean", "std")]
    writer.writerow(["rank", *board.columns, "n", *metrics, "checkpoint"])
    for rank, group in enumerate(board.groups, 1):
        settings = [group.config.get(key, "") for key in board.columns]
        numbers: list[Any] = []
        for metric in board.metrics:
            numbers += group.summary(metric) or ("", "", "")
        best = group.runs[0].checkpoint or ""
        writer.writerow([rank, *settings, len(group.runs), *numbers, best])
    return file.getvalue()


def to_json(board: Leaderboard) -> str:
    """All of it: groups with their runs, and the runs without a result; NaN is null."""

    def finite(x: Any) -> Any:
        return None if isinstance(x, float) and not math.isfinite(x) else x

    content = {
        "objective": {"metric": board.metric, "mode": board.mode},
        "groups": [
            {
                "rank": rank,
                "config": {key: group.config.get(key) for key in board.columns},
                "n": len(group.runs),
                **{
                    metric: {key: finite(x) for key, x in summary._asdict().items()}
                    for metric in board.metrics
                    if (summary := group.summary(metric))
                },
                "checkpoint": str(best) if (best := group.runs[0].checkpoint) else None,
                "runs": [
                    {
                        "folder": str(run.folder),
                        "seed": run.config.get("seed"),
                        "fold": run.config.get("data.fold"),
                        **{m: finite(run.results.get(m)) for m in board.metrics},
                    }
                    for run in group.runs
                ],
            }
            for rank, group in enumerate(board.groups, 1)
        ],
        "unfinished": [
            {"folder": str(run.folder), "state": run.state, "message": run.note, **run.config}
            for run in board.others
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def to_markdown(board: Leaderboard) -> str:
    """The tables, whole."""
    text = ""
    for heads, rows in (ranking(board, is_wide(board)), unfinished(board)):
        if rows:
            lines = [heads, ["---"] * len(heads), *rows]
            cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            text += "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"
    common = f"usual settings: {usual(board)}\n\n" if is_wide(board) else ""
    return text + common + sentence(board) + "\n"


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

    from mnist_cnn import plots

    metric, mode = board.metric, board.mode
    values = np.array([run.results.get(metric, math.nan) for run in board.runs], float)
    for k, run in enumerate(board.runs):
        if run.state == "pruned" and run.results["metric"] == metric:
            values[k] = run.results["value"]
    known_values = bool(np.isfinite(values).any())
    names = [run.name for run in board.runs]
    jobs = np.array(names if all(map(str.isdecimal, names)) else range(len(names)), int)
    ranked = [run for run in board.finished if math.isfinite(run.results.get(metric, math.nan))]
    ranked.sort(key=lambda run: leaderboard.worse(run.results[metric], mode))

    lines = evenly(ranked, LINES)
    axes = leaderboard.most_varied(list(board.columns), [run.config for run in lines], WIDE)
    parameters = {
        board.columns[key]: [run.config.get(key, ABSENT) for run in lines] for key in axes
    }
    varied = f" Of {len(board.columns)} the {WIDE} that vary most." if is_wide(board) else ""
    parallel = (parameters, np.array([run.results[metric] for run in lines]), metric, mode)
    some = f", {len(lines)} of {len(ranked):,} runs" if len(lines) < len(ranked) else ""

    curves: list[tuple[str, list[float], list[float]]] = []
    for run in evenly(ranked, CURVES):
        rows = [row for row in leaderboard.history(run.folder) if {"epoch", metric} <= row.keys()]
        if rows or not curves:  # the first is the best, and nothing else may stand for it
            curves.append(
                (label(run, board), [r["epoch"] for r in rows], [r[metric] for r in rows])
            )
    known = bool(curves and curves[0][1])
    few = f", of {len(ranked):,} runs" if len(curves) < len(ranked) else ""

    shares, about = importances(ranked, board.columns, metric, mode)
    goal = plots.name_of(metric)
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
    from mnist_cnn import plots  # matplotlib takes its time, which the tables do not need

    try:
        from mnist_cnn import charts
    except ModuleNotFoundError as e:
        charts = None  # type: ignore[assignment]
        missing = f"{path.name} was not written: it needs {e.name}: {install('sweep')}"
    drawn = drawings(board)
    written = []
    for name, heading, _, given, _ in drawn:
        png = path.with_name(f"{path.stem}.{name}.png")
        png.unlink(missing_ok=True)  # of an earlier report
        if given is not None:
            figure = getattr(plots, name)(
                *given, title=f"{title}: {heading[0].lower()}{heading[1:]}"
            )
            figure.savefig(png, dpi=150)
            written.append(png.name)
    if charts:
        parts = [
            (
                heading,
                text,
                None if given is None else getattr(charts, name)(*given, **labels),
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
                table = charts.table(
                    heads, rows[:PAGE_ROWS], heads_of_text(board), best=heading == "Leaderboard"
                )
                parts.insert(0, (heading, f"{text[0].upper()}{text[1:]}{more}.", table))
        path.write_text(charts.page(title, str(path.parent), facts(board), parts), "utf-8")
        written.insert(0, path.name)
    said = [f"{path.parent}: {', '.join(written)}"]
    return said if charts else [*said, missing]


def title(folder: Path) -> str:
    kind = "Sweep" if (folder / leaderboard.SWEEP).exists() else "Runs in"
    return f"{kind} {'/'.join(folder.resolve().parts[-2:])}"


def report(folder: Path) -> None:
    """Prints the leaderboard of a sweep that has just ended, and writes its page and figures.

    It never raises: what it cannot do is said in one line, and the sweep is none the worse.
    """
    try:
        board = collect([folder])
        show(board, terminal.console())
        for said in write_page(board, folder / PAGE, title(folder)):
            print(said)
    except Exception as e:  # a picture is not worth a sweep
        why = leaderboard.first_line(str(e))
        print(f"{folder}: no whole report: {type(e).__name__}: {why}", file=sys.stderr)


def versus(
    found: Mapping[str, leaderboard.Difference], names: tuple[str, str], lower: Collection[str]
) -> Table:
    """How two groups of runs differ, a row a metric.

    Args:
        names: what the groups are called.
        lower: the metrics of which less is better.
    """
    first, second = names
    table = Table("")
    for name in (first, second, f"{first} - {second}", "95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("")
    for key, d in found.items():
        low, high = d.interval or (math.nan, math.nan)
        interval = (
            "-" if d.interval is None else (f"{number(key, low, '+')} to {number(key, high, '+')}")
        )
        better = first if ((d.mean or 0) < 0) == (key in lower) else second
        verdict = d.why or ("no difference shown" if low <= 0 <= high else f"{better} is better")
        mean = "-" if d.mean is None else number(key, d.mean, "+")
        table.add_row(
            head(key), spread(key, d.first), spread(key, d.second), mean, interval, verdict
        )
    return table


def compare(
    sides: Sequence[str], board: Callable[[], Leaderboard], console: terminal.Console
) -> None:
    """Prints how two groups of runs differ.

    Args:
        sides: two of: a folder, a rank, key=value.
        board: gives the leaderboard that ranks and keys refer to.

    Raises:
        ValueError: a side names no finished run; scipy is missing.
    """
    chosen: list[list[Run]] = []
    metric, mode = "", ""
    for side in sides:
        whole = collect([Path(side)]) if Path(side).is_dir() else board()
        runs = whole.finished if Path(side).is_dir() else leaderboard.select(side, whole)
        if not runs:
            raise ValueError(f"{side}: no finished run in there")
        if metric and whole.metric != metric:
            raise ValueError(
                f"--compare: the objective of the first is {metric}, of the second {whole.metric}"
            )
        metric, mode = whole.metric, whole.mode
        chosen.append(runs)
    if {run.folder.resolve() for run in chosen[0]} & {run.folder.resolve() for run in chosen[1]}:
        raise ValueError(f"--compare: some runs are in {sides[0]} and in {sides[1]}")
    try:
        found = {
            key: leaderboard.difference(chosen[0], chosen[1], key)
            for key in dict.fromkeys((metric, "val/acc", "test/acc"))
        }
    except ModuleNotFoundError as e:
        raise ValueError(f"--compare needs {e.name}: {install('sweep')}") from None

    lower = {metric} if mode == "min" else set()
    console.print(versus(found, ("A", "B"), lower), soft_wrap=False)
    both = leaderboard.build([*chosen[0], *chosen[1]])
    for letter, side, runs in zip("AB", sides, chosen, strict=True):
        settings = {
            name: {brief(run.config.get(key, ABSENT)) for run in runs}
            for key, name in both.columns.items()
        }
        own = [f"{name}={', '.join(sorted(values))}" for name, values in settings.items()]
        console.print(f"{letter}: {side}: {len(runs)} finished; {' '.join(own)}")
    first = found[metric]
    if first.interval and first.alike:
        console.print(
            f"in pairs of the same {' and '.join(first.alike)}: Student's t of the differences"
        )
    elif first.interval:
        console.print("not in pairs, as not every run has its partner, of the same seed: Welch's t")


def parser(entry: str, doc: str) -> argparse.ArgumentParser:
    """A parser whose --help is an entry's docstring, without the usage in its first line."""
    about, more = doc.split("\n\n", 1)
    return argparse.ArgumentParser(
        f"mnist_cnn.{entry}",
        description=about.split(":")[0] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@command
def main(argv: Sequence[str] | None = None) -> None:
    options = parser("report", __doc__)
    options.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="(the newest sweep in outputs)"
    )
    options.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="whether they differ: two folders, ranks, or 'key=value ...' among the runs in FOLDER",
    )
    options.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY",
        help="average over this key too, as over the seed and the fold",
    )
    for kind in ("csv", "json", "markdown", "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    texts: dict[str, Callable[[Leaderboard], str]] = {
        "csv": to_csv,
        "json": to_json,
        "markdown": to_markdown,
    }
    wanted = {kind: path for kind in texts if (path := getattr(args, kind)) is not None}
    # standard output is for one thing
    piped = [kind for kind, path in wanted.items() if str(path) == "-"]
    if len(piped) > 1 or str(args.html) == "-":
        options.error("-: allowed once, for --csv, --json or --markdown")
    console = terminal.console(stderr=bool(piped))
    if args.html:
        try:
            from mnist_cnn import charts  # noqa: F401
        except ModuleNotFoundError as e:
            raise ValueError(f"--html needs {e.name}: {install('sweep')}") from None
    folders = args.folders or [leaderboard.newest_sweep(OUTPUTS) or OUTPUTS]
    if args.compare:
        compare(args.compare, functools.cache(lambda: collect(folders, args.over)), console)
        return
    board = collect(folders, args.over)
    show(board, console)
    for kind, path in wanted.items():
        text = texts[kind](board)
        if kind in piped:
            print(text, end="")
        else:
            path.write_text(text, "utf-8")
            console.print(str(path))
    html = args.html or (folders[0] / PAGE if len(folders) == 1 and not wanted else None)
    if html:
        for said in write_page(board, html, title(folders[0])):
            console.print(said)


if __name__ == "__main__":
    main()
