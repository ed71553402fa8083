"""What an evaluation prints, draws and writes."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn import terminal

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_cnn.analysis.scores import Predictions


LISTED = 20  # networks in the printed table; evaluation.json has them all


def write_predictions(path: Path, rows: "Tensor", predictions: "Predictions") -> None:
    """One line for each image: its row in the file, label, prediction, probabilities."""
    columns = [f"p{k}" for k in range(predictions.logits.shape[1])]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", *columns])
        for row, label, prediction, p in zip(
            rows.tolist(),
            predictions.labels.tolist(),
            predictions.predicted.tolist(),
            predictions.probabilities.tolist(),
            strict=True,
        ):
            writer.writerow([row, label, prediction, *(f"{x:.6g}" for x in p)])


def draw_evaluation(
    folder: Path,
    outcome: Mapping[str, Any],
    images: "Tensor",
    calibration: Mapping[str, "Predictions"],
    classes: Sequence[str],
) -> None:
    """The evaluation's pictures.

    Args:
        folder: where they go.
        outcome: what evaluation.json holds.
        images: uint8 (K, 28, 28), those of outcome["mistakes"].
        calibration: by title, the predictions that a reliability diagram is drawn of.
        classes: the ten classes' names.
    """
    import numpy as np

    from mnist_cnn.analysis import scores
    from mnist_cnn.plots import evaluation

    what = describe_evaluation(outcome)
    errors = f"{outcome['errors']:,} of {outcome['images']:,} images wrong"
    wrong = outcome["mistakes"]
    figures = {
        "confusion": evaluation.confusion(
            np.array(outcome["confusion"]),
            classes,
            f"{what}: accuracy {outcome['acc']:.2%}, {errors}",
        ),
        "mistakes": evaluation.mistakes(
            images.numpy(),
            **{
                key: [m[key] for m in wrong]
                for key in ("index", "label", "prediction", "confidence")
            },
            title=f"{what}: the {len(wrong):,} most confident mistakes; {errors}",
        ),
        "reliability": evaluation.reliability(
            {
                f"{name or what}: calibration error {scores.calibration(a)['ece']:.2%}": tuple(
                    part.numpy() for part in scores.bin_confidence(a)
                )
                for name, a in calibration.items()
            }
        ),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)


def describe_evaluation(outcome: Mapping[str, Any]) -> str:
    """What was evaluated, in a few words."""
    parts = [outcome["data"]["name"], outcome["split"]]
    if (n := len(outcome["networks"])) > 1:
        parts.append(f"{n} networks")
    if shifts := outcome["shifts"]:
        parts.append(f"shifts={shifts} ({(2 * shifts + 1) ** 2} shifts each)")
    return ", ".join(parts)


def print_evaluation(outcome: Mapping[str, Any], folder: Path) -> None:
    """Prints the evaluation's tables and where its files are."""
    from rich.columns import Columns
    from rich.table import Column, Table

    def accuracy(part: Mapping[str, Any]) -> str:
        low, high = part["acc_95"]
        return f"{part['acc']:.2%}  (95 %: {low:.2%} to {high:.2%}), {part['errors']:,} wrong"

    console = terminal.console()
    total = Table("", describe_evaluation(outcome))
    total.add_row("images", f"{outcome['images']:,}")
    total.add_row("accuracy", accuracy(outcome))
    if len(networks := outcome["networks"]) > 1:
        mean, std = outcome["networks_acc"]["mean"], outcome["networks_acc"]["std"]
        total.add_row("each network alone", f"{mean:.2%} ± {100 * std:.2f} (mean ± std)")
    if part := outcome["without_wrong_labels"]:
        left_out = outcome["images"] - part["images"]
        total.add_row(f"without {left_out} wrong labels", accuracy(part))
    total.add_row("loss (mean NLL)", f"{outcome['loss']:.4f}")
    total.add_row("calibration error", f"{outcome['ece']:.2%}")
    in_sample = False
    if after := outcome["temperature"]:
        in_sample = after["fitted_on"] == outcome["split"]
        total.add_row(
            f"at temperature {after['value']:.3f}{' *' if in_sample else ''}",
            f"loss {after['loss']:.4f}, calibration error {after['ece']:.2%}",
        )
    classes = Table("class", "images", "precision", "recall", "F1")
    for row in outcome["classes"]:
        classes.add_row(
            *(row["class"], f"{row['images']:,}"),
            *(f"{row[metric]:.2%}" for metric in ("precision", "recall", "f1")),
        )
    wrong = Table("index", "label", "read as", "confidence")
    for m in outcome["mistakes"][:10]:
        wrong.add_row(str(m["index"]), m["label"], m["prediction"], f"{m['confidence']:.2%}")
    console.print()
    console.print(total)
    if in_sample:
        console.print("* fitted on these images: too good for others; measure it with split=test")
    console.print(Columns([classes, wrong]))
    if len(networks) > 1:
        table = Table(Column("network", overflow="fold"), "accuracy alone", "wrong")
        for part in networks[:LISTED]:
            path = part["ckpt_path"].removeprefix(f"{Path.cwd()}{os.sep}")
            path = path.removesuffix(str(Path("/checkpoints/best.ckpt")))
            table.add_row(path, f"{part['acc']:.2%}", f"{part['errors']:,}")
        if len(networks) > LISTED:
            table.add_row(f"and {len(networks) - LISTED} more in evaluation.json", "", "")
        console.print(table)
    names = ("evaluation.json", "predictions.csv", *sorted(p.name for p in folder.glob("*.png")))
    console.print(f"{folder}: {', '.join(names)}")
