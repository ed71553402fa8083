"""What `internals/hydra.py` uses of Hydra without a promise."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_cnn.internals.hydra import (
    distribution,
    is_plugin,
    register,
)
from mnist_cnn.runs.sweeps import Grid


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
