"""Loading of the test images before the training."""

import lightning as L

from mnist_cnn.data.datamodule import ImageDataModule


class ReadyForTest(L.Callback):
    """Loads the images of a run's test before its first step: faulty ones would waste hours."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # untyped
        if stage == "fit" and isinstance(data, ImageDataModule):
            data.setup("test")
