"""The moments of labelled features: number and mean of every class, and the scatter within classes, merged exactly.

Chan, Golub, LeVeque (1983): the moments of two parts of a sample, each around its own means, give those of the whole.
No square of an offset enters. A mean is kept as the unevaluated sum of two float64, so that neither the offset of a
class nor the number of batches costs digits. Everything lies in one vector: whoever merges two parts needs all of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.metrics._precise import power_of_two_above, two_sum


class Moments(NamedTuple):
    """Views of one vector, float64."""

    counts: Tensor  # (C,)
    means: Tensor  # (C, d), zero for a class without samples
    rests: Tensor  # (C, d), what rounding cut off the means
    scatter: Tensor  # (d, d), the sum of (f - mean)(f - mean)' over all samples, divided by unit^2
    unit: Tensor  # (1,), a power of two that no summand exceeds in size: squares stay in range at every scale


def size(C: int, d: int) -> int:
    """Length of the vector."""
    return C + 2 * C * d + d * d + 1


def unpack(vector: Tensor, C: int, d: int) -> Moments:
    """Return the parts of the vector; to write into them is to write into it."""
    counts, means, rests, scatter, unit = torch.split(vector, [C, C * d, C * d, d * d, 1])
    return Moments(counts, means.view(C, d), rests.view(C, d), scatter.view(d, d), unit)


def add_batch(vector: Tensor, features: Tensor, labels: Tensor, C: int, d: int) -> Tensor:
    """Return the vector with a batch of at least one sample added."""
    whole = vector.clone()
    moments = unpack(whole, C, d)
    classes, index, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    n = counts.to(features)[:, None]
    nothing = features.new_zeros(len(classes), d)
    # around a point near the features their differences are exact: the mean so far, or a first mean of the batch
    known = moments.counts[classes][:, None] > 0
    near = torch.where(known, moments.means[classes], nothing.index_add(0, index, features) / n)
    offsets = features - near[index]
    shift = nothing.index_add(0, index, offsets) / n
    deviations = offsets - shift[index]
    scatter, unit = _scatter(deviations)
    _join(moments, classes, Moments(n[:, 0], *two_sum(near, shift), scatter, unit))
    return whole


def merge(stacked: Tensor, C: int, d: int) -> Tensor:
    """Return the vector of all samples, from those of parts of them along the first axis: for ``dist_reduce_fx``."""
    whole = stacked[0].clone()
    moments = unpack(whole, C, d)
    for vector in stacked[1:]:
        part = unpack(vector, C, d)
        classes = part.counts.nonzero()[:, 0]
        rows = Moments(part.counts[classes], part.means[classes], part.rests[classes], part.scatter, part.unit)
        _join(moments, classes, rows)
    return whole


def _join(whole: Moments, classes: Tensor, part: Moments) -> None:
    """Write the merger of both into `whole`; `part` has one row for each of these classes."""
    before, means, rests = (x[classes] for x in whole[:3])
    n, m = before[:, None], part.counts[:, None]
    apart = (part.means - means) + (part.rests - rests)
    means, rests = two_sum(means, rests + apart * (m / (n + m)))
    new = n == 0
    whole.means[classes], whole.rests[classes] = part.means.where(new, means), part.rests.where(new, rests)
    whole.counts[classes] = before + part.counts
    scatter, unit = _scatter(apart * (n * m / (n + m)).sqrt())
    _add_scatter(whole, part.scatter, part.unit)
    _add_scatter(whole, scatter, unit)


def _scatter(deviations: Tensor) -> tuple[Tensor, Tensor]:
    """X'X/unit^2 and unit, for rows of deviations."""
    unit = power_of_two_above(deviations.abs().max())[None] if len(deviations) else deviations.new_zeros(1)
    scaled = deviations / unit.where(unit > 0, 1.0)
    return scaled.T @ scaled, unit


def _add_scatter(whole: Moments, scatter: Tensor, unit: Tensor) -> None:
    common = torch.maximum(whole.unit, unit)
    divisor = common.where(common > 0, 1.0)
    whole.scatter.mul_((whole.unit / divisor).square()).add_(scatter * (unit / divisor).square())
    whole.unit.copy_(common)
