"""Sums over the samples of a batch that count, without a look at values where looking is not free."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt._torch import visible

__all__ = ["class_sums", "counted_samples", "one_class"]


def class_sums(
    features: Tensor, target: Tensor, num_classes: int, ignore_index: int
) -> tuple[list[Tensor], Tensor | None]:
    """Return class sums (C, d), their total (d,) and counts (C,); and whether the batch is bad.

    The target is int64 labels (n,), or probabilities (n, C): class c then has the sum over i of p_ic f_i, and the count
    is the sum of p_ic.
    """
    counted, bad = counted_samples(features, target, num_classes, ignore_index)
    whole = bad is None and bool(counted.all())  # where looking is free: then no copy of the features is needed
    if not whole:
        features = torch.where(counted[:, None], features, 0)
    if target.is_floating_point():
        shares = torch.where(counted[:, None], target, 0).to(features.dtype)
        sums, counts = shares.mT @ features, shares.sum(dim=0)
        total = sums.sum(dim=0)
    else:
        weights, classes = counted.to(features.dtype), target if whole else torch.where(counted, target, 0)
        sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, classes, features)
        counts = weights.new_zeros(num_classes).index_add(0, classes, weights)
        total = features.sum(dim=0)  # in the order of the samples: the mean of a batch is torch's to the bit
    return [sums, total, counts], bad


def counted_samples(
    features: Tensor, target: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor | None]:
    """Return which samples count, (n,) of bool, and whether the batch is bad; None where that is looked at elsewhere.

    A batch is bad that holds NaN, infinity, a label that is neither a class nor ignored, or a row that is no
    probability. Nothing of it counts, so that no NaN meets a factorisation and no index is out of range.
    """
    soft = target.is_floating_point()
    counted = target.new_ones(len(target), dtype=torch.bool) if soft else target != ignore_index
    if visible(features) and visible(target):
        return counted, None
    inside = are_probabilities(target) if soft else (target >= 0) & (target < num_classes)
    bad = ~(features.detach().isfinite().all() & (inside | ~counted).all())
    return counted & inside & ~bad, bad


def are_probabilities(rows: Tensor) -> Tensor:
    """Return which rows (n, C) are probabilities, up to the rounding of bfloat16: (n,) of bool."""
    return (rows >= 0).all(dim=1) & ((rows.sum(dim=1) - 1).abs() <= ROUNDING)


ROUNDING = 2e-2
"""How far the sum of probabilities may be from 1: rows in bfloat16 are rounded entry by entry."""


def one_class(labels: Tensor, counted: Tensor) -> Tensor:
    """Return whether all samples that count are of one class."""
    C = torch.iinfo(torch.int64).max  # above every class, as -1 is below
    if not len(labels):
        return counted.any()
    return torch.where(counted, labels, C).min() == torch.where(counted, labels, -1).max()
