"""Private API of Lightning for the fit loop's training loaders, as of release 2.6.6."""

from typing import Any

import lightning as L
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher


def training_loaders(trainer: L.Trainer) -> list[Any]:
    """Return the training loaders; call it in on_train_start at the earliest.

    Lightning has added a DistributedSampler by then. It has also called `iter` on the loaders, so
    their workers start twice in the first epoch if the loaders are exchanged.
    """
    combined: Any = trainer.fit_loop._combined_loader
    return list(combined.flattened)


def exchange_loaders(trainer: L.Trainer, loaders: list[Any]) -> None:
    """Replace the training loaders by the same number of others."""
    combined: Any = trainer.fit_loop._combined_loader
    combined.flattened = loaders


def forget_workers(loader: Any) -> None:
    """Make a DataLoader with persistent workers start new ones at the next `iter`."""
    loader._iterator = None


def begin_batches(trainer: L.Trainer) -> None:
    """Start iterating over the epoch's batches with the loaders as they are now."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    iter(fetcher)


def fetches_ahead(trainer: L.Trainer) -> bool:
    """Return whether more batches may be fetched than are trained on.

    Lightning prefetches one batch if it does not know their number, and a training_step that takes
    `dataloader_iter` may fetch any number.
    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    return fetcher.length is None or not isinstance(fetcher, _PrefetchDataFetcher)


def take_positions(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Remove the states of this process's training loaders from a checkpoint, and return them.

    Lightning would save only those of the first process and restore them in all processes, or not
    at all if a schedule has asked for the number of steps before.
    """
    positions: list[dict[str, Any]] = checkpoint["loops"]["fit_loop"]["state_dict"].pop(
        "combined_loader", []
    )
    return positions
