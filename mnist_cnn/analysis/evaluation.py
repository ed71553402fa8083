"""The figures of an evaluation: the content of evaluation.json."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mnist_cnn import pretrained
from mnist_cnn.analysis import by_writer, scores
from mnist_cnn.analysis.networks import network_files, network_name
from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.robustness.suites import DEFAULT, measure_robustness
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import plain
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.custom import CollectedDataModule
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.mnist import WRONG_TEST_LABELS
from mnist_cnn.module import check_fits
from mnist_cnn.pretrained import Trained


def measure(cfg: DictConfig) -> tuple[dict[str, Any], Predictions, ImageDataModule]:
    """The content of evaluation.json, the predictions of all networks as one, and their data.

    Raises:
        ValueError: the networks, the data, the split and the device do not go together.
    """
    files, split = network_files(cfg.ckpt_path), cfg.split
    others = network_files(cfg.compare) if cfg.compare is not None else []
    loaded = pretrained.load_all([*files, *others])
    n, device = len(files), pick_device(cfg.device)
    data = load_images(cfg, loaded)
    nets = [trained.to(device).net for trained in loaded]

    def predict(nets: Sequence[nn.Module], split: str) -> list[Predictions]:
        batches = track(data.loader(split, data.eval_batch_size), split)
        return scores.predict_batches(nets, batches, device, cfg.shifts)

    each = predict(nets, split)
    predictions, writers = scores.ensemble(each[:n]), data.split_writers(split)
    compared = calibrated = robustness = None
    if others:
        other = scores.ensemble(each[n:])
        compared = {
            "ckpt_path": list(map(str, others)),
            **scores.proportion(other.hits),
            **by_writer.difference(predictions, other, writers and writers.writer),
        }
    if cfg.temperature:
        held_out = scores.ensemble(each[:n] if split == "val" else predict(nets[:n], "val"))
        t = scores.fit_temperature(held_out)
        after = scores.calibration(predictions.at_temperature(t))
        calibrated = {"value": t, "fitted_on": "val", **after}
    if cfg.robustness:
        suites = DEFAULT if cfg.robustness is True else cfg.robustness
        named = dict(zip(map(network_name, files), nets, strict=False))
        robustness = measure_robustness(named, data, split, suites, device)
    outcome = {
        "ckpt_path": list(map(str, files)) if OmegaConf.is_list(cfg.ckpt_path) else str(files[0]),
        "split": split,
        "shifts": cfg.shifts,
        **each_alone(files, loaded, each),
        "data": {"name": data.name, **plain(cfg, "data")},
        **scores.summary(predictions, data.classes),
        "without_wrong_labels": without_wrong_labels(split, predictions, data),
        "writers": writers and by_writer.writer_summary(predictions, writers),
        "compare": compared,
        "robustness": robustness,
        "temperature": calibrated,
        "mistakes": scores.list_mistakes(predictions, data.rows[split], data.classes, cfg.mistakes),
    }
    return outcome, predictions, data


def each_alone(
    files: Sequence[Path], loaded: Sequence[Trained], each: Sequence[Predictions]
) -> dict[str, Any]:
    """The parts `networks` and `networks_acc` of evaluation.json."""
    networks = [
        {"ckpt_path": str(file), "epoch": trained.epoch, **scores.proportion(alone.hits)}
        for file, trained, alone in zip(files, loaded, each, strict=False)  # the rest are compared
    ]
    accuracies = [part["acc"] for part in networks]
    std = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return {"networks": networks, "networks_acc": {"mean": statistics.mean(accuracies), "std": std}}


def load_images(cfg: DictConfig, nets: Sequence[Trained]) -> ImageDataModule:
    """The data of an evaluation, with the splits that it needs.

    Raises:
        ValueError: the data are not of the kind that the networks take, or the split is not that
            of their training.
    """
    needed = {cfg.split, "val"} if cfg.temperature else {cfg.split}
    wanted = "temperature=true" if needed == {"test", "val"} else f"split={cfg.split}"
    made = instantiate.make_data(cfg.data)
    data = made if isinstance(made, ImageDataModule) else CollectedDataModule(made)
    if data is made:
        if needed != {"test"}:
            check_held_out(nets, cfg, wanted)
        for net in nets:
            check_fits(net.about["model"], data)
    data.prepare_data()
    data.setup(None if cfg.temperature else "test" if cfg.split == "test" else "fit")
    if missing := needed - data.rows.keys():
        raise ValueError(f"{wanted}: {data.name} has no images of split {min(missing)}")
    return data


def check_held_out(nets: Sequence[Trained], cfg: DictConfig, wanted: str) -> None:
    """Raise ValueError unless cfg.data splits the training file as the training of all nets did.

    Args:
        wanted: what needs this split, for the message.
    """
    for key in ("val_fraction", "fold", "split"):
        values = list(dict.fromkeys(net.about["data"].get(key) for net in nets))
        if len(values) > 1:
            trained = f"networks trained with different data.{key} ({', '.join(map(str, values))})"
            raise ValueError(f"{wanted}: {trained} share no images that none was trained on")
        if cfg.data[key] != values[0]:
            allowed = f"{values[0]} with {wanted}, as in training"
            raise ValueError(must_be(f"data.{key}", allowed, cfg.data[key]))


def pick_device(name: str) -> torch.device:
    """The device of that name; auto is the accelerator where there is one, else the CPU."""
    cpu = torch.device("cpu")
    best = torch.accelerator.current_accelerator(check_available=True) or cpu
    if name not in ("auto", "cpu", best.type):
        raise ValueError(must_be("device", f"auto, cpu or one of this machine ({best})", name))
    return cpu if name == "cpu" else best


def without_wrong_labels(
    split: str, predictions: Predictions, data: ImageDataModule
) -> dict[str, Any] | None:
    """The accuracy on test images without the wrong labels; None where none are known."""
    if split != "test" or data.name != "mnist":
        return None
    right = ~torch.isin(data.rows["test"], torch.tensor(WRONG_TEST_LABELS))
    return scores.proportion(predictions.hits[right])
