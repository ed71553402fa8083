"""The trained reader, wherever its weights lie."""

import functools
from pathlib import Path

from mnist_cnn.detection.network import Detector
from mnist_cnn.pretrained import (
    ReaderError,
    Trained,
    build_network,
    check_finite_weights,
    errors_of,
    load_digits,
    read_file,
)

SHIPPED = Path(__file__).parents[1] / "pretrained" / "reader.safetensors"


def load_reader(path: Path | str | None = None) -> Detector:
    """The network of a run of experiment=reader, its weights file, or by default the one shipped.

    Raises:
        ValueError: there is no such file, or it is none of a reader.
    """
    file = Path(SHIPPED if path is None else path).expanduser()
    # a run's weights file, not its checkpoints: its scores are calibrated
    file = file / "weights.safetensors" if file.is_dir() else file
    try:
        weights, about, _ = read_file(file)
    except ReaderError:
        raise ValueError(
            f"{file}: a checkpoint, whose scores are not calibrated: name the run's folder or its "
            "weights.safetensors"
        ) from None
    with errors_of(file):
        net = build_network(dict(about.get("model") or {}))
        net.load_state_dict(weights)
        check_finite_weights(net.state_dict())
    if not isinstance(net, Detector):
        raise ValueError(f"{file}: a network of images, no reader of pictures")
    return net.eval()


@functools.cache
def shipped() -> Detector:
    """The reader that ships, loaded once."""
    return load_reader()


def load_for_pictures(path: Path | str | None = None) -> tuple[Trained | None, Detector]:
    """The networks that read pictures: of digits found, where one is named; and what finds them.

    Args:
        path: a reader, as `load_reader` has it, which reads alone; or a network of 28x28 digits, as
            `load_digits` has it, which classifies what the reader that ships finds.

    Raises:
        ValueError: it is neither.
    """
    if path is None:
        return None, shipped()
    try:
        return load_digits(path), shipped()
    except ReaderError:
        return None, load_reader(path)
