"""Several processes on one global batch: who takes which samples, and how much a share counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from etfopt.errors import InputError

__all__ = ["Shares", "share", "share_weight"]

SMALLEST = 2
"""Samples a process needs in a training batch: batch normalisation cannot take one."""


class Shares(Sampler[list[int]]):
    """A process's share of every batch: samples r, r + size, r + 2 size, ... of each.

    With `least` samples for each process, a last batch that is smaller joins the one before it.

    Parameters
    ----------
    batches : iterable of list of int
        A sampler of whole batches.
    rank, size : int
        This process, and how many there are.
    least : int
        Samples that each process must get.
    """

    def __init__(self, batches: Any, rank: int, size: int, least: int) -> None:
        self.batches, self.rank, self.size, self.least = batches, rank, size, least

    def _whole(self) -> list[list[int]]:
        chunks = list(self.batches)
        if len(chunks) > 1 and len(chunks[-1]) < self.least * self.size:
            chunks[-2:] = [chunks[-2] + chunks[-1]]
        if len(chunks[0]) < self.least * self.size:
            raise InputError(
                f"a batch of {len(chunks[0])} samples cannot be shared by {self.size} processes: each needs "
                f"{self.least}. Use larger batches or fewer devices"
            )
        return chunks

    def __iter__(self) -> Iterator[list[int]]:
        return iter([chunk[self.rank :: self.size] for chunk in self._whole()])

    def __len__(self) -> int:
        return len(self._whole())

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the sampler below."""
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)


def share(loader: DataLoader[Any], rank: int, size: int, training: bool) -> DataLoader[Any]:
    """Return the loader of a process's share of every batch, from the loader of whole batches.

    It draws the seeds of its workers from a generator of its own. From the global one it would draw whenever it is
    started, which Lightning does at one point of an epoch in a run that goes on, and at another in one that is resumed.
    """
    if size > 1:
        sampler = Shares(loader.sampler, rank, size, SMALLEST if training else 0)
        loader = DataLoader(loader.dataset, sampler=sampler, batch_size=None, collate_fn=loader.collate_fn)
    loader.generator = torch.Generator().manual_seed(rank)
    return loader


def share_weight(labels: Tensor) -> Tensor | float:
    """Return by what the mean loss of a share is to be multiplied so that processes average to the whole batch's.

    The shares of a batch may differ by a sample, and DistributedDataParallel averages the gradients of processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 1.0
    total = torch.tensor([len(labels)], device=labels.device)
    dist.all_reduce(total)
    return len(labels) * dist.get_world_size() / total[0]
