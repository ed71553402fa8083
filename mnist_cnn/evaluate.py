"""Evaluates one network or several: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mnist_cnn import terminal
from mnist_cnn.analysis import networks
from mnist_cnn.analysis.evaluation import (
    draw_evaluation,
    network_name,
    print_evaluation,
    summarize_evaluation,
    write_predictions,
    write_writers,
)
from mnist_cnn.command import command
from mnist_cnn.config import check, messages, own
from mnist_cnn.internals import entry
from mnist_cnn.runs import claim

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from mnist_cnn.analysis.scores import Predictions
    from mnist_cnn.data.datamodule import ImageDataModule
    from mnist_cnn.pretrained import Trained


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores a network, or several as one, on one split and fills cfg.run_dir.

    Several predict by the mean of their probabilities (B. Lakshminarayanan et al., Simple and
    scalable predictive uncertainty estimation using deep ensembles, NIPS 2017, section 2.4,
    https://arxiv.org/abs/1612.01474); a temperature is fitted to that mean.

    Args:
        cfg: what conf/evaluate.yaml composes to. From Python:
            `config.compose(runs.as_trained(["ckpt_path=..."]), entry="evaluate", run_dir=...)`.

    Returns:
        What evaluation.json holds.

    Raises:
        ValueError: a value that is not allowed, a file that is not what it should be, or a folder
            with files that no evaluation wrote.
    """
    check.check(cfg, "evaluate")
    claim.check_evaluation(Path(cfg.run_dir))

    # the heavy imports: after the check, so that --help and mistakes are answered at once
    from mnist_cnn import pretrained
    from mnist_cnn.analysis import scores
    from mnist_cnn.runs import results

    files = networks.networks(networks.several(cfg.ckpt_path))
    others = networks.networks(networks.several(cfg.compare)) if cfg.compare is not None else []
    nets = pretrained.load_all([*files, *others])
    data = load_images(cfg, nets)
    each = predict(cfg, nets, data, pick_device(cfg.device))  # by split, of each network
    predictions = scores.ensemble(each[cfg.split][: len(files)])
    outcome = summarize_evaluation(cfg, files, others, each, data)
    if cfg.robustness:
        outcome["robustness"] = measure_suites(cfg, files, nets, data)
    calibration = {"": predictions}
    if fitted := outcome["temperature"]:
        cooled = predictions.at_temperature(fitted["value"])
        calibration = {"as trained": predictions, f"temperature {fitted['value']:.3f}": cooled}

    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results.write(outcome, folder / "evaluation.json")
    write_predictions(folder / "predictions.csv", data.rows[cfg.split], predictions)
    if known := data.split_writers(cfg.split):
        write_writers(folder / "writers.csv", predictions, known)
    draw_evaluation(folder, outcome, data, calibration)
    print_evaluation(outcome, folder)
    return outcome


def load_images(cfg: DictConfig, nets: "Sequence[Trained]") -> "ImageDataModule":
    """The data of an evaluation, with the splits that it needs.

    Raises:
        ValueError: they are not what the networks take, or not what training held out.
    """
    from mnist_cnn.data.collected import CollectedDataModule
    from mnist_cnn.data.datamodule import ImageDataModule
    from mnist_cnn.module import check_fits

    made = own.make_data(cfg.data)
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
        raise ValueError(messages.must_be("split", allowed, cfg.split))
    if "val" in (cfg.split, "val" * cfg.temperature) and "val" not in data.rows:
        key = "split=val" if cfg.split == "val" else "temperature=true: nothing to fit it on"
        raise ValueError(
            f"{key}: training held out no images, with data.val_fraction={data.val_fraction}"
        )
    return data


def progress() -> "Progress":
    """A bar on stderr, where that is a terminal."""
    from rich.progress import Progress

    console = terminal.console(stderr=True, soft_wrap=False)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def predict(
    cfg: DictConfig, nets: "Sequence[Trained]", data: "ImageDataModule", device: "torch.device"
) -> "dict[str, list[Predictions]]":
    """Each network's predictions of the split, and of `val` where a temperature is fitted."""
    from mnist_cnn.analysis import scores

    modules = [net.to(device).net for net in nets]
    predicted = {}
    with progress() as bar:
        for split in dict.fromkeys([cfg.split, *["val"] * cfg.temperature]):
            batches = data.loader(split, data.eval_batch_size)
            shown = bar.track(batches, description=split)
            predicted[split] = scores.predict_batches(modules, shown, device, cfg.shifts)
    return predicted


def measure_suites(
    cfg: DictConfig, files: Sequence[Path], nets: "Sequence[Trained]", data: "ImageDataModule"
) -> dict[str, Any]:
    """What the suites of cfg.robustness give of each network of `files` alone."""
    from mnist_cnn.analysis.robustness.suites import SUITES, measure_robustness

    modules = {
        network_name(file): net.net for file, net in zip(files, nets[: len(files)], strict=True)
    }
    suites = SUITES if cfg.robustness is True else cfg.robustness
    with progress() as bar:
        return measure_robustness(modules, data, cfg.split, suites, pick_device(cfg.device), bar)


def check_held_out(nets: "Sequence[Trained]", cfg: DictConfig) -> None:
    """Raises ValueError unless the split is that of the training of all networks."""
    wanted = "temperature=true" if cfg.split == "test" else f"split={cfg.split}"
    for key in ("val_fraction", "fold", "split"):
        default = "rows" if key == "split" else None  # earlier versions knew no other
        values = list(dict.fromkeys(net.about["data"].get(key, default) for net in nets))
        if len(values) > 1:
            which = f"networks of different data.{key} ({', '.join(map(str, values))})"
            allowed = "split=test without temperature"
            raise ValueError(messages.must_be(f"what is evaluated of {which}", allowed, wanted))
        if cfg.data[key] != values[0]:
            allowed = f"{values[0]} with {wanted}, as in training"
            raise ValueError(messages.must_be(f"data.{key}", allowed, cfg.data[key]))


def pick_device(name: str) -> Any:
    """The torch.device of that name; auto is the accelerator where there is one, else the CPU."""
    import torch

    best = torch.accelerator.current_accelerator(check_available=True)
    if name not in ("auto", "cpu") and (best is None or best.type != name):
        here = messages.either(["auto", "cpu", *([best.type] if best else [])])
        raise ValueError(messages.must_be("device", f"{here} on this machine", name))
    return torch.device("cpu") if name == "cpu" or best is None else best


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help"} & set(given)
    own.allow_given(given)  # before as_trained reads the file, and from nowhere but the command
    entry.run(evaluate, "evaluate", given if asks else networks.as_trained(given))


if __name__ == "__main__":
    main()
