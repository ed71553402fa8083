"""What an evaluation writes, draws and prints."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.table import Column, Table

from mnist_cnn import terminal
from mnist_cnn.analysis import by_writer, scores
from mnist_cnn.analysis.networks import network_name
from mnist_cnn.analysis.robustness.suites import table_rows
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.plots import evaluation
from mnist_cnn.runs import results

LISTED = 20  # networks in the printed table; evaluation.json has them all


def write_outcome(
    folder: Path, outcome: Mapping[str, Any], predictions: Predictions, data: ImageDataModule
) -> None:
    """Writes evaluation.json, predictions.csv, and writers.csv where they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write(outcome, folder / "evaluation.json")
    columns = [f"p{k}" for k in range(predictions.logits.shape[1])]
    images = zip(
        data.rows[outcome["split"]].tolist(),
        predictions.labels.tolist(),
        predictions.predicted.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    )
    rows = ([*image, *(f"{x:.6g}" for x in p)] for *image, p in images)
    write_csv(folder / "predictions.csv", ["index", "label", "prediction", *columns], rows)
    if known := data.split_writers(outcome["split"]):
        people = by_writer.each_writer(predictions, known)
        write_csv(folder / "writers.csv", list(people[0]), (row.values() for row in people))


def write_csv(path: Path, heads: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heads, *rows])


def draw_outcome(
    folder: Path, outcome: Mapping[str, Any], predictions: Predictions, data: ImageDataModule
) -> None:
    """Draws the evaluation's pictures into its folder."""
    what, split, wrong = describe_evaluation(outcome), outcome["split"], outcome["mistakes"]
    errors = f"{outcome['errors']:,} of {outcome['images']:,} images wrong"
    places = scores.most_confident_mistakes(predictions)[: len(wrong)]
    diagrams = {what: predictions}
    if fitted := outcome["temperature"]:
        cooled = predictions.at_temperature(fitted["value"])
        diagrams = {"as trained": predictions, f"temperature {fitted['value']:.3f}": cooled}
    figures = {
        "confusion": evaluation.confusion(
            np.array(outcome["confusion"]),
            data.classes,
            f"{what}: accuracy {outcome['acc']:.2%}, {errors}",
        ),
        "mistakes": evaluation.mistakes(
            data.splits[split][0][places, 0].cpu().numpy(),
            wrong,
            f"{what}: the {len(wrong):,} most confident mistakes; {errors}",
        ),
        "reliability": evaluation.reliability(
            {
                f"{name}: calibration error {scores.calibration(shown)['ece']:.2%}": [
                    part.numpy() for part in scores.bin_confidence(shown)
                ]
                for name, shown in diagrams.items()
            }
        ),
    }
    if known := data.split_writers(split):
        people = by_writer.each_writer(predictions, known)
        series = {
            kind: [row["acc"] for row in people if row["series"] == kind]
            for kind in sorted({row["series"] for row in people})
        }
        chance = by_writer.by_chance(predictions, known).numpy()
        figures["writers"] = evaluation.writers(series, chance, f"{what}: accuracy by writer")
    if (found := outcome["robustness"]) and "corruptions" in found["networks"][0]:
        lines = {row["network"]: row["corruptions"] for row in found["networks"]}
        title = f"{outcome['data']['name']}, {split}: accuracy by corruption"
        figures["robustness"] = evaluation.corruptions(lines, title)
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


def print_outcome(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Prints the evaluation's tables and where its files are."""
    console = terminal.console()
    total = Table("", describe_evaluation(outcome))
    for name, value in total_rows(outcome):
        total.add_row(name, value)
    classes = Table("class", "images", "precision", "recall", "F1")
    for row in outcome["classes"]:
        shares = (f"{row[metric]:.2%}" for metric in ("precision", "recall", "f1"))
        classes.add_row(row["class"], f"{row['images']:,}", *shares)
    wrong = Table("index", "label", "read as", "confidence")
    for m in outcome["mistakes"][:10]:
        wrong.add_row(str(m["index"]), m["label"], m["prediction"], f"{m['confidence']:.2%}")
    console.print()
    console.print(total)
    if outcome["temperature"] and outcome["split"] == "val":
        console.print("* fitted on these images: too good for others; measure it with split=test")
    console.print(Columns([classes, wrong]))
    networks = outcome["networks"]
    if len(networks) > 1:
        alone = Table(Column("network", overflow="fold"), "accuracy alone", "wrong")
        for row in networks[:LISTED]:
            name = network_name(row["ckpt_path"])
            alone.add_row(name, f"{row['acc']:.2%}", f"{row['errors']:,}")
        if len(networks) > LISTED:
            alone.add_row(f"and {len(networks) - LISTED} more in evaluation.json", "", "")
        console.print(alone)
    if found := outcome["robustness"]:
        conditions = Table("accuracy")
        for row in found["networks"]:
            conditions.add_column(row["network"], overflow="fold")
        for cells in table_rows(found["networks"]):
            conditions.add_row(*cells)
        console.print(conditions)
        console.print(found["note"])
    names = [file.name for kind in ("csv", "png") for file in sorted(folder.glob(f"*.{kind}"))]
    console.print(f"{folder}: {', '.join(['evaluation.json', *names])}")


def total_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the first table: what is measured, and its value."""

    def accuracy(part: Mapping[str, Any]) -> str:
        low, high = part["acc_95"]
        return f"{part['acc']:.2%}  (95 %: {low:.2%} to {high:.2%}), {part['errors']:,} wrong"

    yield "images", f"{outcome['images']:,}"
    yield "accuracy", accuracy(outcome)
    if known := outcome["writers"]:
        low, high = known["acc_95"]
        yield f"of {known['writers']} writers", f"95 % for other writers: {low:.2%} to {high:.2%}"
        for part in known["series"]:
            yield f"{part['writers']} {part['series']}", accuracy(part)
        worst = known["worst_decile"]
        yield (
            f"the {worst['writers']} worst writers",
            f"{worst['mean_acc']:.2%} on average, {worst['mean_acc_by_chance']:.2%} by chance",
        )
    if other := outcome["compare"]:
        low, high = other["difference_95"]
        yield "compared with", accuracy(other)
        yield (
            "difference",
            f"{100 * other['difference']:+.2f} points  (95 % over {other['over']}: "
            f"{100 * low:+.2f} to {100 * high:+.2f})",
        )
        alone = f"{other['first_alone_right']:,} and {other['second_alone_right']:,} alone right"
        yield "McNemar's test", f"p = {other['mcnemar_p']:.2g}, {alone}"
    if len(outcome["networks"]) > 1:
        mean, std = outcome["networks_acc"]["mean"], outcome["networks_acc"]["std"]
        yield "each network alone", f"{mean:.2%} ± {100 * std:.2f} (mean ± std)"
    if part := outcome["without_wrong_labels"]:
        yield f"without {outcome['images'] - part['images']} wrong labels", accuracy(part)
    yield "loss (mean NLL)", f"{outcome['loss']:.4f}"
    yield "calibration error", f"{outcome['ece']:.2%}"
    if after := outcome["temperature"]:
        in_sample = " *" if after["fitted_on"] == outcome["split"] else ""
        yield (
            f"at temperature {after['value']:.3f}{in_sample}",
            f"loss {after['loss']:.4f}, calibration error {after['ece']:.2%}",
        )
