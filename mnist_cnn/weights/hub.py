"""Trained networks for the Hugging Face Hub; requires huggingface_hub.

`HubNetwork.of(RUN).save_pretrained(FOLDER)` writes config.json, model.safetensors and a model card;
`HubNetwork.from_pretrained(FOLDER)`, or the name of a repository on the Hub, reads them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from mnist_cnn.weights.networks import build_network
from mnist_cnn.weights.predictor import Trained, load


class HubNetwork(Trained, PyTorchModelHubMixin, library_name="mnist_cnn", license="mit"):
    """The network of `load` with the methods of the Hub's models.

    Its config.json may name the same code as a weights file.

    Args:
        model: `_target_` of the network and its arguments.
        classes: class names by label.
    """

    def __init__(self, model: Mapping[str, Any], classes: Sequence[str]):
        super().__init__(build_network(model), tuple(classes), {"model": dict(model)})

    @classmethod
    def of(cls, path: Path | str | None = None) -> "HubNetwork":
        """Load the network of a run's folder or a file, by default the shipped one."""
        trained = load(path)
        made = cls(model=trained.about["model"], classes=list(trained.classes))
        made.load_state_dict(trained.state_dict())
        return made
