"""What an evaluation measures."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mnist_cnn import pretrained
from mnist_cnn.analysis import by_writer, scores
from mnist_cnn.analysis.networks import network_name, networks
from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.robustness.suites import SUITES, measure_robustness
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import plain
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.data.custom import CollectedDataModule
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.mnist import WRONG_TEST_LABELS
from mnist_cnn.module import check_fits
from mnist_cnn.pretrained import Trained


def measure(cfg: DictConfig) -> tuple[dict[str, Any], Predictions, ImageDataModule]:
    """What evaluation.json holds, the predictions of all networks as one, and their data."""
    files = networks(cfg.ckpt_path)
    others = networks(cfg.compare) if cfg.compare is not None else []
    nets = pretrained.load_all([*files, *others])
    data, device = load_images(cfg, nets), pick_device(cfg.device)
    each = predict(cfg, nets, data, device)  # by split, of each network
    n, split = len(files), cfg.split
    predictions, known = scores.ensemble(each[split][:n]), data.split_writers(split)
    alone = [scores.proportion(single.hits) for single in each[split][:n]]
    accuracies = [part["acc"] for part in alone]
    outcome: dict[str, Any] = {
        "ckpt_path": list(map(str, files)) if OmegaConf.is_list(cfg.ckpt_path) else str(files[0]),
        "split": split,
        "shifts": cfg.shifts,
        "networks": [
            {"ckpt_path": str(file), "epoch": net.epoch, **part}
            for file, net, part in zip(files, nets[:n], alone, strict=True)
        ],
        "networks_acc": {
            "mean": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if n > 1 else None,
        },
        "data": {"name": data.name, **plain(cfg, "data")},
        **scores.summary(predictions, data.classes),
        "without_wrong_labels": without_wrong_labels(split, predictions, data),
        "writers": known and by_writer.writer_summary(predictions, known),
        "compare": None,
        "robustness": None,
        "temperature": None,
        "mistakes": scores.list_mistakes(predictions, data.rows[split], data.classes, cfg.mistakes),
    }
    if others:
        other = scores.ensemble(each[split][n:])
        outcome["compare"] = {
            "ckpt_path": list(map(str, others)),
            **scores.proportion(other.hits),
            **by_writer.difference(predictions, other, known and known.writer),
        }
    if cfg.temperature:
        t = scores.fit_temperature(scores.ensemble(each["val"][:n]))
        cooled = scores.calibration(predictions.at_temperature(t))
        outcome["temperature"] = {"value": t, "fitted_on": "val", **cooled}
    if cfg.robustness:
        suites = SUITES if cfg.robustness is True else cfg.robustness
        named = {network_name(file): net.net for file, net in zip(files, nets[:n], strict=True)}
        outcome["robustness"] = measure_robustness(named, data, split, suites, device)
    return outcome, predictions, data


def load_images(cfg: DictConfig, nets: Sequence[Trained]) -> ImageDataModule:
    """The data of an evaluation, with the splits that it needs.

    Raises:
        ValueError: they are not what the networks take, or not what training held out.
    """
    made = instantiate.make_data(cfg.data)
    ours = isinstance(made, ImageDataModule)
    data = made if ours else CollectedDataModule(made)
    if ours and (cfg.split != "test" or cfg.temperature):
        check_held_out(nets, cfg)
    for net in nets if ours else ():
        check_fits(net.about["model"], data)
    data.prepare_data()
    data.setup(None if cfg.temperature else "test" if cfg.split == "test" else "fit")
    if not ours and cfg.split not in data.rows:
        allowed = f"test or val, as far as {data.name} has batches of it"
        raise ValueError(must_be("split", allowed, cfg.split))
    if (cfg.temperature or cfg.split == "val") and "val" not in data.rows:
        key = "split=val" if cfg.split == "val" else "temperature=true: nothing to fit it on"
        raise ValueError(
            f"{key}: training held out no images, with data.val_fraction={data.val_fraction}"
        )
    return data


def check_held_out(nets: Sequence[Trained], cfg: DictConfig) -> None:
    """Raises ValueError unless the split is that of the training of all networks."""
    wanted = "temperature=true" if cfg.split == "test" else f"split={cfg.split}"
    for key in ("val_fraction", "fold", "split"):
        default = "rows" if key == "split" else None  # earlier versions knew no other
        values = list(dict.fromkeys(net.about["data"].get(key, default) for net in nets))
        if len(values) > 1:
            which = f"networks of different data.{key} ({', '.join(map(str, values))})"
            allowed = "split=test without temperature"
            raise ValueError(must_be(f"what is evaluated of {which}", allowed, wanted))
        if cfg.data[key] != values[0]:
            allowed = f"{values[0]} with {wanted}, as in training"
            raise ValueError(must_be(f"data.{key}", allowed, cfg.data[key]))


def pick_device(name: str) -> torch.device:
    """The device of that name; auto is the accelerator where there is one, else the CPU."""
    best = torch.accelerator.current_accelerator(check_available=True)
    if name not in ("auto", "cpu") and (best is None or best.type != name):
        here = either(["auto", "cpu", *([best.type] if best else [])])
        raise ValueError(must_be("device", f"{here} on this machine", name))
    return torch.device("cpu") if name == "cpu" or best is None else best


def predict(
    cfg: DictConfig, nets: Sequence[Trained], data: ImageDataModule, device: torch.device
) -> dict[str, list[Predictions]]:
    """Each network's predictions of the split, and of `val` where a temperature is fitted."""
    modules = [net.to(device).net for net in nets]
    predicted = {}
    for split in dict.fromkeys([cfg.split, *["val"] * cfg.temperature]):
        batches = track(data.loader(split, data.eval_batch_size), split)
        predicted[split] = scores.predict_batches(modules, batches, device, cfg.shifts)
    return predicted


def without_wrong_labels(
    split: str, predictions: Predictions, data: ImageDataModule
) -> dict[str, Any] | None:
    """The accuracy on test images without the wrong labels; None where none are known."""
    if split != "test" or data.name != "mnist":
        return None
    right = ~torch.isin(data.rows["test"], torch.tensor(WRONG_TEST_LABELS))
    return scores.proportion(predictions.hits[right])
