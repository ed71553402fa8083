"""What TensorBoard, W&B and MLflow show of a finished run beside its curves."""

import itertools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch.fx
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.versions_pb2 import VersionDef
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.utils.tensorboard import SummaryWriter

from mnist_cnn.analysis import scores
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.optim import class_name
from mnist_cnn.plots import evaluation
from mnist_cnn.runs.folder import BEST

log = logging.getLogger(__name__)

VAL, TEST = ("val/acc", "val/loss"), ("test/acc", "test/loss")


def write_results(
    trainer: L.Trainer,
    module: DigitClassifier,
    data: ImageDataModule,
    outcome: Mapping[str, Any],
) -> None:
    """Fills each logger of a trainer that has finished: TensorBoard, W&B and MLflow.

    The mistakes are those on the validation images; those on the test images are left to
    `evaluate`, so that nobody tunes by them in passing.

    Args:
        trainer: it has fitted the module to the data.
        module: with the weights that were kept.
        data: what it was trained on.
        outcome: what results.json holds.
    """
    kinds = (TensorBoardLogger, WandbLogger, MLFlowLogger)
    loggers = [logger for logger in trainer.loggers if isinstance(logger, kinds)]
    if not loggers or not trainer.is_global_zero:
        return
    module.eval()
    drawn: dict[str, Any] = {}
    predictions: scores.Predictions | None = None
    if isinstance(data, ImageDataModule):  # and none of the user's own
        drawn["train/batch"] = first_batch(data)
        if "val" in data.splits:
            loader = data.loader("val", data.eval_batch_size, rank=0, world_size=1)
            limit = trainer.limit_val_batches
            count = limit if isinstance(limit, int) else int(limit * len(loader))
            batches = itertools.islice(loader, count)
            (predictions,) = scores.predict_batches([module], batches, trainer.strategy.root_device)
            drawn |= outcomes(data, predictions)
    folder = Path(trainer.default_root_dir)
    results = {f"results/{key}": v for key, v in outcome.items() if isinstance(v, (int, float))}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            fill_wandb(logger, drawn, folder, results)
        elif isinstance(logger, MLFlowLogger):
            fill_mlflow(logger, drawn, folder, results)
        else:
            step, writer = trainer.global_step, logger.experiment
            for name, figure in drawn.items():
                writer.add_figure(name, figure, step)
            if predictions:
                for k, name in enumerate(data.classes):
                    found, truth = predictions.probabilities[:, k], predictions.labels == k
                    writer.add_pr_curve(f"val/{name}", truth, found, step)
            compared = {f"best/{key}": outcome[key] for key in VAL if key in outcome}
            compared |= {key: outcome[key] for key in TEST if key in outcome}
            logger.log_hyperparams(compare_by(outcome["config"]), compared, step)
            if (example := module.example_input_array) is not None:
                add_graph(writer, module.net, example.to(module.device))
            logger.finalize("success")


def fill_wandb(
    logger: WandbLogger, drawn: Mapping[str, Any], folder: Path, results: Mapping[str, float]
) -> None:
    """Logs figures, history.png, the results and the best checkpoint."""
    import wandb

    run = logger.experiment
    images = {name: wandb.Image(figure) for name, figure in drawn.items()}
    run.log({**images, "history": wandb.Image(str(folder / "history.png"))})
    run.summary.update(results)
    if (folder / BEST).is_file():
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        artifact.add_file(str(folder / BEST))
        run.log_artifact(artifact, aliases=["best"])
    run.finish()


def fill_mlflow(
    logger: MLFlowLogger, drawn: Mapping[str, Any], folder: Path, results: Mapping[str, float]
) -> None:
    """The same for MLflow."""
    client, run = logger.experiment, str(logger.run_id)
    for name, figure in drawn.items():
        client.log_figure(run, figure, f"{name}.png")
    client.log_artifact(run, str(folder / "history.png"))
    if (folder / BEST).is_file():
        client.log_artifact(run, str(folder / BEST), "checkpoints")
    logger.log_metrics(results)
    client.set_terminated(run)


def first_batch(data: ImageDataModule) -> Any:
    """Images as the network sees them in training."""
    x, y = (part[:64].cpu() for part in next(iter(data.train_dataloader())))
    return evaluation.gallery(
        x[:, 0].numpy(),
        [data.classes[label] for label in y],
        f"first images of a batch: mean {x.mean():.2f}, std {x.std():.2f}",
    )


def outcomes(data: ImageDataModule, predictions: scores.Predictions) -> dict[str, Any]:
    """How the predictions of the first validation images went."""
    n = len(predictions.labels)
    worst = scores.most_confident_mistakes(predictions)[:30]
    wrong = int((~predictions.hits).sum())
    what = f"{n:,} validation images of {data.name}, {wrong:,} wrong"
    return {
        "val/confusion": evaluation.confusion(
            scores.confusion_matrix(predictions).numpy(),
            data.classes,
            f"the kept weights on {what}",
        ),
        "val/mistakes": evaluation.mistakes(
            data.splits["val"][0][worst, 0].cpu().numpy(),
            scores.list_mistakes(predictions, data.rows["val"], data.classes, 30),
            f"the most confident mistakes on {what}",
        ),
    }


def compare_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that runs are compared by, under their plain names; the rest is in results.json.

    TensorBoard takes its columns from one of the runs, so each is always there.
    """
    model, optimizer, scheduler = (config[group] for group in ("model", "optimizer", "scheduler"))
    flat = {
        "model": class_name(model),
        **{key: model.get(key, "none") for key in ("channels", "hidden", "dropout")},
        "optimizer": class_name(optimizer),
        **{key: optimizer.get(key, "none") for key in ("lr", "weight_decay")},
        "scheduler": class_name(scheduler),
        **{key: config["data"].get(key, "none") for key in ("batch_size", "fold")},
        "max_epochs": config["trainer"]["max_epochs"],
        **{key: config[key] for key in ("label_smoothing", "seed")},
    }
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value).lower()
        for key, value in flat.items()
    }


def add_graph(writer: SummaryWriter, net: nn.Module, example: Tensor) -> None:
    """Writes the network's graph, or logs why there is none: a finished run does not fail by it."""
    try:
        drawn = graph(net, example)
    except Exception as e:  # whatever the network's own code raises on the tracer's values
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        log.warning("no graph for TensorBoard, torch.fx cannot trace the network: %s", reason)
    else:
        events: Any = writer.file_writer  # declared as None
        events.add_event(Event(graph_def=drawn.SerializeToString()))


def graph(net: nn.Module, example: Tensor) -> GraphDef:
    """The network as TensorBoard draws it: a node for each layer and function, with its output.

    torch.fx traces it, since SummaryWriter.add_graph uses torch.jit.trace, which is deprecated
    since torch 2.14.

    Args:
        net: in eval mode; no branch of its forward depends on the images.
        example: images (B, 1, 28, 28); the outputs' shapes are those for this batch.
    """
    traced = torch.fx.symbolic_trace(net)
    ShapeProp(traced).propagate(example)
    drawn: dict[torch.fx.Node, NodeDef] = {}
    for node in traced.graph.nodes:
        scopes = list(node.meta.get("nn_module_stack", ()))  # "layers", "layers.0"
        kind = re.sub(r"_\d+$", "", node.name)
        if node.op == "call_module":
            kind = type(traced.get_submodule(node.target)).__name__
            scopes.pop()  # the layer itself
        path = [*(scopes[-1].split(".") if scopes else ()), node.name]
        inputs = [drawn[given].name for given in node.all_input_nodes]
        drawn[node] = NodeDef(name="/".join(path), op=kind, input=inputs)
        output = node.meta.get("tensor_meta")
        if isinstance(output, TensorMetadata):
            shape = drawn[node].attr["_output_shapes"].list.shape.add()
            for size in output.shape:
                shape.dim.add(size=size)
    return GraphDef(node=drawn.values(), versions=VersionDef(producer=22))
