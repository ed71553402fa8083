"""The trained reader, wherever its weights lie."""

from pathlib import Path

from mnist_cnn.detection.network import Detector
from mnist_cnn.pretrained import build_network, check_finite_weights, errors_of, read_file

SHIPPED = Path(__file__).parents[1] / "pretrained" / "reader.safetensors"


def load_reader(path: Path | str | None = None) -> Detector:
    """The network of a run of experiment=reader, its weights file, or by default the one shipped.

    Raises:
        ValueError: there is no such file, or it is none of a reader.
    """
    file = Path(SHIPPED if path is None else path).expanduser()
    # a run's weights file, not its checkpoints: its scores are calibrated
    file = file / "weights.safetensors" if file.is_dir() else file
    weights, about, _ = read_file(file)
    with errors_of(file):
        net = build_network(dict(about.get("model") or {}))
        if not isinstance(net, Detector):
            raise ValueError("it is no reader of pictures")
        net.load_state_dict(weights)
        check_finite_weights(net.state_dict())
        return net.eval()
