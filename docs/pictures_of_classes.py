"""Make the pictures of "Pictures of your own" in usage.md: python docs/pictures_of_classes.py PART

`emoji FOLDER` writes 450 emoji to emoji/train and emoji/test, by class; FOLDER is that of the npm
package @iconify-json/noto, which has Google's Noto emoji (Apache License 2.0). Between the parts
come the commands of that page. `pages` makes images/classes.png: training pictures, what an
evaluation wrote, and the exported page with a picture on it. Needs the extra test and Chromium.
"""

import json
import sys
from pathlib import Path

import browser
import numpy as np
from PIL import Image, ImageDraw, ImageFont

OUT = Path(__file__).parent / "images" / "classes.png"
EMOJI, RUN, PAGE = Path("emoji"), Path("outputs/emoji"), Path("exported/emoji/mnist_cnn.html")
KINDS = {"nature": "Animals & Nature", "emotion": "Smileys & Emotion", "food": "Food & Drink"}
COUNTS = {"nature": 150, "emotion": 170, "food": 130}
SIDE = 96  # pixels
SHOWN = "food/avocado.png"  # on the page
WIDTH, HEIGHT, GAP, TITLE = 840, 640, 24, 48


def emoji(package: Path) -> None:
    """Draw the emoji on white, one of five to test on."""
    icons = json.loads((package / "icons.json").read_text("utf-8"))["icons"]
    categories = json.loads((package / "metadata.json").read_text("utf-8"))["categories"]
    chance = np.random.default_rng(0)
    with browser.opened(SIDE, SIDE) as page:
        for kind, category in KINDS.items():
            names = sorted(set(categories[category]) & icons.keys())
            for k, name in enumerate(chance.permutation(names)[: COUNTS[kind]]):
                place = EMOJI / ("train" if k % 5 else "test") / kind
                place.mkdir(parents=True, exist_ok=True)
                svg = f'<svg viewBox="0 0 128 128" width="{SIDE}">{icons[name]["body"]}</svg>'
                page.set_content(f'<body style="margin: 0">{svg}</body>')
                page.screenshot(path=place / f"{name}.png")


def training(rows: int = 9, columns: int = 4) -> Image.Image:
    """Draw some training pictures of each class."""
    blocks = []
    for kind in KINDS:
        files = sorted((EMOJI / "train" / kind).iterdir())
        chosen = np.linspace(0, len(files) - 1, rows * columns).astype(int)
        images = [np.array(Image.open(files[k]).convert("RGB")) for k in chosen]
        grid = np.array(images).reshape(rows, columns, SIDE, SIDE, 3)
        blocks.append(grid.swapaxes(1, 2).reshape(rows * SIDE, columns * SIDE, 3))
        blocks.append(np.full((rows * SIDE, GAP * 3, 3), 255, np.uint8))
    return Image.fromarray(np.hstack(blocks[:-1]))


def on_page() -> Image.Image:
    """Take a screenshot of the exported page with a picture on it."""
    picture = EMOJI / "test" / SHOWN
    file = RUN / "page.png"
    with browser.opened(1180, 800) as page:
        page.goto(PAGE.absolute().as_uri())
        page.set_input_files("input[type=file]", picture)
        page.wait_for_function("() => root.dataset.state === 'read'")
        page.wait_for_timeout(500)  # the bars grow
        page.screenshot(path=file)
    return Image.open(file).convert("RGB")


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to fit, with a white margin."""
    picture = picture.copy()
    picture.thumbnail((width, height), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    return sheet


def pages() -> None:
    folder = RUN / "evaluation" / "test"
    parts = (
        ("360 pictures to train on", training()),
        ("the page", on_page()),
        ("the mistakes, by file", Image.open(folder / "mistakes.png").convert("RGB")),
        ("which classes are confused", Image.open(folder / "confusion.png").convert("RGB")),
    )
    sheet = Image.new("RGB", (2 * WIDTH + 3 * GAP, 2 * (HEIGHT + TITLE) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(24)
    for k, (title, picture) in enumerate(parts):
        x, y = GAP + k % 2 * (WIDTH + GAP), k // 2 * (HEIGHT + TITLE)
        draw.text((x, y + 10), title, "#333", font)
        sheet.paste(fitted(picture, WIDTH, HEIGHT), (x, y + TITLE))
    sheet.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    emoji(Path(sys.argv[2])) if sys.argv[1] == "emoji" else pages()
