"""LightningModules that are no classifiers."""

from typing import Any

import lightning as L
from torch import Tensor, nn

from mnist_cnn.optim import make_optimizer


class Autoencoder(L.LightningModule):
    """Images through a few numbers; it logs the mean squared error as train/mse and val/mse."""

    def __init__(self, *, optimizer: dict[str, Any], width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU())
        self.decode = nn.Linear(width, 784)

    def error(self, stage: str, images: Tensor) -> Tensor:
        error = (self.decode(self.encode(images)) - images.flatten(1)).square().mean()
        self.log(f"{stage}/mse", error, on_step=False, on_epoch=True)
        return error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.error("train", batch[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.error("val", batch[0])

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.hparams["optimizer"], list(self.parameters()))
