"""Tests of a LightningModule: training, resuming, loading and sweeping."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from mnist_cnn.analysis.found import read_runs
from mnist_cnn.analysis.ranking import Ranking
from mnist_cnn.build import build_module
from mnist_cnn.checks.runs import different, logged, run
from mnist_cnn.config.compose import resolved
from mnist_cnn.config.instantiate import make_data
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.runs.folder import BEST, LAST, RESULTS
from mnist_cnn.weights.files import read_checkpoint


@pytest.fixture(scope="module")
def folder(cfg: Any, tmp_path_factory: Any) -> Path:
    """Return the folder of an uninterrupted run of eight batches in two epochs."""
    path: Path = tmp_path_factory.mktemp("checks") / "0"
    run(cfg, path)
    return path


def content(folder: Path) -> Any:
    return read_checkpoint(folder / LAST)


def made(cfg: Any) -> Any:
    """Return the untrained module."""
    config = parse(resolved(cfg), Config)
    L.seed_everything(config.seed, verbose=False)
    return build_module(config, make_data(config.data))


def test_it_trains_and_logs_its_objective(cfg, folder):
    value = json.loads((folder / RESULTS).read_text("utf-8"))[cfg.objective.metric]
    assert math.isfinite(value)
    trained = content(folder)["state_dict"]
    assert different(made(cfg).state_dict(), trained), "no weight has changed"


def test_one_seed_gives_the_same_weights_and_metrics(cfg, folder, tmp_path):
    one, two = content(folder), run(cfg, tmp_path / "0")
    assert different(one["state_dict"], two["state_dict"]) == []
    assert logged(one) == logged(two)


def test_a_run_that_is_stopped_and_resumed_ends_bit_for_bit_the_same(cfg, folder, tmp_path):
    whole, resumed = content(folder), run(cfg, tmp_path / "0", 1, 4, 6)
    assert different(whole["state_dict"], resumed["state_dict"]) == []
    assert logged(whole) == logged(resumed)


def test_its_best_checkpoint_fits_a_new_module_and_has_plain_values_alone(cfg, folder):
    best = read_checkpoint(folder / BEST)
    module = made(cfg)
    module.load_state_dict(best["state_dict"])
    assert different(best["state_dict"], module.state_dict()) == []


def test_runs_of_several_seeds_differ_and_are_ranked_by_its_objective(cfg, folder):
    other = run(cfg, folder.with_name("1"), seed=cfg.seed + 1)
    assert different(content(folder)["state_dict"], other["state_dict"]), "it ignores the seed"
    (board,) = Ranking(read_runs([folder.parent])).boards
    assert (board.metric, board.mode) == (cfg.objective.metric, cfg.objective.mode)
    (group,) = board.groups.to_dict("records")
    assert group["n"] == 2
    assert math.isfinite(group[f"{board.metric} mean"])
