"""Summarizes runs and sweeps: python -m mnist_cnn.report [FOLDER ...] [--compare A B]

Runs are found at any depth and grouped by everything in their configuration but the seed and the
fold (data.fold). Groups are ranked by the validation objective alone; test accuracy is shown and
never ranks.

report.html, a page to explore with tables and figures, goes into the folder that was reported,
unless --csv, --json, --markdown or --html say what to write instead; - is standard output.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn import terminal
from mnist_cnn.analysis import comparison, found, tables
from mnist_cnn.analysis.ranking import Leaderboard
from mnist_cnn.command import command
from mnist_cnn.config.messages import install

OUTPUTS, PAGE = Path("outputs"), "report.html"
FORMATS = {"csv": tables.to_csv, "json": tables.to_json, "markdown": tables.to_markdown}


def write_page(board: Leaderboard, path: Path, folder: Path) -> str:
    """Write the page of a folder's report; return its path, or a sentence that says why not."""
    if importlib.util.find_spec("plotly") is None:
        return f"{path.name} was not written: it needs plotly: {install('sweep')}"
    from mnist_cnn.analysis.page import fill_page

    fill_page(board, path, folder)
    return str(path)


def report(folder: Path) -> None:
    """Print the leaderboard of a sweep that has just ended, and write its page.

    It never raises: what it cannot do it says in one line.
    """
    try:
        board = Leaderboard(found.read_runs([folder]))
        tables.print_leaderboard(board, terminal.console())
        print(write_page(board, folder / PAGE, folder))
    except Exception as e:  # a picture is not worth a sweep
        why = found.first_line(str(e))
        print(f"{folder}: no whole report: {type(e).__name__}: {why}", file=sys.stderr)


def compare_groups(
    sides: Sequence[str], folders: Sequence[Path], over: Sequence[str], console: terminal.Console
) -> None:
    """Print how two sides differ: each a folder, or a rank of the leaderboard of `folders`."""
    groups = []
    for side in sides:
        is_folder = Path(side).is_dir()
        board = Leaderboard(found.read_runs([Path(side)] if is_folder else folders), over)
        rank = board.ranked["rank"].astype(str)
        groups.append(board.finished if is_folder else board.ranked[rank == side])
        if groups[-1].empty:
            allowed = f"a folder of finished runs or a rank from 1 to {len(board.groups)}"
            raise ValueError(f"--compare must be {allowed}, got {side}")
    lower = {board.metric: board.mode == "min", "val/acc": False, "test/acc": False}
    table, sentence = comparison.compare(groups[0], groups[1], lower)
    console.print(tables.screen_table(table), soft_wrap=False)
    console.print(sentence)


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
    newest = "(the newest sweep in outputs)"
    options.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=newest)
    sides = "whether they differ: two folders, or ranks of the runs in FOLDER"
    options.add_argument("--compare", nargs=2, metavar=("A", "B"), help=sides)
    over = "average over this key too, as over the seed and the fold"
    options.add_argument("--over", action="append", default=[], metavar="KEY", help=over)
    for kind in (*FORMATS, "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    paths = {kind: path for kind in (*FORMATS, "html") if (path := getattr(args, kind))}
    piped = [kind for kind, path in paths.items() if str(path) == "-"]
    if args.html and importlib.util.find_spec("plotly") is None:
        raise ValueError(f"--html needs plotly: {install('sweep')}")
    console = terminal.console(stderr=bool(piped))
    folders = args.folders or [found.newest_sweep(OUTPUTS) or OUTPUTS]
    if args.compare:
        compare_groups(args.compare, folders, args.over, console)
        return
    board = Leaderboard(found.read_runs(folders), args.over)
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
