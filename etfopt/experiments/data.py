"""Data sets by name, as tensors in memory, and batches whose order only a seed decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

__all__ = ["DATASETS", "DataSpec", "Images", "batches"]

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Images:
    """Images (n, channels, height, width), standardised by the training split, and labels (n,), in two splits."""

    train: TensorDataset
    test: TensorDataset

    @property
    def shape(self) -> torch.Size:
        """Shape of one image."""
        images: Tensor = self.train.tensors[0]
        return images.shape[1:]


@dataclass(frozen=True)
class DataSpec:
    """A data set that can be named: how many classes it has, and how it is read."""

    num_classes: int
    load: Callable[[], Images]


def load_digits() -> Images:
    """Return scikit-learn's 1797 handwritten digits, 8 x 8: 1437 to train and 360 to test, stratified, always alike."""
    pixels, labels = sklearn_digits(return_X_y=True)
    split = train_test_split(pixels, labels, test_size=360, stratify=labels, random_state=0)
    train_x, test_x = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in split[:2])
    train_y, test_y = (torch.tensor(y, dtype=torch.int64) for y in split[2:])
    mean, deviation = train_x.mean(), train_x.std()
    return Images(
        TensorDataset((train_x - mean) / deviation, train_y),
        TensorDataset((test_x - mean) / deviation, test_y),
    )


DATASETS = {"digits": DataSpec(10, load_digits)}


def batches(
    data: TensorDataset, batch_size: int | None = None, seed: int | None = None
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader over a split: shuffled anew each epoch by a generator of its own, or in order without a seed."""
    if seed is None:
        order = BatchSampler(SequentialSampler(data), batch_size or EVALUATION_BATCH, drop_last=False)
    else:
        shuffled = RandomSampler(data, generator=torch.Generator().manual_seed(seed))
        order = BatchSampler(shuffled, batch_size or EVALUATION_BATCH, drop_last=False)
    # batches are taken as one indexing of the tensors, not sample by sample
    return DataLoader(data, sampler=order, batch_size=None)
