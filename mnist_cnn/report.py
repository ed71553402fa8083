"""Summarizes runs and sweeps: python -m mnist_cnn.report [FOLDER ...] [--compare A B]

Runs are found at any depth and grouped by everything in their configuration but the seed and the
fold (data.fold). Groups are ranked by the validation objective alone; test accuracy is shown and
never ranks.

report.html, a page to explore with tables and figures, goes into the folder that was reported,
unless --csv, --json, --markdown or --html say what to write instead; - is standard output.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_cnn import terminal
from mnist_cnn.analysis.comparison import difference_of_means, select_runs
from mnist_cnn.analysis.found import (
    ABSENT,
    find_runs,
    first_line,
    natural_order,
    newest_sweep,
    read_run,
)
from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.ranking import Leaderboard, brief
from mnist_cnn.analysis.tables import (
    comparison_table,
    print_leaderboard,
    to_csv,
    to_json,
    to_markdown,
)
from mnist_cnn.command import command
from mnist_cnn.config.messages import install

OUTPUTS, PAGE = Path("outputs"), "report.html"


def collect_runs(folders: Sequence[Path], over: Sequence[str] = ()) -> Leaderboard:
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
        for folder in find_runs(top):
            name = folder.relative_to(top) if len(folders) == 1 else folder
            found.setdefault(folder.resolve(), (str(name), folder))
    if not found:
        raise ValueError(f"{', '.join(map(str, folders))}: no runs in there")
    ordered = sorted(found.values(), key=lambda pair: natural_order(pair[0]))
    runs = [read_run(folder, name) for name, folder in track(ordered, "reading")]
    return Leaderboard(runs, over)


def write_page(board: Leaderboard, path: Path, folder: Path) -> str:
    """Writes the page of the report of a folder.

    Returns:
        What was written, or left out, in a sentence.
    """
    try:
        from mnist_cnn.analysis.page import fill_page
    except ModuleNotFoundError as e:
        needs = f"it needs {e.name}: {install('sweep')}"
        return f"{path.name} with the figures was not written: {needs}"
    fill_page(board, path, folder)
    return str(path)


def report(folder: Path) -> None:
    """Prints the leaderboard of a sweep that has just ended, and writes its page.

    It never raises: what it cannot do it says in one line.
    """
    try:
        board = collect_runs([folder])
        print_leaderboard(board, terminal.console())
        print(write_page(board, folder / PAGE, folder))
    except Exception as e:  # a picture is not worth a sweep
        why = first_line(str(e))
        print(f"{folder}: no whole report: {type(e).__name__}: {why}", file=sys.stderr)


def compare_groups(
    sides: Sequence[str], board: Callable[[], Leaderboard], console: terminal.Console
) -> None:
    """Prints how two groups of runs differ.

    Args:
        sides: two of: a folder, a rank, key=value.
        board: gives the leaderboard that ranks and keys refer to.

    Raises:
        ValueError: a side names no finished run; scipy is missing.
    """
    chosen, metrics = [], []
    for side in sides:
        whole = collect_runs([Path(side)]) if Path(side).is_dir() else board()
        chosen.append(whole.finished if Path(side).is_dir() else select_runs(side, whole))
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
    try:
        found = {
            key: difference_of_means(chosen[0], chosen[1], key)
            for key in dict.fromkeys((metric, "val/acc", "test/acc"))
        }
    except ModuleNotFoundError as e:
        raise ValueError(f"--compare needs {e.name}: {install('sweep')}") from None

    lower = {metric} if whole.mode == "min" else set()
    console.print(comparison_table(found, ("A", "B"), lower), soft_wrap=False)
    both = Leaderboard([*chosen[0], *chosen[1]])
    for letter, side, runs in zip("AB", sides, chosen, strict=True):
        settings = {
            name: {brief(run.config.get(key, ABSENT)) for run in runs}
            for key, name in both.columns.items()
        }
        own = [f"{name}={', '.join(sorted(values))}" for name, values in settings.items()]
        console.print(f"{letter}: {side}: {len(runs)} finished; {' '.join(own)}")
    if found[metric].interval:
        alike = found[metric].alike
        console.print(
            f"in pairs of the same {' and '.join(alike)}: Student's t of the differences"
            if alike
            else "not in pairs, as not every run has its partner, of the same seed: Welch's t"
        )


def docstring_parser(module: str, doc: str) -> argparse.ArgumentParser:
    """A parser whose --help is a command's docstring, without the usage in its first line."""
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
    for kind in ("csv", "json", "markdown", "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    given = ((to_csv, args.csv), (to_json, args.json), (to_markdown, args.markdown))
    wanted = [(text_of, path) for text_of, path in given if path]
    # standard output is for one thing
    piped = [path for _, path in wanted if str(path) == "-"]
    if len(piped) > 1 or str(args.html) == "-":
        options.error("-: allowed once, for --csv, --json or --markdown")
    console = terminal.console(stderr=bool(piped))
    if args.html:
        try:
            from mnist_cnn.analysis import page  # noqa: F401
        except ModuleNotFoundError as e:
            raise ValueError(f"--html needs {e.name}: {install('sweep')}") from None
    folders = args.folders or [newest_sweep(OUTPUTS) or OUTPUTS]
    if args.compare:
        compare_groups(
            args.compare, functools.cache(lambda: collect_runs(folders, args.over)), console
        )
        return
    board = collect_runs(folders, args.over)
    print_leaderboard(board, console)
    for text_of, path in wanted:
        if path in piped:
            print(text_of(board), end="")
        else:
            path.write_text(text_of(board), "utf-8")
            console.print(str(path))
    html = args.html or (folders[0] / PAGE if len(folders) == 1 and not wanted else None)
    if html:
        console.print(write_page(board, html, folders[0]))


if __name__ == "__main__":
    main()
