"""Parts of a user's own, in a folder outside the repository: a YAML file and, at most, a class."""

import functools
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_cnn import pretrained
from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.config import instantiate
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose
from mnist_cnn.evaluate import evaluate
from mnist_cnn.train import train
from tests.helpers.process import environment
from tests.helpers.training import SHORT

# what a user writes for each part: files, and what the command line then says
EXAMPLES: dict[str, tuple[dict[str, str], list[str]]] = {
    "network": (
        {
            "my_pkg/nets.py": """
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, 10))

    def forward(self, x):  # images (B, 1, 28, 28) in [0, 1]
        return self.layers(x)
""",
            "my_conf/model/mine.yaml": "_target_: my_pkg.nets.Net\nhidden: 8\n",
        },
        ["model=mine"],
    ),
    "data": (
        {
            "my_pkg/data.py": """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class Noise(L.LightningDataModule):
    def __init__(self, n, seed):
        super().__init__()
        images = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
        self.data = TensorDataset(images, torch.arange(n) % 10)

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=50)

    val_dataloader = test_dataloader = train_dataloader
""",
            "my_conf/data/mine.yaml": "_target_: my_pkg.data.Noise\nn: 200\nseed: ${seed}\n",
        },
        ["data=mine"],
    ),
    "loss": (
        {
            "my_pkg/losses.py": """
from torch import nn

class Focal(nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, labels):  # logits (B, 10), labels (B,): the mean of the batch
        log_p = logits.log_softmax(1).gather(1, labels[:, None])
        return (-((1 - log_p.exp()) ** self.gamma) * log_p).mean()
""",
            "my_conf/loss/mine.yaml": "_target_: my_pkg.losses.Focal\ngamma: 2.0\n",
        },
        ["loss=mine"],
    ),
    "schedule": (
        {
            "my_pkg/schedules.py": """
from torch.optim.lr_scheduler import LRScheduler

class Halving(LRScheduler):
    def get_lr(self):
        return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
""",
            "my_conf/scheduler/mine.yaml": """
_target_: my_pkg.schedules.Halving
_partial_: true
interval: epoch
""",
        },
        ["scheduler=mine"],
    ),
    "callback": (
        {
            "my_pkg/callbacks.py": """
from lightning import Callback

class Note(Callback):
    def on_train_end(self, trainer, pl_module):
        with open(f"{trainer.default_root_dir}/noted.txt", "w") as file:
            file.write(str(trainer.global_step))
""",
        },
        ["+callbacks.note._target_=my_pkg.callbacks.Note"],
    ),
    "metric": (
        {
            "my_conf/metrics/f1.yaml": """
f1:
  _target_: torchmetrics.classification.MulticlassF1Score
  num_classes: 10
  average: macro
""",
        },
        ["metrics=f1", "objective.metric=val/f1", "objective.mode=max"],
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Writes the examples of some parts, and makes their package importable in this process."""

    def write(*parts: str) -> Path:
        (tmp_path / "my_conf").mkdir()
        for part in parts:
            for name, text in EXAMPLES[part][0].items():
                assert text.strip().count("\n") < 30
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    yield write
    instantiate.allow([])


TINY = [*SHORT, "trainer.limit_train_batches=4", "callbacks.progress.quiet=true"]


@pytest.mark.parametrize("part", EXAMPLES)
def test_a_part_of_the_users_own_trains_without_a_change_in_the_package(part, folder):
    here = folder(part)
    overrides = [f"hydra.searchpath=[{here}/my_conf]", "targets=[my_pkg.*]", *EXAMPLES[part][1]]
    run = here / "run"
    outcome = train(compose([*TINY, "logger=none", *overrides], run_dir=run))
    assert outcome["epochs"] == 2
    assert outcome["val/loss"] > 0
    if part == "callback":
        assert (run / "noted.txt").read_text() == "8"
    if part == "metric":
        assert {"train/f1", "val/f1", "test/f1"} <= outcome.keys()


def said_by(folder: Path, command: str, *args: str, ok: bool = True) -> str:
    """The standard error of a command in a folder, which ends well or, with ok=False, does not."""
    done = subprocess.run(
        [sys.executable, "-m", f"mnist_cnn.{command}", *args],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) is ok, done.stderr
    return done.stderr


def test_a_command_takes_them_all_and_another_computer_asks_for_the_code(folder):
    parts = [part for part in EXAMPLES if part != "data"]
    here = folder(*parts)
    overrides = [o for part in parts for o in EXAMPLES[part][1]]

    mnist_cnn = functools.partial(said_by, here)
    own_conf, where = ["--config-dir", "my_conf"], "hydra.run.dir=run"
    said = mnist_cnn("train", *own_conf, *TINY, *overrides, where, ok=False)
    assert "got my_pkg.nets.Net; for code of your own: targets=[my_pkg.*]" in said
    assert said.count("\n") == 1
    targets = "targets=[my_pkg.*]"
    mnist_cnn("train", *own_conf, *TINY, *overrides, where, targets)
    # what may be imported is said anew with each command
    again = ["train", *own_conf, "ckpt_path=run", "trainer.max_epochs=3"]
    said = mnist_cnn(*again, ok=False)
    assert "targets=[my_pkg.*]" in said
    mnist_cnn(*again, targets)
    said = mnist_cnn("evaluate", "ckpt_path=run", ok=False)
    assert "my_pkg.nets.Net; for code of your own: targets=[my_pkg.*]" in said
    mnist_cnn("evaluate", "ckpt_path=run", targets)


@pytest.mark.slow
def test_predict_export_and_demo_of_a_network_of_the_users_own_ask_for_its_code(folder):
    here = folder("network")
    overrides = [f"hydra.searchpath=[{here}/my_conf]", "targets=[my_pkg.*]", "model=mine"]
    train(compose([*TINY, "logger=none", *overrides], run_dir=here / "run"))
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(here / "blank.png")
    reading, exporting = ["predict", "blank.png"], ["export", "--format=safetensors"]
    for command in (reading, exporting, ["demo", "--port=0"]):
        said = said_by(here, *command, "ckpt_path=run", ok=False)
        assert "my_pkg.nets.Net; for code of your own: targets=[my_pkg.*]" in said
        assert said.count("\n") == 1
    for command in (reading, exporting):
        said_by(here, *command, "ckpt_path=run", "targets=[my_pkg.*]")


def test_a_checkpoint_never_imports_code_by_itself(folder):
    here = folder("network")
    overrides = [f"hydra.searchpath=[{here}/my_conf]", "targets=[my_pkg.*]", "model=mine"]
    train(compose([*TINY, "logger=none", *overrides], run_dir=here / "run"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]
    instantiate.allow([])
    with pytest.raises(ValueError, match=r"got my_pkg\.nets\.Net; .* targets=\[my_pkg\.\*\]") as e:
        pretrained.load(here / "run")
    file = here / "run" / "checkpoints" / "best.ckpt"
    assert str(e.value).startswith(f"{file}: model._target_")
    assert "my_pkg" not in sys.modules
    instantiate.allow(["my_pkg.*"])
    pretrained.load(here / "run")


def test_a_metric_that_is_not_logged_is_named_with_those_that_are():
    metric = "+metrics.f1={_target_:torchmetrics.classification.MulticlassF1Score,num_classes:10}"
    with pytest.raises(ValueError, match=r"objective\.metric must be .* train/f1, val/loss, "):
        check(compose([metric, "objective.metric=val/f2"], run_dir="unused"))
    with pytest.raises(ValueError, match=r"objective\.mode: .*got null"):
        check(compose([metric, "objective.metric=val/f1"], run_dir="unused"))
    with pytest.raises(ValueError, match=r"metrics\.acc: .* logged already"):
        check(compose([metric.replace("f1=", "acc=")], run_dir="unused"))


def test_a_run_on_data_of_the_users_own_is_evaluated_through_their_loaders(folder):
    here = folder("data")
    overrides = [f"hydra.searchpath=[{here}/my_conf]", "targets=[my_pkg.*]", "data=mine"]
    overrides += ["trainer.limit_test_batches=1.0", "seed=3"]
    results = train(compose([*TINY, "logger=none", *overrides], run_dir=here / "run"))
    (here / "place").mkdir()

    def evaluated(name: str, *argv: str) -> dict:
        instantiate.allow(["my_pkg.*"])
        given = as_trained([f"ckpt_path={here}/run/{name}", "targets=[my_pkg.*]", *argv])
        given = [o for o in given if not o.startswith("hydra")]
        return evaluate(compose(given, run_dir=here / "place" / name, entry="evaluate"))

    for name in ("checkpoints/best.ckpt", "weights.safetensors"):
        outcome = evaluated(name)
        assert outcome["images"] == 200
        arguments = {"_target_": "my_pkg.data.Noise", "n": 200, "seed": 3}
        assert outcome["data"] == {"name": "Noise", **arguments}
        assert (here / "place" / name / "mistakes.png").is_file()
        assert outcome["acc"] == results["test/acc"]
    assert evaluated("weights.safetensors", "split=val", "temperature=true")["images"] == 200
    with pytest.raises(ValueError, match="Noise has no images of split"):
        evaluated("weights.safetensors", "split=train")
    instantiate.allow([])
    with pytest.raises(ValueError, match=r"data\._target_ must be allowed by targets, got my"):
        as_trained([f"ckpt_path={here}/run"])
