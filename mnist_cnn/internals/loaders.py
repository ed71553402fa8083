"""The training loaders in Lightning's fit loop, made resumable; read in release 2.6.6."""

from typing import Any

import lightning as L
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher


def training_loaders(trainer: L.Trainer) -> list[Any]:
    """Return the training loaders, at the earliest in on_train_start.

    Lightning has made a DistributedSampler by then. It has also called `iter` on the loaders, in
    vain, which starts their workers once more in the first epoch where they are exchanged.
    """
    combined: Any = trainer.fit_loop._combined_loader
    return list(combined.flattened)


def exchange_loaders(trainer: L.Trainer, loaders: list[Any]) -> None:
    """Put others in place of the training loaders, of the same number."""
    combined: Any = trainer.fit_loop._combined_loader
    combined.flattened = loaders


def forget_workers(loader: Any) -> None:
    """Have a DataLoader with persistent workers start new ones at the next `iter`."""
    loader._iterator = None


def begin_batches(trainer: L.Trainer) -> None:
    """Begin the epoch's batches with the loaders as they are now."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    iter(fetcher)


def fetches_ahead(trainer: L.Trainer) -> bool:
    """Tell whether more batches may be fetched than are trained on.

    Lightning looks one ahead where it does not know their number, and a training_step that takes
    `dataloader_iter` as many as it likes.
    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    return fetcher.length is None or not isinstance(fetcher, _PrefetchDataFetcher)


def take_positions(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Remove the states of this process's training loaders from a checkpoint, and return them.

    Lightning would keep those of the first process alone, restore them in all, and not at all where
    a schedule has asked for the number of steps before.
    """
    positions: list[dict[str, Any]] = checkpoint["loops"]["fit_loop"]["state_dict"].pop(
        "combined_loader", []
    )
    return positions
