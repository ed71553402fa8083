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
        data: `name`, `shape` and `on_light` of the training data, which decide how a picture
            becomes an image; optional.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Sequence[str],
        data: Mapping[str, Any] | None = None,
    ):
        about = {"model": dict(model), "data": dict(data or {})}
        super().__init__(build_network(model), tuple(classes), about)

    @classmethod
    def of(cls, path: Path | str | None = None) -> "HubNetwork":
        """Load the network of a run's folder or a file, by default the shipped one."""
        trained = load(path)
        # nothing else: the folder of the data is the user's own business
        known = trained.data
        data = {key: known[key] for key in ("name", "shape", "on_light") if key in known}
        made = cls(model=trained.model, classes=list(trained.classes), data=data)
        made.load_state_dict(trained.state_dict())
        return made
