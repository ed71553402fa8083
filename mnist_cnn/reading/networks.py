"""What a trained network tells of a picture: the digits on it, or the class of the whole.

`load_network` decides which; predict, the service, the page and its export ask what it returns.
"""

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import load_reader, shipped
from mnist_cnn.model import SHAPE
from mnist_cnn.reading.answers import (
    DigitsClassified,
    FoundClass,
    FoundDigit,
    ImagesClassified,
    PictureClassified,
    PictureRead,
    Reply,
    SeenDigit,
    as_url,
    found_lines,
    in_words,
    rotation,
    written,
)
from mnist_cnn.reading.reading import Reading
from mnist_cnn.weights import predictor
from mnist_cnn.weights.files import ReaderError
from mnist_cnn.weights.predictor import Trained

if TYPE_CHECKING:
    from mnist_cnn.reading.reader import Net


class Answer(Protocol):
    """What a network found in a picture."""

    def values(self) -> Mapping[str, object]:
        """Return it as JSON values."""

    def words(self) -> str:
        """Return it in one line."""

    def drawn(self) -> Image.Image:
        """Draw it into the picture; ValueError if it is of the whole picture."""

    def reply(self) -> Reply:
        """Return it as the page shows it."""


@dataclass
class DigitsAnswer(Answer):
    """The digits of a picture."""

    picture: Image.Image
    readings: Sequence[Reading]

    def values(self) -> Mapping[str, object]:
        digits = [FoundDigit.model_validate(each).model_dump() for each in self.readings]
        lines = [line.model_dump() for line in found_lines(self.readings)]
        return {"rotation": rotation(self.readings), "lines": lines, "digits": digits}

    def words(self) -> str:
        return in_words(self.readings)

    def drawn(self) -> Image.Image:
        from mnist_cnn.reading.drawing import draw_readings

        return draw_readings(self.picture, self.readings)

    def reply(self) -> PictureRead:
        sides = (*self.picture.size, *self.picture.size)
        digits = []
        for reading in self.readings:
            fields = FoundDigit.model_validate(reading).model_dump()
            fields["box"] = [place / side for place, side in zip(reading.box, sides, strict=True)]
            image = base64.b64encode(reading.image.tobytes()).decode()
            digits.append(SeenDigit(**fields, image=image))
        return PictureRead(
            text=written(self.readings),
            rotation=rotation(self.readings),
            lines=found_lines(self.readings),
            digits=digits,
        )


@dataclass
class ClassesAnswer(Answer):
    """The most likely classes of a whole picture."""

    net: Trained
    picture: Image.Image
    classes: list[FoundClass]

    def values(self) -> Mapping[str, object]:
        return {"classes": [each.model_dump() for each in self.classes]}

    def words(self) -> str:
        return ", ".join(f"{each.name} {each.probability:.1%}" for each in self.classes)

    def drawn(self) -> Image.Image:
        raise ValueError("--show draws digits in their places; ckpt_path classifies whole pictures")

    def reply(self) -> PictureClassified:
        pixels = self.net.image_of(self.picture).permute(1, 2, 0).squeeze(2).numpy()
        image = as_url(Image.fromarray(pixels), "png")
        return PictureClassified(classes=self.classes, image=image)


@dataclass
class Digits:
    """Networks that read the digits on a page, one by one.

    Args:
        net, reader: see `read_digits`.
    """

    net: "Net | None" = None
    reader: Detector = field(default_factory=shipped)

    does: ClassVar[str] = "Reads handwritten digits."
    # of the page: what shows the replies, and what reads without a server, each using those before
    script: ClassVar[str] = "digits.js"
    offline: ClassVar[Sequence[str]] = (
        *("network.js", "decode.js", "lines.js", "reading.js", "drawing.js"),
    )
    reply_type: ClassVar[type[Reply]] = PictureRead
    arrays_type: ClassVar[type[BaseModel]] = DigitsClassified
    shape: ClassVar[tuple[int, ...]] = SHAPE  # of the images that `net` classifies

    def __call__(self, picture: Image.Image) -> Answer:
        # needs the extra photo, an export does not
        from mnist_cnn.reading.reader import read_digits

        return DigitsAnswer(picture, read_digits(picture, self.net, reader=self.reader))

    def about(self) -> Mapping[str, object]:
        """Return what the page has to know of the network."""
        return {"draws": True}

    @functools.cached_property
    def classifier(self) -> "Net":
        return predictor.load() if self.net is None else self.net

    def classified(self, images: Tensor) -> DigitsClassified:
        """Classify uint8 images (N, H, W), or of several channels (N, C, H, W)."""
        found = self.classifier(images).float()
        return DigitsClassified(digits=found.argmax(1).tolist(), probabilities=found.tolist())


@dataclass
class Classes:
    """A network that classifies whole pictures; the methods are those of `Digits`.

    Raises:
        ValueError: it takes no pictures, see `Trained.image_of`, or fails for one.
    """

    net: Trained

    does: ClassVar[str] = "Classifies pictures."
    script: ClassVar[str] = "classes.js"
    offline: ClassVar[Sequence[str]] = ("network.js", "classify.js")
    reply_type: ClassVar[type[Reply]] = PictureClassified
    arrays_type: ClassVar[type[BaseModel]] = ImagesClassified

    def __post_init__(self) -> None:
        try:
            self(Image.new("L", (1, 1)))
        except Exception as e:  # a user's network may raise anything for its images
            raise ValueError(str(e)) from e

    @property
    def shape(self) -> tuple[int, ...]:
        return self.net.shape

    def __call__(self, picture: Image.Image) -> Answer:
        return ClassesAnswer(self.net, picture, as_found(self.net.classify(picture)))

    def about(self) -> Mapping[str, object]:
        return {
            "draws": self.shape == SHAPE,  # in MNIST's format, on the ground of training's images
            "onLight": self.net.is_on_light,
            "classes": self.net.classes,
            "shape": self.shape,
            "whiteOnBlack": self.net.is_white_on_black,
        }

    def classified(self, images: Tensor) -> ImagesClassified:
        every = self.net(images)
        return ImagesClassified(classes=[as_found(self.net.named(each)) for each in every])


def as_found(named: Sequence[tuple[str, float]]) -> list[FoundClass]:
    return [FoundClass(name=name, probability=p) for name, p in named]


def load_network(path: Path | str | None = None) -> Digits | Classes:
    """Load what reads or classifies pictures.

    Args:
        path: a reader, see `load_reader`, which is used alone, or a network of images, see
            `network_of`. None is the shipped reader alone.

    Raises:
        ValueError: it is none of these.
    """
    if path is None:
        return network_of(None)
    try:
        net = predictor.load(path)
    except ReaderError:
        return Digits(reader=load_reader(path))
    try:
        return network_of(net)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def network_of(net: Trained | None) -> Digits | Classes:
    """Return what reads or classifies pictures with a network of images.

    The shipped reader finds digits, and a network of 28x28 digits classifies them; any other
    network classifies whole pictures. None is the reader alone.

    Raises:
        ValueError: it takes no pictures, see `Trained.image_of`.
    """
    return Digits(net) if net is None or net.reads_digits else Classes(net)
