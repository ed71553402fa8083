"""Show and extend the measurements: python -m benchmarks.measurements NAME [FOLDER ...]

The table of measurements/NAME.json. The rows of FOLDERs join it, in place of those of the same
network, fold and seed, and the picture beside it is drawn. NAME is

  splits      which validation predicts the test error; FOLDER is a sweep's
  front       accuracy by number of parameters, of the records too; FOLDER is a sweep's
  bytes       accuracy of the C file by its bytes of constants; FOLDER is a sweep's, whose networks
              are rounded to 8, 6, 5 and 4 bits where they were not trained with few
  labels      accuracy by the number of training images; FOLDER is a sweep's over data.per_class
  robustness  networks under other conditions; FOLDER is EXPERIMENT=FOLDER, an evaluation with
              robustness=true or some suites, of several networks A,B,C=FOLDER
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from benchmarks.records import load_records, read_runs
from benchmarks.tables import RECORDS, accuracy, draw_networks, hardware, markdown
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.data import mnist
from mnist_cnn.exporting import c_file
from mnist_cnn.plots.axes import MARK, TRAIN, VAL, finish, titled
from mnist_cnn.runs.folder import OVERRIDES, read_json, write_json
from mnist_cnn.weights import predictor

FOLDER = RECORDS / "measurements"
# columns that distinguish rows
KEYS = {"network", "experiment", "split", "fold", "stages", "seed", "trained with", "bits"}
KEYS |= {"epochs", "per_class"}
EXPERIMENTS = ["tiny", "fast", "accurate", "article"]  # records that `front` includes
SIZES = {10.0**exponent: f"{10**exponent:,}" for exponent in range(2, 7)}
ALL = 6000  # images of a class, about, in the whole training file
KILOBYTES = {1000.0 * k: f"{k}" for k in (1, 2, 3, 4, 6, 8, 12)}
# bytes of weights: accuracy of single runs on images of 16x16
# https://github.com/cpldcpu/BitNetMCU/blob/main/docs/documentation_cnn.md
BITNETMCU = {3200: 0.9892, 5400: 0.9906, 7300: 0.9928, 9300: 0.9944, 11000: 0.9955, 13000: 0.9958}
COLORS = (TRAIN, "#7a5195", "#e08e0b", "#2e8b57", VAL, MARK, "#8c6d46")  # of networks in a figure
CONDITIONS = {  # column titles by key of a network in evaluation.json
    "corruptions.mean": "MNIST-C",
    "adversarial.pgd.0.1": "PGD 0.1",
    "adversarial.pgd.0.3": "PGD 0.3",
    **{f"outliers.{kind}.fpr_95": kind for kind in ("letters", "scribbles", "noise", "parts")},
}


def join(new: Sequence[Mapping[str, Any]], file: Path) -> pd.DataFrame:
    """Join new rows to those of a file, in place of those of the same KEYS, and return all.

    Of the new ones only the columns that the file has are kept, if it has rows.
    """
    known = read_json(file)["rows"]
    columns = dict.fromkeys(key for row in known or new for key in row)
    rows = pd.DataFrame([*known, *new])[[*columns]]
    return rows.drop_duplicates([key for key in rows if key in KEYS], keep="last")


def write_rows(rows: pd.DataFrame, file: Path) -> None:
    """Write rows to a file, in which a value that a row lacks is no null."""
    lacking = rows.isna().to_numpy()
    kept = [
        {key: value for (key, value), lacks in zip(row.items(), no, strict=True) if not lacks}
        for row, no in zip(rows.to_dict("records"), lacking, strict=True)
    ]
    write_json({"rows": kept}, file)


def read_sweep(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sweep's runs, for `splits` and `front`."""
    for run in read_runs(Path(folder)):
        config, overrides = run["config"], OmegaConf.load(run["folder"] / OVERRIDES)
        given = dict(str(override).partition("=")[::2] for override in overrides)
        if "experiment" not in given:
            raise ValueError(f"{run['folder']} must be a run that experiment=NAME started")
        yield {
            **run,
            "experiment": given["experiment"],
            **{key: config["data"][key] for key in ("split", "fold")},
            "stages": str(config["model"].get("stages")),
            "epochs": config["trainer"]["max_epochs"],
            "hardware": hardware(run),
        }


def read_labels(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sweep's runs, with the number of training images of a class."""
    for run in read_sweep(folder):
        chosen = run["config"]["data"]["per_class"]
        kept = {key: run[key] for key in ("experiment", "seed", "test/acc", "hardware")}
        yield {**kept, "per_class": chosen or ALL}


def read_bytes(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a sweep's networks as C files, run on all test images."""
    images, labels = mnist.load_split("mnist", "", "test")
    for run in read_sweep(folder):
        net = predictor.load(run["folder"])
        trained = run["config"]["model"].get("bits")
        for bits in [trained] if trained else (8, 6, 5, 4):
            with tempfile.TemporaryDirectory() as place:
                c_file.write_c(net, bits, Path(place))
                program = c_file.compile_c(Path(place))
            start = time.perf_counter()
            acc = (program(images).argmax(1) == labels).double().mean().item()
            yield {
                **{key: run[key] for key in ("stages", "seed", "epochs", "parameters")},
                "trained with": f"{trained} bits" if trained else "floats",
                "bits": bits,
                "bytes": program.constants,
                "memory": program.memory,
                "ms": 1000 * (time.perf_counter() - start) / len(images),
                "test/acc": round(acc, 4),
                "hardware": run["hardware"],
            }


def read_evaluation(given: str) -> list[dict[str, Any]]:
    """Return the rows of the networks of NAME=FOLDER, under their new names."""
    names, _, folder = given.partition("=")
    evaluated = read_json(Path(folder) / "evaluation.json").get("robustness") or {"networks": []}
    rows = evaluated["networks"]
    if len(rows) != len(names.split(",")):
        raise ValueError(f"{given} must begin with the names of {len(rows)} networks")
    shown = ("clean", "corruptions", "adversarial", "outliers")
    return [
        {"network": name, **{key: row[key] for key in shown if key in row}}
        for row, name in zip(rows, names.split(","), strict=True)
    ]


def splits(runs: pd.DataFrame) -> pd.DataFrame:
    """Return errors in per cent and their difference, one row per experiment and split."""
    rows = {}
    for group, found in runs.groupby(["experiment", "split"]):
        val, test = 100 * (1 - found["val/acc"]), 100 * (1 - found["test/acc"])
        rows[group] = {
            "n": len(found),
            "validation error": f"{val.mean():.2f} %",
            "by fold": ", ".join(val.groupby(found["fold"]).mean().map("{:.2f}".format)),
            "test error": f"{test.mean():.2f} %",
            "validation - test": f"{(val - test).mean():+.2f} ± {(val - test).std():.2f}",
        }
    return pd.DataFrame(rows).T.rename_axis(["`experiment=`", "validated by"]).reset_index()


def networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return `parameters`, `epochs` and the list `test/acc` by network, the smallest first."""
    groups = runs.groupby(["stages", "epochs"])
    found = groups.agg({"parameters": "first", "test/acc": list}).reset_index("epochs")
    records = pd.DataFrame(load_records()).T.loc[EXPERIMENTS]
    records["epochs"] = records["config"].str["trainer.max_epochs"]
    return pd.concat([found, records[found.columns]]).sort_values("parameters")


def front(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of accuracies by parameters, one row per network, the smallest first."""
    found = networks(runs)
    columns = {
        "parameters": found["parameters"].map("{:,}".format),
        "stages or experiment": found.index,
        "epochs, at most": found["epochs"],
        "n": found["test/acc"].map(len),
        "test accuracy": found["test/acc"].map(accuracy),
    }
    return pd.DataFrame(columns)


def small_networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Group the runs by network and bits of its weights, sorted by bytes."""
    rules = dict.fromkeys(("parameters", "memory"), "first")
    groups = runs.groupby(["stages", "epochs", "trained with", "bits"])
    found = groups.agg({**rules, "bytes": "max", "ms": "median", "test/acc": list})
    return found.sort_values("bytes").reset_index()


def bytes_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of C files, one row per network and bits of its weights, sorted by bytes."""
    found = small_networks(runs)
    columns = {
        "bytes of constants": found["bytes"].map("{:,}".format),
        "of memory": found["memory"].map("{:,}".format),
        "stages": found["stages"],
        "epochs": found["epochs"],
        "trained with": found["trained with"],
        "bits a weight": found["bits"],
        "n": found["test/acc"].map(len),
        "test accuracy": found["test/acc"].map(accuracy),
        "ms an image": found["ms"].map("{:.1f}".format),
    }
    return pd.DataFrame(columns)


def label_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of accuracies by images of a class (rows) and experiment (columns)."""
    found = runs.groupby(["per_class", "experiment"])["test/acc"].agg(list).unstack()
    shown = found.map(
        lambda values: f"{accuracy(values)} (n = {len(values)})", na_action="ignore"
    ).fillna("-")
    return shown.rename({ALL: "all"}).rename_axis("images of a class").reset_index()


def robustness(found: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies and false positive rates in per cent, one row per network."""
    records: Any = found.to_dict("records")
    flat = pd.json_normalize(records)
    shares = flat[[*CONDITIONS]].rename(columns=CONDITIONS)
    shown = shares.apply(lambda column: column.map("{:.1%}".format, na_action="ignore"))
    shown.insert(0, "clean", flat["clean"].map("{:.2%}".format))
    shown = shown.apply(lambda column: column.str.replace("%", " %"))
    shown.insert(0, "network", flat["network"])
    return shown.fillna("-")


def draw_front(runs: pd.DataFrame, file: Path) -> None:
    shown = networks(runs)[["parameters", "test/acc"]]
    shown = shown.rename(lambda name: "vgg" if name.startswith("[") else name)
    draw_networks(shown, "number of parameters", SIZES).savefig(file, dpi=110)


def draw_bytes(runs: pd.DataFrame, file: Path) -> None:
    ours = small_networks(runs).set_index("bits")[["bytes", "test/acc"]]
    theirs = [(size, [acc]) for size, acc in BITNETMCU.items()]
    others = pd.DataFrame(theirs, ["BitNetMCU"] * len(theirs), ours.columns)
    shown = pd.concat([ours.rename("{} bits".format), others])
    draw_networks(shown, "kilobytes of constants", KILOBYTES).savefig(file, dpi=110)


def draw_labels(runs: pd.DataFrame, file: Path) -> None:
    errors = 1 - runs.pivot_table("test/acc", "per_class", "experiment")
    figure = titled("MNIST: error on the 10,000 test images and number of labels", (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="labels of a class", ylabel="test error")
    for color, (name, values) in zip(cycle(dict.fromkeys((TRAIN, VAL, *COLORS))), errors.items()):
        values = values.dropna()
        axes.plot(values.index, values, "-o", ms=5.5, color=color)
        end = values.index[-1], values.iloc[-1]
        axes.annotate(str(name), end, (8, 0), textcoords="offset points", color=color, va="center")
    axes.set_xticks(errors.index, errors.rename({ALL: "all"}).index)
    axes.set_yticks(shares := [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], map("{:.0%}".format, shares))
    axes.minorticks_off()
    finish(axes)
    figure.savefig(file, dpi=110)


def draw_robustness(found: pd.DataFrame, file: Path) -> None:
    found = found.dropna(subset="corruptions")
    shown = pd.DataFrame(list(found["corruptions"]), index=found["network"])
    shown = shown.sort_values("mean").T
    shown.index = shown.index.str.replace("_", " ")
    figure = titled("MNIST-C: accuracy on the 10,000 test images by corruption", (9, 6.2))
    axes = figure.add_subplot()
    axes.set(xlabel="test accuracy", ylabel="corruption")
    for (name, values), color, marker in zip(shown.items(), cycle(COLORS), cycle("osD^vPX*")):
        axes.plot(values, range(len(shown)), marker, ms=6, color=color, label=name, clip_on=False)
    axes.set_yticks(range(len(shown)), shown.index)
    axes.invert_yaxis()
    axes.axhline(len(shown) - 1.5, color=TRAIN, lw=0.8, ls=":", zorder=0)  # above the mean
    finish(axes, "x")
    figure.legend(loc="outside lower center", ncols=len(shown.columns), frameon=False)
    figure.savefig(file, dpi=110)


TABLES = {
    "splits": splits,
    "front": front,
    "bytes": bytes_table,
    "labels": label_table,
    "robustness": robustness,
}
READ = {"bytes": read_bytes, "labels": read_labels, "robustness": read_evaluation}
DRAW = {
    "front": draw_front,
    "bytes": draw_bytes,
    "labels": draw_labels,
    "robustness": draw_robustness,
}


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.measurements", __doc__)
    parser.add_argument("name", metavar="NAME", choices=TABLES)
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    args = parser.parse_args(argv)
    read = READ.get(args.name, read_sweep)
    file = FOLDER / f"{args.name}.json"
    new = [row for folder in args.folders for row in read(folder)]
    rows = join(new, file)
    table = markdown(TABLES[args.name](rows))
    if new:  # what cannot be shown is not written
        if args.name in DRAW:
            DRAW[args.name](rows, file.with_suffix(".png"))
        write_rows(rows, file)
    print(table)


if __name__ == "__main__":
    main()
