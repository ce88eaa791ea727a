r"""Many processes, one batch: sums over the ranks of a process group, and refusals that all ranks learn of together.

**Which factor makes the gradient right.** R ranks hold n_i samples each, and all use the same statistics
:math:`S = \sum_i s_i` (class sums, counts, their total). With :math:`L_i` the mean loss of rank i,

.. math:: \frac{d}{d\theta} \frac1R \sum_i L_i
   = \frac1R \sum_i \Bigl[\frac{\partial L_i}{\partial\theta}
   + \Bigl(\frac{\partial s_i}{\partial\theta}\Bigr)' \sum_j \frac{\partial L_j}{\partial S}\Bigr].

The bracket is what rank i computes when the backward pass of the sum is the plain sum of the ranks' cotangents, with
no factor, and DistributedDataParallel (or FSDP) takes the mean 1/R over the ranks. So the averaged gradient is that of
:math:`\frac1R\sum_i L_i` with the statistics of the whole batch: with equal n_i, exactly the gradient of one process
that holds the whole batch. With unequal n_i a rank's loss must be weighted by :math:`R n_i/\sum_j n_j` for the same
(as with every other layer under DistributedDataParallel).

Every rank must run the same number of training forwards and backwards, as for any collective; an empty batch counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from etfopt._torch import visible
from etfopt.errors import InputError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Pooled", "Ranks"]


class Pooled(NamedTuple):
    """Sums over the ranks, and how many ranks refused their part of the batch: 0 wherever that could be looked at."""

    sums: list[Tensor]
    refused: Tensor | None


class Ranks:
    """The processes whose batches count as one: those of a group (True: the default one), or this one alone."""

    def __init__(self, synchronize: bool | ProcessGroup = True) -> None:
        self.synchronize = synchronize

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        """Return the same group: a copy of a module runs on the same ranks."""
        return Ranks(self.synchronize)

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.synchronize, bool):
            raise InputError(
                f"synchronize is {self.synchronize!r}, and a process group exists in its processes only: "
                "a module that holds one cannot be pickled. Save state_dict() instead"
            )
        return self.__dict__

    def group(self) -> ProcessGroup | None:
        """Return the group to sum over, or None where this process is alone."""
        if self.synchronize is False or not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD if self.synchronize is True else self.synchronize
        size = dist.get_world_size(group)
        if size < 1:
            raise InputError(
                "synchronize is a process group that does not contain this process; pass one that does, or False"
            )
        return None if size == 1 else group

    def total(self, sums: list[Tensor], bad: Tensor | None) -> Pooled:
        """Return sums over the ranks, differentiable, in float64; raise if another rank refused its batch.

        Where values cannot be looked at, `bad` holds whether this rank refuses its batch, and `refused` tells.
        """
        group = self.group()
        if group is None:
            return Pooled(sums, bad)
        packed, flags = _pooled(torch.cat([part.double().flatten() for part in sums]), bad, group)
        looked = visible(flags) and bad is None
        if looked:
            _refuse_with(flags)
        parts = packed.split([part.numel() for part in sums])  # type: ignore[no-untyped-call] # torch leaves it untyped
        shaped = [part.reshape(like.shape) for part, like in zip(parts, sums, strict=True)]
        return Pooled(shaped, None if looked else flags.sum() > 0)

    @contextmanager
    def sharing_refusals(self, like: Tensor, numbers: int) -> Iterator[None]:
        """Tell the other ranks of an `InputError` inside the block: they wait in `total` for as many numbers."""
        try:
            yield
        except InputError:
            group = self.group()
            if group is not None:
                _pooled(like.new_zeros(numbers, dtype=torch.float64), True, group)
            raise

    def agreed(self, U: Tensor) -> Tensor:
        """Return U as the first rank has it, with the gradient of this rank's own.

        Every rank factorises the same bits, but another processor or another number of threads may round the factors
        otherwise; d r numbers a step remove the question.
        """
        group = self.group()
        if group is None:
            return U
        first = U.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(first, src=dist.get_global_rank(group, 0), group=group)
        return _Replace.apply(U, first)  # type: ignore[no-untyped-call, no-any-return] # as above


def _pooled(packed: Tensor, refused: bool | Tensor | None, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Return the sum of float64 numbers over a group, differentiable, and which ranks refused their batch."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    flags = packed.new_zeros(size)
    flags[rank] = float(refused or 0) if not isinstance(refused, Tensor) else refused.double()
    # one message; float64 whatever the batch's dtype, so that a rank that refuses its batch sends as many bytes
    packed = torch.cat([packed, flags])
    if torch.is_grad_enabled() and not packed.requires_grad:
        # a rank whose features carry no gradient must still take its part in the others' backward passes
        packed.requires_grad_()
    packed = _AllReduce.apply(packed, group)  # type: ignore[no-untyped-call] # torch leaves Function.apply untyped
    return packed[:-size], packed[-size:].detach()


def _refuse_with(flags: Tensor) -> None:
    if not flags.any():
        return
    ranks = ", ".join(str(rank) for rank in flags.nonzero().flatten().tolist())
    raise InputError(
        f"the batch was refused on rank(s) {ranks} of the process group, and so on all: nothing was changed on any. "
        "The error raised there says what to repair"
    )


class _AllReduce(torch.autograd.Function):
    """Sum over a group; the cotangents are summed as well, see the module's derivation."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        total = X.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor, None]:
        return _AllReduce.apply(G, ctx.group), None  # type: ignore[no-untyped-call] # as above


class _Replace(torch.autograd.Function):
    """Another value for a tensor, equal to it up to rounding; the derivative is the identity."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        return value.clone()

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - autograd's signature
        return G, None
