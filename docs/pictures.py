"""Makes images/overview.png, the README's first picture, from real runs: python docs/pictures.py

Left, photographs made of MNIST's test digits as `predict --show` draws them; right, the report of a
sweep and the curves of the tutorial's network. The runs lie in outputs/overview and are resumed. It
needs the extras test and sweep, and Chromium.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from mnist_cnn import load, read_digits
from mnist_cnn.data import mnist
from mnist_cnn.plots.readings import draw_readings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the photographs of the tests
from tests.helpers.photographs import KINDS, photograph  # noqa: E402

RUNS, OUT = Path("outputs/overview"), ROOT / "docs" / "images" / "overview.png"
SEEDS = (3, 4, 8)  # of the photographs
WIDTH, MARGIN, TITLE = 1700, 24, 56  # pixels
SWEEP = "-m experiment=fast data.val_fraction=0.2 optimizer.lr=0.1,0.2,0.4 seed=0,1,2"


def train() -> None:
    """Trains what the picture shows, or returns at once where that is done."""
    command = [sys.executable, "-m", "mnist_cnn.train"]
    subprocess.run([*command, *SWEEP.split(), f"hydra.sweep.dir={RUNS}/sweep"], check=True)
    tutorial = ["trainer.max_epochs=10", f"hydra.run.dir={RUNS}/tutorial"]
    subprocess.run([*command, *tutorial], check=True)


def photographs(width: int) -> Image.Image:
    """Photographs with their readings, one below the other."""
    images, _ = mnist.load_split("mnist", "", "test")
    net, shown = load(), []
    for seed in SEEDS:
        chance = np.random.default_rng(seed)
        picture = photograph(
            images.numpy()[chance.integers(0, 10_000, 5)], chance, KINDS["rows of 5"]
        )
        drawn = draw_readings(picture, read_digits(picture, net))
        shown.append(drawn.resize((width, round(drawn.height * width / drawn.width))))
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in shown]))


def report(width: int, height: int) -> Image.Image:
    """The upper part of the sweep's report as a browser shows it."""
    file, page_width = RUNS / "report.png", 1250
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size = {"width": page_width, "height": round(page_width * height / width)}
        page = browser.new_page(viewport=size)  # type: ignore[arg-type]
        page.goto((RUNS / "sweep" / "report.html").absolute().as_uri())
        page.wait_for_timeout(2000)  # its figures are drawn
        page.screenshot(path=file)
        browser.close()
    return Image.open(file).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def main() -> None:
    train()
    left = photographs(500)
    width = WIDTH - left.width - 3 * MARGIN
    curves = Image.open(RUNS / "tutorial" / "history.png").convert("RGB")
    curves = curves.resize((width, round(curves.height * width / curves.width)))
    height = left.height - curves.height - MARGIN - TITLE
    right, below = left.width + 2 * MARGIN, TITLE + height + MARGIN + TITLE
    sheet = Image.new("RGB", (WIDTH, TITLE + left.height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    for text, picture, x, y in (
        ("photographs, read", left, MARGIN, TITLE),
        ("a sweep, compared", report(width, height), right, TITLE),
        ("a run's curves", curves, right, below),
    ):
        draw.text((x, y - TITLE + 12), text, "#333", font)
        sheet.paste(picture, (x, y))
    OUT.parent.mkdir(exist_ok=True)
    sheet.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
