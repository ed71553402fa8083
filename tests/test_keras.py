"""The default recipe reproduces a recorded Keras run.

keras_article.npz was recorded with Keras 3.15.1 on TensorFlow 2.21.0 from the article's script:

- `init_<layer>_<kernel|bias>`: initial weights, (h, w, in, out) of convolutions and (in, out) of
  dense layers, the first of which takes a feature map flattened as (h, w, c)
- `init_probs`: probabilities of the untrained network for the first 256 test images
- `step_loss`: losses of 50 steps of Adam; batch i starts at row 12000 + 64 i of the training file
- `final_probs`: probabilities after these steps
- `plateau_val_loss`: sequences of validation losses
- `plateau_lr`: the learning rate after each epoch of these
- `stop_epoch`: the epoch (from 0) after which training stops, -1 for never
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from torch import nn

from mnist_cnn.config.compose import compose, plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.optim import make_schedule
from tests.helpers.training import bare_trainer


@pytest.fixture(scope="module")
def keras() -> Any:
    return np.load(Path(__file__).parent / "keras_article.npz")


def tutorial(keras: Any) -> DigitClassifier:
    """Make the default module with the recorded initial weights."""
    module = DigitClassifier()
    for name in ("conv1", "conv2", "dense1", "dense2"):
        kernel = torch.tensor(keras[f"init_{name}_kernel"].astype(np.float32))
        if name.startswith("conv"):
            kernel = kernel.permute(3, 2, 0, 1)
        elif name == "dense1":  # from (h, w, c) to (c, h, w)
            kernel = kernel.view(5, 5, 64, 128).permute(3, 2, 0, 1).reshape(128, 1600)
        else:
            kernel = kernel.T
        layer = module.get_submodule(f"net.{name}")
        layer.load_state_dict({"weight": kernel, "bias": torch.tensor(keras[f"init_{name}_bias"])})
    return module


def first_test_probabilities(module: DigitClassifier) -> np.ndarray:
    images = mnist.load_split("mnist", "unused", "test")[0][:256, None].float() / 255
    with torch.no_grad():
        return module.eval()(images).softmax(1).numpy()


def test_the_untrained_network_gives_the_recorded_probabilities(keras):
    np.testing.assert_allclose(
        first_test_probabilities(tutorial(keras)), keras["init_probs"], atol=1e-6
    )


def test_fifty_training_steps_give_the_recorded_losses(keras):
    module = tutorial(keras)
    losses = []

    def note(trainer, module, outputs, *_):
        losses.append(outputs["loss"].item())

    listener = LambdaCallback(on_train_batch_end=note)
    trainer = bare_trainer(max_steps=50, limit_val_batches=0, callbacks=[listener])
    trainer.fit(module, MNISTDataModule(shuffle=False))
    recorded = keras["step_loss"]
    np.testing.assert_allclose(losses[:10], recorded[:10], atol=5e-3)
    np.testing.assert_allclose(losses, recorded, atol=0.05)
    # up to rounding over 50 steps: the same digits, with nearly the same confidence
    ours, theirs = first_test_probabilities(module), keras["final_probs"]
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.97
    assert np.abs(ours - theirs).mean() < 0.01


@pytest.mark.parametrize(("patience", "equal"), [(1, 8), (2, 1)])  # PyTorch counts from 0
def test_the_learning_rate_falls_when_keras_lowers_it(keras, patience, equal):
    cfg, agreeing = DigitClassifier().hparams, 0
    for losses, expected in zip(keras["plateau_val_loss"], keras["plateau_lr"], strict=True):
        optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=cfg["optimizer"]["lr"])
        schedule = make_schedule({**cfg["scheduler"], "patience": patience}, optimizer, int)
        rates = []
        for loss in losses:
            schedule.step(float(loss))
            rates.append(optimizer.param_groups[0]["lr"])
        agreeing += np.allclose(rates, expected, rtol=1e-6, atol=0)
    assert agreeing == equal
    assert cfg["scheduler"]["patience"] == 1


@pytest.mark.parametrize("case", range(8))
def test_training_stops_when_keras_stops_it(keras, case):
    node = plain(compose(run_dir="unused"), "callbacks.early_stopping")
    stopping = instantiate_as(EarlyStopping, node)
    stopped = -1
    for epoch, loss in enumerate(keras["plateau_val_loss"][case]):
        trainer = SimpleNamespace(
            callback_metrics={"val/loss": torch.tensor(float(loss), dtype=torch.float64)},
            current_epoch=epoch,
            fast_dev_run=False,
            should_stop=False,
            state=SimpleNamespace(fn="fit"),
            sanity_checking=False,
            strategy=SimpleNamespace(reduce_boolean_decision=lambda stop, all: stop),
            world_size=1,
            global_rank=0,
        )
        stopping.on_validation_end(trainer, None)
        if trainer.should_stop and stopped < 0:
            stopped = epoch
    assert stopped == keras["stop_epoch"][case]
