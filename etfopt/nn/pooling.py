"""Sums over the samples of a batch that count, without a look at values where looking is not free."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt._torch import visible

__all__ = ["class_sums", "counted_samples", "one_class"]


def class_sums(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[list[Tensor], Tensor | None]:
    """Return class sums (C, d), their total (d,) and counts (C,) by int64 labels; and whether the batch is bad."""
    counted, bad = counted_samples(features, labels, num_classes, ignore_index)
    weights, classes = counted.to(features.dtype), torch.where(counted, labels, 0)
    features = torch.where(counted[:, None], features, 0)
    sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, classes, features)
    counts = weights.new_zeros(num_classes).index_add(0, classes, weights)
    return [sums, features.sum(dim=0), counts], bad


def counted_samples(
    features: Tensor, labels: Tensor, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor | None]:
    """Return which samples count, (n,) of bool, and whether the batch is bad; None where that is looked at elsewhere.

    A batch is bad that holds NaN, infinity, or a label that is neither a class nor ignored. Nothing of it counts, so
    that no NaN meets a factorisation and no index is out of range.
    """
    counted = labels != ignore_index
    if visible(features) and visible(labels):
        return counted, None
    inside = (labels >= 0) & (labels < num_classes)
    bad = ~(features.detach().isfinite().all() & (inside | ~counted).all())
    return counted & inside & ~bad, bad


def one_class(labels: Tensor, counted: Tensor) -> Tensor:
    """Return whether all samples that count are of one class."""
    C = torch.iinfo(torch.int64).max  # above every class, as -1 is below
    if not len(labels):
        return counted.any()
    return torch.where(counted, labels, C).min() == torch.where(counted, labels, -1).max()
