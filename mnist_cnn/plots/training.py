"""The figure of a run: its history."""

from collections.abc import Mapping, Sequence

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
    for axes, metric, name in zip(
        figure.subplots(1, 2), ("loss", "acc"), ("cross-entropy", "accuracy"), strict=True
    ):
        for stage, label, color in (("train", "training", TRAIN), ("val", "validation", VAL)):
            known = [row for row in rows if f"{stage}/{metric}" in row]
            if known:
                x, y = ([row[key] for row in known] for key in ("epoch", f"{stage}/{metric}"))
                axes.plot(x, y, "o-", ms=3.5, lw=1.6, color=color, label=label)
        best = next((r for r in rows if r["epoch"] == best_epoch), None)
        if best and f"val/{metric}" in best:
            value = best[f"val/{metric}"]
            shown = f"{value:.2%}" if metric == "acc" else f"{value:.4f}"
            label = f"best epoch {best_epoch}: {shown}"
            axes.axvline(best["epoch"], color=MARK, lw=0.8, ls=":")
            axes.plot(best["epoch"], value, "o", ms=8, mfc="none", color=MARK, label=label)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        finish(axes, "y" if metric == "acc" else "")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure
