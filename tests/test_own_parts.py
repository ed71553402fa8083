"""Custom parts outside of the repository: those of docs/extend.md, and more."""

import contextlib
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from functools import partial

import pytest
import torch
from torch import nn

from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.checks.folders import differences
from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import compose
from mnist_cnn.evaluate import evaluate
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train
from mnist_cnn.weights import predictor
from tests.helpers.docs import DOCS, blocks
from tests.helpers.folder import column
from tests.helpers.process import run
from tests.helpers.training import FAULT, SHORT, evaluated

FEW = [*SHORT, "trainer.limit_train_batches=4", "callbacks.progress.quiet=true", "logger=none"]
OWN_CONF = ["--config-dir", "my_conf"]
TARGETS = "targets=[my_pkg.*]"
MORE = {
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
    "my_pkg/noise.py": """
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
    "my_conf/data/mine.yaml": "_target_: my_pkg.noise.Noise\nn: 200\nseed: ${seed}\n",
}


def page() -> tuple[dict[str, str], list[str]]:
    """Return the files and the commands of the page docs/extend.md."""
    text, _ = (DOCS / "extend.md").read_text("utf-8").split("\n## A clone under another name\n")
    files, commands = defaultdict[str, str](str), list[str]()
    for language, content in blocks(text):
        if language == "bash":
            commands += content.splitlines()
            continue
        name = re.search(r"^# (my_\S+)\n", content, re.MULTILINE)
        assert name, content
        files[name[1]] += content
    return files, commands


def unpacked(files, folder, monkeypatch):
    """Write files to a folder, make their package importable, and return the folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    return unpacked(page()[0] | MORE, tmp_path, monkeypatch)


def test_a_command_takes_them_all_and_another_computer_asks_for_the_code(here):
    command = partial(run, here)
    parts = ["model=mine", "loss=focal", "optimizer=sign", "scheduler=mine", "metrics=f1"]
    parts += ["objective.metric=val/f1", "objective.mode=max", "hydra.run.dir=run"]
    parts += ["logger=lines", "+callbacks.norm._target_=my_pkg.callbacks.GradientNorm"]
    first = ["mnist_cnn.train", *OWN_CONF, *FEW, *parts]
    refused = command(*first)
    assert "got my_pkg.nets.Net; if you trust it: targets=[my_pkg.*]" in refused.stderr
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    done = command(*first, TARGETS)
    assert done.returncode == 0, done.stderr
    # each command needs its own `targets`
    again = ["mnist_cnn.train", *OWN_CONF, "ckpt_path=run", "trainer.max_epochs=3"]
    refused = command(*again)
    assert refused.returncode == 1
    assert "; if you trust it: targets=[my_pkg.*]" in refused.stderr
    done = command(*again, TARGETS)
    assert done.returncode == 0, done.stderr
    assert column(here / "run", "lr") == pytest.approx([3e-4, 1.5e-4, 0.75e-4])
    assert min(column(here / "run", "val/f1")) > 0
    assert "gradient_norm" in (here / "run" / "metrics.jsonl").read_text()


def test_the_page_s_callback_is_resumed_within_an_epoch(here, fault):
    norm = "+callbacks.norm._target_=my_pkg.callbacks.GradientNorm"
    options = [*FEW, FAULT, TARGETS, norm, "run_name=x"]
    for name, point in (("whole", "- 0 -"), ("cut", "on_train_batch_start 6 SIGTERM")):
        fault(point)
        with pytest.raises(Interrupted) if name == "cut" else contextlib.nullcontext():
            train(compose(options, run_dir=here / name))
    fault("- 0 -")
    train(compose(options, run_dir=here / "cut"))
    assert len(set(column(here / "whole", "gradient_norm"))) == 2
    assert not differences(here / "whole", here / "cut")


@pytest.mark.slow
def test_the_page_s_large_data_are_resumed_within_an_epoch(here, fault, monkeypatch):
    assert run(here, "my_pkg.make_large", "100000").returncode == 0
    monkeypatch.chdir(here)
    options = [*FEW, FAULT, TARGETS, "model=colour", "run_name=x"]
    options += [f"hydra.searchpath=[{here}/my_conf]"]
    for data in ("pictures", "mapped"):
        for name, point in (("whole", "- 0 -"), ("cut", "on_train_batch_start 6 SIGTERM")):
            fault(point)
            with pytest.raises(Interrupted) if name == "cut" else contextlib.nullcontext():
                train(compose([*options, f"data={data}"], run_dir=here / data / name))
        fault("- 0 -")
        train(compose([*options, f"data={data}"], run_dir=here / data / "cut"))
        assert not differences(here / data / "whole", here / data / "cut")


@pytest.mark.slow
def test_the_page_s_parts_work_as_it_says_in_an_empty_folder(here):
    commands = page()[1]
    assert len(commands) > 10
    for line in commands:
        _, _, *command = shlex.split(line)
        few = FEW[:-1] if "mnist_cnn.train" in command else []
        done = run(here, *command, *few)
        assert done.returncode == 0, line + done.stdout[-2000:] + done.stderr[-2000:]
    assert list(here.glob("outputs/*/*/metrics.jsonl"))
    sweeps = here.glob("outputs/sweeps/*/*")
    assert [len(list(sweep.glob("*/results.json"))) for sweep in sweeps] == [4, 4]


@pytest.mark.slow
def test_a_clone_is_renamed_as_the_page_says(tmp_path):
    _, rename = (DOCS / "extend.md").read_text("utf-8").split("\n## A clone under another name\n")
    (_, commands), (_, snippet), *_ = blocks(rename)
    rest = shutil.ignore_patterns(".git", ".venv*", "outputs", "__pycache__", ".*_cache")
    clone = shutil.copytree(DOCS.parent, tmp_path / "my_project", ignore=rest)
    for line in commands.splitlines()[1:3]:  # without cp, git and pip
        subprocess.run(["bash", "-c", line], cwd=clone, check=True)
    check = (
        "from my_project import load\nfrom my_project.detection.trained import load_reader\n"
        "print(type(load().net).__module__, type(load_reader()).__module__)\n"
    )
    (clone / "rename.py").write_text(snippet + check)
    done = run(clone, "rename.py")
    assert done.stdout == "my_project.model my_project.detection.network\n", done.stderr


def test_what_one_call_allows_no_other_thread_may_name():
    inside, ended = threading.Event(), threading.Event()

    def call():
        with instantiate.also_allowed(["a_pkg.*"]):
            inside.set()
            ended.wait(30)

    thread = threading.Thread(target=call)
    thread.start()
    assert inside.wait(30)
    with instantiate.also_allowed(["b_pkg.*"]):
        assert "a_pkg.*" not in instantiate.allowed_targets()
        ended.set()
        thread.join()
    assert not {"a_pkg.*", "b_pkg.*"} & set(instantiate.allowed_targets())


def test_a_checkpoint_never_imports_code_by_itself(here):
    overrides = [f"hydra.searchpath=[{here}/my_conf]", TARGETS, "model=mine"]
    train(compose([*FEW, *overrides], run_dir=here / "run"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]
    instantiate.allow([])
    with pytest.raises(ValueError, match=r"got my_pkg\.nets\.Net; .* targets=\[my_pkg\.\*\]") as e:
        predictor.load(here / "run")
    file = here / "run" / "checkpoints" / "best.ckpt"
    assert str(e.value).startswith(f"{file}: model._target_")
    assert "my_pkg" not in sys.modules
    assert predictor.load(here / "run", targets=["my_pkg.*"]).classes
    with pytest.raises(ValueError, match=r"got my_pkg\.nets\.Net"):  # allowed once, not for good
        predictor.load(here / "run")
    argv = as_trained([f"ckpt_path={here}/run", TARGETS, "split=val"])
    outcome = evaluate(compose(argv, entry="evaluate", run_dir=here / "evaluation"))
    assert outcome["split"] == "val"


def test_the_missing_package_of_a_users_module_is_named(here):
    (here / "needs.py").write_text(
        "import not_installed\nfrom torch import nn\n\nclass Net(nn.Module): ..."
    )
    options = [*FEW, "~model", "+model._target_=needs.Net", "targets=[needs.*]"]
    with pytest.raises(ValueError, match=r"^model\._target_=needs\.Net: .*'not_installed'"):
        train(compose(options, run_dir=here / "run"))


def test_a_run_on_data_of_the_users_own_is_evaluated_through_their_loaders(here):
    overrides = [f"hydra.searchpath=[{here}/my_conf]", TARGETS, "data=mine", "seed=3"]
    overrides += ["trainer.limit_test_batches=1.0"]
    results = train(compose([*FEW, *overrides], run_dir=here / "run"))
    (here / "place").mkdir()
    for name in ("checkpoints/best.ckpt", "weights.safetensors"):
        outcome = evaluated(here / "run" / name, here / "place" / name, TARGETS)
        assert outcome["images"] == 200
        arguments = {"_target_": "my_pkg.noise.Noise", "n": 200, "seed": 3}
        assert outcome["data"] == {"name": "Noise", **arguments}
        assert (here / "place" / name / "mistakes.png").is_file()
        assert outcome["acc"] == results["test/acc"]
    again = partial(evaluated, here / "run", here / "again", TARGETS)
    assert again("split=val", "temperature=true")["images"] == 200
    # none of the classes 5 to 9, which the network tells too
    few = evaluated(here / "run", here / "few", TARGETS, "data.n=5")
    assert (few["images"], len(few["confusion"])) == (5, 10)
    with pytest.raises(ValueError, match="Noise has no images of split"):
        again("split=train")
    instantiate.allow([])
    with pytest.raises(ValueError, match=r"data\._target_ must be allowed by targets, got my"):
        as_trained([f"ckpt_path={here}/run"])


MATRIX = "torchmetrics.classification.MulticlassConfusionMatrix"
MATRIX = f"+metrics={{m:{{_target_:{MATRIX},num_classes:10}}}}"


class Flat(nn.Sequential):
    def __init__(self, outputs=10):
        super().__init__(nn.Flatten(), nn.Linear(784, outputs))


class Tied(nn.Sequential):
    def __init__(self):
        first, second = nn.Linear(28, 28), nn.Linear(28, 28)
        second.weight = first.weight
        super().__init__(first, second, nn.Flatten(), nn.Linear(784, 10))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3, dtype=torch.complex64), nn.Linear(2704, 10)

    def forward(self, x):
        return self.last(self.conv(x.to(torch.complex64)).abs().view(len(x), -1))


class Named(Flat):
    def forward(self, x):
        return {"logits": super().forward(x)}


class Remembering(Flat):
    def get_extra_state(self):
        return {"seen": 1}


@pytest.mark.parametrize(
    ("net", "more", "said"),
    [
        (Flat, [], None),
        (Tied, [], None),
        (Viewing, ["optimizer.fused=false"], None),
        (Flat, ["+model.outputs=1"], r"logits must be \(2, 10\), got \(2, 1\)|out of bounds"),
        (Flat, ["+model.outputs=11"], r"logits must be \(2, 10\), got \(2, 11\)"),
        (Named, [], "must be Tensor, not dict"),
        (Remembering, [], "'dict' object has no attribute 'detach'"),
        (Flat, ["loss={_target_:torch.nn.CrossEntropyLoss,reduction:none}"], "one number"),
        (Flat, [MATRIX], r"^metrics\.m must be one number, got \(10, 10\)"),
        (Flat, [MATRIX.replace("10", "3")], r"^metrics\.m fails on 2 image"),
    ],
)
def test_a_network_that_would_fail_late_fails_before_the_first_step(net, more, said, here):
    (here / "my_conf" / "model" / "mine.yaml").write_text(f"_target_: {__name__}.{net.__name__}")
    options = [*FEW, "trainer.max_epochs=1", "targets=[tests.*]", "test=false"]
    options += [f"hydra.searchpath=[{here}/my_conf]", "model=mine"]
    cfg = compose([*options, *more], run_dir=here / "run")
    if said is None:
        train(cfg)
        predictor.load(here / "run")
        return
    place = "" if said.startswith("^") else "the network or the loss fails on 2 image.*"
    with pytest.raises(ValueError, match=f"{place}({said})"):
        train(cfg)
    assert not (here / "run" / "checkpoints").exists()
