"""Batches whose order only a seed and the number of the epoch decide."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from etfopt.experiments.data.images import Split

__all__ = ["EpochBatches", "batches"]

EVALUATION_BATCH = 1024


class EpochBatches(Sampler[list[int]]):
    """The index lists of one epoch's batches.

    The order is a function of the seed and the epoch, which Lightning tells by `set_epoch`: a run that goes on in epoch
    e sees the batches that it would have seen. These are the whole batches, for all processes together. A last sample
    that would stand alone joins the batch before it, since batch normalisation cannot take one sample.

    Parameters
    ----------
    labels : Tensor, shape (n,)
    size : int
        Samples of a batch.
    seed : int, optional
        None is the order of the data.
    kind : "shuffled" or "stratified"
        "stratified" deals out every class evenly: with equal classes and a multiple of C as the size, every batch has
        equally many samples of each class.
    """

    def __init__(self, labels: Tensor, size: int, seed: int | None = None, kind: str = "shuffled") -> None:
        self.labels, self.size, self.seed, self.kind = labels, size, seed, kind
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch whose batches come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order().tolist()
        ends = self._ends()
        return iter([order[start:end] for start, end in zip([0, *ends], ends, strict=False)])

    def __len__(self) -> int:
        return len(self._ends())

    def _ends(self) -> list[int]:
        """Return where each batch ends in the order."""
        n = len(self.labels)
        ends = [*range(self.size, n, self.size), n]
        if len(ends) > 1 and n - ends[-2] == 1:
            del ends[-2]
        return ends

    def _order(self) -> Tensor:
        n = len(self.labels)
        if self.seed is None:
            return torch.arange(n)
        generator = torch.Generator().manual_seed(self.seed)
        # two draws an epoch, as torch's RandomSampler takes them: recorded runs rest on this order
        for _ in range(2 * self.epoch):
            torch.randperm(n, generator=generator)
        order = torch.randperm(n, generator=generator)
        return order if self.kind == "shuffled" else order[_dealt(self.labels[order], generator)]


def _dealt(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return an order in which every class is spread evenly.

    Sample k of the n_c samples of class c stands at (k + u)/n_c, with u in [0, 1) drawn for each size n_c: classes of
    equal size take turns, and a rare class falls on any place.
    """
    counts = torch.bincount(labels)
    by_class = labels.argsort(stable=True)
    starts = counts.cumsum(dim=0) - counts
    k = torch.empty_like(labels)
    k[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    sizes, which = torch.unique(counts, return_inverse=True)
    shift = torch.rand(len(sizes), generator=generator, dtype=torch.float64)[which]
    place = (k + shift[labels]) / counts[labels]
    return place.argsort(stable=True)


def batches(
    data: Split, batch_size: int | None = None, seed: int | None = None, kind: str = "shuffled"
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader over a split: in a new order every epoch, or in the order of the data without a seed.

    Parameters
    ----------
    data : Split
        What to load.
    batch_size : int, optional
        None is the whole split.
    seed : int, optional
        Seed of the order; None keeps the order of the data.
    kind : "shuffled" or "stratified"
        How samples are dealt out.

    Returns
    -------
    DataLoader
        Of images, shape (n, channels, height, width), and labels, shape (n,).
    """
    sampler = EpochBatches(data.labels, batch_size or EVALUATION_BATCH, seed, kind)
    # batches are taken as one indexing of the tensors, not sample by sample
    return DataLoader(data, sampler=sampler, batch_size=None)
