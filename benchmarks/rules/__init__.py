"""The reader of rules that the network in `mnist_cnn.detection` replaces, as it was.

It finds strokes and cuts them apart by hand-made rules, and classifies them with a network of its
own. The package does not use it. It gets no new rules, and stays until the network is at least as
good on single digits, tables, letters and scribbles: python -m benchmarks.pictures --rules.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from benchmarks.rules import reader
from mnist_cnn.data.picture import Source
from mnist_cnn.reading.reading import THRESHOLD, Reading
from mnist_cnn.weights.predictor import load

WEIGHTS = Path(__file__).parent / "weights.safetensors"


def read_digits(
    picture: Source | Image.Image,
    net: Callable[[Tensor], Tensor] | None = None,
    threshold: float = THRESHOLD,
) -> list[Reading]:
    """Read the digits of a picture by rules, with the network of that time by default."""
    found = []
    for each in reader.read_digits(picture, net or shipped(), threshold):
        fields = vars(each) | {"is_digit": each.is_digit, "turned": each.rotation}
        del fields["is_candidate"]
        found.append(Reading(**fields))
    return found


@functools.cache
def shipped() -> Callable[[Tensor], Tensor]:
    """Load the network that was trained for the rules."""
    return load(WEIGHTS)
