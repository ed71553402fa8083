"""Histograms of the weights for TensorBoard."""

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.nan import check_finite


class Histograms(BetweenEpochs):
    """The distribution of each weight after every epoch, for TensorBoard: 20 ms an epoch."""

    order = -4

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                # there is no histogram of what is not finite
                check_finite(trainer, module, trainer.current_epoch)
                for name, weights in module.named_parameters():
                    tag = name.removeprefix("net.").replace(".", "/")
                    # at the epoch, as the curves are: a resumed run drops what lies after it
                    logger.experiment.add_histogram(tag, weights.detach(), trainer.current_epoch)
