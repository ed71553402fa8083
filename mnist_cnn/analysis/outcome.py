"""The files, pictures and tables of an evaluation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.table import Column, Table

from mnist_cnn import terminal
from mnist_cnn.analysis import by_writer, scores
from mnist_cnn.analysis.networks import network_name
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.plots import evaluation
from mnist_cnn.runs.folder import CONFIG, write_json

SOMETIMES = ("writers.csv", "writers.png", "robustness.png")  # not in every evaluation's folder

Outcome = Mapping[str, Any]  # the content of evaluation.json


def write_outcome(
    cfg: DictConfig, outcome: Outcome, predictions: Predictions, data: ImageDataModule
) -> None:
    """Writes an evaluation's files and pictures into cfg.run_dir, in place of earlier ones."""
    folder, split = Path(cfg.run_dir), outcome["split"]
    (folder / CONFIG.parent).mkdir(parents=True, exist_ok=True)
    write_json(outcome, folder / "evaluation.json")  # first: it makes the folder an evaluation's
    OmegaConf.save(cfg, folder / CONFIG)
    for name in SOMETIMES:
        (folder / name).unlink(missing_ok=True)
    table = pd.DataFrame(predictions.probabilities.numpy()).add_prefix("p")
    table.insert(0, "index", data.rows[split].numpy())
    table.insert(1, "label", predictions.labels.numpy())
    table.insert(2, "prediction", predictions.predicted.numpy())
    table.to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    figures = draw_predictions(outcome, predictions, data)
    if writers := data.split_writers(split):
        people = by_writer.each_writer(predictions, writers)
        people.to_csv(folder / "writers.csv", index=False)
        chance = by_writer.by_chance(predictions, writers).numpy()
        title = f"{describe_evaluation(outcome)}: accuracy by writer"
        figures["writers"] = evaluation.writers(people, chance, title)
    if (robustness := outcome["robustness"]) and "corruptions" in robustness["networks"][0]:
        lines = {row["network"]: row["corruptions"] for row in robustness["networks"]}
        title = f"{outcome['data']['name']}, {split}: accuracy by corruption"
        figures["robustness"] = evaluation.corruptions(lines, title)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)


def draw_predictions(
    outcome: Outcome, predictions: Predictions, data: ImageDataModule
) -> dict[str, Figure]:
    """The pictures that every evaluation has, by name."""
    what, wrong = describe_evaluation(outcome), outcome["mistakes"]
    errors = f"{outcome['errors']:,} of {outcome['images']:,} images wrong"
    places = scores.most_confident_mistakes(predictions)[: len(wrong)]
    images = data.splits[outcome["split"]][0][places, 0].cpu().numpy()
    diagrams = {what: predictions}
    if fitted := outcome["temperature"]:
        scaled = predictions.at_temperature(fitted["value"])
        diagrams = {"as trained": predictions, f"temperature {fitted['value']:.3f}": scaled}
    panels = {}
    for name, shown in diagrams.items():
        title = f"{name}: calibration error {scores.calibration(shown)['ece']:.2%}"
        panels[title] = [part.numpy() for part in scores.bin_confidence(shown)]
    matrix, accuracy = np.array(outcome["confusion"]), f"{what}: accuracy {outcome['acc']:.2%}"
    worst = f"{what}: the {len(wrong):,} most confident mistakes; {errors}"
    return {
        "confusion": evaluation.confusion(matrix, data.classes, f"{accuracy}, {errors}"),
        "mistakes": evaluation.mistakes(images, wrong, worst),
        "reliability": evaluation.reliability(panels),
    }


def describe_evaluation(outcome: Outcome) -> str:
    """The set, the split, and how many networks and copies of an image, in a few words."""
    parts = [outcome["data"]["name"], outcome["split"]]
    if (n := len(outcome["networks"])) > 1:
        parts.append(f"{n} networks")
    if shifts := outcome["shifts"]:
        parts.append(f"shifts={shifts} ({(2 * shifts + 1) ** 2} shifts each)")
    return ", ".join(parts)


def print_outcome(folder: Path, outcome: Outcome) -> None:
    """Prints the evaluation's tables and the names of its files."""
    console = terminal.console()
    totals = pd.DataFrame(total_rows(outcome), columns=["", describe_evaluation(outcome)])
    alone = pd.DataFrame(outcome["networks"])[["ckpt_path", "acc", "errors"]]
    alone["ckpt_path"] = alone["ckpt_path"].map(network_name)
    tables = [totals, pd.DataFrame(outcome["classes"]), pd.DataFrame(outcome["mistakes"][:10])]
    if len(alone) > 1:
        tables.append(alone)
    if robustness := outcome["robustness"]:
        by_network = pd.json_normalize(robustness["networks"], sep=" ").set_index("network")
        tables.append(by_network.astype(object).T.reset_index(names="condition"))
    console.print()
    for table in tables:
        console.print(screen_table(table))
    if robustness:
        console.print(robustness["note"])
    files = [file.name for kind in ("csv", "png") for file in sorted(folder.glob(f"*.{kind}"))]
    console.print(f"{folder}: {', '.join(['evaluation.json', *files])}")


def screen_table(table: pd.DataFrame) -> Table:
    """A table for the screen; shares, all that is not whole, in per cent."""
    shown = Table(*(Column(name, overflow="fold") for name in table))
    texts = table.map(lambda value: f"{value:.2%}" if isinstance(value, float) else str(value))
    for row in texts.itertuples(index=False):
        shown.add_row(*row)
    return shown


def total_rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """The first table: what is measured, and its value."""
    yield "images", f"{outcome['images']:,}"
    yield "accuracy", with_interval(outcome)
    if writers := outcome["writers"]:
        low, high = writers["acc_95"]
        yield f"of {writers['writers']} writers", f"95 % for other writers: {low:.2%} to {high:.2%}"
        worst = writers["worst_decile"]
        mean, chance = worst["mean_acc"], worst["mean_acc_by_chance"]
        means = f"{mean:.2%} on average, {chance:.2%} by chance"
        yield f"the {worst['writers']} worst writers", means
    if other := outcome["compare"]:
        low, high = (f"{100 * bound:+.2f}" for bound in other["difference_95"])
        points = f"{100 * other['difference']:+.2f} points"
        yield "compared with", with_interval(other)
        yield "difference", f"{points}  (95 % over {other['over']}: {low} to {high})"
        yield "McNemar's test", f"p = {other['mcnemar_p']:.2g}"
    if len(outcome["networks"]) > 1:
        mean, std = outcome["networks_acc"]["mean"], outcome["networks_acc"]["std"]
        yield "each network alone", f"{mean:.2%} ± {100 * std:.2f} (mean ± std)"
    if part := outcome["without_wrong_labels"]:
        yield f"without {outcome['images'] - part['images']} wrong labels", with_interval(part)
    yield "loss (mean NLL)", f"{outcome['loss']:.4f}"
    yield "calibration error", f"{outcome['ece']:.2%}"
    if fitted := outcome["temperature"]:
        # too good for other images: to be measured with split=test
        in_sample = ", fitted on these images" if fitted["fitted_on"] == outcome["split"] else ""
        after = f"loss {fitted['loss']:.4f}, calibration error {fitted['ece']:.2%}{in_sample}"
        yield f"at temperature {fitted['value']:.3f}", after


def with_interval(part: Outcome) -> str:
    """An accuracy with its 95 % interval and the number of errors."""
    low, high = part["acc_95"]
    return f"{part['acc']:.2%}  (95 %: {low:.2%} to {high:.2%}), {part['errors']:,} wrong"
