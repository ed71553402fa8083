"""Make the pictures of the documentation: python docs/pictures.py [pages|hardest]

`pages` makes images/made_pages.png, pages that the reader is trained on; `hardest` makes
images/hardest.png, strips of validation writers: those read correctly with the least confidence,
and those read wrongly with the most. Without an argument, images/overview.png, the README's first
picture, is made from real runs: left, photographs made of MNIST's test digits as `predict --show`
draws them; right, the report of a sweep and the tutorial's run in TensorBoard. The runs are in
outputs/overview and are resumed. Needs the extras test and sweep, and Chromium.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright
from tensorboard import program

from mnist_cnn import read_digits
from mnist_cnn.data import mnist
from mnist_cnn.data.pages import PageDataset, sources
from mnist_cnn.data.synthetic.pages import strip
from mnist_cnn.data.synthetic.sheet import OTHER, SYMBOLS
from mnist_cnn.reading.drawing import draw_readings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the photographs of the benchmarks
from mnist_cnn.data.drawn.photographs import KINDS, photograph  # noqa: E402

RUNS, OUT = Path("outputs/overview"), ROOT / "docs" / "images" / "overview.png"
SEEDS = (3, 4, 8)  # of the photographs
STRIPS_SEED = 2026
WIDTH, MARGIN, TITLE = 1700, 24, 56  # pixels
SWEEP = "-m experiment=fast data.val_fraction=0.2 optimizer.lr=0.1,0.2,0.4 seed=0,1,2"


def train() -> None:
    """Train the runs of the overview, unless they have finished."""
    command = [sys.executable, "-m", "mnist_cnn.train"]
    subprocess.run([*command, *SWEEP.split(), f"hydra.sweep.dir={RUNS}/sweep"], check=True)
    tutorial = ["trainer.max_epochs=10", f"hydra.run.dir={RUNS}/tutorial"]
    subprocess.run([*command, *tutorial], check=True)


def photographs(width: int) -> Image.Image:
    """Draw photographs with their readings, one below the other."""
    images, _ = mnist.load_split("mnist", "", "test")
    shown = []
    for seed in SEEDS:
        chance = np.random.default_rng(seed)
        picture = photograph(
            images.numpy()[chance.integers(0, 10_000, 5)], chance, KINDS["rows of 5"]
        )
        drawn = draw_readings(picture, read_digits(picture))
        shown.append(drawn.resize((width, round(drawn.height * width / drawn.width))))
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in shown]))


def screenshot(url: str, name: str, width: int, height: int, close: str = "") -> Image.Image:
    """Take a screenshot of the top of a page, after clicking the button `close`."""
    file, page_width = RUNS / f"{name}.png", 1400
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size = {"width": page_width, "height": round(page_width * height / width)}
        page = browser.new_page(viewport=size)  # type: ignore[arg-type]
        page.goto(url)
        if close:
            page.get_by_label(close).click()
        page.wait_for_timeout(4000)  # until its figures are drawn
        page.screenshot(path=file)
        browser.close()
    return Image.open(file).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def tensorboard(run: Path) -> str:
    """Start a TensorBoard for a run's curves, and return its address; it ends with this process."""
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(run / "tensorboard"), "--port", "0"])
    options = urlencode({"tagFilter": "^(train|val)/", "smoothing": 0})
    return f"{board.launch()}?{options}#timeseries"


def made_pages(rows: int = 3, columns: int = 4, zoom: int = 3) -> None:
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
                draw.rectangle([side * zoom for side in box], outline=colour, width=2)
        sheets.append(np.pad(np.asarray(page), ((0, 8), (0, 8), (0, 0)), constant_values=255))
    lines = [np.hstack(sheets[k : k + columns]) for k in range(0, len(sheets), columns)]
    picture = Image.fromarray(np.vstack(lines))
    picture.quantize(32).save(OUT.with_name("made_pages.png"), optimize=True)


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
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for side, (title, strips) in enumerate((("read rightly", right), ("not", wrong))):
        start = gap + side * columns * (width + gap)
        draw.text((start, 12), title, "#333", ImageFont.load_default(24))
        for k, (_, picture, text, label) in enumerate(strips[: rows * columns]):
            x = start + k % columns * (width + gap)
            y = TITLE + k // columns * (high + gap)
            zoom = min(width / picture.width, (high - 30) / picture.height)
            size = round(picture.width * zoom), round(picture.height * zoom)
            sheet.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), (x, y))
            note = text if side == 0 else f"{text}, it is {label}"
            draw.text((x, y + high - 28), note, "#007a3d" if side == 0 else "#c03000", font)
    sheet.quantize(64).save(OUT.with_name("hardest.png"), optimize=True)


def main() -> None:
    for name, make in (("pages", made_pages), ("hardest", hardest)):
        if sys.argv[1:] == [name]:
            make()
            return
    train()
    left = photographs(500)
    width = WIDTH - left.width - 3 * MARGIN
    height = (left.height - MARGIN - TITLE) // 2
    right, below = left.width + 2 * MARGIN, TITLE + height + MARGIN + TITLE
    page = (RUNS / "sweep" / "report.html").absolute().as_uri()
    report = screenshot(page, "report", width, height)
    address = tensorboard(RUNS / "tutorial")
    curves = screenshot(address, "tensorboard", width, height, close="Close side pane")
    sheet = Image.new("RGB", (WIDTH, TITLE + left.height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    for text, picture, x, y in (
        ("photographs, read", left, MARGIN, TITLE),
        ("a sweep, compared", report, right, TITLE),
        ("a run in TensorBoard", curves, right, below),
    ):
        draw.text((x, y - TITLE + 12), text, "#333", font)
        sheet.paste(picture, (x, y))
    OUT.parent.mkdir(exist_ok=True)
    sheet.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
