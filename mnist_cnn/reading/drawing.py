"""Drawing of the readings of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_cnn.data.fonts import load_font
from mnist_cnn.data.picture import load_picture, upright_size
from mnist_cnn.reading.answers import confidence, rows
from mnist_cnn.reading.reading import Reading

MANY = 60  # number of digits above which the drawing is larger
STEEPEST = 0.3  # maximum slope of the line below a row
READ, UNSURE, LINE, CELL = "#007a3d", "#c03000", "#1f6fb4", "#8a9db0"
Place = tuple[float, float]


@dataclass
class Labels:
    """Texts on a drawing that do not overlap."""

    draw: ImageDraw.ImageDraw
    size: float
    font: ImageFont.FreeTypeFont = field(init=False)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.font = font_of(self.size)

    def add(self, text: str, colour: str, places: Sequence[Place], room: tuple[int, int]) -> None:
        """Write a text at the first free place (left, top), if any."""
        for place in places:
            left, top, right, bottom = self.draw.textbbox(place, text, self.font)
            inside = left >= 0 and top >= 0 and right <= room[0] and bottom <= room[1]
            if inside and not any(
                left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
                for other in self.taken
            ):
                self.taken.append((left, top, right, bottom))
                self.draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="white")
                self.draw.text(place, text, colour, self.font)
                return


def draw_readings(image: Image.Image, readings: Sequence[Reading]) -> Image.Image:
    """Draw the picture with a box and a reading for each character, its lines and grid cells.

    Below it are the digits as a network of 28x28 images would see them, with their confidence. The
    drawing is 1000 pixels wide, or 2000 with more than MANY digits.
    """
    shown = [reading for reading in readings if reading.symbol != " "]
    many = len(shown) > MANY
    width, highest = (2000, 6000) if many else (1000, 4000)
    upright = upright_size(image)
    zoom = min(width / upright[0], highest / upright[1])
    height = max(1, round(upright[1] * zoom))
    picture = load_picture(image).convert("RGB")
    picture = picture.resize((max(1, round(upright[0] * zoom)), height))
    tile, gap = (60, 24) if many else (84, 34)
    strips = -(-len(shown) // (width // tile))
    sheet = Image.new("RGB", (width, height + strips * (tile + gap)), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    if not shown:
        draw.text((12, 12), "no digit found", UNSURE, font_of(20))
        return sheet
    for cell in {reading.cell for reading in readings if reading.cell}:
        draw.polygon([(x * zoom, y * zoom) for x, y in cell], outline=CELL, width=1)
    heights = sorted(reading.box[3] - reading.box[1] for reading in shown)
    # so that a label fits between two rows
    size = min(20, max(9, 0.35 * zoom * heights[len(heights) // 2]))
    labels = Labels(draw, size)
    for reading in shown:
        draw_box(labels, reading, zoom, (width, height))
    for row in rows(shown):
        draw_line(labels, row, zoom, (width, height))
    draw_tiles(sheet, shown, height, tile, gap)
    return sheet


def font_of(size: float) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which has the signs × and ÷; Pillow's own font lacks them."""
    return load_font("DejaVuSans", size)


def colour_of(reading: Reading) -> str:
    return UNSURE if reading.symbol in "?·" else READ


def label_of(reading: Reading) -> str:
    return f"{reading.best}?" if reading.symbol == "?" else reading.symbol


def draw_box(labels: Labels, reading: Reading, zoom: float, room: tuple[int, int]) -> None:
    """Draw the box of a character and its reading."""
    size, colour = labels.size, colour_of(reading)
    left, top, right, bottom = (round(side * zoom) for side in reading.box)
    pen = 3 if size > 12 else 1
    labels.draw.rectangle((left - pen, top - pen, right + 1, bottom + 1), None, colour, pen)
    above, beside = top - 1.4 * size, right + 0.3 * size
    places = [(left, max(0, above)), (beside, top), (left - 1.5 * size, top), (left, bottom + 2)]
    labels.add(label_of(reading), colour, places, room)


def draw_line(labels: Labels, row: Sequence[Reading], zoom: float, room: tuple[int, int]) -> None:
    """Draw a thin line below a row with digits, and the probability that these are right."""
    if not any(reading.is_digit for reading in row):
        return
    turn = np.radians(row[0].rotation)
    along, down = np.array([np.cos(turn), -np.sin(turn)]), np.array([np.sin(turn), np.cos(turn)])
    boxes = np.array([reading.box for reading in row], float) * zoom
    middles, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = middles @ along, middles @ down
    slope = float(np.polyfit(x, y, 1)[0].clip(-STEEPEST, STEEPEST)) if np.ptp(x) > 1 else 0.0
    foot = float((y + halves @ abs(down) - slope * x).max()) + 0.25 * labels.size
    ends = (x - halves @ abs(along)).min(), (x + halves @ abs(along)).max()
    points: list[NDArray[np.float64]] = [end * along + (foot + slope * end) * down for end in ends]
    labels.draw.line([tuple(point) for point in points], LINE, 2 if labels.size > 12 else 1)
    (left, start), (right, end) = points
    high = 0.6 * labels.size
    text = f"{confidence(row):.0%}"
    wide = labels.draw.textlength(text, labels.font)
    places = [(right + 4, end - high), (left - wide - 4, start - high), (right - wide, end + 3)]
    labels.add(text, LINE, [*places, (left, start + 3)], room)


def draw_tiles(
    sheet: Image.Image, readings: Sequence[Reading], top: int, tile: int, gap: int
) -> None:
    """Draw the images of the readings in rows, each below its reading."""
    draw, font = ImageDraw.Draw(sheet), font_of(11 if tile < 84 else 18)
    columns = sheet.width // tile
    for number, reading in enumerate(readings):
        x, y = number % columns * tile, top + number // columns * (tile + gap)
        seen = Image.fromarray(reading.image).resize((tile - 4, tile - 4), Image.Resampling.NEAREST)
        sheet.paste(seen, (x + 2, y + gap - 4))
        sure = f" {reading.confidence:.0%}" if reading.is_digit else ""
        draw.text((x + 4, y + 6), label_of(reading) + sure, colour_of(reading), font)
