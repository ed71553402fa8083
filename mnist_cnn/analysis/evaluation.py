"""Evaluate networks: evaluation.json, the other files and the printed tables."""

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import nn

from mnist_cnn.analysis import scores
from mnist_cnn.analysis.networks import EVALUATION, network_files
from mnist_cnn.analysis.robustness.suites import DEFAULT, LIGHT_ON_BLACK, measure_robustness
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.analysis.tables import screen_table
from mnist_cnn.config import instantiate, schema
from mnist_cnn.config.messages import must_be, shown
from mnist_cnn.config.parse import Evaluation
from mnist_cnn.data import mnist
from mnist_cnn.data.custom import CollectedDataModule
from mnist_cnn.data.datamodule import ImageDataModule, MNISTDataModule, class_names
from mnist_cnn.model import SHAPE
from mnist_cnn.module import check_fits
from mnist_cnn.plots import evaluation
from mnist_cnn.runs import terminal
from mnist_cnn.runs.folder import CONFIG, cleared, write_json
from mnist_cnn.weights import predictor
from mnist_cnn.weights.predictor import Trained


def measure(config: Evaluation) -> tuple[dict[str, Any], Predictions, ImageDataModule]:
    """Measure an evaluation.

    Returns:
        The content of evaluation.json, the predictions of the networks as an ensemble, and the
        data.

    Raises:
        ValueError: the networks, data and split do not fit together.
    """
    ours, others = load_networks(config)
    data = load_images(config, ours, others)
    files, loaded, n = list(ours), [*ours.values(), *others.values()], len(ours)
    split, present = config.split, torch.accelerator.is_available()
    device = (torch.accelerator.current_accelerator() if present else None) or torch.device("cpu")
    nets = [trained.to(device).net for trained in loaded]

    def predict(nets: Sequence[nn.Module], split: str) -> list[Predictions]:
        batches = terminal.track(data.loader(split, data.eval_batch_size), split)
        return scores.predict_batches(nets, batches, device, config.shifts)

    each = predict(nets, split)
    counts = [alone.logits.shape[1] for alone in each]
    if isinstance(data, CollectedDataModule):
        data.add_classes(max(counts))
    for file, count in zip((*ours, *others), counts, strict=True):
        if count != len(data.classes):
            allowed = f"networks with {len(data.classes)} outputs, one for each class"
            raise ValueError(must_be("ckpt_path and compare", allowed, f"{file} with {count}"))
    if (label := int(each[0].labels.max())) >= len(data.classes):
        allowed = f"less than {len(data.classes)}, the number of classes"
        raise ValueError(must_be("each label", allowed, label))
    predictions, writers = scores.ensemble(each[:n]), data.split_writers(split)
    outcome = {
        "ckpt_path": list(map(str, files)) if isinstance(config.ckpt_path, list) else str(files[0]),
        "split": split,
        "shifts": config.shifts,
        "networks": [
            {"ckpt_path": str(file), "epoch": trained.epoch, **scores.proportion(alone.hits)}
            for file, trained, alone in zip(files, loaded, each, strict=False)
        ],
        "data": {"name": data.name, **config.data},
        **scores.summary(predictions, data.classes),
        "writers": writers and scores.writer_summary(predictions, writers),
        "mistakes": scores.list_mistakes(
            predictions, data.rows[split], data.classes, config.mistakes, data.split_files(split)
        ),
    }
    if isinstance(data, MNISTDataModule) and (data.name, split) == ("mnist", "test"):
        outcome["labels"] = on_corrected_labels(predictions)
    if others:
        other = scores.ensemble(each[n:])
        paired = scores.difference(predictions, other, writers and writers.writer)
        outcome["compare"] = scores.proportion(other.hits) | paired
    if config.temperature:
        held_out = scores.ensemble(each[:n] if split == "val" else predict(nets[:n], "val"))
        t = scores.fit_temperature(held_out)
        after = scores.calibration(predictions.at_temperature(t))
        outcome["temperature"] = {"value": t, **after}
    if config.robustness:
        named = dict(zip(map(str, files), nets, strict=False))
        outcome["robustness"] = measure_robustness(named, data, split, suites_of(config), device)
    return outcome, predictions, data


def on_corrected_labels(predictions: Predictions) -> dict[str, Any]:
    """Return `labels` of evaluation.json: accuracies on sound and corrected test labels."""
    rows = torch.arange(len(predictions.labels))
    hits = mnist.hits_by_labels(predictions.predicted, predictions.labels, rows)
    return {name: scores.proportion(part) for name, part in hits.items()}


def load_networks(config: Evaluation) -> tuple[dict[Path, Trained], dict[Path, Trained]]:
    """Load by file the networks that are evaluated, and those they are compared with."""
    ours = {file: predictor.load(file) for file in network_files(config.ckpt_path)}
    if config.compare is None:
        return ours, {}
    try:
        files = network_files(config.compare)
        return ours, {file: ours.get(file) or predictor.load(file) for file in files}
    except ValueError as e:
        raise ValueError(f"compare={e}") from None


def make_data(
    config: Evaluation, ours: Mapping[Path, Trained], others: Mapping[Path, Trained]
) -> ImageDataModule:
    """Make the data module of an evaluation, and check that the networks fit it.

    Args:
        ours, others: see `load_networks`.

    Raises:
        ValueError: the images or classes are not those of a network, or the split is not that of
            its training.
    """
    made, nets = instantiate.make_data(config.data), [*ours.values(), *others.values()]
    if isinstance(made, ImageDataModule):
        data = made
        # a temperature is fitted for the networks that are evaluated alone
        check_held_out(list(ours.values()) if config.split == "test" else nets, config)
        for net in nets:
            check_fits(net.model, data)
    else:
        target = config.data["_target_"]  # of other data, a network's training held nothing out
        same = [net for net in nets if (net.data.get("custom") or {}).get("_target_") == target]
        check_held_out(same, config)
        data = CollectedDataModule(made)
        stage = {"val": "fit", "test": "test"}.get(config.split)
        # a user's module may know its classes only then
        data.setup(stage if len(splits_of(config)) == 1 else None)
        data.classes = class_names(made) or nets[0].classes or data.classes
    check_classes(nets, class_names(made), data.name)
    check_changes(config, nets, data)
    return data


def check_changes(config: Evaluation, nets: Sequence[Trained], data: ImageDataModule) -> None:
    """Raise ValueError if an evaluation changes images which it cannot change rightly."""
    shape = getattr(data, "shape", SHAPE)  # unknown without images of a split
    if config.robustness and shape != SHAPE:
        raise ValueError(must_be("robustness", f"false with images of {shape}", config.robustness))
    is_dark_on_light = any(net.is_on_light for net in nets)
    if is_dark_on_light and (drawn := [s for s in suites_of(config) if s in LIGHT_ON_BLACK]):
        allowed = "[adversarial, certified] with images that are dark on light"
        raise ValueError(must_be("robustness", allowed, ", ".join(drawn)))
    if config.shifts and (shape[0] > 1 or is_dark_on_light):
        allowed = "0 with images that are not light on black"
        raise ValueError(must_be("shifts", allowed, config.shifts))
    if isinstance(data, CollectedDataModule) and data.is_scaled:
        for key, given, usual in (
            ("robustness", config.robustness, "false"),
            ("shifts", config.shifts, "0"),
        ):
            if given:
                allowed = f"{usual} with images beyond [0, 1], as normalised ones are"
                raise ValueError(must_be(key, allowed, given))


def suites_of(config: Evaluation) -> Sequence[str]:
    """Return the suites of robustness that an evaluation measures."""
    return DEFAULT if config.robustness is True else config.robustness or ()


def splits_of(config: Evaluation) -> set[str]:
    """Return the splits that an evaluation reads; a temperature is fitted on val."""
    return {config.split, "val"} if config.temperature else {config.split}


def load_images(
    config: Evaluation, ours: Mapping[Path, Trained], others: Mapping[Path, Trained]
) -> ImageDataModule:
    """Make the data module of an evaluation, see `make_data`, and load its images."""
    data = make_data(config, ours, others)
    if not isinstance(data, CollectedDataModule):
        data.prepare_data()
        data.setup()
    if missing := splits_of(config) - data.rows.keys():
        raise ValueError(f"{data.name} has no images of split {min(missing)}")
    return data


def check_classes(nets: Sequence[Trained], classes: Sequence[str], name: str) -> None:
    """Raise ValueError unless a label means the same to all networks and in the data.

    Networks and data of unknown classes are not compared.
    """
    for net in nets:
        if not (net.classes and classes):
            continue
        for label, (known, found) in enumerate(zip_longest(net.classes, classes)):
            if found != known:
                key = f"label {label} of data.name={name}"
                raise ValueError(must_be(key, f"{shown(known)}, as in training", found))


def check_held_out(nets: Sequence[Trained], config: Evaluation) -> None:
    """Raise ValueError unless the images of val and train are those of all networks' training."""
    if config.split == "test" and not config.temperature:
        return
    schema.check_files(config.data)
    wanted = "temperature=true" if config.split == "test" else f"split={config.split}"
    for net in nets:
        trained = net.data.get("custom") or net.data
        keys = ["val_fraction", "fold", "split"]
        keys += ["fingerprint"] * bool(trained.get("fingerprint"))  # data made in Python have none
        if config.split == "train":
            keys += ["per_class", *["seed"] * bool(trained.get("per_class"))]
        for key in keys:
            if (given := config.data.get(key)) != (known := trained.get(key)):
                allowed = f"{shown(known)} with {wanted}, as in training"
                raise ValueError(must_be(f"data.{key}", allowed, given))


def draw_outcome(
    outcome: Mapping[str, Any],
    predictions: Predictions,
    data: ImageDataModule,
    people: pd.DataFrame | None,
) -> dict[str, bytes]:
    """Draw an evaluation's figures, and return them as PNG files by name.

    Args:
        people: each writer's accuracy, see `scores.each_writer`; None where no writer is known.
    """
    split, wrong = outcome["split"], outcome["mistakes"]
    places = scores.most_confident_mistakes(predictions)[: len(wrong)]
    images = data.splits[split][0][places].cpu().numpy()
    title = f"{data.name}, {split}: {outcome['errors']:,} of {outcome['images']:,} images wrong"
    counts, confidence, accuracy = (x.numpy() for x in scores.bin_confidence(predictions))
    figures = {
        "confusion": evaluation.confusion(np.array(outcome["confusion"]), data.classes, title),
        "mistakes": evaluation.mistakes(
            images, wrong, title, white_on_black=isinstance(data, MNISTDataModule)
        ),
        "reliability": evaluation.reliability(counts, confidence, accuracy, title),
    }
    if people is not None:
        figures["writers"] = evaluation.writers(people["acc"].to_numpy(), title)
    drawn = {}
    for name, figure in figures.items():
        file = io.BytesIO()
        figure.savefig(file, dpi=150)
        drawn[f"{name}.png"] = file.getvalue()
    return drawn


def write_outcome(
    folder: Path,
    values: Mapping[str, Any],
    outcome: Mapping[str, Any],
    predictions: Predictions,
    data: ImageDataModule,
) -> None:
    """Write an evaluation's files and figures to its folder, replacing earlier ones.

    Args:
        values: the resolved configuration, saved as well.
    """
    split = outcome["split"]
    writers = data.split_writers(split)
    people = scores.each_writer(predictions, writers) if writers else None
    # before writing: half an outcome is none
    figures = draw_outcome(outcome, predictions, data, people)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(outcome, folder / EVALUATION)  # first, see there
    (folder / CONFIG.parent).mkdir(exist_ok=True)
    OmegaConf.save(values, cleared(folder / CONFIG))
    table = pd.DataFrame(predictions.probabilities.numpy()).add_prefix("p")
    table.insert(0, "index", data.rows[split].numpy())
    table.insert(1, "label", predictions.labels.numpy())
    table.insert(2, "prediction", predictions.predicted.numpy())
    if files := data.split_files(split):
        table.insert(1, "file", files)
    table.to_csv(cleared(folder / "predictions.csv"), index=False, float_format="%.6g")
    for name in ("writers.csv", "writers.png"):  # of an earlier set; not every set has writers
        (folder / name).unlink(missing_ok=True)
    if people is not None:
        people.to_csv(folder / "writers.csv", index=False)
    for name, figure in figures.items():
        cleared(folder / name).write_bytes(figure)


def print_outcome(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Print the evaluation's tables and the names of its files."""
    console = terminal.console()
    totals = pd.DataFrame(total_rows(outcome), columns=["", outcome["split"]])
    console.print(screen_table(totals))
    if robustness := outcome.get("robustness"):
        console.print(screen_table(robustness_table(robustness["networks"])))
    files = [file.name for kind in ("csv", "png") for file in sorted(folder.glob(f"*.{kind}"))]
    console.print(f"{folder}: {', '.join([EVALUATION, *files])}")


def robustness_table(networks: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the accuracies of each network by condition as text, `-` where it has none."""
    by_network = pd.json_normalize(networks, sep=" ").set_index("network")
    conditions = by_network.astype(object).T.reset_index(names="condition")
    known = conditions.where(conditions.notna(), "-")
    return known.map(lambda x: f"{x:.2%}" if isinstance(x, float) else str(x))


def total_rows(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each measurement."""
    yield "images", f"{outcome['images']:,} of {outcome['data']['name']}"
    yield "accuracy", with_interval(outcome)
    if labels := outcome.get("labels"):
        for name, figures in labels.items():
            yield f"{figures['images']:,} {name} labels", f"{figures['acc']:.2%}"
    if writers := outcome["writers"]:
        low, high = writers["acc_95"]
        yield f"of {writers['writers']} writers", f"95 % for other writers: {low:.2%} to {high:.2%}"
        worst = writers["worst_decile"]
        yield f"the {worst['writers']} worst writers", f"{worst['mean_acc']:.2%} on average"
    if other := outcome.get("compare"):
        low, high = other["difference_95"]
        yield "compared with", with_interval(other)
        interval = f"(95 % over {other['over']}: {low:+.2%} to {high:+.2%})"
        yield "difference", f"{other['difference']:+.2%}  {interval}"
        yield "McNemar's test", f"p = {other['mcnemar_p']:.2g}"
    if len(outcome["networks"]) > 1:
        alone = pd.Series([network["acc"] for network in outcome["networks"]])
        yield "each network alone", f"{alone.mean():.2%} ± {alone.std():.2%} (mean ± std)"
    yield "loss (mean NLL)", f"{outcome['loss']:.4f}"
    yield "calibration error", f"{outcome['ece']:.2%}"
    if fitted := outcome.get("temperature"):
        after = f"loss {fitted['loss']:.4f}, calibration error {fitted['ece']:.2%}"
        yield f"at temperature {fitted['value']:.3f}", f"{after}, fitted on val"


def with_interval(part: Mapping[str, Any]) -> str:
    """Format an accuracy with its 95 % interval and the number of errors."""
    low, high = part["acc_95"]
    return f"{part['acc']:.2%}  (95 %: {low:.2%} to {high:.2%}), {part['errors']:,} wrong"
