"""Figure of a run's history."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_cnn.plots.axes import MARK, TRAIN, VAL, finish, titled, without_math
from mnist_cnn.runs.folder import OF_EPOCH

COLORS = {"train": TRAIN, "val": VAL, "": VAL}  # by stage; a metric may have none
PANELS = 6  # metrics that are drawn


@without_math
def history(rows: Sequence[Mapping[str, float]], best_epoch: int | None, title: str) -> Figure:
    """Plot training and validation metrics by epoch, loss and accuracy first.

    Args:
        rows: one per epoch: `epoch` (from 1), and the logged values, such as `train/loss`.
        best_epoch: the epoch whose checkpoint was kept, or None.
    """
    table = pd.DataFrame(rows).set_index("epoch", drop=False)
    panels: dict[str, dict[str, str]] = {"loss": {}, "acc": {}}  # columns by stage
    for key in table.columns.drop(list(OF_EPOCH), errors="ignore"):
        stage, _, name = str(key).partition("/")
        known = stage in COLORS and name
        panels.setdefault(name if known else key, {})[stage if known else ""] = key
    drawn = {name: columns for name, columns in panels.items() if columns}
    names = list(drawn)[:PANELS] or ["loss"]
    lines = -(-len(names) // 2)
    figure = titled(title, (10, 4.2 * lines))
    for position, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, min(len(names), 2), position)
        draw(axes, table, name, drawn.get(name, {}), best_epoch)
    return figure


def draw(
    axes: Axes, table: pd.DataFrame, name: str, columns: Mapping[str, str], best_epoch: int | None
) -> None:
    """Plot a metric's columns, by stage, and its value in the best epoch."""
    for stage, key in sorted(columns.items()):
        axes.plot(table["epoch"], table[key], "o-", ms=3.5, lw=1.6, color=COLORS[stage], label=key)
    marked = columns.get("val", columns.get(""))
    if best_epoch is not None and best_epoch in table.index and marked:
        value: Any = table.loc[best_epoch, marked]
        shown = f"{value:.2%}" if name == "acc" else f"{value:.4f}"
        label = f"best epoch {best_epoch}: {shown}"
        axes.plot(best_epoch, value, "o", ms=8, mfc="none", color=MARK, label=label)
    axes.set(xlabel="epoch", title={"acc": "accuracy"}.get(name, name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    finish(axes, "y" if name == "acc" else "")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
