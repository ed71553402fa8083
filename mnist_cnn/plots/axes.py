"""What matplotlib's figures share: colors, title, axes."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAIN, VAL, MARK = "#8c8c8c", "#0b62a4", "#c1272d"


def titled(title: str, inches: tuple[float, float]) -> Figure:
    """An empty figure under its title, in as many lines as it needs."""
    figure = Figure(figsize=inches, layout="constrained")
    lines = textwrap.fill(title, int(11 * inches[0]))
    figure.suptitle(lines, fontsize=11, parse_math=False)  # a folder may have $ in its name
    return figure


def mark_whole_numbers(axes: Axes) -> None:
    """Marks whole numbers alone on the x axis, of a single one too."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def percent(share: float) -> str:
    """A share as it is written, in per cent."""
    return f"{100 * share:.4g}%"
