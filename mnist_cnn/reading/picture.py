"""A picture's file, decoded, upright and opaque."""

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
from PIL import Image, ImageOps

from mnist_cnn.config.messages import install
from mnist_cnn.reading.ink import shrunk

# pictures that people have; Pillow reads PostScript too, by running Ghostscript on it, and formats
# so rare that their decoders are seldom looked at
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")  # what telephones write
MAX_PIXELS = 100_000_000
MAX_SIDE = 2000  # a digit 5 mm high on a photographed A4 page is still 33 pixels high
MIN_SIDE = 400  # smaller pictures are enlarged: thresholds then cut between pixels
PDF_PASSWORD = 4  # PDFium's FPDF_ERR_PASSWORD

Decoder = Callable[[], Image.Image]
Source = str | os.PathLike[str] | bytes  # a file's path, or its content
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 swap width and height


def load_picture(source: Source | Image.Image) -> Image.Image:
    """Return a picture, or the first one in its file: upright, RGB or L, opaque, sides <= 2000 px.

    Raises:
        OSError: the file cannot be opened (missing, a folder or a pipe, not allowed).
        ValueError: it holds no picture of FORMATS, no HEIC and no PDF, is damaged, encrypted,
            empty or over 100 megapixels.
    """
    page = next(load_pages(source))
    if isinstance(page, ValueError):
        raise page
    return page


def load_pages(
    source: Source | Image.Image, only: int | None = None
) -> Iterator[Image.Image | ValueError]:
    """Iterate over the pages of a PDF or a TIFF, or the only page of another file.

    Of what moves (GIF, WebP, AVIF) that is the first frame. In place of a page that cannot be read
    comes the error that `load_picture` would raise; with the number of an only one, counted from 1,
    an error in place of each other page, which is not decoded.

    Raises:
        OSError: the file cannot be opened.
    """
    if isinstance(source, Image.Image):
        yield from _decoded(iter([partial(_upright, source)]), "the picture")
        return
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
        raise OSError(f"{name}: not a file")  # a pipe would be waited for
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        head = file.read(1024)
        file.seek(0)
        heic = head[4:8] == b"ftyp" and head[8:12] in HEIC
        decoders = _pdf_pages(file) if b"%PDF-" in head else _frames(file, heic)
        yield from _decoded(decoders, name, only)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that the picture's EXIF asks for."""
    image.load()  # Pillow turns a TIFF when it loads it
    return image.size[::-1] if image.getexif().get(_ORIENTATION, 1) >= 5 else image.size


def _decoded(
    decoders: Iterator[Decoder], name: str, only: int | None = None
) -> Iterator[Image.Image | ValueError]:
    """The pictures of the decoders, each or the reason why it cannot be read."""
    for number in itertools.count(1):
        page: Image.Image | ValueError
        try:
            with warnings.catch_warnings():
                # Pillow warns of anything unusual; what cannot be read raises below
                warnings.simplefilter("ignore")
                if (decode := next(decoders, None)) is None:
                    return
                page = decode() if only in (None, number) else ValueError("not asked for")
        except MemoryError:  # no fault of the file
            raise
        except Exception as error:  # decoders of damaged files raise all kinds of errors
            page = ValueError(f"{name}: {_reason(error)}")
        yield page


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


def _frames(file: IO[bytes], heic: bool) -> Iterator[Decoder]:
    """Decoders of the frames of a TIFF, of any other picture of the first."""
    if heic:
        import pillow_heif

        pillow_heif.register_heif_opener()
    with Image.open(file, formats=("HEIF",) if heic else FORMATS) as image:
        for frame in itertools.count():
            try:
                image.seek(frame)
            except EOFError:
                return
            yield partial(_frame, image)
            if image.format != "TIFF":
                return


def _frame(image: Image.Image) -> Image.Image:
    _check_size(image)
    image.draft(None, _fitting(*image.size))  # JPEG: decode 1/2, 1/4 or 1/8 of the size
    return _upright(image)


def _pdf_pages(file: IO[bytes]) -> Iterator[Decoder]:
    """Decoders of the pages of a PDF, the longer side 2000 px."""
    import pypdfium2

    with pypdfium2.PdfDocument(file.read()) as document:
        for number in range(len(document)):
            yield partial(_pdf_page, document, number)


def _pdf_page(document: Any, number: int) -> Image.Image:
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
