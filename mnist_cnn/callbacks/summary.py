"""The table of a network's layers."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelSummary
from rich.table import Table

from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.runs import terminal


class Summary(ModelSummary):
    """Prints a table of the layers: parameters, operations for one image, and shapes.

    Args:
        max_depth: the depth of nested layers to print; 0 prints nothing, -1 all.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            pl_module.example_input_array = torch.zeros(1, *data.shape)
        modes = {layer: layer.training for layer in pl_module.modules()}
        try:
            super().on_fit_start(trainer, pl_module)
        except Exception:  # the network fails: sanity_check.try_step reports how
            pl_module.example_input_array = None
            for layer, training in modes.items():  # Lightning leaves them in eval mode
                layer.training = training
            super().on_fit_start(trainer, pl_module)

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args: Any,
        **options: Any,
    ) -> None:
        """Print the columns whose values differ; other arguments of Lightning are ignored."""
        table, columns = Table(), dict(summary_data)
        for name in list(columns):
            if name.strip() == "" or (name != "Name" and len(set(columns[name])) == 1):
                del columns[name]
            else:
                left = name in ("Name", "Type")
                table.add_column(name, justify="left" if left else "right", no_wrap=True)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        screen = terminal.console(soft_wrap=False)
        screen.print(table)
        screen.print(f"{total_parameters:,} parameters, {trainable_parameters:,} of them trained")
