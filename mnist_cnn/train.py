"""Train a network in a run's folder: python -m mnist_cnn.train [key=value ...]"""

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.callbacks.ended import why_ended
from mnist_cnn.command import command, hydra_main
from mnist_cnn.config.compose import resolved
from mnist_cnn.config.depends import depends_on, extendable
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.config.schema import check_files
from mnist_cnn.runs import processes, resume
from mnist_cnn.runs.folder import RESULTS, WEIGHTS, RunFolder
from mnist_cnn.runs.imports import without_collection
from mnist_cnn.runs.names import in_sweep
from mnist_cnn.sweeps import attempt

# outdated once a finished run trains on; the last are TensorBoard's
STALE = (WEIGHTS, "history.png", "results/events.out.tfevents.*")


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train a network in the folder cfg.run_dir, or resume the run in it.

    The same call again resumes an interrupted run, and returns the results of a finished one.

    Args:
        cfg: composed from conf/train.yaml, in Python by `config.compose`.

    Returns:
        The content of results.json.

    Raises:
        ValueError: a value, the data or the folder is invalid.
        Interrupted: SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 was received while it trained; it can be
            resumed.
    """
    values = resolved(cfg)  # recorded, and compared when the run is resumed
    config = checked(values)
    with folder_of(config).opened(values) as run:
        if run.results is not None:
            return run.results
        if processes.wanted(devices := config.trainer["devices"]):
            return processes.launch(run, "mnist_cnn.train:train", devices)

        # slow imports are here, so that --help and errors need not wait for them
        with without_collection():
            import lightning as L

            from mnist_cnn.analysis import results
            from mnist_cnn.build import build_module, build_trainer, fit, load_best
            from mnist_cnn.callbacks.between_epochs import first_of
            from mnist_cnn.callbacks.history import History
            from mnist_cnn.callbacks.loggers import figures_of_test, write_results
            from mnist_cnn.config.instantiate import make_data
            from mnist_cnn.data.datamodule import described

        start = str(run.last) if run.last else config.ckpt_path
        L.seed_everything(config.seed, workers=True, verbose=False)
        data = make_data(config.data)
        module = build_module(config, data, start)
        trainer = build_trainer(config, run, start, module)
        fit(trainer, module, data, start)
        run.check_forced()  # a callback may have ended it at once
        best = load_best(trainer, module)
        tested = trainer.test(module, data, verbose=False) if config.test else []
        test = {key: value for of_loader in tested for key, value in of_loader.items()}
        if test and hasattr(module, "test_results"):
            test |= module.test_results()
        figures = figures_of_test(trainer, module) if test else {}
        module.float()  # the results are in float32, whatever the precision of the training
        history = first_of(trainer, History)
        device = trainer.strategy.root_device
        outcome = results.collect(history, best, test, module, device, values)
        if trainer.is_global_zero:
            if hasattr(module, "save_weights"):
                about = {"data": described(config.data, data)}
                module.save_weights(run.path / WEIGHTS, about)
            write_results(trainer, outcome, figures)
            run.finish(outcome)
        return outcome


def preflight(cfg: DictConfig) -> None:
    """Raise ValueError if a configuration would fail on this machine; writes nothing."""
    config = checked(resolved(cfg))
    with without_collection():
        from mnist_cnn.build import check_machine  # slow: imports torch

    check_machine(config)


def check_folder(cfg: DictConfig) -> None:
    """Raise ValueError if a run's folder would refuse its configuration; writes nothing."""
    values = resolved(cfg)
    folder_of(parse(values, Config)).check(values)


def folder_of(config: Config) -> RunFolder:
    ended = functools.partial(why_ended, config)
    return RunFolder(config.run_dir, depends_on, extendable, ended, STALE, "train.log")


def checked(values: Mapping[str, Any]) -> Config:
    """Parse a resolved configuration, and check that the files of its data are there.

    A finished run needs none.
    """
    config = parse(values, Config)
    if not Path(config.run_dir, RESULTS).exists():
        check_files(config.data)
    return config


@hydra_main("train")
def job(cfg: DictConfig) -> float | None:
    if in_sweep():
        return attempt(train, cfg, cfg.objective.metric, preflight)
    outcome = train(cfg)
    from mnist_cnn.analysis.results import print_results

    print_results(outcome, Path(cfg.run_dir))
    return None


@command
def main(argv: Sequence[str] | None = None) -> None:
    resume.run(job, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
