"""Data sets by name, as tensors in memory, and batches whose order only a seed decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler, TensorDataset

__all__ = ["DATASETS", "Batches", "DataSpec", "Images", "batches"]

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


class Shuffled(Sampler[int]):
    """An order of n samples that seed and epoch decide, so that a run can be resumed at any epoch."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def __iter__(self) -> Iterator[int]:
        entropy = np.random.SeedSequence([self.seed, self.epoch])
        return iter(np.random.default_rng(entropy).permutation(self.n).tolist())

    def __len__(self) -> int:
        return self.n


class Batches(Sampler[list[int]]):
    """Index lists of a given size over an order; a last sample that would stand alone joins the batch before it.

    Batch normalisation cannot take one sample, and no head sees other batches than the others.
    """

    def __init__(self, order: Sampler[int], size: int) -> None:
        self.order, self.size = order, size

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(self.order)
        chunks = [indices[start : start + self.size] for start in range(0, len(indices), self.size)]
        if len(chunks) > 1 and len(chunks[-1]) == 1:
            chunks[-2:] = [chunks[-2] + chunks[-1]]
        return iter(chunks)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before every epoch."""
        if isinstance(self.order, Shuffled):
            self.order.epoch = epoch

    def __len__(self) -> int:
        count, rest = divmod(len(self.order), self.size)  # type: ignore[arg-type] # the samplers used here have a length
        return count + (rest > 1 or (rest == 1 and count == 0))


def batches(
    data: TensorDataset, batch_size: int | None = None, seed: int | None = None
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader over a split: shuffled anew each epoch by seed and epoch alone, or in order without a seed."""
    order: Sampler[int] = SequentialSampler(data)
    if seed is not None:
        order = Shuffled(len(data), seed)
    # batches are taken as one indexing of the tensors, not sample by sample
    return DataLoader(data, sampler=Batches(order, batch_size or EVALUATION_BATCH), batch_size=None)
