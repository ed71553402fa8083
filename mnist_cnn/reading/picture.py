"""A picture's file, decoded, upright and opaque."""

import contextlib
import io
import itertools
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mnist_cnn.config.messages import install
from mnist_cnn.reading.ink import shrunk

# pictures that people have; Pillow reads PostScript too, by running Ghostscript on it, and formats
# so rare that their decoders are seldom looked at
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")  # what telephones write
MAX_PIXELS = 100_000_000
MAX_SIDE = 2000  # a digit 5 mm high on a photographed A4 page is still 33 pixels high
PDF_PASSWORD = 4  # PDFium's FPDF_ERR_PASSWORD

# a file's path, its content or an open file of it, or an array as `load_picture` has it
Source = str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any]
TAKEN = (
    "a path, bytes, a file opened in binary mode, a PIL image, or an array (H, W), (H, W, 3) or "
    "(H, W, 4) of uint8 or of floats in [0, 1]"
)
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 swap width and height


def load_picture(source: Source | Image.Image) -> Image.Image:
    """Return a picture, or the first one in its file: upright, RGB or L, opaque, sides <= 2000 px.

    Args:
        source: a file's path, its content, or a file opened in binary mode; a PIL image; or an
            array (H, W), (H, W, 3) or (H, W, 4) of uint8 or of floats in [0, 1].

    Raises:
        OSError: the file cannot be opened (missing, a folder or a pipe, not allowed).
        ValueError: it holds no picture of FORMATS, no HEIC and no PDF, is damaged, encrypted,
            empty or over 100 megapixels; or it is nothing of the above.
    """
    with Pages(source) as pages:
        page = pages[0]
    if isinstance(page, ValueError):
        raise page
    return page


class Pages(contextlib.ExitStack):
    """The pages of a PDF or a TIFF, or the only page of another file, which is opened once.

    Of what moves (GIF, WebP, AVIF) that is the first frame. In place of a page that cannot be read
    comes the error that `load_picture` would raise.

    Args:
        source: as `load_picture` has it; it stays open until `close` or the end of a `with`.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is nothing that `load_picture` takes.
    """

    def __init__(self, source: Source | Image.Image):
        super().__init__()
        self._name, self._count = "the picture", 1
        self._decode: Callable[[int], Image.Image]
        if isinstance(source, Image.Image) or hasattr(source, "__array__"):
            self._decode = partial(_whole, source)
            return
        file: IO[bytes]
        if isinstance(source, str | os.PathLike):
            self._name = os.fspath(source)
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise OSError(f"{self._name}: not a file")  # a pipe would be waited for
            file = self.enter_context(open(source, "rb"))  # noqa: SIM115, this is a stack
        else:
            file = io.BytesIO(_content(source))
        try:
            self._count, self._decode = self._open(file)
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # it stands in place of the first page
            self._decode = partial(_raise, error)

    def _open(self, file: IO[bytes]) -> tuple[int, Callable[[int], Image.Image]]:
        """The number of pages and what decodes one."""
        head = file.read(1024)
        file.seek(0)
        if b"%PDF-" in head:
            import pypdfium2

            document = self.enter_context(pypdfium2.PdfDocument(file.read()))
            return len(document), partial(_pdf_page, document)
        if heic := head[4:8] == b"ftyp" and head[8:12] in HEIC:
            import pillow_heif

            pillow_heif.register_heif_opener()
        with _quiet():
            image = self.enter_context(Image.open(file, formats=("HEIF",) if heic else FORMATS))
            return _frames(image) if image.format == "TIFF" else 1, partial(_frame, image)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Image.Image | ValueError:
        """A page, counted from 0, or the reason why it cannot be read."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        try:
            with _quiet():
                return self._decode(number)
        except MemoryError:
            raise
        except Exception as error:  # decoders of damaged files raise all kinds of errors
            return ValueError(f"{self._name}: {_reason(error)}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: Pillow has one for anything unusual; what cannot be read raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _content(source: Any) -> bytes:
    """The bytes that were given, or are left in an open file."""
    content = source.read() if hasattr(source, "read") else source
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ValueError(f"the picture: must be {TAKEN}, got {type(source).__name__}")
    return bytes(content)


def _whole(source: Any, number: int) -> Image.Image:
    """The picture of a PIL image or of an array, of whose kinds TAKEN has the list."""
    if isinstance(source, Image.Image):
        return _upright(source)
    array = np.asarray(source)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if fits and array.dtype.kind == "f" and ((array >= 0) & (array <= 1)).all():
        array = (array * 255).round().astype(np.uint8)
    if not fits or array.dtype != np.uint8:
        raise _UnsuitableError(f"must be {TAKEN}, got {array.dtype} {array.shape}")
    return _upright(Image.fromarray(array))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that the picture's EXIF asks for."""
    image.load()  # Pillow turns a TIFF when it loads it
    return image.size[::-1] if image.getexif().get(_ORIENTATION, 1) >= 5 else image.size


def _raise(error: Exception, number: int) -> Image.Image:
    raise error


def _reason(error: Exception) -> str:
    if isinstance(error, _UnsuitableError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"reading it needs {error.name}: {install('photo')}"
    if isinstance(error, Image.DecompressionBombError):
        return f"over {MAX_PIXELS // 10**6} megapixels"
    if getattr(error, "err_code", None) == PDF_PASSWORD:
        return "an encrypted PDF, which needs a password"
    return f"not a picture, damaged, or none of {', '.join(FORMATS)}, HEIC and PDF"


def _frames(image: Image.Image) -> int:
    """The number of frames, one that is damaged included: there the way to the next is lost."""
    for number in itertools.count(1):
        try:
            image.seek(number)
        except EOFError:
            return number
        except Exception:  # when it is asked for it fails again
            return number + 1
    raise AssertionError


def _frame(image: Image.Image, number: int) -> Image.Image:
    if image.tell() != number:
        image.seek(number)
    _check_size(image)
    image.draft(None, _fitting(*image.size))  # JPEG: decode 1/2, 1/4 or 1/8 of the size
    return _upright(image)


def _pdf_page(document: Any, number: int) -> Image.Image:
    """A page of a PDF, the longer side 2000 px."""
    page = document[number]
    picture: Image.Image = page.render(scale=MAX_SIDE / max(page.get_size())).to_pil()
    return picture.convert("RGB")


class _UnsuitableError(ValueError):
    """The reason why a picture cannot be read, as it is shown."""


def _check_size(image: Image.Image) -> None:
    if 0 in image.size:
        raise _UnsuitableError(f"the picture is empty, {image.width} x {image.height} pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _UnsuitableError(
            f"{image.width} x {image.height} pixels, over {MAX_PIXELS // 10**6} megapixels"
        )


def _fitting(width: int, height: int) -> tuple[int, int]:
    """The size to read a picture at: at most MAX_SIDE a side, or of a strip as many pixels.

    A strip is longer than 4 times its shorter side.
    """
    zoom = max(MAX_SIDE / max(width, height), MAX_SIDE / 2 / math.sqrt(width * height))
    return max(1, round(width * min(1, zoom))), max(1, round(height * min(1, zoom)))


def _upright(image: Image.Image) -> Image.Image:
    """At most MAX_SIDE pixels a side, RGB or L, opaque, rotated as its EXIF says."""
    _check_size(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        small = _eight_bit(image)
    elif image.has_transparency_data:
        small = image.convert("RGBA")
    else:
        small = image.convert("L" if image.mode in ("1", "L") else "RGB")
    small = image.copy() if small is image else small
    small.thumbnail(_fitting(*small.size), reducing_gap=3)
    if small.mode == "RGBA":
        small = _opaque(small)
    # conversion keeps the EXIF of some formats and loses that of others
    small.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    # the pixels alone: what else a file says need not be sound
    return Image.fromarray(np.asarray(ImageOps.exif_transpose(small)))


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point pictures, by the smallest usual white that holds them."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, posinf=0, neginf=0)
    peak = float(values.max())
    whites = (1.0, 255.0, 4095.0, 65535.0) if image.mode == "F" else (255.0, 4095.0, 65535.0)
    white = next((white for white in whites if peak <= white), peak)
    # small first: of 100 megapixels each copy as float32 would take 400 MB
    small = shrunk(values, MAX_SIDE).astype(np.float32).clip(0)
    return Image.fromarray((small * (255 / white)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """An RGBA picture on a ground that its transparent part may have stood for."""
    red, green, blue, alpha = (np.asarray(band, np.float32) for band in image.split())
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    if (alpha > 127).mean() > 0.5:
        ground = float(np.median(light[alpha > 127]))  # cut-out paper: more of the same
    else:  # drawn on nothing: dark ink wants white paper, light ink a black one
        ground = 0.0 if alpha.any() and np.average(light, weights=alpha) >= 128 else 255.0
    paper = Image.new("RGBA", image.size, (round(ground),) * 3 + (255,))
    paper.alpha_composite(image)
    return paper.convert("RGB")
