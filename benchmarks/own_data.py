"""A custom LightningDataModule with PyTorch's DataLoader and random augmentation in its workers."""

import random

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mnist_cnn.data.mnist import load_split

IMAGES = 640  # 20 steps per epoch


class Changed(Dataset[tuple[Tensor, int]]):
    """Digits that are shifted, dimmed and made noisy, with random numbers of three generators."""

    def __init__(self) -> None:
        images, labels = load_split("mnist", "unused", "train")
        self.images, self.labels = images[:IMAGES], labels[:IMAGES]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x = self.images[row].float().div(255).roll(random.randint(-2, 2), -1)
        x = x * (0.5 + 0.5 * np.random.random()) + 0.1 * torch.rand(x.shape)
        return x.unsqueeze(0), int(self.labels[row])


class Digits(L.LightningDataModule):
    """Batches of 32 digits, loaded by a number of workers."""

    def __init__(self, workers: int):
        super().__init__()
        self.rows, self.workers = Changed(), workers

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(self.rows, 32, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        x = self.rows.images[:64].float().div(255).unsqueeze(1)
        return DataLoader(TensorDataset(x, self.rows.labels[:64]), 32)

    test_dataloader = val_dataloader
