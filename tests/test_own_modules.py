"""Any LightningModule is trained: the configuration names it, and it gets the parts it takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_cnn.config.compose import compose
from mnist_cnn.runs.folder import LAST
from mnist_cnn.train import preflight, train
from tests.helpers.folder import column, results
from tests.helpers.training import TINY

OPTIONS = [o for o in TINY if not o.startswith("model.")] + ["targets=[tests.helpers.*]"]
AUTOENCODER = ["~module", "+module._target_=tests.helpers.modules.Autoencoder"]
WITHOUT = ["~model", "~scheduler"]  # it takes none
OBJECTIVE = ["objective.metric=val/mse", "objective.mode=min"]


def configured(folder: Path, *overrides: str) -> Any:
    return compose([*OPTIONS, *AUTOENCODER, *overrides], run_dir=folder, run_name="x")


def test_a_module_is_made_of_what_it_takes_and_trained(tmp_path):
    train(configured(tmp_path, *WITHOUT, *OBJECTIVE, "+module.width=5"))
    found = results(tmp_path)
    assert found["val/mse"] == min(column(tmp_path, "val/mse"))
    assert found["images/s"] > 0
    last = torch.load(tmp_path / LAST, weights_only=True)
    assert last["state_dict"]["encode.1.weight"].shape == (5, 784)
    assert last["hyper_parameters"]["optimizer"]["_target_"] == "torch.optim.Adam"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            [*WITHOUT, "+module.depth=2"],
            "module.depth: tests.helpers.modules.Autoencoder takes width",
        ),
        (["~scheduler"], "model: tests.helpers.modules.Autoencoder takes none"),
        (["~model", "+metrics.f1._target_=torch.nn.ReLU"], "scheduler and metrics: "),
        (
            [*WITHOUT, "~optimizer"],
            "optimizer must be set, which tests.helpers.modules.Autoencoder takes",
        ),
        ([*WITHOUT, "test=true"], "test must be false with tests.helpers.modules.Autoencoder"),
    ],
)
def test_what_a_module_does_not_take_or_lacks_is_refused(overrides, line, tmp_path):
    with pytest.raises(ValueError, match=r".") as refused:
        preflight(configured(tmp_path, *OBJECTIVE, *overrides))
    assert str(refused.value).startswith(line)


def test_a_metric_that_is_not_logged_ends_the_run_with_those_that_are(tmp_path):
    line = r"^objective.metric must be (val|train)/mse or (val|train)/mse, got val/loss$"
    with pytest.raises(ValueError, match=line):
        train(configured(tmp_path, *WITHOUT))
