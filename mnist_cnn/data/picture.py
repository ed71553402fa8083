"""Decoding of picture files to upright, opaque images, and to the images that networks take."""

import contextlib
import io
import itertools
import logging
import math
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mnist_cnn.config.messages import install, must_be

# common formats; Pillow also reads PostScript, by running Ghostscript, and formats so rare that
# their decoders are seldom reviewed
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")
MAX_PIXELS = 100_000_000
MAX_SIDE = 2000  # a digit 5 mm high on a photographed A4 page is still 33 pixels high
PDF_PASSWORD = 4  # PDFium's FPDF_ERR_PASSWORD

# a file's path, its content or an open file, or an array, see `load_picture`
Source = str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any]
TAKEN = (
    "a path, bytes, a file opened in binary mode, a PIL image, or an array (H, W), (H, W, 3) or "
    "(H, W, 4) of uint8 or of floats in [0, 1]"
)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of Pillow, by channels
LIGHT = 0.75  # fraction of an image's outermost pixels above which its ground is light
_ORIENTATION = 0x0112  # the EXIF tag
_SPREAD = 64  # of 255: opaque pixels whose lightness differs less are ink alone, with no paper
_LYING = (5, 6, 7, 8)  # its values that swap width and height
_decoding = threading.Lock()


def load_picture(source: Source | Image.Image) -> Image.Image:
    """Load a picture, or the first one in a file: upright, RGB or L, opaque, sides <= 2000 px.

    A strip longer than 4 times its shorter side may be longer, with at most a megapixel.

    Args:
        source: a file's path, its content, or a file opened in binary mode; a PIL image; or an
            array (H, W), (H, W, 3) or (H, W, 4) of uint8 or of floats in [0, 1].

    Raises:
        OSError: the file cannot be opened (missing, a folder or a pipe, not allowed).
        ValueError: the file is not a picture of FORMATS, HEIC or PDF, is damaged, encrypted, empty
            or over 100 megapixels; or the source is none of the above.
    """
    with Pages(source) as pages:
        return page_of(pages, 1)


def suffixes() -> set[str]:
    """Return the suffixes, such as ".png", of the pictures that `load_picture` reads, but PDF."""
    Image.init()
    known = Image.registered_extensions().items()
    return {suffix for suffix, kind in known if kind in FORMATS} | {".heic", ".heif"}


def as_image(
    source: Source | Image.Image, channels: int, size: Sequence[int] | None = None
) -> Tensor:
    """Load a picture as an image uint8 (C, H, W): training and prediction see the same.

    Args:
        source: see `load_picture`.
        channels: C; 1 is grey, 3 RGB, 4 RGB with an opacity of 255.
        size: (H, W), to which it is scaled, each side by itself; None keeps its size.

    Raises:
        OSError, ValueError: see `load_picture`; or there are no pictures of so many channels.
    """
    if channels not in MODES:
        raise ValueError(must_be("channels of a picture", "1, 3 or 4", channels))
    picture = load_picture(source).convert(MODES[channels])
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.array(picture).reshape(picture.height, picture.width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def is_on_light(image: Tensor) -> bool:
    """Return whether most of the outermost pixels of an image uint8 (C, H, W) are light."""
    rim = torch.cat([image[..., [0, -1], :].flatten(), image[..., [0, -1]].flatten()])
    return (rim > 127).double().mean().item() > LIGHT


class Pages(contextlib.ExitStack):
    """The pages of a PDF or a TIFF, or the only page of another file, which is opened once.

    The only page of an animation (GIF, WebP, AVIF) is its first frame. A page that cannot be read
    is replaced by the error that `load_picture` would raise.

    Args:
        source: source, see `load_picture`; it stays open until `close` or the end of a `with`.

    Raises:
        OSError: the file cannot be opened.
        ValueError: `load_picture` does not take such a source.
    """

    def __init__(self, source: Source | Image.Image):
        super().__init__()
        self._name, self._count = "the picture", 1
        self._decode: Callable[[int], Image.Image]
        if is_decoded(source):
            self._decode = partial(_whole, source)
            return
        file: IO[bytes]
        if isinstance(source, str | os.PathLike):
            self._name = os.fspath(source)
            if not stat.S_ISREG(os.stat(source).st_mode):
                raise OSError(f"{self._name}: not a file")  # a pipe would block
            file = self.enter_context(open(source, "rb"))  # noqa: SIM115, this is a stack
        else:
            file = io.BytesIO(_content(source))
        try:
            with _quiet():
                self._count, self._decode = self._open(file)
        except MemoryError:  # not an error of the file
            raise
        except Exception as error:  # returned in place of the first page
            self._decode = partial(_raise, error)

    def _open(self, file: IO[bytes]) -> tuple[int, Callable[[int], Image.Image]]:
        """Open a file; return its number of pages and the function that decodes one."""
        head = file.read(1024)
        file.seek(0)
        formats: tuple[str, ...] = FORMATS
        if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
            import pillow_heif

            pillow_heif.register_heif_opener()
            formats = "AVIF", "HEIF"  # which share the other brands
        try:
            image = self.enter_context(Image.open(file, formats=formats))
        except UnidentifiedImageError:
            if b"%PDF-" not in head:
                raise
            return self._open_pdf(file)
        return _frames(image) if image.format == "TIFF" else 1, partial(_frame, image)

    def _open_pdf(self, file: IO[bytes]) -> tuple[int, Callable[[int], Image.Image]]:
        import pypdfium2

        # of a form in XFA it would log how to compile it anew; the plain fields are drawn
        logging.getLogger("pypdfium2").setLevel(logging.ERROR)
        file.seek(0)
        document = pypdfium2.PdfDocument(file.read())
        self.callback(_close, document)
        document.init_forms()  # else typed fields are not drawn
        return len(document), partial(_pdf_page, document)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Image.Image | ValueError:
        """Return a page, counted from 0, or the reason why it cannot be read."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        try:
            with _quiet():
                return self._decode(number)
        except MemoryError:
            raise
        except Exception as error:  # decoders of damaged files raise all kinds of errors
            return ValueError(f"{self._name}: {_reason(error)}")


class NoPageError(ValueError):
    """A file has fewer pages."""


def page_of(pages: Pages, number: int) -> Image.Image:
    """Return a page of a file, counted from 1.

    Raises:
        NoPageError: there is no such page.
        ValueError: it cannot be read.
    """
    if not 0 < number <= len(pages):
        raise NoPageError(f"page must be 1 to {len(pages)}, got {number}")
    page = pages[number - 1]
    if isinstance(page, ValueError):
        raise page
    return page


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: Pillow warns of anything unusual, and raises for unreadable files.

    One thread at a time: the filters of warnings are the whole process's, and PDFium is not safe
    for threads.
    """
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _content(source: Any) -> bytes:
    """Return the given bytes, or the rest of an open file."""
    content = source.read() if hasattr(source, "read") else source
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ValueError(f"the picture: must be {TAKEN}, got {type(source).__name__}")
    return bytes(content)


def _whole(source: Any, number: int) -> Image.Image:
    """Return the picture of a PIL image or of an array of a kind in TAKEN."""
    if isinstance(source, Image.Image):
        return _upright(source)
    try:
        array = np.asarray(source)
    except (TypeError, RuntimeError) as e:  # a tensor that requires grad, or on a GPU
        raise _UnsuitableError(f"must be {TAKEN}, got {type(source).__name__}: {e}") from None
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if fits and array.dtype.kind == "f" and ((array >= 0) & (array <= 1)).all():
        array = (array * 255).round().astype(np.uint8)
    if not fits or array.dtype != np.uint8:
        raise _UnsuitableError(f"must be {TAKEN}, got {array.dtype} {array.shape}")
    return _upright(Image.fromarray(array))


def is_decoded(source: object) -> TypeGuard[Image.Image | NDArray[Any]]:
    """Return whether a source is a PIL image or an array, and no file."""
    return isinstance(source, Image.Image) or hasattr(source, "__array__")


def upright_size(image: Image.Image | NDArray[Any]) -> tuple[int, int]:
    """Return width and height, of a PIL image after the rotation in its EXIF data."""
    if not isinstance(image, Image.Image):
        height, width = np.shape(image)[:2]
        return width, height
    image.load()  # Pillow rotates a TIFF on loading
    return image.size[::-1] if _orientation(image) in _LYING else image.size


def _orientation(image: Image.Image) -> int:
    """Return the orientation in a picture's EXIF data; 1, upright, where these are damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises SyntaxError and more for PNG and WebP, nothing for JPEG
        return 1


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
    """Count the frames, up to and including the first damaged one, which hides the others."""
    for number in itertools.count(1):
        try:
            image.seek(number)
        except EOFError:
            return number
        except Exception:  # reading this frame will raise again
            return number + 1
    raise AssertionError


def _frame(image: Image.Image, number: int) -> Image.Image:
    # a HEIC file is open at its primary image, whatever its number
    if image.format == "TIFF" and image.tell() != number:
        image.seek(number)
    _check_size(image)
    image.draft(None, _fitting(*image.size))  # JPEG: decode 1/2, 1/4 or 1/8 of the size
    return _upright(image)


def _pdf_page(document: Any, number: int) -> Image.Image:
    """Render a page of a PDF in the greatest size that a picture is read at."""
    page = document[number]
    picture: Image.Image = page.render(scale=_zoom(*page.get_size())).to_pil()
    return picture.convert("RGB")


def _close(document: Any) -> None:
    with _decoding:  # PDFium is not safe for threads
        document.close()


class _UnsuitableError(ValueError):
    """The reason why a picture cannot be read, as shown to the user."""


def _check_size(image: Image.Image) -> None:
    if 0 in image.size:
        raise _UnsuitableError(f"the picture is empty, {image.width} x {image.height} pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _UnsuitableError(
            f"{image.width} x {image.height} pixels, over {MAX_PIXELS // 10**6} megapixels"
        )


def _fitting(width: int, height: int) -> tuple[int, int]:
    """Return the size to read a picture at: its own, or the greatest by `_zoom`."""
    zoom = min(1, _zoom(width, height))
    return max(1, round(width * zoom)), max(1, round(height * zoom))


def _zoom(width: float, height: float) -> float:
    """Return the scale at which the longer side is MAX_SIDE.

    A strip, longer than 4 times its shorter side, may be longer, with MAX_SIDE**2 / 4 pixels.
    """
    return max(MAX_SIDE / max(width, height), MAX_SIDE / 2 / math.sqrt(width * height))


def _upright(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB or L, opaque, upright by its EXIF data, in its `_fitting` size."""
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
    bare = Image.fromarray(np.asarray(small))  # other metadata may be invalid
    bare.getexif()[_ORIENTATION] = _orientation(image)
    return Image.fromarray(np.asarray(ImageOps.exif_transpose(bare)))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert a 16-bit, 32-bit or float picture to 8 bits, by the smallest usual white above it."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, posinf=0, neginf=0)
    peak = float(values.max())
    whites = (1.0, 255.0, 4095.0, 65535.0) if image.mode == "F" else (255.0, 4095.0, 65535.0)
    white = next((white for white in whites if peak <= white), peak)
    if (size := _fitting(*image.size)) != image.size:
        import cv2  # large pictures of these kinds alone need it

        # shrink first: a float32 copy of 100 megapixels of 16 bits would take 400 MB.
        # OpenCV ignores the order of bytes, and shrinks no other integers
        native = np.uint16 if values.dtype.itemsize == 2 else np.float32
        values = cv2.resize(values.astype(native, copy=False), size, interpolation=cv2.INTER_AREA)
    small = values.astype(np.float32).clip(0)
    return Image.fromarray((small * (255 / white)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """Put an RGBA picture on a plausible background."""
    red, green, blue, alpha = (np.asarray(band, np.float32) for band in image.split())
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    seen = light[alpha > 127]
    if seen.size > light.size / 2 and np.ptp(seen) >= _SPREAD:  # cut-out paper: the same
        ground = float(np.median(seen))
    else:  # drawn on nothing: white paper for dark ink, black for light ink
        ground = 0.0 if alpha.any() and np.average(light, weights=alpha) >= 128 else 255.0
    paper = Image.new("RGBA", image.size, (round(ground),) * 3 + (255,))
    paper.alpha_composite(image)
    return paper.convert("RGB")
