"""Summarizes runs and sweeps: python -m mnist_cnn.report [FOLDER ...] [--compare A B]

Runs are found at any depth and grouped by everything in their configuration but the seed and the
fold (data.fold). Groups are ranked by the validation objective alone; test accuracy is shown and
never ranks.

report.html, a page to explore with tables and figures, goes into the folder that was reported,
unless --csv, --json, --markdown or --html say what to write instead; - is standard output.
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_cnn import terminal
from mnist_cnn.analysis import comparison, found, tables
from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.ranking import Leaderboard, brief
from mnist_cnn.command import command
from mnist_cnn.config.messages import install

OUTPUTS, PAGE = Path("outputs"), "report.html"
FORMATS = {"csv": tables.to_csv, "json": tables.to_json, "markdown": tables.to_markdown}


def collect_runs(folders: Sequence[Path], over: Sequence[str] = ()) -> Leaderboard:
    """Finds, reads, groups and ranks all runs in some folders.

    Args:
        over: more keys, beside seed and fold, that do not tell groups apart.

    Raises:
        ValueError: a folder does not exist, or there is no run in any of them; or no such key.
    """
    names: dict[Path, tuple[str, Path]] = {}
    for top in folders:
        if not top.is_dir():
            raise ValueError(f"{top}: no such folder")
        for folder in found.find_runs(top):
            name = folder.relative_to(top) if len(folders) == 1 else folder
            names.setdefault(folder.resolve(), (str(name), folder))
    if not names:
        raise ValueError(f"{', '.join(map(str, folders))}: no runs in there")
    ordered = sorted(names.values(), key=lambda pair: found.natural_order(pair[0]))
    runs = [found.read_run(folder, name) for name, folder in track(ordered, "reading")]
    return Leaderboard(runs, over)


def write_page(board: Leaderboard, path: Path, folder: Path) -> str:
    """Writes the page of the report of a folder.

    Returns:
        The path written, or a sentence that says what is missing.
    """
    if importlib.util.find_spec("plotly") is None:
        return f"{path.name} was not written: it needs plotly: {install('sweep')}"
    from mnist_cnn.analysis.page import fill_page

    fill_page(board, path, folder)
    return str(path)


def report(folder: Path) -> None:
    """Prints the leaderboard of a sweep that has just ended, and writes its page.

    It never raises: what it cannot do it says in one line.
    """
    try:
        board = collect_runs([folder])
        tables.print_leaderboard(board, terminal.console())
        print(write_page(board, folder / PAGE, folder))
    except Exception as e:  # a picture is not worth a sweep
        why = found.first_line(str(e))
        print(f"{folder}: no whole report: {type(e).__name__}: {why}", file=sys.stderr)


def compare_groups(
    sides: Sequence[str], board: Callable[[], Leaderboard], console: terminal.Console
) -> None:
    """Prints how two groups of runs differ.

    Args:
        sides: two of: a folder, a rank, key=value.
        board: gives the leaderboard that ranks and keys refer to.

    Raises:
        ValueError: a side names no finished run, or both name the same.
    """
    chosen, metrics = [], []
    for side in sides:
        is_folder = Path(side).is_dir()
        whole = collect_runs([Path(side)]) if is_folder else board()
        chosen.append(whole.finished if is_folder else comparison.select_runs(side, whole))
        metrics.append(whole.metric)
        if not chosen[-1]:
            raise ValueError(f"{side}: no finished run in there")
    metric, other = metrics
    if other != metric:
        raise ValueError(
            f"--compare: the objective of the first is {metric}, of the second {other}"
        )
    folders = [{run.folder.resolve() for run in runs} for runs in chosen]
    if set.intersection(*folders):
        raise ValueError(f"--compare: some runs are in {sides[0]} and in {sides[1]}")
    compared = dict.fromkeys((metric, "val/acc", "test/acc"))
    first, second = chosen
    differences = {key: comparison.difference_of_means(first, second, key) for key in compared}
    lower = {metric} if whole.mode == "min" else set()
    console.print(tables.comparison_table(differences, ("A", "B"), lower), soft_wrap=False)

    columns = Leaderboard([*first, *second]).columns
    for letter, side, runs in zip("AB", sides, chosen, strict=True):
        settings = ""
        for key, name in columns.items():
            values = {brief(run.config.get(key, found.ABSENT)) for run in runs}
            settings += f" {name}={', '.join(sorted(values))}"
        console.print(f"{letter}: {side}: {len(runs)} finished;{settings}")
    if differences[metric].interval:
        alike = " and ".join(differences[metric].alike or ())
        console.print(
            f"in pairs of the same {alike}: Student's t of the differences"
            if alike
            else "not in pairs, as not every run has its partner, of the same seed: Welch's t"
        )


def docstring_parser(module: str, doc: str) -> argparse.ArgumentParser:
    """Parser whose --help is a command's docstring, without the usage in its first line."""
    about, more = doc.split("\n\n", 1)
    return argparse.ArgumentParser(
        f"python -m {module}",
        description=about.split(":")[0] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@command
def main(argv: Sequence[str] | None = None) -> None:
    options = docstring_parser("mnist_cnn.report", __doc__)
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
    for kind in (*FORMATS, "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    paths = {kind: path for kind in (*FORMATS, "html") if (path := getattr(args, kind))}
    # standard output is for one thing
    piped = [kind for kind, path in paths.items() if str(path) == "-"]
    if len(piped) > 1 or "html" in piped:
        options.error("-: allowed once, for --csv, --json or --markdown")
    for kind, path in paths.items():
        if not path.absolute().parent.is_dir():
            raise ValueError(f"--{kind} must be a file in a folder that exists, got {path}")
    if args.html and importlib.util.find_spec("plotly") is None:
        raise ValueError(f"--html needs plotly: {install('sweep')}")
    console = terminal.console(stderr=bool(piped))
    folders = args.folders or [found.newest_sweep(OUTPUTS) or OUTPUTS]
    if args.compare:
        ranked = functools.cache(lambda: collect_runs(folders, args.over))
        compare_groups(args.compare, ranked, console)
        return
    board = collect_runs(folders, args.over)
    tables.print_leaderboard(board, console)
    if not paths and len(folders) == 1:
        paths["html"] = folders[0] / PAGE
    for kind, path in paths.items():
        if kind == "html":
            console.print(write_page(board, path, folders[0]))
        elif kind in piped:
            print(FORMATS[kind](board), end="")
        else:
            path.write_text(FORMATS[kind](board), "utf-8")
            console.print(str(path))


if __name__ == "__main__":
    main()
