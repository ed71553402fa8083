"""Untrusted weights: no tool runs code in them, and each reports the error in one line."""

import contextlib
import copy
import functools
import itertools
import os
import re
import resource
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mnist_cnn.config import size
from mnist_cnn.config.compose import compose
from mnist_cnn.module import DigitClassifier
from mnist_cnn.optim import make_optimizer
from mnist_cnn.train import train
from mnist_cnn.weights import predictor
from tests.helpers import parts, process
from tests.helpers.training import SHORT

SMALL = ["model.channels=[2,2]", "model.hidden=4", "trainer.limit_train_batches=2", "logger=none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(compose([*SHORT, *SMALL, "trainer.max_epochs=1", "test=false"], run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> dict[str, Any]:
    """Load a valid checkpoint, to be tampered with."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


class Attack:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


TOOLS = {
    "train": ["ckpt_path=evil.ckpt", *SHORT, *SMALL],
    "evaluate": ["ckpt_path=evil.ckpt"],
    "predict": ["ckpt_path=evil.ckpt", "picture.png"],
    "export": ["ckpt_path=evil.ckpt", "--format", "safetensors"],
    "demo": ["ckpt_path=evil.ckpt", "--port", "0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_code_in_a_checkpoint_is_not_run_by(tool: str, checkpoint, tmp_path: Path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    torch.save({"proof": Attack(tmp_path / "ran")}, tmp_path / "proof.ckpt")
    torch.load(tmp_path / "proof.ckpt", weights_only=False)
    (tmp_path / "ran").rmdir()  # the attack works without protection
    torch.save({**checkpoint, "extra": Attack(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    before = set(tmp_path.iterdir())
    done = process.run(tmp_path, f"mnist_cnn.{tool}", *TOOLS[tool])
    assert done.returncode == 1
    resumed = "it has more than tensors and plain values, which may run code"
    reason = resumed if tool == "train" else "not a checkpoint"
    assert f"evil.ckpt: {reason}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before  # nor a partial file


def spoilt(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    content = copy.deepcopy(content)
    *parents, last = path.split("/")
    part = content
    for key in parents:
        part = part[key]
    part[last] = value
    return content


LPIPS = "torchmetrics.functional.image.lpips"
MODEL = "hyper_parameters/model"
DATA = "datamodule_hyper_parameters"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{MODEL}/_target_", "mnist_cnn.model.Foo", r"model\._target_=mnist_cnn\.model\.Foo"),
        (f"{MODEL}/_target_", "mnist_cnn.model.frozen", "which is no class"),
        (f"{MODEL}/_target_", "torch.nn.modules.module.torch.hub.load", "which is torch.hub.load"),
        (f"{MODEL}/_target_", "torch.nn.init.zeros_", r"got torch\.nn\.init\.zeros_;"),
        (f"{MODEL}/_target_", f"{LPIPS}._LPIPS", r"got torchmetrics\.functional"),
        (f"{MODEL}/_target_", "torchmetrics.MetricCollection", "which is torchmetrics.collections"),
        (f"{MODEL}/_target_", "torch.nn.DataParallel", r"which is torch\.nn\.parallel"),
        (f"{MODEL}/_target_", "torch.nn.modules.loss._Loss", "which is no class of a layer"),
        (f"{MODEL}/_target_", "torch.nn.TransformerEncoder", "which is no class of a layer"),
        (f"{MODEL}/_target_", "torch.optim.Adam", "_target_ must be a Module"),
        (f"{MODEL}/_target_", ["CNN"], "_target_"),
        (f"{MODEL}/channels", [10**9, 10**9], "model must have at most"),
        (f"{MODEL}/channels", [10**4, 10**4], r"at most 100,000,000 parameters and buffers, got"),
        (f"{MODEL}/channels", {"_target_": "torch.hub.load"}, r"channels\._target_ must be"),
        (f"{MODEL}/hidden", 10**30, "model: "),
        (f"{MODEL}/hidden", -1, "model: "),
        (f"{MODEL}/channels", [2], "model: "),
        (f"{MODEL}/hidden", 5, "size mismatch"),
        (f"{DATA}/name", "../../etc", "name"),
        (f"{MODEL}/std", "one", "model: "),
        (f"{DATA}/fold", "${oc.env:HOME}", "fold"),
        ("state_dict/net.dense2.bias", torch.full((10,), torch.nan), "not all numbers"),
        ("state_dict/net.dense2.bias", torch.zeros(1).expand(10**12), "size mismatch"),
        (f"{MODEL}/\x1b[2J", 1, r"\?\[2J"),
        ("state_dict", None, "NoneType"),
        (
            f"{MODEL}/_target_",
            "os.system\x1b",
            r"model\._target_ must be .*, got os\.system\?; if you",
        ),
    ],
)
def test_what_a_checkpoint_says_is_checked(path, value, said, checkpoint, tmp_path: Path) -> None:
    torch.save(spoilt(checkpoint, path, value), tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=said) as refused:
        predictor.load(tmp_path / "evil.ckpt")
    assert str(refused.value).startswith(f"{tmp_path / 'evil.ckpt'}: ")
    assert str(refused.value).isprintable()


def test_names_that_lightning_would_import_are_not_looked_at(checkpoint, tmp_path, monkeypatch):
    """Lightning imports them in load_from_checkpoint; the tools build from model.py alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    content = copy.deepcopy(checkpoint)
    content["hyper_parameters"] |= {"_instantiator": "evil.run", "_class_path": "evil.Net"}
    content |= {"hparams_name": "evil.run", "hparams_type": "evil.run"}
    torch.save(content, "evil.ckpt")
    predictor.load("evil.ckpt")
    with contextlib.suppress(ValueError):
        DigitClassifier.load_from_checkpoint("evil.ckpt", weights_only=True)
    assert not Path("ran").exists()


HEADERS = (
    b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
    b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000000]}}',
    b'{"__metadata__":{"about":"{\\"model\\":{\\"name\\":\\"os.system\\"},\\"data\\":{}}"}}',
    b'{"__metadata__":{"model":"' + b"[" * 100_000 + b'","data":"{}"}}',
    b'{"__metadata__":{"about":"' + b"[" * 100_000 + b'"}}',
    b'{"__metadata__":{"about":"[]"}}',
    b"{" * 1000,
)


def test_only_whole_files_of_plain_values_are_read(checkpoint, run: Path, tmp_path: Path) -> None:
    for name in ("checkpoints/last.ckpt", "weights.safetensors"):
        content = (run / name).read_bytes()
        for cut in (0, 4, 1000, -1000, -1):
            (tmp_path / f"{cut} of {Path(name).name}").write_bytes(content[:cut])
    for number, header in enumerate(HEADERS):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (tmp_path / "a header as long as no file.safetensors").write_bytes(b"\xff" * 8 + HEADERS[0])
    attack = {**checkpoint, "extra": Attack(tmp_path / "ran")}
    torch.save(attack, tmp_path / "pickled.ckpt")
    torch.save(attack, tmp_path / "old format.ckpt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.ReLU(), tmp_path / "module.ckpt")
    evil = sorted(tmp_path.iterdir())
    assert len(evil) == 10 + 8 + 3
    for file in evil:
        with pytest.raises(
            ValueError, match=f"{re.escape(str(file))}: not a checkpoint or weights"
        ):
            predictor.load(file)
    assert sorted(tmp_path.iterdir()) == evil


def test_a_compressed_checkpoint_is_not_unpacked(checkpoint, tmp_path: Path) -> None:
    torch.save({**checkpoint, "zeros": torch.zeros(10_000_000)}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.namelist():
            bomb.writestr(part, plain.read(part))
    assert (tmp_path / "bomb.ckpt").stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="it is compressed"):
        predictor.load(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer_states", [{"state": {}, "param_groups": "?"}]),
        ("loops", {}),
        ("loops", {"fit_loop": "?"}),
        ("callbacks", {"Checkpoint": "?"}),
        ("state_dict", {"net.x": torch.zeros(1)}),
        ("state_dict/net.dense2.bias", torch.zeros(3)),
        ("pytorch-lightning_version", "?"),
    ],
)
def test_going_on_from_a_spoilt_checkpoint_is_refused(path, value, checkpoint, tmp_path) -> None:
    torch.save(spoilt(checkpoint, path, value), tmp_path / "evil.ckpt")
    cfg = compose([*SHORT, *SMALL, f"ckpt_path={tmp_path / 'evil.ckpt'}"], run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=r"^(ckpt_path.*evil.ckpt: |Invalid version)"):
        train(cfg)
    evil = (tmp_path / "evil.ckpt").read_bytes()  # nothing was trained: at most there are copies
    assert all(file.read_bytes() == evil for file in tmp_path.glob("run/checkpoints/*"))
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_no_class_that_a_file_may_name_opens_a_file_or_a_connection(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not for anybody else")
    refused = 0
    with parts.isolated() as asked, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in parts.allowed_classes().items():
            kind(**parts.arguments(kind))
            for argument in parts.names_of(kind):  # nor if any argument is a path
                try:
                    kind(**{**parts.arguments(kind), argument: str(secret)})
                except Exception:
                    refused += 1
            assert not asked, name
        with pytest.raises(PermissionError):
            secret.read_text()  # the audit hook works
    assert refused > 500


def peak(forget: bool = False) -> int:
    """Return the peak of this process's memory in kilobytes, from now on if Linux can `forget`."""
    forgotten = Path("/proc/self/clear_refs")
    if forget and forgotten.exists():  # an earlier test may have taken more
        forgotten.write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.slow
def test_no_number_in_a_file_takes_memory_or_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "MAX_CALLS", 2000)
    before = peak(forget=True)
    for kind in parts.allowed_classes().values():
        if not issubclass(kind, torch.nn.Module):
            continue
        for argument, number in itertools.product(parts.names_of(kind), (10**8, 10**12)):
            given = {**parts.arguments(kind), argument: number}
            started = time.process_time()
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                size.check_size(functools.partial(kind, **given), "model")
            assert time.process_time() - started < 2, (kind, argument)
    taken = peak() - before
    assert taken < 500_000  # kilobytes; a single such number would take 400 MB or more


CLASSIFICATION = "torchmetrics.classification"
VAST: dict[str, dict[str, Any]] = {
    "a buffer": {"_target_": "torch.nn.BatchNorm2d", "num_features": 10**9, "affine": False},
    "a state": {"_target_": f"{CLASSIFICATION}.MulticlassConfusionMatrix", "num_classes": 10**5},
    "layers": {"_target_": "torch.nn.LSTM", "input_size": 1, "hidden_size": 1, "num_layers": 10**9},
    "an argument": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.ReLU"}]},
}
for _ in range(20):  # each level doubles: a million layers in a file of some kilobytes
    VAST["an argument"] = {"_target_": "torch.nn.Sequential", "_args_": [VAST["an argument"]] * 2}


@pytest.mark.parametrize("what", VAST)
def test_what_is_too_large_is_refused_before_it_takes_memory(
    what: str, checkpoint, tmp_path: Path
) -> None:
    before = peak(forget=True)
    torch.save(spoilt(checkpoint, MODEL, VAST[what]), tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt.*model must have "):
        predictor.load(tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"^loss must have "):
        DigitClassifier(loss=VAST[what])
    optimizer = {"_target_": "torch.optim.SGD", "lr": VAST[what]}
    with pytest.raises(ValueError, match=r"^optimizer must have "):
        make_optimizer(optimizer, [torch.nn.Parameter(torch.zeros(1))])
    assert peak() - before < 200_000


def test_lightning_builds_no_metric_of_a_stranger(checkpoint, tmp_path: Path) -> None:
    evil = {"x": {"_target_": f"{LPIPS}._LPIPS"}}
    torch.save(spoilt(checkpoint, "hyper_parameters/metrics", evil), tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"^metrics\.x\._target_ must be .*got torchmetrics\.func"):
        DigitClassifier.load_from_checkpoint(tmp_path / "evil.ckpt", weights_only=True)
