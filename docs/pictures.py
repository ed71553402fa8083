"""Make the pictures of the documentation: python docs/pictures.py [pages|hardest]

`pages` makes images/made_pages.png, pages that the reader is trained on; `hardest` makes
images/hardest.png, strips of validation writers: those read correctly with the least confidence,
and those read incorrectly with the most. Without an argument, images/overview.png, the README's
first picture, is made: left, pictures made of MNIST's digits as `predict --show` draws them; right,
the report of a sweep and the history of the tutorial's run. The runs are in outputs/overview and
are resumed. Needs the extras test and sweep, and Chromium.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import browser
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from mnist_cnn import read_digits
from mnist_cnn.data import mnist
from mnist_cnn.data.drawn.pages import page
from mnist_cnn.data.drawn.photographs import KINDS, photograph
from mnist_cnn.data.pages import PageDataset, sources
from mnist_cnn.data.synthetic.pages import strip
from mnist_cnn.data.synthetic.sheet import OTHER, SYMBOLS
from mnist_cnn.plots.training import history
from mnist_cnn.reading.drawing import draw_readings, font_of

ROOT = Path(__file__).parents[1]
RUNS, OUT = Path("outputs/overview"), ROOT / "docs" / "images" / "overview.png"
STRIPS_SEED = 2026
METRICS = ["train/loss", "val/loss", "train/acc", "val/acc"]
MARGIN, TITLE = 24, 56  # pixels
WIDE = 1100  # CSS pixels that the report's table takes
LEFT, RIGHT = 720, 1040  # widths of the columns, in pixels; the README shows half of them
SWEEP = "-m experiment=fast data.val_fraction=0.2 optimizer.lr=0.1,0.2,0.4 seed=0,1,2"


def train() -> None:
    """Train the runs of the overview, unless they have finished."""
    command = [sys.executable, "-m", "mnist_cnn.train"]
    subprocess.run([*command, *SWEEP.split(), f"hydra.sweep.dir={RUNS}/sweep"], check=True)
    tutorial = ["trainer.max_epochs=10", f"hydra.run.dir={RUNS}/tutorial"]
    subprocess.run([*command, *tutorial], check=True)


def read(picture: Image.Image) -> Image.Image:
    """Draw a picture with its readings, without the tiles below."""
    drawn = draw_readings(picture, read_digits(picture))
    drawn = drawn.crop((0, 0, drawn.width, round(drawn.width * picture.height / picture.width)))
    return scaled(drawn, LEFT)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    size = width, round(picture.height * width / picture.width)
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def a_photograph(seed: int) -> Image.Image:
    """Return what looks like a photograph of five of MNIST's test digits."""
    images, _ = mnist.load_split("mnist", "", "test")
    chance = np.random.default_rng(seed)
    return photograph(images.numpy()[chance.integers(0, 10_000, 5)], chance, KINDS["rows of 5"])


def report(file: Path) -> Image.Image:
    """Return a screenshot of a report's title and ranking."""
    shot = RUNS / "report.png"
    with browser.opened(WIDE, 400, device_scale_factor=2) as page:
        page.goto(file.absolute().as_uri(), timeout=120_000)
        page.wait_for_selector("table")
        below = page.locator("table").first.bounding_box()
        assert below is not None
        height = below["y"] + below["height"] + 16
        page.screenshot(path=shot, clip={"x": 0, "y": 0, "width": WIDE, "height": height})
    return scaled(Image.open(shot), RIGHT)


def curves(run: Path) -> Image.Image:
    """Return the figure of a run's history at the size of its column."""
    rows = pd.read_csv(run / "history.csv")
    best = int(rows["val/loss"].idxmin()) + 1
    figure = history(rows[["epoch", *METRICS]].to_dict("records"), best, "")
    figure.set_size_inches(RIGHT / 150, 0.62 * RIGHT / 150)
    figure.savefig(RUNS / "curves.png", dpi=150)
    return scaled(Image.open(RUNS / "curves.png"), RIGHT)


def save(picture: Image.Image, file: Path) -> None:
    """Save a picture with 256 colours, which thin lines in colour keep."""
    picture.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(file, optimize=True)


def made_pages(rows: int = 3, columns: int = 4, zoom: int = 2) -> None:
    """Draw pages with the box of each target character: digits, signs, other writing."""
    dataset = PageDataset(sources("train"), 0)
    sheets = []
    for index in range(rows * columns):
        ink, _, marks = dataset[0, index]
        page = Image.fromarray(255 - ink[0].numpy()).convert("RGB")
        page = page.resize((page.width * zoom, page.height * zoom), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(page)
        for kind, *box, _, flag in marks.tolist():
            symbol = SYMBOLS[int(kind)]
            colour = "#197" if symbol.isdecimal() else "#a33" if symbol == OTHER else "#36c"
            if flag > 0:
                draw.rectangle([side * zoom for side in box], outline=colour)
        sheets.append(np.pad(np.asarray(page), ((0, 8), (0, 8), (0, 0)), constant_values=255))
    lines = [np.hstack(sheets[k : k + columns]) for k in range(0, len(sheets), columns)]
    picture = Image.fromarray(np.vstack(lines))
    save(picture, OUT.with_name("made_pages.png"))


def hardest(n: int = 100, rows: int = 6, columns: int = 2) -> None:
    """Draw the strips read correctly with least confidence, and wrongly with most, of n strips."""
    right, wrong = [], []
    for index in range(n):
        made = strip(np.random.default_rng((STRIPS_SEED, index)), sources("val"))
        marks = sorted(made.marks, key=lambda mark: mark.box[0])
        picture = Image.fromarray(255 - (255 * made.ink).astype(np.uint8))
        readings = read_digits(picture)
        text = "".join(str(each.best) for each in readings if each.is_digit)
        label = "".join(mark.symbol for mark in marks if mark.symbol.isdecimal())
        if not readings or not label or any(not mark.symbol for mark in marks):
            continue  # it is cut off
        line = min(each.line for each in readings)
        (right if text == label else wrong).append((line, picture, f"{text}  {line:.0%}", label))
    right.sort(key=lambda each: each[0])
    wrong.sort(key=lambda each: -each[0])
    width, high, gap = 360, 110, 16
    sheet = Image.new(
        "RGB", (2 * columns * (width + gap) + gap, TITLE + rows * (high + gap)), "white"
    )
    draw, font = ImageDraw.Draw(sheet), font_of(17)
    for side, (title, strips) in enumerate((("read correctly", right), ("incorrectly", wrong))):
        start = gap + side * columns * (width + gap)
        draw.text((start, 12), title, "#333", font_of(22))
        for k, (_, picture, text, label) in enumerate(strips[: rows * columns]):
            x = start + k % columns * (width + gap)
            y = TITLE + k // columns * (high + gap)
            zoom = min(width / picture.width, (high - 30) / picture.height)
            size = round(picture.width * zoom), round(picture.height * zoom)
            sheet.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), (x, y))
            note = text if side == 0 else f"{text}, it is {label}"
            draw.text((x, y + high - 28), note, "#007a3d" if side == 0 else "#c03000", font)
    save(sheet, OUT.with_name("hardest.png"))


def main() -> None:
    others = {"pages": made_pages, "hardest": hardest}
    parser = argparse.ArgumentParser("python docs/pictures.py", description=__doc__)
    parser.add_argument("name", nargs="?", choices=others)
    if name := parser.parse_args().name:
        others[name]()
        return
    train()
    columns = [
        [
            ("pictures, read", read(page("tables", 1)[0])),
            ("", read(a_photograph(3))),
            ("", read(page("dates", 0)[0])),
        ],
        [
            ("a sweep, compared", report(RUNS / "sweep" / "report.html")),
            ("a run, by epoch", curves(RUNS / "tutorial")),
        ],
    ]
    heights = [sum(TITLE * bool(t) + p.height + MARGIN for t, p in column) for column in columns]
    sheet = Image.new("RGB", (LEFT + RIGHT + 3 * MARGIN, max(heights)), "white")
    draw, font, x = ImageDraw.Draw(sheet), font_of(26), MARGIN
    for column in columns:
        y = 0
        for title, picture in column:
            draw.text((x, y + 10), title, "#333", font)
            y += TITLE * bool(title)
            sheet.paste(picture, (x, y))
            y += picture.height + MARGIN
        x += column[0][1].width + MARGIN
    OUT.parent.mkdir(exist_ok=True)
    save(sheet, OUT)


if __name__ == "__main__":
    main()
