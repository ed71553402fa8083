"""Any picture -> the digits in it, each as MNIST made its own.

Light is taken as a property of the paper and ink as a share of the light that the paper would have
returned, so that a shadow changes neither; LeCun et al. (1998, section III.A) describe the 28x28
form. Coordinates are (left, top, right, bottom) in pixels, right and bottom exclusive. An ink map
is float32 (height, width) in [0, 1], 0 for paper.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Box = tuple[int, int, int, int]
# OpenCV's annotations leave the element type open
Grey = NDArray[Any]  # uint8
Ink = NDArray[Any]  # float32, 0 for paper
Mask = NDArray[Any]  # uint8, 0 or 1
Labels = NDArray[Any]  # int32, 0 for paper

# pictures that people have; Pillow reads PostScript too, by running Ghostscript on it, and formats
# so rare that their decoders are seldom looked at
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "AVIF", "JPEG2000")
MAX_PIXELS = 100_000_000
MAX_SIDE = 2000  # a digit 5 mm high on a photographed A4 page is still 33 pixels high
MIN_SIDE = 400  # smaller pictures are enlarged: thresholds then cut between pixels
FAINTEST = 0.10  # what takes less of the light is the paper's texture
SMALLEST = 0.015  # height of a digit as a share of the picture's longer side
NARROWEST_PAIR = 1.25  # width of two touching digits as a share of their height
MOST_PIECES = 400  # a picture in more pieces is noise or a page of print


@dataclass(frozen=True)
class Digit:
    """One digit of a picture.

    Attributes:
        box: where it is in the upright picture, in pixels.
        image: uint8 (28, 28), white ink on black, longest side 20, centred by mass.
        row: the line of writing that it stands in, from 0 at the top.
        halves: the two digits that it may be instead, where its shape does not decide; or none.
    """

    box: Box
    image: NDArray[np.uint8]
    row: int
    halves: "tuple[Digit, ...]" = ()


@dataclass(frozen=True)
class _Strokes:
    """Connected ink, or several such pieces that make up one digit: their box and mask in it."""

    box: Box
    mask: Mask  # (height, width) of the box, 0 or 1

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def extent(self) -> int:
        return max(self.width, self.height)


def load_picture(source: str | os.PathLike[str] | bytes | Image.Image) -> Image.Image:
    """The first frame of a picture: upright, RGB or L, nothing transparent, at most 2000 px a side.

    Raises:
        OSError: the file cannot be opened (missing, a folder or a pipe, not allowed).
        ValueError: it holds no picture of FORMATS, is damaged, empty or over 100 megapixels.
    """
    if isinstance(source, Image.Image):
        return _upright(source, "the picture")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture")
    if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe would be waited for
        raise OSError(f"{os.fspath(source)}: not a file")
    with open(source, "rb") as file:
        return _decode(file, os.fspath(source))


def find_digits(image: Image.Image) -> list[Digit]:
    """The digits of a picture, rows from top to bottom, each from left to right; may be none.

    Boxes are in pixels of the picture given, after the rotation that its EXIF asks for.
    """
    picture = load_picture(image)
    grey = np.asarray(picture.convert("L"))
    zoom = MIN_SIDE / max(grey.shape)
    if zoom > 1:
        enlarged = max(1, round(grey.shape[1] * zoom)), max(1, round(grey.shape[0] * zoom))
        grey = cv2.resize(grey, enlarged, interpolation=cv2.INTER_CUBIC)
    ink, mask = _ink(grey)
    rows = _rows(_digits(ink, mask))
    size, target = grey.shape[::-1], upright_size(image)

    def made(digit: _Strokes, row: int, halves: tuple[Digit, ...] = ()) -> Digit:
        return Digit(_scaled(digit.box, size, target), _mnist_image(ink, digit), row, halves)

    return [
        made(digit, row, tuple(made(half, row) for half in _doubtful_halves(digit)))
        for row, digits in enumerate(rows)
        for digit in digits
    ]


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that the picture's EXIF asks for."""
    image.load()  # Pillow turns a TIFF when it loads it
    sideways = image.getexif().get(_ORIENTATION, 1) >= 5
    return image.size[::-1] if sideways else image.size


# --- the file -------------------------------------------------------------------------------------

_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 swap width and height


def _decode(file: IO[bytes], name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of anything odd; what cannot be read raises below
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, name)
                image.draft(None, (MAX_SIDE, MAX_SIDE))  # JPEG: decode 1/2, 1/4 or 1/8 of the size
                return _upright(image, name)
    except Exception as error:  # decoders of damaged files raise all kinds of errors
        reason = f"not a picture, damaged, or none of {', '.join(FORMATS)}"
        if isinstance(error, _SizeError):
            raise
        if isinstance(error, Image.DecompressionBombError):
            reason = f"over {MAX_PIXELS // 10**6} megapixels"
        raise ValueError(f"{name}: {reason}") from error


class _SizeError(ValueError):
    """The picture's size is not one to work with."""


def _check_size(image: Image.Image, name: str) -> None:
    if 0 in image.size:
        raise _SizeError(f"{name}: the picture is empty, {image.width} x {image.height} pixels")
    if image.width * image.height > MAX_PIXELS:
        raise _SizeError(
            f"{name}: {image.width} x {image.height} pixels, over {MAX_PIXELS // 10**6} megapixels"
        )


def _upright(image: Image.Image, name: str) -> Image.Image:
    """At most MAX_SIDE pixels a side, RGB or L, opaque, turned as its EXIF says."""
    _check_size(image, name)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        small = _eight_bit(image)
    elif image.has_transparency_data:
        small = image.convert("RGBA")
    else:
        small = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if small is image:
        small = image.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=3)
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
    zoom = min(1, MAX_SIDE / max(image.size))
    size = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    # small first: of 100 megapixels each copy as float32 would take 400 MB
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA).astype(np.float32).clip(0)
    return Image.fromarray((small * (255 / white)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """An RGBA picture on a ground that its transparent part may have stood for."""
    red, green, blue, alpha = (np.asarray(band, np.float32) for band in image.split())
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    if (alpha > 127).mean() > 0.5:
        ground = float(np.median(light[alpha > 127]))  # cut-out paper: more of the same
    elif alpha.any():
        # drawn on nothing: dark ink wants white paper, light ink a black one
        ground = 255.0 if np.average(light, weights=alpha) < 128 else 0.0
    else:
        ground = 255.0
    paper = Image.new("RGBA", image.size, (round(ground),) * 3 + (255,))
    paper.alpha_composite(image)
    return paper.convert("RGB")


# --- ink and paper --------------------------------------------------------------------------------


def _ink(grey: Grey) -> tuple[Ink, Mask]:
    """The ink map of a grey picture and the mask of what is pen stroke in it."""
    if _is_light_on_dark(grey):
        grey = 255 - grey
    ink, mask, noise = _ink_on(grey, _paper(grey, _window(_shrunk(grey, 500))))
    lines = _ruled_lines(ink, mask)
    if lines.any() and (rest := _strokes(np.where(lines, 0, ink), noise)).any():
        return np.where(lines, 0, ink), rest
    return ink, mask


def _ink_on(grey: Grey, paper: Ink) -> tuple[Ink, Mask, float]:
    """The ink map, the mask of its strokes, and the standard deviation of the paper's noise."""
    signed = 1 - grey / paper
    noise = 1.48 * float(np.median(np.abs(signed)))
    ink = np.clip(signed, 0, 1, dtype=np.float32)
    return ink, _strokes(ink, noise), noise


def _window(small: Grey) -> float:
    """The window to look for paper in, a share of the longer side.

    A thick pen in a tight crop needs a large window, a deep shadow a small one, and a shadow gives
    itself away: it lies along the border, or a smaller window leaves little of it.
    """
    window = 1.0
    _, mask, _ = _ink_on(small, _paper(small, window))
    for smaller in (0.5, 0.25):
        _, less, _ = _ink_on(small, _paper(small, smaller))
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        narrower = _widest(less) < 0.5 * _widest(mask) or less.mean() < 0.9 * mask.mean()
        if narrower or border.mean() > 0.15:
            window, mask = smaller, less
    return window


def _widest(mask: Mask) -> float:
    """The width of the widest stroke, in pixels; 0 where there is none."""
    return 2 * float(_depth(mask).max())


def _depth(mask: Mask) -> Ink:
    """How far inside the strokes each pixel is; the border of the picture counts as paper."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]


def _shrunk(grey: Grey, side: int) -> Grey:
    """At most side pixels along the longer side."""
    shrink = side / max(grey.shape)
    if shrink >= 1:
        return grey
    size = max(1, round(grey.shape[1] * shrink)), max(1, round(grey.shape[0] * shrink))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _median(small: Grey, window: float) -> Grey:
    """The median over a window, a share of the longer side: it forgets ink, not a shadow's edge."""
    return cv2.medianBlur(small, int(max(small.shape) * window) | 1)


def _is_light_on_dark(grey: Grey) -> bool:
    """Whether what stands out most from its surroundings is lighter than they are."""
    small = _shrunk(grey, 200)
    # cubes: soft shadows cover much but stand out little
    return float(np.sum((small - _median(small, 0.5).astype(np.float64)) ** 3)) > 0


def _paper(grey: Grey, window: float) -> Ink:
    """The light of the bare paper at every pixel, at least 1; window as in _median."""
    small = _shrunk(grey, 200)
    paper: Ink = np.maximum(_median(small, window), 1)
    for _ in range(2):
        # the large window misses finer shading: take it from the paper between the strokes
        share = np.clip(1 - small / paper, 0, 1)
        limit, _ = cv2.threshold((share * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
        # half of the threshold and a margin, as a stroke fades out at its edges
        bare: Ink = (share < max(limit / 255 / 2, FAINTEST / 2)).astype(np.float32)
        bare = cv2.erode(bare, np.ones((5, 5), np.uint8))
        sigma = max(small.shape) / 25
        weight = cv2.GaussianBlur(bare, (0, 0), sigma) + 1e-3
        light = cv2.GaussianBlur(bare * small, (0, 0), sigma) + 1e-3 * paper
        filled = np.where(bare > 0, small, light / weight).round().astype(np.uint8)
        # where no stroke is left a small window will do, and it keeps edges, as a mean does not
        paper = np.maximum(_median(filled, 0.125), 1)
    return cv2.resize(paper.astype(np.float32), grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _strokes(ink: Ink, noise: float) -> Mask:
    """0 or 1: ink about as dark as the pen, and what fainter ink touches it."""
    floor = max(FAINTEST, 4 * noise)
    dark = ink[ink > floor]
    if not dark.size:
        return np.zeros(ink.shape, np.uint8)
    levels = (dark * 255).astype(np.uint8)
    split, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    pen = float(np.median(dark[levels >= split]))  # the lighter half: ruled lines, strokes' edges
    mask = (ink > max(floor, 0.35 * pen)).astype(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    inked = np.zeros(count, np.uint8)
    inked[labels[ink > max(floor, 0.6 * pen)]] = 1
    inked[0] = 0
    return inked[labels]


def _ruled_lines(ink: Ink, mask: Mask) -> NDArray[np.bool_]:
    """The ruled lines among the strokes, but for the places where the pen crosses them."""
    across = _level_lines(ink, mask, parallels=3)
    # writing has upright strokes side by side, so it takes more of them to make a grid
    down = _level_lines(np.ascontiguousarray(ink.T), np.ascontiguousarray(mask.T), parallels=6).T
    return across | down


def _level_lines(ink: Ink, mask: Mask, parallels: int) -> NDArray[np.bool_]:
    """Lines, nearly level, from border to border, or long ones among so many parallels."""
    small = (_shrunk(mask * 255, 500) > 60).astype(np.uint8)
    width = small.shape[1]
    # thickened, a line up to 4 degrees off level still holds a level bar
    thick = cv2.dilate(small, np.ones((5, 5), np.uint8))
    bars = cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((1, max(8, width // 6)), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bars, connectivity=8)
    left, length = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_WIDTH]
    thickness = np.full(len(stats), np.inf)
    for n in np.flatnonzero(length > 0.4 * width):
        columns = (labels == n).sum(0)
        # the median passes over the strokes that the line touches; 4 pixels were added above
        thickness[n] = np.median(columns[columns > 0]) - 4
    thin = (thickness < length / 40 + 1) & (np.arange(len(stats)) > 0)
    margin = 0.03 * width + 3
    through = thin & (left <= margin) & (left + length >= width - margin)
    long = thin & (length > 0.4 * width)
    ruled = through | long if long.sum() >= parallels else through
    if not ruled.any():
        return np.zeros(mask.shape, bool)
    lines = cv2.resize(ruled[labels].astype(np.uint8), mask.shape[::-1], interpolation=0)
    lines &= mask
    zoom = max(mask.shape) / max(small.shape)
    breadth = int(np.ceil((max(thickness[ruled].max(), 1) + 1) * zoom))
    # a pen stroke goes on above and below the line that it crosses
    bridge = np.ones((breadth + 3, 1), np.uint8)
    crossing = cv2.morphologyEx(mask & ~lines & 1, cv2.MORPH_CLOSE, bridge)
    # and is darker than a printed line, but for its edges
    darker = (ink > 1.4 * float(np.median(ink[lines > 0]))).astype(np.uint8)
    pen = cv2.dilate(darker, np.ones((5, 5), np.uint8))
    return (lines > 0) & (crossing == 0) & (pen == 0)


# --- strokes that make up digits ------------------------------------------------------------------


def _digits(ink: Ink, mask: Mask) -> list[_Strokes]:
    """The digits among the strokes, in no order."""
    pieces, labels = _pieces(ink, mask)
    if not pieces:
        return []
    size = _typical_height(pieces)
    owner = np.arange(len(pieces) + 1)  # label -> label of the digit that it belongs to
    for label in sorted(range(1, len(pieces) + 1), key=lambda n: pieces[n - 1].extent):
        partner = _partner(label, pieces, labels, size)
        if partner:
            owner[owner == owner[label]] = owner[partner]
    digits = [_joined([pieces[n - 1] for n in np.flatnonzero(owner == o)]) for o in set(owner[1:])]
    smallest = max(SMALLEST * max(mask.shape), 0.35 * size)
    digits = [digit for digit in digits if digit.height >= smallest and _is_written(digit)]
    return [
        part
        for digit in digits
        for part in (_split(digit) if digit.height > 0.6 * size else [digit])
    ]


def _pieces(ink: Ink, mask: Mask) -> tuple[list[_Strokes], Labels]:
    """Connected strokes without specks, clutter and noise; piece n has label n + 1."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keep = extent >= SMALLEST / 3 * max(mask.shape)
    keep[0] = False
    if keep.sum() > MOST_PIECES:
        keep[:] = False
    keep &= ~_is_clutter(ink, labels, keep & (extent >= SMALLEST * max(mask.shape)))
    number = np.zeros(len(stats), np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    pieces = []
    for label in np.flatnonzero(keep):
        left, top, width, height = (int(n) for n in stats[label, :4])
        part = labels[top : top + height, left : left + width] == label
        box = left, top, left + width, top + height
        pieces.append(_Strokes(box, part.astype(np.uint8)))
    return pieces, number[labels]


def _is_clutter(ink: Ink, labels: Labels, large: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which labels are shadows or the paper's edge rather than a digit cut off by the border.

    They lie along the border, or their outline is less sharp than that of the writing. Where
    nothing large lies off the border, nothing is clutter.
    """
    count = len(large)
    sides = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    contact = np.array([np.bincount(side, minlength=count) / len(side) for side in sides]).max(0)
    if not (contact > 0).any() or not (large & (contact == 0)).any():
        return np.zeros(count, bool)
    smooth = cv2.GaussianBlur(ink, (0, 0), 1)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    inside = cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    outline = (labels > 0) & (inside == 0)
    # relative to the darkness of each: faint strokes are as sharp as dark ones
    sharpness = _means(slope[outline], labels[outline], count) / np.maximum(
        _means(ink[labels > 0], labels[labels > 0], count), 1e-3
    )
    sharpest = sharpness[large & (contact == 0)].max()
    return (contact > 0.2) | ((contact > 0) & (sharpness < 0.6 * sharpest))


def _means(values: Ink, labels: Labels, count: int) -> NDArray[np.float64]:
    """The mean of the values that have each label, 0 for none."""
    total = np.bincount(labels, values, minlength=count)
    return total / np.maximum(np.bincount(labels, minlength=count), 1)


def _typical_height(pieces: list[_Strokes]) -> float:
    """The height at which half of all ink is in higher pieces: dots and dashes weigh little."""
    heights = np.array([piece.height for piece in pieces])
    weights = np.array([piece.mask.sum() for piece in pieces])
    order = np.argsort(heights)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(heights[order][middle])


def _partner(label: int, pieces: list[_Strokes], labels: Labels, size: float) -> int:
    """The label of the piece that an incomplete piece belongs to, 0 if it stands alone.

    A 5's flag lies over its body; the halves of a broken 4 nearly touch.
    """
    piece = pieces[label - 1]
    speck = 0.2 * size  # what a digit does not miss; dots lie about
    if piece.height > 0.75 * size or piece.extent < speck:
        return 0
    left, top, right, bottom = piece.box
    reach = max(3, round(0.25 * size))
    y, x = max(0, top - reach), max(0, left - reach)
    around = labels[y : bottom + reach, x : right + reach]
    gap = cv2.distanceTransform((around != label).astype(np.uint8), cv2.DIST_L2, 5)
    best, least = 0, float(reach)
    for other in np.unique(around):
        if other in (0, label):
            continue
        mate = pieces[other - 1]
        if mate.extent < speck:
            continue
        both = _joined_box([piece.box, mate.box])
        if both[3] - both[1] > 1.5 * max(size, mate.height):
            continue
        shared = min(right, mate.box[2]) - max(left, mate.box[0])
        stacked = shared > 0.5 * min(piece.width, mate.width)
        near = float(gap[around == other].min())
        if near < least and (stacked or near < 0.1 * size):
            best, least = int(other), near
    return best


def _joined_box(boxes: list[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _joined(pieces: list[_Strokes]) -> _Strokes:
    box = _joined_box([piece.box for piece in pieces])
    mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    for piece in pieces:
        left, top = piece.box[0] - box[0], piece.box[1] - box[1]
        mask[top : top + piece.height, left : left + piece.width] |= piece.mask
    return _Strokes(box, mask)


def _is_written(digit: _Strokes) -> bool:
    """False for dashes, underlines and filled areas."""
    if digit.width > 3 * digit.height:
        return False
    filled = digit.mask.mean()
    return digit.width < 0.6 * digit.height or filled < 0.85


def _stroke_width(mask: Mask) -> float:
    """Mean width of the strokes: points of a bar of width w are w / 4 from its edge on average."""
    return max(1.0, 4 * float(_depth(mask)[mask > 0].mean()) - 1)


def _split(digit: _Strokes) -> list[_Strokes]:
    """Cuts neighbours apart that touch in one place."""
    if digit.width < NARROWEST_PAIR * digit.height:
        return [digit]
    # a slanting stroke is wider across; a cut through a 0 meets ink twice
    halves = _halves(digit, strokes=1, limit=2.2)
    return [part for half in halves for part in _split(half)] if halves else [digit]


def _doubtful_halves(digit: _Strokes) -> tuple[_Strokes, ...]:
    """What a wide digit may be cut into if a reader finds two digits likelier than one."""
    if digit.width < 0.9 * digit.height:
        return ()
    return _halves(digit, strokes=2, limit=3)


def _halves(digit: _Strokes, strokes: int, limit: float) -> tuple[_Strokes, ...]:
    """Both sides of the cut through the least ink, or nothing.

    A cut meets ink at most so many times, limit times the pen's width in all, and both sides are
    as high as a digit: what it could take of a 2's tail or a 5's flag is low.
    """
    height, width = digit.mask.shape
    rows, columns = np.indices(digit.mask.shape)
    pen = _stroke_width(digit.mask)
    apart = int(max(pen / 2, width / 24))
    off_middle = np.abs(np.arange(width) - width / 2) / width
    for slant in (0.0, 0.25, -0.25, 0.5):  # writing leans to the right more often
        shear = np.array([[1, slant, -slant * height / 2], [0, 1, 0]], np.float32)
        upright = cv2.warpAffine(digit.mask, shear, (width, height), flags=cv2.INTER_NEAREST)
        ink = upright.sum(0, dtype=np.int64)
        crossings = (np.diff(upright, axis=0, prepend=0) == 1).sum(0)
        across = columns + slant * (rows - height / 2)
        tried = np.zeros(width, bool)
        for x in np.argsort(ink + 2 * pen * off_middle):
            if crossings[x] <= strokes and ink[x] <= limit * pen and not tried[x]:
                # columns side by side cut alike, and in a large picture there are many
                tried[max(0, x - apart) : x + apart + 1] = True
                first, second = _part(digit, across < x), _part(digit, across >= x)
                if _is_whole(first, height) and _is_whole(second, height):
                    return first, second
    return ()


def _is_whole(part: _Strokes, height: int) -> bool:
    """Whether part of touching ink is as high as a digit, with ink all the way down."""
    if part.height < 0.7 * height:
        return False
    thirds = [third.sum() for third in np.array_split(part.mask, 3)]
    return min(thirds) > 0.1 * sum(thirds)


def _part(digit: _Strokes, side: NDArray[np.bool_]) -> _Strokes:
    """The largest piece of a digit on one side of a cut; it may be empty."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(digit.mask * side, connectivity=8)
    stats[0, cv2.CC_STAT_AREA] = 0
    label = int(stats[:, cv2.CC_STAT_AREA].argmax())
    if label == 0:
        return _Strokes((0, 0, 0, 0), np.zeros((0, 0), np.uint8))
    left, top, width, height = (int(n) for n in stats[label, :4])
    x, y = digit.box[0] + left, digit.box[1] + top
    mask = labels[top : top + height, left : left + width] == label
    return _Strokes((x, y, x + width, y + height), mask.astype(np.uint8))


def _rows(digits: list[_Strokes]) -> list[list[_Strokes]]:
    """Lines of writing, from the top; a digit belongs to the line of its left neighbour.

    Neighbours rather than a common height: a line of writing may slope.
    """
    rows: list[list[_Strokes]] = []
    for digit in sorted(digits, key=lambda d: d.box[0] + d.box[2]):

        def shared(row: list[_Strokes], digit: _Strokes = digit) -> float:
            last = row[-1]
            overlap = min(last.box[3], digit.box[3]) - max(last.box[1], digit.box[1])
            return overlap / min(last.height, digit.height)

        row = max(rows, key=shared, default=None)
        if row is not None and shared(row) > 0.4:
            row.append(digit)
        else:
            rows.append([digit])
    return sorted(rows, key=lambda row: float(np.mean([d.box[1] + d.box[3] for d in row])))


# --- the form of MNIST ----------------------------------------------------------------------------


def _mnist_image(ink: Ink, digit: _Strokes) -> Grey:
    """The digit as MNIST has it: uint8 (28, 28), longest side 20 px, centred by mass."""
    left, top, right, bottom = digit.box
    own = cv2.dilate(digit.mask, np.ones((3, 3), np.uint8))
    dark = ink[top:bottom, left:right] * own
    pen = float(np.percentile(dark[digit.mask > 0], 80))
    # paper to 0 and pen to 1, as in the bilevel scans that MNIST was made of, but for the edges
    stroke = np.clip((dark / pen - 0.2) / 0.6, 0, 1)
    large = _resized(stroke, 160)
    thinnest = 160 / 20 * 2.0  # a pen finer than 2 px of 20 is rare in MNIST
    width = _stroke_width((large > 0.5).astype(np.uint8))
    if width < thinnest:
        grow = round(thinnest - width) | 1
        pad = grow // 2 + 1
        large = cv2.copyMakeBorder(large, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow))
        large = cv2.dilate(large, disc)
        x, y, w, h = cv2.boundingRect((large > 0).astype(np.uint8))
        large = large[y : y + h, x : x + w]
    return _centred(_resized(large, 20))


def _resized(stroke: Ink, side: int) -> Ink:
    """So that the longer side has the given number of pixels, anti-aliased."""
    height, width = stroke.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(stroke, size, interpolation=how)


def _centred(stroke: Ink) -> Grey:
    """(h, w), at most 20 a side -> uint8 (28, 28), its mass centred at (14, 14) as MNIST's is."""
    height, width = stroke.shape
    image = np.zeros((28, 28), np.uint8)
    image[:height, :width] = np.round(stroke * 255)
    moments = cv2.moments(image)
    x = round(14 - moments["m10"] / moments["m00"])
    y = round(14 - moments["m01"] / moments["m00"])
    x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
    return np.roll(image, (y, x), (0, 1))


def _scaled(box: Box, size: tuple[int, ...], target: tuple[int, int]) -> Box:
    """A box of a picture of one (width, height) in a picture of another, inside it."""
    (width, height), (wide, high) = size, target
    left, right = box[0] * wide / width, box[2] * wide / width
    top, bottom = box[1] * high / height, box[3] * high / height
    return (
        int(left),
        int(top),
        min(wide, int(np.ceil(right))),
        min(high, int(np.ceil(bottom))),
    )
