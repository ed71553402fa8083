"""A picture of what was found in a picture, and what it was read as."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mnist_cnn.reading.picture import load_picture, upright_size
from mnist_cnn.reading.reading import Reading

MANY = 60  # digits


def draw_readings(image: Image.Image, readings: Sequence[Reading]) -> Image.Image:
    """The picture with a box and a reading for each digit; below it, what the network saw.

    It is 1000 pixels wide, 2000 where there are more than MANY digits.
    """
    many = len(readings) > MANY
    width, highest = (2000, 6000) if many else (1000, 4000)
    picture = load_picture(image).convert("RGB")
    upright = upright_size(image)
    readings = [reading for reading in readings if reading.symbol != " "]
    zoom = min(width / upright[0], highest / upright[1])
    height = max(1, round(upright[1] * zoom))
    picture = picture.resize((max(1, round(upright[0] * zoom)), height))
    tile, gap = (60, 24) if many else (84, 34)
    columns = width // tile
    strips = -(-len(readings) // columns)
    sheet = Image.new("RGB", (width, height + strips * (tile + gap)), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    heights = sorted(reading.box[3] - reading.box[1] for reading in readings)
    # so that a label fits between two rows
    size = min(20, max(9, 0.35 * zoom * heights[len(heights) // 2])) if heights else 20
    label_font, font = ImageFont.load_default(size), ImageFont.load_default(12 if many else 20)
    for number, reading in enumerate(readings):
        colour = "#c03000" if reading.symbol in "?·" else "#007a3d"
        left, top, right, bottom = (round(side * zoom) for side in reading.box)
        line = 3 if size > 12 else 1
        draw.rectangle((left - line, top - line, right + 1, bottom + 1), None, colour, line)
        label = f"{reading.best}?" if reading.symbol == "?" else reading.symbol
        place = (left, max(0, round(top - 1.4 * size)))
        draw.rectangle(draw.textbbox(place, label, label_font), fill="white")
        draw.text(place, label, colour, label_font)
        x, y = number % columns * tile, height + number // columns * (tile + gap)
        seen = Image.fromarray(reading.image).resize((tile - 4, tile - 4), Image.Resampling.NEAREST)
        sheet.paste(seen, (x + 2, y + gap - 4))
        sure = f" {reading.confidence:.0%}" if reading.is_candidate else ""
        draw.text((x + 4, y + 6), label + sure, colour, font)
    if not readings:
        draw.text((12, 12), "no digit found", "#c03000", font)
    return sheet
