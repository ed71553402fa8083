"""Synthetic pages: the ink of rows, forms, grids and clutter, with each character's class and box.

A page is drawn from a generator alone. Sizes are in pixels; boxes are (left, top, right, bottom).
"""

import numpy as np
from numpy.random import Generator

from mnist_cnn.data.synthetic import clutter
from mnist_cnn.data.synthetic.camera import finish, turn
from mnist_cnn.data.synthetic.characters import Sources
from mnist_cnn.data.synthetic.layouts import LAYOUTS, Pen, gaps_of
from mnist_cnn.data.synthetic.sheet import HEIGHT, OTHER, WIDTH, Mark, Page
from mnist_cnn.data.synthetic.texts import TEXTS

SYMMETRICAL = "018-=/()+×÷.:%°"  # what may look like a character when it is turned
LIKE_ANOTHER = SYMMETRICAL + "2569"  # what may look like one upside down


def page(rng: Generator, sources: Sources, height: int = HEIGHT, width: int = WIDTH) -> Page:
    """Draw a page of any kind."""
    r = rng.random()
    draw = lying if r < 0.03 else tilted if r < 0.08 else upside_down if r < 0.12 else upright
    return draw(rng, sources, height, width)


def upright(rng: Generator, sources: Sources, height: int, width: int) -> Page:
    """Draw a page that stands upright."""
    made = Page.empty(height, width)
    r = rng.random()
    size = (
        rng.uniform(20, 44)
        if r < 0.84
        else rng.uniform(9, 20)
        if r < 0.91
        else rng.uniform(44, 110)
    )
    pen = Pen(rng, sources, made, size, rng.uniform(0.55, 1) if rng.random() < 0.2 else 1.0)
    probabilities = np.array([share for share, _ in LAYOUTS.values()])
    name = str(rng.choice(list(LAYOUTS), p=probabilities / probabilities.sum()))
    is_blank = name == "blank"
    most = 9 if is_blank else 4
    if rng.random() < (0.7 if is_blank else 0.15):
        for _ in range(int(rng.integers(1, most))):
            large = size * 4 ** rng.random() if is_blank and rng.random() < 0.3 else size
            clutter.scribble(rng, made.ink, large)
    if rng.random() < (0.5 if is_blank else 0.12):
        for _ in range(int(rng.integers(1, most))):
            clutter.doodle(rng, made.ink, size)
    if rng.random() < (0.4 if is_blank else 0.04):
        for _ in range(int(rng.integers(1, most))):
            clutter.blot(rng, made.ink, size)
    if is_blank and rng.random() < 0.4:
        clutter.texture(rng, made.ink)
    LAYOUTS[name][1](pen)
    finish(made, size, rng)
    return made


def strip(rng: Generator, sources: Sources) -> Page:
    """Draw a number or an amount on a strip of paper, as it is cut out of a form."""
    size = rng.uniform(22, 42)
    text = TEXTS["amount" if rng.random() < 0.7 else "number"](rng)
    width = size * (0.9 * len(text) + 2)
    made = Page.empty(round(size * rng.uniform(1.4, 2.6)), round(width))
    pen = Pen(rng, sources, made, size, rng.uniform(0.55, 1) if rng.random() < 0.2 else 1.0)
    height = made.ink.shape[0]
    if rng.random() < 0.3:
        y = height - rng.uniform(1, 0.3 * size)
        made.rule([(-5, y), (width + 5, y)], rng.uniform(1, 3), rng.uniform(0.25, 1.1))
    low = rng.uniform(-0.15, 0.25)
    gaps = gaps_of(rng, "touching") if rng.random() < 0.25 else (low, low + 0.25)
    left, middle = rng.uniform(0.2, 0.8) * size, height * rng.uniform(0.45, 0.55)
    pen.text(pen.hand(), text, left, middle, rng.normal(0, 0.03), gaps)
    finish(made, size, rng)
    return made


def lying(rng: Generator, sources: Sources, height: int, width: int) -> Page:
    """Draw a page that lies on its side."""
    made = upright(rng, sources, width, height)
    made.ink, made.rules = (np.ascontiguousarray(np.rot90(part)) for part in (made.ink, made.rules))
    for k, mark in enumerate(made.marks):
        left, top, right, bottom = mark.box
        box = top, height - right, bottom, height - left
        made.marks[k] = Mark(mark.symbol, box, mark.size)
    made.marks = passed_over(made.marks)
    if rng.random() < 0.5:
        turn_over(made)
    return made


def upside_down(rng: Generator, sources: Sources, height: int, width: int) -> Page:
    """Draw a page that is upside down. Its letters stay targets, as other writing."""
    made = upright(rng, sources, height, width)
    turn_over(made)
    letters = [mark for mark in made.marks if mark.symbol == OTHER]
    made.marks = letters + passed_over(made.marks, LIKE_ANOTHER)
    return made


def turn_over(made: Page) -> None:
    """Turn a page by 180 degrees, in place."""
    height, width = made.ink.shape
    made.ink, made.rules = made.ink[::-1, ::-1].copy(), made.rules[::-1, ::-1].copy()
    for k, mark in enumerate(made.marks):
        left, top, right, bottom = mark.box
        box = width - right, height - bottom, width - left, height - top
        made.marks[k] = Mark(mark.symbol, box, mark.size)


def tilted(rng: Generator, sources: Sources, height: int, width: int) -> Page:
    """Draw a page that is turned by about 45 degrees."""
    made = upright(rng, sources, height, width)
    turn(made, float(rng.choice([-1, 1])) * rng.uniform(28, 62))
    made.marks = passed_over(made.marks)
    return made


def passed_over(marks: list[Mark], alike: str = SYMMETRICAL) -> list[Mark]:
    """Drop the marks of a page that is not upright, but for what looks like a character turned.

    This loses its symbol, so that it is ignored.

    Args:
        marks: those of the page.
        alike: symbols that look like a character as they are turned.
    """
    return [Mark("", m.box, m.size) for m in marks if m.symbol in ("", *alike)]
