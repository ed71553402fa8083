"""What an evaluation measures, prints, draws and writes."""

import csv
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn import terminal
from mnist_cnn.config.compose import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from mnist_cnn.analysis.scores import Predictions
    from mnist_cnn.data.datamodule import ImageDataModule
    from mnist_cnn.data.writers import Writers


LISTED = 20  # networks in the printed table; evaluation.json has them all


def summarize_evaluation(
    cfg: DictConfig,
    files: Sequence[Path],
    others: Sequence[Path],
    each: "Mapping[str, Sequence[Predictions]]",
    data: "ImageDataModule",
) -> dict[str, Any]:
    """What evaluation.json holds.

    Args:
        cfg: as `evaluate` takes it.
        files: of the networks that predict together.
        others: of those that they are compared with, or none.
        each: by split, the predictions of each network of both, in this order.
        data: with the splits set up.
    """
    from mnist_cnn.analysis import by_writer, scores

    n = len(files)
    predictions, known = scores.ensemble(each[cfg.split][:n]), data.split_writers(cfg.split)
    outcome = {
        "ckpt_path": list(map(str, files)) if OmegaConf.is_list(cfg.ckpt_path) else str(files[0]),
        "split": cfg.split,
        "shifts": cfg.shifts,
        **of_networks(files, each[cfg.split][:n]),
        "data": {"name": data.name, **plain(cfg, "data")},
        **scores.summary(predictions, data.classes),
        "without_wrong_labels": without_wrong_labels(cfg, predictions, data),
        "writers": known and by_writer.writer_summary(predictions, known),
        "compare": compared(predictions, others, each[cfg.split][n:], known),
        "robustness": None,
        "temperature": None,
        "mistakes": of_mistakes(cfg, predictions, data),
    }
    if cfg.temperature:
        t = scores.fit_temperature(scores.ensemble(each["val"][:n]))
        cooled = scores.calibration(predictions.at_temperature(t))
        outcome["temperature"] = {"value": t, "fitted_on": "val", **cooled}
    return outcome


def of_networks(files: Sequence[Path], each: "Sequence[Predictions]") -> dict[str, Any]:
    """Where each network is from and how accurate it is alone."""
    from mnist_cnn import pretrained
    from mnist_cnn.analysis import scores

    alone = [scores.proportion(single.hits) for single in each]
    accuracies = [part["acc"] for part in alone]
    return {
        "networks": [
            {"ckpt_path": str(file), "epoch": pretrained.read(file).epoch, **part}
            for file, part in zip(files, alone, strict=True)
        ],
        "networks_acc": {
            "mean": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if len(alone) > 1 else None,
        },
    }


def of_mistakes(
    cfg: DictConfig, predictions: "Predictions", data: "ImageDataModule"
) -> list[dict[str, Any]]:
    """The most confident mistakes: which image, its label, how it was read."""
    from mnist_cnn.analysis import scores

    return [
        {
            "index": int(data.rows[cfg.split][k]),
            "label": data.classes[predictions.labels[k]],
            "prediction": data.classes[predictions.predicted[k]],
            "confidence": predictions.confidence[k].item(),
        }
        for k in scores.most_confident_mistakes(predictions)[: cfg.mistakes]
    ]


def without_wrong_labels(
    cfg: DictConfig, predictions: "Predictions", data: "ImageDataModule"
) -> dict[str, Any] | None:
    """The accuracy on test images without the wrong labels; None where none are known."""
    import torch

    from mnist_cnn.analysis import scores
    from mnist_cnn.data import sets

    known = sets.SETS.get(data.name)
    if cfg.split != "test" or not (known and known.wrong_test_labels):
        return None
    right = ~torch.isin(data.rows["test"], torch.tensor(known.wrong_test_labels))
    return scores.proportion(predictions.hits[right])


def compared(
    predictions: "Predictions",
    files: Sequence[Path],
    each: "Sequence[Predictions]",
    known: "Writers | None",
) -> dict[str, Any] | None:
    """The difference from other networks on the same images; None without them."""
    from mnist_cnn.analysis import by_writer, scores

    if not files:
        return None
    other = scores.ensemble(each)
    return {
        "ckpt_path": [str(file) for file in files],
        **scores.proportion(other.hits),
        **by_writer.difference(predictions, other, known and known.writer),
    }


def write_writers(path: Path, predictions: "Predictions", known: "Writers") -> None:
    """One line for each writer, the least accurate first."""
    from mnist_cnn.analysis import by_writer

    rows = by_writer.each_writer(predictions, known)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


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
    data: "ImageDataModule",
    calibration: Mapping[str, "Predictions"],
) -> None:
    """The evaluation's pictures.

    Args:
        folder: where they go.
        outcome: what evaluation.json holds.
        data: with the split set up.
        calibration: by title, the predictions that a reliability diagram is drawn of.
    """
    import numpy as np

    from mnist_cnn.analysis import scores
    from mnist_cnn.plots import evaluation

    what, wrong = describe_evaluation(outcome), outcome["mistakes"]
    errors = f"{outcome['errors']:,} of {outcome['images']:,} images wrong"
    predictions = next(iter(calibration.values()))
    places = scores.most_confident_mistakes(predictions)[: len(wrong)]
    figures = {
        "confusion": evaluation.confusion(
            np.array(outcome["confusion"]),
            data.classes,
            f"{what}: accuracy {outcome['acc']:.2%}, {errors}",
        ),
        "mistakes": evaluation.mistakes(
            data.splits[outcome["split"]][0][places, 0].cpu().numpy(),
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
    if known := data.split_writers(outcome["split"]):
        figures["writers"] = writers_figure(predictions, known, f"{what}: accuracy by writer")
    if (found := outcome["robustness"]) and "corruptions" in found["networks"][0]:
        lines = {row["network"]: row["corruptions"] for row in found["networks"]}
        title = f"{outcome['data']['name']}, {outcome['split']}: accuracy by corruption"
        figures["robustness"] = evaluation.corruptions(lines, title)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)


def writers_figure(predictions: "Predictions", known: "Writers", title: str) -> "Figure":
    """The accuracy of each writer, by series, beside what chance alone would give."""
    from mnist_cnn.analysis import by_writer
    from mnist_cnn.plots import evaluation

    series: dict[str, list[float]] = {}
    for row in by_writer.each_writer(predictions, known):
        series.setdefault(row["series"], []).append(row["acc"])
    chance = by_writer.by_chance(predictions, known).numpy()
    return evaluation.writers(dict(sorted(series.items())), chance, title)


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
    from rich.table import Table

    console = terminal.console()
    total = Table("", describe_evaluation(outcome))
    for name, value in total_rows(outcome):
        total.add_row(name, value)
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
    if any(name.endswith(" *") for name, _ in total_rows(outcome)):
        console.print("* fitted on these images: too good for others; measure it with split=test")
    console.print(Columns([classes, wrong]))
    if len(outcome["networks"]) > 1:
        print_networks(outcome["networks"], console)
    if outcome["robustness"]:
        print_robustness(outcome["robustness"], console)
    names = sorted(path.name for path in folder.glob("*.csv")) + sorted(
        path.name for path in folder.glob("*.png")
    )
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
        in_sample = after["fitted_on"] == outcome["split"]
        yield (
            f"at temperature {after['value']:.3f}{' *' if in_sample else ''}",
            f"loss {after['loss']:.4f}, calibration error {after['ece']:.2%}",
        )


def print_networks(networks: Sequence[Mapping[str, Any]], console: terminal.Console) -> None:
    """Prints the accuracy of each network alone."""
    from rich.table import Column, Table

    table = Table(Column("network", overflow="fold"), "accuracy alone", "wrong")
    for part in networks[:LISTED]:
        table.add_row(network_name(part["ckpt_path"]), f"{part['acc']:.2%}", f"{part['errors']:,}")
    if len(networks) > LISTED:
        table.add_row(f"and {len(networks) - LISTED} more in evaluation.json", "", "")
    console.print(table)


def network_name(file: Path | str) -> str:
    """A checkpoint's path from here; of a run's best one the run's folder."""
    path = str(file).removeprefix(f"{Path.cwd()}{os.sep}")
    return path.removesuffix(str(Path("/checkpoints/best.ckpt")))


def print_robustness(found: Mapping[str, Any], console: terminal.Console) -> None:
    """Prints each network's figures under each condition."""
    from rich.table import Column, Table

    from mnist_cnn.analysis.robustness.suites import table_rows

    names = [Column(row["network"], overflow="fold") for row in found["networks"]]
    table = Table("accuracy", *names)
    for row in table_rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(found["note"])
