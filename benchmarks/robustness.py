"""Networks under other conditions: python -m benchmarks.robustness [NAME=FOLDER ...] [--write]

Without arguments the table of benchmarks/measurements/robustness.json. FOLDER is an evaluation with
robustness=true, as `python -m mnist_cnn.evaluate ckpt_path=RUN robustness=true` leaves it, and NAME
the experiment of its network; of several networks NAME is A,B,C. --write adds them to the record
and draws robustness.png beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import RECORDS
from benchmarks.tables import markdown_table
from mnist_cnn import terminal
from mnist_cnn.analysis.found import read_json
from mnist_cnn.command import command
from mnist_cnn.config.messages import must_be
from mnist_cnn.plots import evaluation
from mnist_cnn.report import docstring_parser
from mnist_cnn.runs import results

RECORD = RECORDS / "measurements" / "robustness.json"


def read_networks(given: str) -> list[dict[str, Any]]:
    """The figures of the networks of NAME=FOLDER, under their new names."""
    names, _, folder = given.partition("=")
    outcome = read_json(Path(folder) / "evaluation.json")
    rows = (outcome.get("robustness") or {}).get("networks", [])
    if len(rows) != len(names.split(",")):
        raise ValueError(must_be("NAME=FOLDER", f"names of {len(rows)} networks", given))
    return [{**row, "network": name} for row, name in zip(rows, names.split(","), strict=True)]


def table(networks: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table, a network each, as benchmarks/README.md has them."""
    kinds = list(networks[0]["outliers"])
    heads = ["network", "clean", "15 corruptions", "moved, turned", "PGD 0.1", "PGD 0.3", *kinds]
    rows = []
    for row in networks:
        attacked = row["adversarial"]["pgd"]
        values = (
            *(row["clean"], row["corruptions"]["mean"], row["affine"]["mean"]),
            *(attacked[epsilon] for epsilon in ("0.1", "0.3")),
            *(row["outliers"][kind]["fpr_95"] for kind in kinds),
        )
        cells = (f"{100 * value:.{2 if k == 0 else 1}f} %" for k, value in enumerate(values))
        rows.append([row["network"], *cells])
    return markdown_table(heads, rows)


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.robustness", __doc__)
    parser.add_argument("given", nargs="*", metavar="NAME=FOLDER", help="an evaluation")
    parser.add_argument("--write", action="store_true", help="add them to the record")
    args = parser.parse_args(argv)
    known = read_json(RECORD)["networks"] if RECORD.exists() else []
    found = {row["network"]: row for row in known}
    for given in args.given:
        found |= {row["network"]: row for row in read_networks(given)}
    if not found:
        parser.error("there is no record yet: NAME=FOLDER is needed")
    networks = list(found.values())
    if args.write:
        results.write({"networks": networks}, RECORD)
        lines = {row["network"]: row["corruptions"] for row in networks}
        figure = evaluation.corruptions(lines, "mnist, test: accuracy by corruption")
        figure.savefig(RECORD.with_suffix(".png"), dpi=100)
    terminal.console().print("\n".join(table(networks)), soft_wrap=True)


if __name__ == "__main__":
    main()
