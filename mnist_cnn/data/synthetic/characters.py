"""Characters to put on a page: digits from MNIST, pens and fonts; signs; letters."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_cnn.data.fonts import load_font
from mnist_cnn.data.synthetic import strokes
from mnist_cnn.data.synthetic.strokes import Array, Form, Points

# without those that some people write like a digit or a sign: O I l S Z B b g q o s z i x t X etc.
LATIN = "ACDEFGHJKLMNPQRTUVWYacdefhjkmnpruvwy"
WESTERN = f"{LATIN}ÄÖÜßéçñ&@?"
EASTERN = "ΓΔΘΛΞΠΣΦΨΩαεηκλμπφψωБДЖИЛФЦЩЯджфцщя"
LETTERS = WESTERN + EASTERN
# those of LETTERS that look like some people's digits: not written beside digits
LIKE_DIGITS = "ACDGJLPTUVYacdefghjnpruvyFHW"
# letters that some people write like a digit or a sign, and that one; written in words only
TWINS = {
    "O": "0", "o": "0", "I": "1", "l": "1", "i": "1", "Z": "2", "z": "2", "S": "5", "s": "5",
    "b": "6", "B": "8", "g": "9", "q": "9", "t": "+", "x": "×", "X": "×",
}  # fmt: skip
LOW = "aceimnorsuvwxz"  # lower than digits
HEIGHT = 64  # height of a font's digits in the cache, in pixels
FIRM = 0.5  # ink from which a pixel counts as part of a stroke
THICK = 0.16  # width of MNIST's strokes at their outer edge, as a fraction of a digit's height

FORMS = {**strokes.DIGITS, **strokes.SIGNS}

# fonts that come with Matplotlib; STIX is reserved for validation and benchmarks. Characters beyond
# ASCII, which most of these lack, are always of DejaVu Sans
TRAINING_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip
VALIDATION_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic")


@dataclass(frozen=True)
class Sources:
    """Sources of characters: images (N, 28, 28) of digits, their labels (N,), fonts."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    fonts: tuple[str, ...] = TRAINING_FONTS

    @functools.cached_property
    def rows(self) -> list[NDArray[np.int64]]:
        """Rows of the images of each digit."""
        return [np.flatnonzero(self.labels == digit) for digit in range(10)]


@dataclass(frozen=True)
class Hand:
    """The way one writer, or one printer, makes characters `size` pixels high.

    Characters of one hand share the pen, the slant and the forms, with small variations.
    """

    source: str  # mnist, pen or font
    size: float
    pen: float  # width in pixels
    slant: float  # tangent of the lean to the right
    aspect: float  # of a digit's width to its height
    bend: Points  # (2,) which part of a form to enlarge, see `strokes.draw`
    shake: float
    usual: dict[str, int]  # index of the usual form of each character
    font: str
    low_zeros: float  # height of its zeros as a fraction of other digits'
    wide_zeros: float  # their width as a fraction of other digits'
    uneven: float  # standard deviation of the logarithm of its characters' heights
    joins: float  # probability of a stroke to the next character
    cursive: float  # probability of a stroke to the next letter of a word
    flourish: float  # probability of adding a stroke to an MNIST digit

    @classmethod
    def any(
        cls, rng: Generator, sources: Sources, size: float, source: str | None = None
    ) -> "Hand":
        """Sample a hand; from any source, unless one is given."""
        source = source or str(rng.choice(["mnist", "pen", "font"], p=[0.48, 0.38, 0.14]))
        r = rng.random()
        least, most = (0.04, 0.13) if r < 0.8 else (0.03, 0.22) if r < 0.92 else (0.18, 0.28)
        pen = rng.uniform(least, most)
        aspect = rng.uniform(0.4, 0.85) if rng.random() < 0.85 else rng.uniform(0.85, 1.2)
        is_thick = pen > THICK
        return cls(
            source=source,
            size=size,
            pen=max(0.6, pen * size),
            slant=rng.normal(0.12, 0.18),
            aspect=max(aspect, 3 * pen) if is_thick else aspect,
            bend=np.exp(rng.normal(0, 0.18, 2)),
            shake=rng.uniform(0.01, 0.055),
            usual={name: int(rng.integers(len(forms))) for name, forms in FORMS.items()},
            font=str(rng.choice(sources.fonts)),
            # a thick zero that is low or narrow would be a blot
            low_zeros=rng.uniform(0.4, 0.85) if rng.random() < 0.3 and not is_thick else 1.0,
            wide_zeros=rng.uniform(0.8, 1.4),
            uneven=rng.uniform(0, 0.06) if rng.random() < 0.75 else rng.uniform(0.06, 0.16),
            joins=rng.uniform(0.1, 0.8) if rng.random() < 0.15 else 0.0,
            cursive=rng.uniform(0.3, 1) if rng.random() < 0.4 else 0.0,
            flourish=0.8 if rng.random() < 0.35 else 0.0,
        )

    def write(self, character: str, sources: Sources, rng: Generator) -> Array:
        """Return the ink (h, w) in [0, 1] of a digit, a sign or a letter."""
        if character in strokes.SIGNS and (self.source != "font" or character in "÷°"):
            form, width = self._form(character, rng), strokes.WIDTHS[character]
            point = character in ".:÷"
            return self._pen(form, width * rng.uniform(0.75, 1.25), rng, point=point)
        if self.source == "font":
            return self._font(character, rng)
        if not character.isdecimal():
            return self._letter(character, rng)
        size = float(np.exp(rng.normal(0, self.uneven)))
        wide = rng.uniform(0.85, 1.15)
        if character == "0":
            size, wide = size * self.low_zeros, wide * self.wide_zeros * self.low_zeros**-0.7
        if self.source == "mnist":
            return self._mnist(character, size, wide, sources, rng)
        return self._pen(self._form(character, rng), self.aspect * wide, rng, size)

    def _form(self, character: str, rng: Generator) -> Form:
        """Return the usual form of this hand, or sometimes another."""
        forms = FORMS[character]
        usual = rng.random() < 0.8
        return forms[self.usual[character] if usual else rng.integers(len(forms))]

    def _pen(
        self, form: Form, aspect: float, rng: Generator, size: float = 1.0, point: bool = False
    ) -> Array:
        height = self.size * size * rng.uniform(0.9, 1.1)
        slant = self.slant + rng.normal(0, 0.04)
        pen = self.pen * (rng.uniform(1.1, 1.9) if point else rng.uniform(0.9, 1.1))
        return tight(strokes.draw(form, height, aspect, slant, pen, self.shake, rng, self.bend))

    def _letter(self, character: str, rng: Generator) -> Array:
        """Write a letter by pen; if it has no form, write random strokes instead."""
        if character in strokes.LETTERS:
            form = strokes.LETTERS[character][0]
        elif character in TWINS:
            form = self._form(TWINS[character], rng)
        else:
            ways = [
                rng.uniform(0, 1, (int(rng.integers(2, 5)), 2))
                for _ in range(int(rng.integers(3, 6)))
            ]
            form = Form(ways, []) if rng.random() < 0.5 else Form([], ways)
        low = rng.uniform(0.5, 0.8) if character in LOW else 1.0
        return self._pen(form, self.aspect * rng.uniform(0.9, 1.4), rng, low)

    def _font(self, character: str, rng: Generator) -> Array:
        # small fonts have only ASCII letters
        drawn = font_image(self.font if character.isascii() else "DejaVuSans", character)
        scale = self.size / HEIGHT * np.array([rng.uniform(0.9, 1.1), 1.0])
        slant = self.slant * 0.5
        turn = np.array([[1.0, -slant], [0.0, 1.0]]) * scale[:, None]
        return tight(warped(drawn, turn))

    def _mnist(
        self, digit: str, size: float, wide: float, sources: Sources, rng: Generator
    ) -> Array:
        image = sources.images[rng.choice(sources.rows[int(digit)])]
        x, y, w, h = cv2.boundingRect(image)
        image = image[y : y + h, x : x + w].astype(np.float32) / 255
        angle, shear = np.radians(rng.uniform(-9, 9)), rng.uniform(-0.1, 0.1) + 0.5 * self.slant
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ [[wide * rng.uniform(0.85, 1.15), -shear], [0, 1]]
        turn = turn * self.size * size / max(w, h) * rng.uniform(0.88, 1.12)
        ink = warped(image, turn, cv2.INTER_CUBIC)
        # thin or thicken the strokes to this hand's pen
        wider = round(self.pen - THICK * self.size)
        if wider > 0 and digit != "0":  # whose hole may be narrow
            sides = wider, wider, wider, wider
            ink = cv2.copyMakeBorder(ink, *sides, cv2.BORDER_CONSTANT, value=0)
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wider + 1, wider + 1))
            ink = cv2.dilate(ink, disc)
        finer = np.clip(0.55 - 2.2 * self.pen / self.size + rng.normal(0, 0.05), 0.15, 0.6)
        sharp = max(rng.uniform(1.6, 4), 0.5 / finer)  # so that paper stays free of ink
        ink = np.clip((ink - finer) * sharp + 0.5, 0, 1)
        if rng.random() < self.flourish:
            ink = self._flourished(ink, digit, rng)
        return tight(ink)

    def _flourished(self, ink: Array, digit: str, rng: Generator) -> Array:
        """Add common variants: an upstroke and a foot to a 1, a bar to a 7, a slash to a 0."""
        ys, xs = np.nonzero(ink > FIRM)
        if not len(ys) or digit not in "017":
            return ink
        room = int(self.size * 0.7)
        ink = cv2.copyMakeBorder(ink, 0, 0, room, room, cv2.BORDER_CONSTANT, value=0)
        xs = xs + room
        top, foot = int(ys.min()), int(ys.max())
        high = foot - top
        lines = []
        if digit == "1":
            if rng.random() < 0.8:
                x = float(np.median(xs[ys <= top + 1]))
                long, lean = high * rng.uniform(0.2, 0.75), rng.uniform(0.3, 1.1)
                lines.append([(x, top), (x - long * np.sin(lean), top + long * np.cos(lean))])
            if rng.random() < 0.3:
                x, half = float(np.median(xs[ys >= foot - 1])), high * rng.uniform(0.15, 0.35)
                lines.append([(x - half, foot), (x + half * rng.uniform(0.8, 1.2), foot)])
        elif digit == "7":
            y = top + high * rng.uniform(0.4, 0.65)
            near = np.abs(ys - y) < 2
            x, half = (
                float(np.median(xs[near]) if near.any() else xs.mean()),
                self.size * rng.uniform(0.12, 0.32),
            )
            lines.append([(x - half, y), (x + half, y + rng.normal(0, 0.04) * self.size)])
        elif rng.random() < 0.4:
            left, right = float(xs.min()), float(xs.max())
            lines.append([(right, top + 0.1 * high), (left, foot - 0.1 * high)])
        for line in lines:
            where = (np.array(line) * 16).round().astype(np.int32)
            cv2.polylines(ink, [where], False, 1.0, max(1, round(self.pen)), cv2.LINE_AA, 4)
        return ink


def warped(image: Array, turn: Array, interpolation: int = cv2.INTER_AREA) -> Array:
    """Transform an image by a matrix (2, 2) about its centre, without cropping it."""
    h, w = image.shape
    wide, high = np.ceil(np.abs(turn) @ [w, h]).astype(int) + 3
    shift = np.array([wide / 2, high / 2]) - turn @ [w / 2, h / 2]
    if interpolation == cv2.INTER_AREA:  # a warp does not average: shrink first
        scale = float(np.sqrt(abs(np.linalg.det(turn))))
        if scale < 0.7:
            small = cv2.resize(
                image,
                (max(1, round(w * scale)), max(1, round(h * scale))),
                interpolation=cv2.INTER_AREA,
            )
            factor = np.array([small.shape[1] / w, small.shape[0] / h])
            image, turn = small, turn / factor
        interpolation = cv2.INTER_LINEAR
    matrix = np.hstack([turn, shift[:, None]])
    return cv2.warpAffine(image, matrix, (int(wide), int(high)), flags=interpolation)


def tight(ink: Array) -> Array:
    """Crop ink to the bounding box of its dark pixels."""
    x, y, w, h = cv2.boundingRect((ink > 0.3).astype(np.uint8))
    return ink[y : y + h, x : x + w].clip(0, 1) if w else ink[:1, :1]


@functools.lru_cache(maxsize=4096)
def font_image(name: str, character: str) -> Array:
    """Render a character (h, w) in [0, 1] of a font whose digits are HEIGHT pixels high."""
    font = _font(name)
    left, top, right, bottom = font.getbbox(character)
    size = max(1, int(right - left)) + 4, max(1, int(bottom - top)) + 4
    sheet = Image.new("L", size)
    ImageDraw.Draw(sheet).text((2 - left, 2 - top), character, 255, font)
    return np.asarray(sheet, np.float32) / 255


@functools.cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    digit = load_font(name, 100).getbbox("8")
    return load_font(name, round(100 * HEIGHT / (digit[3] - digit[1])))
