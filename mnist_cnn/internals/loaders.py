"""The training loaders in Lightning's fit loop, made resumable; read in release 2.6.6."""

from typing import Any

import lightning as L
from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher

from mnist_cnn.data.replay import ReplayLoader, can_replay


def make_resumable(trainer: L.Trainer) -> list[Any]:
    """Put a ReplayLoader around each training loader that has none; return those that cannot be.

    Not before on_train_start: Lightning has made a DistributedSampler by then. It has also called
    `iter` on the bare loaders, in vain, which starts their workers once more in the first epoch.
    """
    combined: Any = trainer.fit_loop._combined_loader
    device = trainer.strategy.root_device
    bare = [can_replay(each) and not isinstance(each, ReplayLoader) for each in combined.flattened]
    pairs = list(zip(combined.flattened, bare, strict=True))
    combined.flattened = [ReplayLoader(each, device) if new else each for each, new in pairs]
    return [each for each in combined.flattened if not isinstance(each, ReplayLoader)]


def resumable(trainer: L.Trainer) -> list[ReplayLoader]:
    combined: Any = trainer.fit_loop._combined_loader
    return [each for each in combined.flattened if isinstance(each, ReplayLoader)]


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
