"""Make images/tensorboard.png, four views of a sweep in TensorBoard: python docs/board.py

The sweep is in outputs/board, and is resumed. Needs the extra test, and Chromium.
"""

import io
import subprocess
import sys
from pathlib import Path

import browser
from PIL import Image
from playwright.sync_api import Page
from tensorboard import program

OUT = Path(__file__).with_name("images") / "tensorboard.png"
FOLDER = Path("outputs/board")
SWEEP = "-m data.per_class=200 trainer.max_epochs=8 optimizer.lr=1e-4,1e-3,1e-2 seed=0,1"
SIDES = 1400, 900  # of the window, in pixels
WIDTH, HEIGHT, MARGIN = 840, 540, 24  # of a view in the picture, in pixels


def views(page: Page, address: str) -> list[bytes]:
    """Return screenshots of the curves, of HPARAMS as a table and as coordinates, and of IMAGES."""
    shots = []
    for view, clicks in (
        ("timeseries", [page.get_by_label("Close side pane")]),
        ("hparams", []),
        ("hparams", [page.get_by_text(t) for t in ("Parallel coordinates view", "Logarithmic")]),
        ("images", []),
    ):
        page.goto("about:blank")  # else only the fragment of the address would change
        page.goto(f"{address}?smoothing=0#{view}")
        for click in clicks:
            click.first.click()
        page.wait_for_timeout(4000)  # until its figures are drawn
        shots.append(page.screenshot())
    return shots


def main() -> None:
    command = [sys.executable, "-m", "mnist_cnn.train", *SWEEP.split()]
    subprocess.run([*command, f"hydra.sweep.dir={FOLDER}"], check=True)
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(FOLDER), "--port", "0"])
    address = board.launch()
    sheet = Image.new("RGB", (2 * WIDTH + MARGIN, 2 * HEIGHT + MARGIN), "white")
    with browser.opened(*SIDES) as page:
        for k, shot in enumerate(views(page, address)):
            view = Image.open(io.BytesIO(shot)).convert("RGB")
            place = k % 2 * (WIDTH + MARGIN), k // 2 * (HEIGHT + MARGIN)
            sheet.paste(view.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), place)
    sheet.quantize(64, kmeans=4, dither=Image.Dither.NONE).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
