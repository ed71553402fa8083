"""Rank and compare runs: python -m mnist_cnn.report [FOLDER ...] [--status] [--compare A B]

Runs are found at any depth and grouped by configuration, whatever the seed and the fold
(data.fold). Each data set has a ranking of its own, by the validation objective; test accuracy is
shown but never ranks. A and B are folders of runs of one configuration, or ranks; A is compared
with each of the others. --status lists every run with its state, and what resumes unfinished ones.

report.html has the tables, a figure for each setting and the learning curves. It is written to the
reported folder, unless --csv, --json, --markdown or --html name other outputs; - is standard
output. A file that this command did not write is not replaced.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mnist_cnn.analysis import found, tables
from mnist_cnn.analysis.comparison import compare
from mnist_cnn.analysis.ranking import Ranking, data_set, differing, setting
from mnist_cnn.analysis.status import status
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.config.messages import install, must_be
from mnist_cnn.runs import terminal
from mnist_cnn.runs.file_format import check_replaceable

OUTPUTS, PAGE, STDOUT = Path("outputs"), "report.html", Path("-")
FORMATS = {"csv": tables.to_csv, "json": tables.to_json, "markdown": tables.to_markdown}


def write(content: str, path: Path, console: terminal.Console) -> None:
    """Write an output, and print its path unless it is standard output."""
    if path == STDOUT:
        print(content, end="")
    else:
        path.write_text(content, "utf-8", newline="\n")  # as its own files are recognised
        console.print(str(path))


def check_output(kind: str, path: Path) -> None:
    """Raise ValueError if an output cannot be made, or would replace a file of another kind."""
    if kind == "html" and importlib.util.find_spec("plotly") is None:
        raise ValueError(f"it needs plotly: {install('sweep')}")
    if path != STDOUT:
        check_replaceable(path, tables.MARKS[kind])


def write_page(ranking: Ranking, path: Path, folder: Path, console: terminal.Console) -> None:
    """Write the page of a folder's report, or print why it is not written."""
    try:
        check_output("html", path)
    except ValueError as e:  # a sweep that has ended well still ends well
        console.print(f"{path.name} was not written: {e}")
    else:
        from mnist_cnn.analysis.page import fill_page  # needs plotly

        write(fill_page(ranking, folder), path, console)


def report(folder: Path) -> None:
    """Print the leaderboard of a sweep that has just ended, and write its page."""
    ranking = Ranking(found.read_runs([folder]))
    console = terminal.console()
    tables.print_ranking(ranking, console)
    write_page(ranking, folder / PAGE, folder, console)


def compared_runs(side: str, ranked: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the runs of one side of a comparison: a folder, or a rank of the `ranked` groups.

    Raises:
        ValueError: it is neither or both, or the folder has no finished runs or runs of several
            configurations.
    """
    if Path(side).is_dir():
        if side.isdecimal():  # as the trials of a search are named
            raise ValueError(must_be("--compare", f"./{side} for the folder of that name", side))
        groups = Ranking(found.read_runs([Path(side)])).members
        if len(groups) == 1:
            return groups[0]
        keys = differing([setting(group["config"].iloc[0]) for group in groups])
        got = f"{side}, where runs differ in {', '.join(keys)}" if keys else f"{side} without any"
        raise ValueError(must_be("--compare", "a folder of runs of one configuration", got))
    by_rank = {str(rank): runs for rank, runs in enumerate(ranked, 1)}
    if side not in by_rank:
        raise ValueError(must_be("--compare", f"a folder or a rank, 1 to {len(by_rank)}", side))
    return by_rank[side]


def print_with(lines: Sequence[str], table: pd.DataFrame, console: terminal.Console) -> None:
    """Print a table of text and the lines below it."""
    console.print(tables.screen_table(table), soft_wrap=False)
    for line in lines:
        console.print(line)


@command
def main(argv: Sequence[str] | None = None) -> None:
    options = docstring_parser("mnist_cnn.report", __doc__)
    options.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", default=[OUTPUTS])
    sides = "the difference between a folder and others, or between ranks of the runs in FOLDER"
    options.add_argument("--compare", nargs="+", metavar=("A", "B"), help=sides)
    about = "the state of every run in FOLDER, and what resumes it"
    options.add_argument("--status", action="store_true", help=about)
    for kind in (*FORMATS, "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="PATH")
    args = options.parse_args(argv)
    paths = {kind: path for kind in (*FORMATS, "html") if (path := getattr(args, kind))}
    for kind, path in paths.items():
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(must_be(f"--{kind}", "a file in a folder that exists", path))
        try:
            check_output(kind, path)
        except ValueError as e:
            raise ValueError(f"--{kind}: {e}") from None
    if len({path.absolute() for path in paths.values()}) < len(paths):
        kinds, given_paths = (", ".join(map(str, part)) for part in (paths, paths.values()))
        raise ValueError(must_be(f"outputs {kinds}", "paths that differ", given_paths))
    given = [f"--{name}" for name in ("status", "compare", *paths) if getattr(args, name)]
    if (args.status or args.compare) and len(given) > 1:
        raise ValueError(must_be(given[0], "given alone", " ".join(given)))
    console = terminal.console(stderr=STDOUT in paths.values())
    if args.status:
        table, lines = status(args.folders)
        print_with(lines, table, console)
        return
    if args.compare:
        by_folder = all(Path(side).is_dir() for side in args.compare)
        ranked = [] if by_folder else Ranking(found.read_runs(args.folders)).members
        runs_of = [compared_runs(side, ranked) for side in args.compare]
        if len(runs_of) < 2 or pd.concat(runs_of)["folder"].duplicated().any():
            wanted = "two groups or more without a common run"
            raise ValueError(must_be("--compare", wanted, " ".join(args.compare)))
        groups = dict(zip(args.compare, runs_of, strict=True))
        if len(sets := {data_set(runs["config"].iloc[0]) for runs in groups.values()}) > 1:
            raise ValueError(must_be("--compare", "groups of one data set", " and ".join(sets)))
        table, lines = compare(groups)
        print_with(lines, table, console)
        return
    ranking = Ranking(found.read_runs(args.folders))
    tables.print_ranking(ranking, console)
    if not paths and len(args.folders) == 1:
        paths["html"] = args.folders[0] / PAGE
    for kind, path in paths.items():
        if kind == "html":
            write_page(ranking, path, args.folders[0], console)
        else:
            write(FORMATS[kind](ranking), path, console)


if __name__ == "__main__":
    main()
