"""Networks under other conditions: python -m benchmarks.robustness [NAME=FOLDER ...] [--write]

Without arguments the table of benchmarks/measurements/robustness.json. FOLDER is an evaluation with
robustness=true, as `python -m mnist_cnn.evaluate ckpt_path=RUN robustness=true` leaves it, and NAME
the experiment of its network; of several networks NAME is A,B,C. --write adds them to the record
and draws robustness.png beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.recording import MEASUREMENTS, joined_runs
from benchmarks.tables import markdown
from mnist_cnn import terminal
from mnist_cnn.analysis.found import read_json
from mnist_cnn.command import command
from mnist_cnn.config.messages import must_be


def read(given: Path) -> list[dict[str, Any]]:
    """The record's rows of the networks of NAME=FOLDER, under their new names."""
    names, _, folder = str(given).partition("=")
    outcome = read_json(Path(folder) / "evaluation.json")
    rows = (outcome.get("robustness") or {}).get("networks", [])
    if len(rows) != len(names.split(",")):
        raise ValueError(must_be("NAME=FOLDER", f"names of {len(rows)} networks", given))
    return [{**row, "network": name} for row, name in zip(rows, names.split(","), strict=True)]


def table(networks: pd.DataFrame) -> str:
    """The table, a network each, as benchmarks/README.md has it."""
    rows = []
    for row in networks.to_dict("records"):
        figures = {
            "15 corruptions": row["corruptions"]["mean"],
            "PGD 0.1": row["adversarial"]["pgd"]["0.1"],
            "PGD 0.3": row["adversarial"]["pgd"]["0.3"],
            **{kind: outliers["fpr_95"] for kind, outliers in row["outliers"].items()},
        }
        percent = {name: f"{100 * value:.1f} %" for name, value in figures.items()}
        rows.append({"network": row["network"], "clean": f"{100 * row['clean']:.2f} %", **percent})
    return markdown(pd.DataFrame(rows))


@command
def main(argv: Sequence[str] | None = None) -> None:
    networks, written = joined_runs("robustness", __doc__, argv, ["network"], read)
    if written:
        lines = dict(zip(networks["network"], networks["corruptions"], strict=True))
        axes = pd.DataFrame(lines).plot(
            style="o-", figsize=(9.6, 5.4), rot=45, title="mnist, test: accuracy by corruption"
        )
        axes.figure.savefig(MEASUREMENTS / "robustness.png", dpi=100, bbox_inches="tight")
    terminal.console().print(table(networks))


if __name__ == "__main__":
    main()
