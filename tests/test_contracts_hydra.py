"""What `internals/hydra.py` uses of Hydra without a promise."""

import threading

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_cnn.config.compose import CONF, compose
from mnist_cnn.internals.hydra import (
    composed,
    distribution,
    is_plugin,
    mistake,
    register,
)
from mnist_cnn.runs.sweeps import Grid


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["optimizer.lrr=1"], ("key", "optimizer.lrr")),
        (["data={batch_sizes:1}"], ("key", "data.batch_sizes")),
        (["model=resnet"], ("file", "model/resnet")),
        (["outputs"], ("argument", "outputs")),
        (["seed=0,1"], ("several", "seed=0,1")),
    ],
)
def test_hydras_messages_name_the_key_the_file_or_the_argument(overrides, found):
    with pytest.raises(HydraException) as error:
        composed(CONF, "train", overrides)
    assert mistake(error.value) == found, "Hydra words this error in another way now"


def test_another_error_is_no_mistake_that_is_known():
    assert mistake(ValueError("no number")) == ("", "")


def test_composing_leaves_hydra_as_it_was_and_works_in_a_thread():
    with hydra.initialize_config_dir(str(CONF)):
        names = []
        thread = threading.Thread(target=lambda: names.append(compose([], run_dir="x").model.name))
        thread.start()
        thread.join()
        assert names == ["CNN"], "Hydra keeps what it composes with in another place now"
        assert hydra.compose("train").model.name == "CNN"


def test_a_sweeper_outside_of_hydra_plugins_can_be_registered():
    register(Grid)
    assert is_plugin("mnist_cnn.runs.sweeps.Grid"), "Hydra's list of plugins has changed"
    assert not is_plugin("hydra_plugins.not_there.Launcher")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("interval(1,9)", FloatDistribution(1.0, 9.0)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("choice(8,16)", CategoricalDistribution([8, 16])),
        ("a,'b c'", CategoricalDistribution(["a", "'b c'"])),
    ],
)
def test_a_sweep_in_hydras_syntax_is_a_distribution_of_optunas(text, values):
    found = distribution(OverridesParser.create().parse_override(f"key={text}"))
    assert found == values, "Hydra parses sweeps in another way now"
