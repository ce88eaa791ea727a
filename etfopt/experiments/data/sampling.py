"""Batches whose order only a seed and the number of the epoch decide, split over processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Sampler

from etfopt.errors import InputError
from etfopt.experiments.data.images import Split

__all__ = ["EpochBatches", "batches"]

EVALUATION_BATCH = 1024


class EpochBatches(Sampler[list[int]]):
    """The index lists of one epoch's batches.

    The order is a function of the seed and the epoch, which Lightning tells by `set_epoch`: a run that goes on in epoch
    e sees the batches that it would have seen. Of R processes, process r takes samples r, r + R, r + 2R, ... of every
    batch: together they see the batches that one process would see, no sample twice and none left out. A last batch
    with fewer than two samples for each process joins the one before, since batch normalisation cannot take one sample.

    Parameters
    ----------
    labels : Tensor, shape (n,)
    size : int
        Samples of a batch, over all processes.
    seed : int, optional
        None is the order of the data.
    kind : "shuffled" or "stratified"
        "stratified" deals out every class evenly: with equal classes and a multiple of C as the size, every batch has
        equally many samples of each class.
    rank, ranks : int, optional
        r and R; those of torch.distributed if not given.

    Raises
    ------
    InputError
        If a batch has fewer than two samples for each process.
    """

    def __init__(
        self,
        labels: Tensor,
        size: int,
        seed: int | None = None,
        kind: str = "shuffled",
        *,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        self.labels, self.size, self.seed, self.kind = labels, size, seed, kind
        together = distributed.is_available() and distributed.is_initialized()
        self.ranks = ranks or (distributed.get_world_size() if together else 1)
        self.rank = (distributed.get_rank() if together else 0) if rank is None else rank
        self.epoch = 0
        if seed is not None and size < 2 * self.ranks:
            raise InputError(f"batch_size = {size} is less than two samples for each of the {self.ranks} processes")

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch whose batches come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order().tolist()
        ends = self._ends()
        return iter([order[start + self.rank : end : self.ranks] for start, end in zip([0, *ends], ends, strict=False)])

    def __len__(self) -> int:
        return len(self._ends())

    def _ends(self) -> list[int]:
        """Return where each batch ends in the order."""
        n = len(self.labels)
        ends = [*range(self.size, n, self.size), n]
        if len(ends) > 1 and n - ends[-2] < 2 * self.ranks:
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

    Under torch.distributed each process gets its share of every batch; Lightning's own distributed sampler must be off
    (``use_distributed_sampler=False``).
    """
    sampler = EpochBatches(data.labels, batch_size or EVALUATION_BATCH, seed, kind)
    # batches are taken as one indexing of the tensors, not sample by sample
    return DataLoader(data, sampler=sampler, batch_size=None)
