"""Evaluates one network or several: python -m mnist_cnn.evaluate ckpt_path=... [key=value ...]"""

import csv
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn import config, runs, terminal
from mnist_cnn.command import command

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_cnn.scores import Answers
    from mnist_cnn.trained import Trained

LISTED = 20  # networks in the printed table; evaluation.json has them all


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores a network, or several as one, on one split and fills cfg.run_dir.

    Several answer by the mean of their probabilities (B. Lakshminarayanan et al., Simple and
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
    config.check(cfg, "evaluate")
    runs.check_evaluation(Path(cfg.run_dir))

    # the heavy imports: after the check, so that --help and mistakes are answered at once
    import torch
    from hydra.utils import instantiate
    from rich.progress import Progress

    from mnist_cnn import results, scores, sources, trained

    device = pick_device(cfg.device)
    several = OmegaConf.is_list(cfg.ckpt_path)
    files = runs.networks(list(cfg.ckpt_path) if several else [cfg.ckpt_path])
    nets = trained.load_all(files)
    if cfg.split != "test" or cfg.temperature:
        check_held_out(nets, cfg)
    for net in nets:
        net.to(device)
        net.mean = net.mean if cfg.data.mean is None else cfg.data.mean
        net.std = net.std if cfg.data.std is None else cfg.data.std
    # pixels in [0, 1]: each network normalises them for itself, after they are shifted
    data = instantiate(cfg.data, mean=0, std=1, _execution_whitelist_=config.TARGETS)
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

    def ask(split: str) -> list["Answers"]:
        batches = bar.track(data.loader(split, cfg.data.eval_batch_size), description=split)
        return scores.ask([net.logits for net in nets], batches, device, cfg.shifts)

    with bar:
        said = {split: ask(split) for split in dict.fromkeys(wanted)}
    answers, rows = scores.together(said[cfg.split]), data.rows[cfg.split]
    alone = [scores.proportion(single.hits) for single in said[cfg.split]]
    accuracies = [part["acc"] for part in alone]
    worst = scores.most_confident_mistakes(answers)[: cfg.mistakes]
    wrong_labels = sources.SETS[cfg.data.name].wrong_test_labels if cfg.split == "test" else ()
    outcome = {
        "ckpt_path": [str(file) for file in files] if several else str(files[0]),
        "split": cfg.split,
        "shifts": cfg.shifts,
        "networks": [
            {"ckpt_path": str(file), "mean": net.mean, "std": net.std, **proportion}
            for file, net, proportion in zip(files, nets, alone, strict=True)
        ],
        "networks_acc": {
            "mean": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if len(nets) > 1 else None,
        },
        "data": OmegaConf.to_container(cfg.data, resolve=True),
        **scores.summary(answers, data.classes),
        "without_wrong_labels": None,
        "temperature": None,
        "mistakes": [
            {
                "index": int(rows[k]),
                "label": data.classes[answers.labels[k]],
                "prediction": data.classes[answers.predictions[k]],
                "confidence": answers.confidence[k].item(),
            }
            for k in worst
        ],
    }
    if wrong_labels:
        right = ~torch.isin(rows, torch.tensor(wrong_labels))
        outcome["without_wrong_labels"] = scores.proportion(answers.hits[right])
    calibration = {"": answers}
    if cfg.temperature:
        t = scores.fit_temperature(scores.together(said["val"]))
        calibration = {"as trained": answers, f"temperature {t:.3f}": answers.at_temperature(t)}
        outcome["temperature"] = {
            "value": t,
            "fitted_on": "val",
            **scores.calibration(answers.at_temperature(t)),
        }

    folder = Path(cfg.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results.write(outcome, folder / "evaluation.json")
    write_predictions(folder / "predictions.csv", rows, answers)
    draw(folder, outcome, data.splits[cfg.split][0][worst, 0], calibration, data.classes)
    show(outcome, folder)
    return outcome


def check_held_out(nets: "Sequence[Trained]", cfg: DictConfig) -> None:
    """Raises ValueError unless the split is that of the training of all networks."""
    wanted = "temperature=true" if cfg.split == "test" else f"split={cfg.split}"
    for key in ("val_fraction", "fold"):
        values = list(dict.fromkeys(net.about["data"][key] for net in nets))
        if len(values) > 1:
            raise ValueError(
                f"{wanted}: the networks were trained on different images, with data.{key}="
                f"{', '.join(map(str, values))}; allowed: split=test without temperature"
            )
        if cfg.data[key] != values[0]:
            allowed = f"{values[0]} with {wanted}, as in training"
            raise ValueError(config.must_be(f"data.{key}", allowed, cfg.data[key]))


def pick_device(name: str) -> Any:
    """The torch.device of that name; auto is the accelerator where there is one, else the CPU."""
    import torch

    best = torch.accelerator.current_accelerator(check_available=True)
    if name not in ("auto", "cpu") and (best is None or best.type != name):
        raise ValueError(
            f"device={name}: not here; allowed: auto, cpu{f', {best}' if best else ''}"
        )
    return torch.device("cpu") if name == "cpu" or best is None else best


def write_predictions(path: Path, rows: "Tensor", answers: "Answers") -> None:
    """A line an image: its row in the set's file, label, prediction, and ten probabilities."""
    columns = [f"p{k}" for k in range(answers.logits.shape[1])]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", *columns])
        for row, label, prediction, p in zip(
            rows.tolist(),
            answers.labels.tolist(),
            answers.predictions.tolist(),
            answers.probabilities.tolist(),
            strict=True,
        ):
            writer.writerow([row, label, prediction, *(f"{x:.6g}" for x in p)])


def draw(
    folder: Path,
    outcome: Mapping[str, Any],
    images: "Tensor",
    calibration: Mapping[str, "Answers"],
    classes: Sequence[str],
) -> None:
    """The evaluation's pictures.

    Args:
        folder: where they go.
        outcome: what evaluation.json holds.
        images: uint8 (K, 28, 28), those of outcome["mistakes"].
        calibration: by title, the answers that a reliability diagram is drawn of.
        classes: the ten classes' names.
    """
    import numpy as np

    from mnist_cnn import plots, scores

    what = title(outcome)
    errors = f"{outcome['errors']:,} of {outcome['images']:,} images wrong"
    wrong = outcome["mistakes"]
    figures = {
        "confusion": plots.confusion(
            np.array(outcome["confusion"]),
            classes,
            f"{what}: accuracy {outcome['acc']:.2%}, {errors}",
        ),
        "mistakes": plots.mistakes(
            images.numpy(),
            **{
                key: [m[key] for m in wrong]
                for key in ("index", "label", "prediction", "confidence")
            },
            title=f"{what}: the {len(wrong):,} most confident mistakes; {errors}",
        ),
        "reliability": plots.reliability(
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


def title(outcome: Mapping[str, Any]) -> str:
    """What was evaluated, in a few words."""
    parts = [outcome["data"]["name"], outcome["split"]]
    if (n := len(outcome["networks"])) > 1:
        parts.append(f"{n} networks")
    if shifts := outcome["shifts"]:
        parts.append(f"shifts={shifts} ({(2 * shifts + 1) ** 2} views)")
    return ", ".join(parts)


def show(outcome: Mapping[str, Any], folder: Path) -> None:
    """Prints the evaluation's tables and where its files are."""
    from rich.columns import Columns
    from rich.table import Column, Table

    def accuracy(part: Mapping[str, Any]) -> str:
        low, high = part["acc_95"]
        return f"{part['acc']:.2%}  (95 %: {low:.2%} to {high:.2%}), {part['errors']:,} wrong"

    console = terminal.console()
    total = Table("", title(outcome))
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


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    asks = {"--help", "-h", "--hydra-help", "--version"} & set(given)
    sys.argv[1:] = given if asks else runs.as_trained(given)
    config.run(evaluate, "evaluate")


if __name__ == "__main__":
    main()
