"""Trains a network and leaves a run's folder: python -m mnist_cnn.train [key=value ...]"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.command import command
from mnist_cnn.internals import entry
from mnist_cnn.internals.hydra import register
from mnist_cnn.runs import claim, launch, resume, state
from mnist_cnn.runs.jobs import start
from mnist_cnn.runs.sweeps import Grid, Optuna


@claim.recorded
def train(cfg: DictConfig) -> dict[str, Any]:
    """Trains as configured, tests the best checkpoint, fills cfg.run_dir; returns its results.json.

    Args:
        cfg: what conf/train.yaml composes to; `config.compose` makes one from Python. With
            ckpt_path=RUN and run_dir=RUN the run there is resumed.

    Raises:
        ValueError: a value, data or a folder that is not what it must be, see `runs.claim`.
    """
    # the heavy imports: here, so that --help and mistakes are answered at once
    import lightning as L
    from lightning.pytorch.callbacks import ProgressBar

    from mnist_cnn.callbacks import tensorboard
    from mnist_cnn.callbacks.checkpoint import Checkpoint
    from mnist_cnn.callbacks.history import History
    from mnist_cnn.config import check, instantiate
    from mnist_cnn.config.compose import flat, plain
    from mnist_cnn.data.datamodule import described
    from mnist_cnn.internals.lightning import fit, quiet_lightning
    from mnist_cnn.module import build_module, load_best
    from mnist_cnn.runs import results
    from mnist_cnn.runs.loggers import make_loggers

    quiet_lightning()
    instantiate.allow(cfg.targets)
    if (inexact := check.inexact_options(cfg)) and launch.rank() == 0:
        print(f"no exact resume is promised with {', '.join(inexact)}", file=sys.stderr)
    folder, config = Path(cfg.run_dir), plain(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = instantiate.make_data(cfg.data)
    module = build_module(config, data)
    callbacks = instantiate.make_callbacks(cfg.callbacks)
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    trainer = instantiate.instantiate_as(
        L.Trainer,
        cfg.trainer,
        callbacks=callbacks,
        enable_progress_bar=bar or cfg.trainer.enable_progress_bar,
        logger=make_loggers(cfg),
        plugins=launch.plugins(),
        default_root_dir=folder,
    )
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            callback.config = flat(cfg)
            callback.data = config["data"] if instantiate.is_custom(cfg.data) else {}
    fit(trainer, module, data, cfg.ckpt_path)
    module, best = load_best(trainer, module)
    test = trainer.test(module, data, verbose=False)[0] if cfg.test else {}
    module.float()  # what comes out of a training has 32 bits, whatever its precision
    (history,) = (callback for callback in callbacks if isinstance(callback, History))
    rows, started = history.rows, history.run_started
    device = trainer.strategy.root_device
    outcome = results.collect(rows, best, test, module, device, config, started)
    if trainer.is_global_zero:
        module.save_weights(folder / state.WEIGHTS, {"data": described(config["data"], data)})
        tensorboard.write_results(trainer, module, data, outcome)
        results.write(outcome, folder / state.RESULTS)  # last: it says that all the rest is there
    return outcome


def job(cfg: DictConfig) -> None:
    start(train, cfg)


@command
def main(argv: Sequence[str] | None = None) -> None:
    register(Grid, Optuna)
    entry.run(job, "train", resume.resume(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
