"""A network in the format of the Hugging Face Hub, loaded from a folder while offline."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from mnist_cnn import load, load_picture
from mnist_cnn.exporting.layers import classifier_layers
from mnist_cnn.model import VGG
from mnist_cnn.weights.files import write_weights
from tests.helpers.pictures import png

pytest.importorskip("huggingface_hub", reason='pip install -e ".[hub]"')
from mnist_cnn.weights.hub import HubNetwork


def test_a_network_is_saved_and_loaded_and_names_no_code_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    HubNetwork.of().save_pretrained(tmp_path)
    net = HubNetwork.from_pretrained(tmp_path)
    images = torch.randint(256, (5, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(net(images), load()(images))
    assert net.classes == load().classes
    paper = 255 - np.asarray(load_picture(png(7)))  # dark on light: it is inverted
    assert net.classify(paper) == load().classify(paper)
    assert not net.training
    for wrong in (images.float(), images[:, :27], "image.png"):
        with pytest.raises(ValueError, match=r"^images must be uint8 in "):
            net(wrong)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("os.system", "torchmetrics.functional.image.lpips._LPIPS"):
        config["model"] = {"_target_": name}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=rf"model\._target_ must be .*, got {name}"):
            HubNetwork.from_pretrained(tmp_path)


def test_a_network_of_few_bits_is_saved_and_loaded_with_plain_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "stages": [[4], [6]],
        "channel_dropout": 0.0,
        "dropout": 0.0,
        "bits": 3,
    }
    about = {"model": {"_target_": "mnist_cnn.model.VGG", **options}, "data": {"name": "mnist"}}
    write_weights(VGG(**options), about, tmp_path / "few.safetensors")
    HubNetwork.of(tmp_path / "few.safetensors").save_pretrained(tmp_path / "hub")
    net = HubNetwork.from_pretrained(tmp_path / "hub")
    images = torch.randint(256, (5, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(net(images), load(tmp_path / "few.safetensors")(images))
    assert next(settings["kind"] for settings, *_ in classifier_layers(net, "c")) == "affine"
