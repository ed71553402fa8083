"""The figure of a run: its history."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_cnn.plots.axes import MARK, TRAIN, VAL, finish, titled


def history(rows: Sequence[Mapping[str, float]], best_epoch: int | None, title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation, with the best epoch marked.

    Args:
        rows: one per epoch: `epoch` (from 1), `lr`, and any of `train/loss`, `train/acc`,
            `val/loss`, `val/acc`.
        best_epoch: the epoch whose checkpoint was kept, or None.
    """
    figure = titled(title, (10, 4.2))
    table = pd.DataFrame(rows).set_index("epoch", drop=False)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "acc"), strict=True):
        for stage, color in (("train", TRAIN), ("val", VAL)):
            if (key := f"{stage}/{metric}") in table:
                axes.plot(table["epoch"], table[key], "o-", ms=3.5, lw=1.6, color=color, label=key)
        if best_epoch in table.index and f"val/{metric}" in table:
            value = table.loc[best_epoch, f"val/{metric}"]
            shown = f"{value:.2%}" if metric == "acc" else f"{value:.4f}"
            label = f"best epoch {best_epoch}: {shown}"
            axes.plot(best_epoch, value, "o", ms=8, mfc="none", color=MARK, label=label)
        axes.set(xlabel="epoch", title={"loss": "cross-entropy", "acc": "accuracy"}[metric])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        finish(axes, "y" if metric == "acc" else "")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure
