"""An untrained network that classifies pictures, in a weights file."""

from pathlib import Path

import torch

from mnist_cnn.weights.files import write_weights
from mnist_cnn.weights.networks import build_network

KINDS = ("apple", "banana", "cherry", "damson", "elder", "fig", "grape")


def save_classifier(folder: Path, *shape: int, name: str = "fruit", on_light: bool = False) -> Path:
    """Write the weights of a network of 7 classes for images of a shape (C, H, W)."""
    torch.manual_seed(0)
    model = {"_target_": "mnist_cnn.model.FastCNN", "channels": [4, 8], "hidden": 16}
    model |= {"shape": list(shape), "classes": len(KINDS)}
    data = {"name": name, "classes": list(KINDS), "shape": list(shape), "on_light": on_light}
    path = folder / "weights.safetensors"
    write_weights(build_network(model), {"model": model, "data": data}, path)
    return path
