"""Fine-tuning: a run starts from existing weights, with frozen layers."""

import shutil
from pathlib import Path

import pytest
import torch

from mnist_cnn.build import build_module
from mnist_cnn.checks.folders import differences, weights
from mnist_cnn.config.compose import compose, resolved
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.runs.folder import BEST, LAST
from mnist_cnn.train import preflight
from tests.helpers.process import run
from tests.helpers.training import SHORT, TINY, save_arrays, trained

STILL = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "optimizer.lr=1e-12"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small network with a normalisation."""
    return trained(tmp_path_factory.mktemp("source"), "model.mean=0.1", "model.std=0.3")


@pytest.mark.parametrize("what", [".", "checkpoints/best.ckpt", "weights.safetensors"])
def test_a_run_starts_from_the_weights_and_the_normalisation_of_another(source, tmp_path, what):
    before = weights(source)
    after = weights(trained(tmp_path, *STILL, f"init_weights={source / what}"))
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)
    assert after["normalize.std"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        ("0.1", ""),
        ("0.2", "model.mean is 0.1 there, not 0.2"),
        ("auto", "model.mean is 0.1 there, not auto"),
    ],
)
def test_a_normalisation_that_is_not_the_one_given_is_told(source, mean, said, capsys):
    options = [*TINY, f"model.mean={mean}", "model.std=0.3", f"init_weights={source}"]
    config = parse(resolved(compose(options, run_dir="unused")), Config)
    build_module(config, MNISTDataModule())
    assert capsys.readouterr().err == (f"init_weights={source}: {said}\n" if said else "")


def test_layers_that_do_not_fit_are_named_or_left_at_their_initial_values(source, tmp_path, capsys):
    save_arrays(tmp_path / "three.npz", (28, 28), 3)
    fresh = [*STILL, "data=arrays", f"data.path={tmp_path / 'three.npz'}"]
    options = [*fresh, f"init_weights={source}"]
    with pytest.raises(ValueError, match=r"init_weights: .* does not fit this network") as refused:
        trained(tmp_path / "run", *options)
    line = "dense2.bias: (10,) in the file, (3,) in the net; "
    line += "dense2.weight: (10, 8) in the file, (3, 8) in the net"
    assert str(refused.value).endswith(f": {line}; init_strict=false starts from the rest")
    capsys.readouterr()
    after = weights(trained(tmp_path / "other", *options, "init_strict=false"))
    assert f"init_weights={source}: loaded except {line}\n" in capsys.readouterr().err
    initial = weights(trained(tmp_path / "fresh", *fresh))
    torch.testing.assert_close(after["conv1.weight"], weights(source)["conv1.weight"])
    torch.testing.assert_close(after["dense2.weight"], initial["dense2.weight"], rtol=0, atol=1e-6)


def test_frozen_layers_keep_their_weights_and_statistics_and_have_no_state(tmp_path):
    folder = trained(tmp_path / "run", "model=fast_cnn", "module.freeze=[conv1,norm1]")
    initial = weights(trained(tmp_path / "fresh", *STILL, "model=fast_cnn"))
    after = weights(folder)
    torch.testing.assert_close(after["conv1.weight"], initial["conv1.weight"], rtol=0, atol=1e-6)
    assert not after["norm1.running_mean"].any()
    assert after["norm1.num_batches_tracked"] == 0
    assert after["norm2.running_mean"].any()
    assert not torch.allclose(after["conv2.weight"], initial["conv2.weight"], atol=1e-3)
    (state,) = torch.load(folder / BEST, weights_only=True)["optimizer_states"]
    learned = [key for key in after if key.endswith(("weight", "bias"))]
    frozen = [key for key in learned if key.startswith(("conv1.", "norm1."))]
    assert len(state["state"]) == len(learned) - len(frozen) == 8


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("[conv9]", "module.freeze must be of conv1, conv2, dense1, dense2, got conv9"),
        (
            "[conv1,conv2,dense1,dense2]",
            "module.freeze must leave a layer to train, got all of conv1",
        ),
        ("conv1", "module.freeze must .*, got conv1"),
    ],
)
def test_layers_that_are_not_there_are_refused_with_those_that_are(value, line, tmp_path):
    with pytest.raises(ValueError, match=f"^{line}"):
        preflight(compose([*SHORT, f"module.freeze={value}"], run_dir=tmp_path / "run"))


def test_weights_that_are_not_there_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "text").write_text("no weights")
    for name, reason in (("none", "no such checkpoint"), ("text", "not a checkpoint or weights")):
        options = [*SHORT, f"init_weights={tmp_path / name}"]
        line = f"^init_weights: .*{name}: {reason}(?!.*init_strict)"
        with pytest.raises(ValueError, match=line):
            preflight(compose(options, run_dir=tmp_path / "run"))
        config = parse(resolved(compose(options, run_dir="unused")), Config)
        with pytest.raises(ValueError, match=line):  # as in a sweep
            build_module(config, MNISTDataModule())
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_neither_reads_the_weights_again_nor_thaws_a_layer(source, tmp_path):
    given = Path(shutil.copytree(source, tmp_path / "source"))
    options = [f"init_weights={given}", "module.freeze=[conv1]"]
    whole, cut = trained(tmp_path / "whole", *options), tmp_path / "cut"
    trained(cut, *options, "trainer.max_epochs=1")
    shutil.rmtree(given)
    trained(cut, *options, f"ckpt_path={cut}")
    assert not differences(whole, cut)
    assert torch.equal(weights(cut)["conv1.weight"], weights(source)["conv1.weight"])
    with pytest.raises(ValueError, match=r"module.freeze must be \['conv1'\] .*, got None"):
        trained(cut, *options, f"ckpt_path={cut}", "trainer.max_epochs=3", "module.freeze=null")


def test_a_run_with_a_checkpoint_needs_neither_the_weights_nor_the_directory_of_then(
    source, tmp_path
):
    for folder in ("then", "now"):
        (tmp_path / folder).mkdir()
    save_arrays(tmp_path / "then" / "x.npz", (28, 28), 10)
    given = Path(shutil.copy(source / "weights.safetensors", tmp_path / "then"))
    options = [*TINY, f"init_weights={given.name}", "data=arrays", "data.path=x.npz"]
    for name, epochs in (("whole", 2), ("cut", 1)):
        place = [f"hydra.run.dir={tmp_path / name}", "run_name=x", f"trainer.max_epochs={epochs}"]
        done = run(tmp_path / "then", "mnist_cnn.train", *options, *place)
        assert done.returncode == 0, done.stderr
    given.unlink()
    cut = f"ckpt_path={tmp_path / 'cut'}"
    done = run(tmp_path / "now", "mnist_cnn.train", cut, "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert not differences(tmp_path / "whole", tmp_path / "cut")


def test_a_run_with_a_checkpoint_does_not_need_the_one_that_it_started_from(source, tmp_path):
    start = Path(shutil.copytree(source, tmp_path / "start"))
    options = [*TINY, "model.mean=0.1", "model.std=0.3", "trainer.max_epochs=3"]
    options += [f"ckpt_path={start / LAST}"]
    trained(tmp_path / "run", *options)
    shutil.rmtree(start)
    preflight(compose(options, run_dir=tmp_path / "run"))
