"""The checks of a user's parts pass a valid network and fail an invalid one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mnist_cnn.checks import test_parts as checks
from mnist_cnn.checks.__main__ import configured
from mnist_cnn.data.datamodule import MNISTDataModule
from tests.helpers.process import run


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        return self.layers(x)


class WrongShape(Good):
    def forward(self, x):
        return super().forward(x)[:, :9]


class RandomInEval(Good):
    def forward(self, x):
        return super().forward(x + 0.01 * torch.randn_like(x))


class SeesItsBatch(Good):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class NotSaved(Good):
    scale: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.std()
        return super().forward(x / self.scale)


class Unused(Good):
    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(2, 2)


LOGITS = checks.test_network_gives_logits_that_depend_on_the_image_alone
GRADIENTS = checks.test_every_weight_gets_a_finite_gradient


@pytest.mark.parametrize(
    ("check", "broken"),
    [(LOGITS, WrongShape), (LOGITS, RandomInEval), (LOGITS, SeesItsBatch), (GRADIENTS, Unused)],
)
def test_a_broken_network_fails(check, broken):
    batch = MNISTDataModule(), torch.rand(8, 1, 28, 28), torch.arange(8)
    check((SimpleNamespace(net=Good(), zero_grad=bool), *batch))
    with pytest.raises(AssertionError):
        check((SimpleNamespace(net=broken(), zero_grad=bool), *batch))


@pytest.mark.slow
def test_a_network_that_is_not_saved_and_a_loss_that_is_a_sum_fail(tmp_path):
    (tmp_path / "loss.yaml").write_text("_target_: torch.nn.CrossEntropyLoss\nreduction: sum\n")
    parts = ["--network=tests.test_checks.NotSaved", "--loss=loss.yaml"]
    failing = ("mean_of_a_batch", "stopped_and_resumed", "safetensors")
    done = run(tmp_path, "mnist_cnn.checks", "-q", *parts, "-k", " or ".join(failing))
    assert "3 failed" in done.stdout
    assert all(name in done.stdout.partition("summary")[2] for name in failing)
    assert "it is not the batch's mean" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Own", "Unvalidated"])
def test_data_with_a_loader_of_pytorchs_pass(tmp_path, name):
    done = run(tmp_path, "mnist_cnn.checks", "-q", f"--data=tests.helpers.own_data.{name}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("defaults: [cnn]\n", "error: mine.yaml must be in a folder named model, as it has defau"),
        (
            "_target_: tests.test_checks.Nowhere\n",
            "error: model._target_=tests.test_checks.Nowhere: ",
        ),
    ],
)
def test_a_part_that_is_not_to_be_had_is_one_line(tmp_path, content, line):
    (tmp_path / "mine.yaml").write_text(content)
    done = run(tmp_path, "mnist_cnn.checks", "--network=mine.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["my project (v2)", "a,b", "it's", "a=b", "[x]"])
def test_a_file_is_found_in_a_folder_of_any_name(tmp_path, name):
    (tmp_path / name / "model").mkdir(parents=True)
    file = tmp_path / name / "model" / "mine.yaml"
    file.write_text("defaults: [cnn]\nhidden: 7\n")
    assert configured({"network": str(file)}).model.hidden == 7
