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

    from mnist_cnn.callbacks import fit, tensorboard
    from mnist_cnn.callbacks.history import History
    from mnist_cnn.callbacks.loggers import make_loggers
    from mnist_cnn.config import check, own
    from mnist_cnn.config.compose import plain
    from mnist_cnn.data.datamodule import described
    from mnist_cnn.internals.lightning import quiet_lightning
    from mnist_cnn.runs import results

    quiet_lightning()
    own.allow(cfg.targets)
    if (odd := check.not_exact(cfg)) and launch.rank() == 0:
        print(f"no exact resume is promised with {', '.join(odd)}", file=sys.stderr)
    folder, config = Path(cfg.run_dir), plain(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = own.make_data(cfg.data)
    module = fit.make_module(config, data)
    callbacks = fit.make_callbacks(cfg.callbacks)
    trainer = own.make(
        L.Trainer,
        cfg.trainer,
        callbacks=callbacks,
        enable_progress_bar=fit.bar_enabled(callbacks, cfg.trainer),
        logger=make_loggers(cfg),
        plugins=launch.plugins(),
        default_root_dir=folder,
    )
    fit.fit(trainer, module, data, cfg)
    module, best = fit.kept(trainer, module)
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
