"""Evaluates one network or several: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn import terminal
from mnist_cnn.analysis import networks
from mnist_cnn.command import command
from mnist_cnn.config import check, messages, own
from mnist_cnn.internals import entry
from mnist_cnn.runs import checks, claim

if TYPE_CHECKING:
    from mnist_cnn.analysis.scores import Predictions
    from mnist_cnn.pretrained import Trained

from mnist_cnn.analysis.evaluation import draw_evaluation, print_evaluation, write_predictions


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
    import torch
    from rich.progress import Progress

    from mnist_cnn import pretrained
    from mnist_cnn.analysis import scores
    from mnist_cnn.data import sets
    from mnist_cnn.module import check_fits
    from mnist_cnn.runs import results

    device = pick_device(cfg.device)
    several = OmegaConf.is_list(cfg.ckpt_path)
    files = networks.networks(list(cfg.ckpt_path) if several else [cfg.ckpt_path])
    nets = pretrained.load_all(files)
    if cfg.split != "test" or cfg.temperature:
        check_held_out(nets, cfg)
    for net in nets:
        net.to(device)
    data = own.make_data(cfg.data)
    for net in nets:
        check_fits(net.about["model"], data)
    data.prepare_data()
    data.setup(None if cfg.temperature else "test" if cfg.split == "test" else "fit")
    wanted = [cfg.split, "val"] if cfg.temperature else [cfg.split]
    if not set(wanted) <= data.rows.keys():
        key = "split=val" if cfg.split == "val" else "temperature=true: nothing to fit it on"
        raise ValueError(
            f"{key}: training held out no images, with data.val_fraction={cfg.data.val_fraction}"
        )
    console = terminal.console(stderr=True, soft_wrap=False)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)

    def predict(split: str) -> list["Predictions"]:
        batches = bar.track(data.loader(split, cfg.data.eval_batch_size), description=split)
        return scores.predict_batches([net.net for net in nets], batches, device, cfg.shifts)

    with bar:
        predicted = {split: predict(split) for split in dict.fromkeys(wanted)}
    predictions, rows = scores.ensemble(predicted[cfg.split]), data.rows[cfg.split]
    alone = [scores.proportion(single.hits) for single in predicted[cfg.split]]
    accuracies = [part["acc"] for part in alone]
    worst = scores.most_confident_mistakes(predictions)[: cfg.mistakes]
    known = sets.SETS.get(cfg.data.name)
    wrong_labels = known.wrong_test_labels if known and cfg.split == "test" else ()
    outcome = {
        "ckpt_path": [str(file) for file in files] if several else str(files[0]),
        "split": cfg.split,
        "shifts": cfg.shifts,
        "networks": [
            {"ckpt_path": str(file), "epoch": checks.epoch(file), **proportion}
            for file, proportion in zip(files, alone, strict=True)
        ],
        "networks_acc": {
            "mean": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if len(nets) > 1 else None,
        },
        "data": OmegaConf.to_container(cfg.data, resolve=True),
        **scores.summary(predictions, data.classes),
        "without_wrong_labels": None,
        "temperature": None,
        "mistakes": [
            {
                "index": int(rows[k]),
                "label": data.classes[predictions.labels[k]],
                "prediction": data.classes[predictions.predicted[k]],
                "confidence": predictions.confidence[k].item(),
            }
            for k in worst
        ],
    }
    if wrong_labels:
        right = ~torch.isin(rows, torch.tensor(wrong_labels))
        outcome["without_wrong_labels"] = scores.proportion(predictions.hits[right])
    calibration = {"": predictions}
    if cfg.temperature:
        t = scores.fit_temperature(scores.ensemble(predicted["val"]))
        calibration = {
            "as trained": predictions,
            f"temperature {t:.3f}": predictions.at_temperature(t),
        }
        outcome["temperature"] = {
            "value": t,
            "fitted_on": "val",
            **scores.calibration(predictions.at_temperature(t)),
        }

    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results.write(outcome, folder / "evaluation.json")
    write_predictions(folder / "predictions.csv", rows, predictions)
    draw_evaluation(folder, outcome, data.splits[cfg.split][0][worst, 0], calibration, data.classes)
    print_evaluation(outcome, folder)
    return outcome


def check_held_out(nets: "Sequence[Trained]", cfg: DictConfig) -> None:
    """Raises ValueError unless the split is that of the training of all networks."""
    wanted = "temperature=true" if cfg.split == "test" else f"split={cfg.split}"
    for key in ("val_fraction", "fold", "split"):
        default = "rows" if key == "split" else None  # earlier versions knew no other
        values = list(dict.fromkeys(net.about["data"].get(key, default) for net in nets))
        if len(values) > 1:
            raise ValueError(
                f"{wanted}: the networks were trained on different images, with data.{key}="
                f"{', '.join(map(str, values))}; allowed: split=test without temperature"
            )
        if cfg.data[key] != values[0]:
            allowed = f"{values[0]} with {wanted}, as in training"
            raise ValueError(messages.must_be(f"data.{key}", allowed, cfg.data[key]))


def pick_device(name: str) -> Any:
    """The torch.device of that name; auto is the accelerator where there is one, else the CPU."""
    import torch

    best = torch.accelerator.current_accelerator(check_available=True)
    if name not in ("auto", "cpu") and (best is None or best.type != name):
        raise ValueError(
            f"device={name}: not here; allowed: auto, cpu{f', {best}' if best else ''}"
        )
    return torch.device("cpu") if name == "cpu" or best is None else best


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help", "--version"} & set(given)
    for argument in given:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "targets":  # before as_trained reads the file, and from nowhere but the command
            own.allow([pattern for pattern in networks.listed(value) if pattern])
    entry.run(evaluate, "evaluate", given if asks else networks.as_trained(given))


if __name__ == "__main__":
    main()
