"""Colors, titles and axes shared by the matplotlib figures."""

import textwrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# for every function that draws: names of classes, metrics and folders may have $, which else begins
# a formula
without_math = rc_context({"text.parse_math": False})

TRAIN, VAL, MARK = "#8c8c8c", "#0b62a4", "#c1272d"


def titled(title: str, inches: tuple[float, float]) -> Figure:
    """Return an empty figure with a title, wrapped to its width."""
    figure = Figure(figsize=inches, layout="constrained")
    lines = textwrap.fill(title, int(11 * inches[0]))
    figure.suptitle(lines, fontsize=11)
    return figure


def finish(axes: Axes, shares: str = "") -> None:
    """Draw a grid in place of a frame; the axes in `shares` (`x`, `y` or `xy`) are in per cent."""
    for name in shares:
        getattr(axes, f"{name}axis").set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
