"""The product A'A."""

from __future__ import annotations

from torch import Tensor

BLOCKED_FROM = 512
"""Columns from which blocks save a quarter of the time: by symmetry, half of the operations are superfluous."""

BLOCKS = 4


def gram(A: Tensor) -> Tensor:
    """Return A'A of matrices, (..., d, r); of one that is wide by blocks, each row of them from the diagonal on."""
    r = A.shape[-1]
    if A.dim() > 2 or r < BLOCKED_FROM:
        return A.mT @ A
    step, product = -(-r // BLOCKS), A.new_empty(r, r)
    for i in range(0, r, step):
        product[i : i + step, i:] = A[:, i : i + step].mT @ A[:, i:]
        product[i + step :, i : i + step] = product[i : i + step, i + step :].mT
    return product
