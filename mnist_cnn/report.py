"""Summarizes runs and sweeps: python -m mnist_cnn.report [FOLDER ...] [--compare A B]

Runs are found at any depth and grouped by everything in their configuration but the seed and the
fold (data.fold). Groups are ranked by the validation objective alone; test accuracy is shown and
never ranks.

report.html, a page to explore with tables and a figure, goes into the folder that was reported,
unless --csv, --json, --markdown or --html say what to write instead; - is standard output.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mnist_cnn import terminal
from mnist_cnn.analysis import found, tables
from mnist_cnn.analysis.ranking import Leaderboard
from mnist_cnn.command import command
from mnist_cnn.config.messages import install, must_be

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
    """Print the leaderboard of a sweep that has just ended, and write its page."""
    board = Leaderboard(found.read_runs([folder]))
    tables.print_leaderboard(board, terminal.console())
    print(write_page(board, folder / PAGE, folder))


def compared_runs(side: str, folders: Sequence[Path]) -> pd.DataFrame:
    """The runs of a side of a comparison: a folder, or a rank of the leaderboard of `folders`."""
    if Path(side).is_dir():
        return Leaderboard(found.read_runs([Path(side)])).finished
    board = Leaderboard(found.read_runs(folders))
    by_rank = {str(rank): runs for rank, runs in enumerate(board.members, 1)}
    if side not in by_rank:
        raise ValueError(must_be("--compare", f"a folder or a rank, 1 to {len(by_rank)}", side))
    return by_rank[side]


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
    options.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", default=[OUTPUTS])
    sides = "the difference of two folders, or of two ranks of the runs in FOLDER"
    options.add_argument("--compare", nargs=2, metavar=("A", "B"), help=sides)
    for kind in (*FORMATS, "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    for kind in (*FORMATS, "html"):
        if (path := getattr(args, kind)) and not path.parent.is_dir():
            raise ValueError(must_be(f"--{kind}", "a file in a folder that exists", path))
    paths = {kind: path for kind in FORMATS if (path := getattr(args, kind))}
    console = terminal.console(stderr=Path("-") in paths.values())
    if args.compare:
        a, b = (compared_runs(side, args.folders) for side in args.compare)
        table, sentence = tables.compare(a, b)
        console.print(tables.screen_table(table), soft_wrap=False)
        console.print(sentence)
        return
    board = Leaderboard(found.read_runs(args.folders))
    tables.print_leaderboard(board, console)
    for kind, path in paths.items():
        if path == Path("-"):
            print(FORMATS[kind](board), end="")
        else:
            path.write_text(FORMATS[kind](board), "utf-8")
            console.print(str(path))
    page = args.html or (args.folders[0] / PAGE if not paths and len(args.folders) == 1 else None)
    if page:
        console.print(write_page(board, page, args.folders[0]))


if __name__ == "__main__":
    main()
