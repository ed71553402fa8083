"""Pictures of a test: the confusion matrix, and images that were mistaken."""

from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure

from mnist_cnn.data.datamodule import ImageDataModule, MNISTDataModule, class_names
from mnist_cnn.metrics import EpochMetrics, rows_of_test
from mnist_cnn.plots import evaluation

MISTAKES, COLUMNS = 12, 4  # images that are drawn; inches are few, as they are shown small
INCHES = 5
MOST = 20  # classes of a matrix that can be read at this size


def draw_test(trainer: L.Trainer, module: Any) -> dict[str, Figure]:
    """Draw the last test of a classifier as `confusion` and `most_confident`, in the first process.

    There are none of a module without EpochMetrics or of a set so large that its logits were not
    kept, and no images of a user's own data.
    """
    from mnist_cnn.analysis import scores  # SciPy takes a second

    found = getattr(module, "epoch_metrics", None)
    epoch = found.get("test") if isinstance(found, dict) else None
    if not isinstance(epoch, EpochMetrics):
        return {}
    data = trainer.datamodule  # type: ignore[attr-defined]  # untyped
    in_memory = isinstance(data, ImageDataModule)
    parts: list[Any] = [None]
    if sum(map(len, epoch.labels)) == epoch.images:
        labels = torch.cat(epoch.labels).cpu()
        rows = rows_of_test(trainer, len(labels)) if in_memory else torch.arange(len(labels))
        parts = [(torch.cat(epoch.logits).cpu(), labels, rows)]
    if trainer.world_size > 1:
        parts *= trainer.world_size
        torch.distributed.all_gather_object(parts, parts[0])
    if None in parts:  # in any process: of unequal parts one may be too large
        return {}
    logits, labels, rows = map(torch.cat, zip(*parts, strict=True))
    logits, labels, rows = (x[labels >= 0] for x in (logits, labels, rows))
    if not trainer.is_global_zero or not len(labels):
        return {}
    predictions = scores.Predictions(logits, labels)
    classes = list(class_names(data))
    classes += [str(k) for k in range(len(classes), logits.shape[1])]  # a user's may name fewer
    name = getattr(data, "name", type(data).__name__)
    errors = int((~predictions.hits).sum())
    title = f"{name}, test: {errors:,} of {len(labels):,} images wrong"
    drawn = {}
    if len(classes) <= MOST:
        matrix = scores.confusion(predictions, len(classes))
        drawn["confusion"] = evaluation.confusion(matrix, classes, title, INCHES)
    if in_memory and errors:
        places = scores.most_confident_mistakes(predictions)[:MISTAKES]
        images = data.splits["test"][0][rows[places].to(data.splits["test"][0].device)]
        wrong = scores.list_mistakes(predictions, rows, classes, MISTAKES)
        drawn["most_confident"] = evaluation.mistakes(
            images.cpu().numpy(),
            wrong,
            title,
            white_on_black=isinstance(data, MNISTDataModule),
            columns=COLUMNS,
        )
    return drawn
