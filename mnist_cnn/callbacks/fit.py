"""Makes the module and the callbacks of a run, trains, and finds the weights that were kept."""

import inspect
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig
from torch.utils import deterministic

from mnist_cnn.callbacks.between_epochs import BetweenEpochs, in_order
from mnist_cnn.callbacks.checkpoint import Checkpoint
from mnist_cnn.config.compose import plain
from mnist_cnn.config.messages import install, must_be
from mnist_cnn.config.own import is_own, make
from mnist_cnn.module import DigitClassifier, fitted
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.ranks import rank

# arguments in conf/callbacks/default.yaml that a class in the place of ours need not have
OWN = ("every_seconds", "every_steps", "refresh_seconds", "quiet")


def make_module(config: Mapping[str, Any], data: L.LightningDataModule) -> DigitClassifier:
    """The module that a run's configuration describes, for its data.

    A run that is not resumed starts from `init_weights`; a line on stderr names what is left at its
    initial values.

    Args:
        config: what conf/train.yaml composes to, as plain values.
        data: what it is trained on.

    Raises:
        ValueError: as DigitClassifier does, or the weights do not fit.
    """
    parts = ("optimizer", "scheduler", "label_smoothing", "loss", "metrics", "freeze")
    module = DigitClassifier(
        model=fitted(config["model"], data),
        **{key: config[key] for key in parts},
        monitor=config["objective"]["metric"],
    )
    path, strict = config["init_weights"], config["init_strict"]
    if path is not None and config["ckpt_path"] is None:
        try:
            left = module.load_weights(path, strict)
        except ValueError as e:
            hint = "; init_strict=false starts from the rest" if strict else ""
            raise ValueError(f"init_weights: {e}{hint}") from None
        if left and rank() == 0:
            print(f"init_weights={path}: loaded except {'; '.join(left)}", file=sys.stderr)
    return module


def make_callbacks(nodes: DictConfig) -> list[L.Callback]:
    """The callbacks of a configuration, in the order in which they act.

    Raises:
        ValueError: a `_target_` that is no callback.
    """
    made = []
    for name, node in nodes.items():
        if node is not None:
            if name in ("checkpoint", "progress"):
                node = without_own(node)
            made.append(make(L.Callback, node, key="callbacks." + str(name)))
    return in_order(made)


def without_own(node: DictConfig) -> DictConfig:
    """The arguments of a callback, less those of this project's that its class does not take."""
    try:
        taken = inspect.signature(pkgutil.resolve_name(str(node.get("_target_")))).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return node  # make refuses it
    return DictConfig({k: v for k, v in node.items() if k not in OWN or k in taken})


def bar_enabled(callbacks: Sequence[L.Callback], trainer: DictConfig) -> Any:
    """The Trainer's enable_progress_bar, which a bar of Lightning's among the callbacks needs."""
    needed = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return needed or trainer.enable_progress_bar


def fit(trainer: L.Trainer, module: Any, data: Any, cfg: DictConfig, start: Any) -> None:
    """Trains, from cfg.ckpt_path on where it is set.

    Raises:
        ValueError: what Lightning raises where values exclude each other, or a checkpoint does not
            fit the network.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.data = plain(cfg, "data") if is_own(cfg.data) else {}
    try:
        # filling new tensors with NaN, which deterministic mode does, takes 5 % of a step
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not exported
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
    except MisconfigurationException as e:
        raise ValueError(e) from e
    except ImportError as e:  # DeviceStatsMonitor
        hint = f"; {install('monitor')}" if "psutil" in str(e) else ""
        raise ValueError(f"{e}{hint}") from e
    except (LookupError, TypeError, AttributeError, RuntimeError) as e:
        running = any(isinstance(c, BetweenEpochs) and c.running for c in callbacks)
        if start is None or running:
            raise  # it has been restored already
        reason = " ".join(str(e).split())
        wanted = must_be("ckpt_path", "a checkpoint that training can resume", cfg.ckpt_path)
        raise ValueError(f"{wanted}: {reason}") from e


def kept(trainer: L.Trainer, module: DigitClassifier) -> tuple[DigitClassifier, int | None]:
    """The module with the weights that a run keeps, and their epoch (from 1).

    Those of a checkpoint where a callback wrote one, else the module's own. The epoch is None where
    no best one is known.
    """
    callback: Any = trainer.checkpoint_callback
    if isinstance(callback, Checkpoint):
        # the last where no metric was there to judge by
        path = str(callback.best if callback.best.exists() else callback.last)
        epoch = callback.best_epoch
    else:
        path = getattr(callback, "best_model_path", "") or getattr(callback, "last_model_path", "")
        if not path:
            return module, None
        epoch = read_checkpoint(path)["epoch"] + 1
    device = trainer.strategy.root_device
    return DigitClassifier.load_from_checkpoint(path, device, weights_only=True), epoch
