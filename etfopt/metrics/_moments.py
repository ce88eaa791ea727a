"""The moments of labelled features, added in place: number, sum and squares of every class, and the joint scatter.

All sums of a class are of differences from a *shift*: an early sample of the class, the smallest of its first batch. No
offset of the features enters, and no square cancels by more than the number of samples of its class: since the shift is
one of the samples, the sum of squares around it is at most n times that around the mean. The shifts of two parts of a
sample differ, and `merge` moves the sums of one part to the shift of the other: ``theory/class_sums.py``. Everything
lies in one vector: whoever merges two parts needs all of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.metrics._precise import power_of_two_above

# Entries of features in float64 held at once: 512 KiB, which stay in the cache of a core.
TILE = 2**16
# Squares of differences of features above this size do not underflow: 1e-130 * 1e-16 squared.
TINY = 1e-130


class Moments(NamedTuple):
    """Views of one vector, float64; the squares are divided by unit^2, a power of two that keeps them in range."""

    counts: Tensor  # (C,)
    shifts: Tensor  # (C, d), an early sample of the class; zero for a class without samples
    sums: Tensor  # (C, d), of f - shift
    squares: Tensor  # (C,), of |f - shift|^2; NaN where an old state does not tell
    scatter: Tensor  # (d, d), the sum of (f - shift)(f - shift)' over all samples; (0, 0) if it is not kept
    unit: Tensor  # (1,), 1 for features of usual size, and 0 before the first that is not zero


class Layout(NamedTuple):
    """How a vector is divided."""

    C: int
    d: int
    scatter: bool

    @property
    def sizes(self) -> list[int]:
        C, d = self.C, self.d
        return [C, C * d, C * d, C, d * d if self.scatter else 0, 1]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def unpack(self, vector: Tensor) -> Moments:
        """Return the parts of the vector; to write into them is to write into it."""
        counts, shifts, sums, squares, scatter, unit = torch.split(vector, self.sizes)
        C, d = self.C, self.d
        side = d if self.scatter else 0
        return Moments(counts, shifts.view(C, d), sums.view(C, d), squares, scatter.view(side, side), unit)


def rows_at_once(width: int) -> int:
    """Return how many rows of this width a tile holds."""
    return max(16, TILE // width)


def add_batch(vector: Tensor, features: Tensor, labels: Tensor, layout: Layout) -> None:
    """Add a batch of at least one sample, in place: only the rows of its classes are touched."""
    moments = layout.unpack(vector)
    divisor = _enlarge_unit(moments, _unit_of(features))
    _set_shifts(moments, features, labels, divisor)
    moments.counts.index_add_(0, labels, moments.counts.new_ones(len(labels)))
    rows = min(len(labels), rows_at_once(layout.d))
    wide, offsets = features.new_empty(2, rows, layout.d, dtype=torch.float64)
    for f, y in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
        difference = torch.index_select(moments.shifts, 0, y, out=offsets[: len(y)])
        torch.sub(wide[: len(y)].copy_(f), difference, out=difference)  # faster than a difference of two dtypes
        moments.sums.index_add_(0, y, difference)
        if divisor != 1:
            difference /= divisor
        moments.squares.index_add_(0, y, torch.linalg.vector_norm(difference, dim=1).square_())
        if layout.scatter:
            moments.scatter.addmm_(difference.T, difference)


def _set_shifts(moments: Moments, features: Tensor, labels: Tensor, divisor: float) -> None:
    """Give each class without samples its smallest one as shift, and each with one sample one of half the norm.

    A shift far from all other samples of its class would cost digits of the mean.
    """
    few = (moments.counts[labels] <= 1).nonzero()[:, 0]
    if not len(few):
        return
    pieces = torch.split(few, rows_at_once(features.shape[1]))
    sizes = torch.cat([torch.linalg.vector_norm(features[rows].double(), dim=1) for rows in pieces])
    order = torch.argsort(sizes, stable=True)
    order = order[torch.argsort(labels[few][order], stable=True)]  # by class, then by size
    classes, counts = torch.unique_consecutive(labels[few][order], return_counts=True)
    first = order[counts.cumsum(0) - counts]
    new = moments.counts[classes] == 0
    _move_lone(moments, classes[~new], features, few[first[~new]], sizes[first[~new]], divisor)
    moments.shifts[classes[new]] = features[few[first[new]]].double()


def _move_lone(
    moments: Moments, classes: Tensor, features: Tensor, rows: Tensor, sizes: Tensor, divisor: float
) -> None:
    """Move the shift of each class of one sample to that row of the features, if its norm is less than half."""
    far = 2 * sizes < torch.linalg.vector_norm(moments.shifts[classes], dim=1)
    if not far.any():
        return
    classes, shifts = classes[far], features[rows[far]].double()
    apart = moments.shifts[classes] - shifts
    middle = moments.sums[classes] + apart / 2
    moments.shifts[classes] = shifts
    moments.sums[classes] += apart
    _turn(moments, classes, apart / divisor, middle / divisor)


def _turn(moments: Moments, classes: Tensor, apart: Tensor, middle: Tensor) -> None:
    """Add what a shift that moves by `apart` adds to squares and scatter, for `middle` the sums half way.

    |x + a|^2 summed over n samples is |x|^2 summed, plus a'(2s + na): here a'm + m'a.
    """
    moments.squares[classes] += 2 * (apart * middle).sum(dim=1)
    if len(moments.scatter):
        product = apart.T @ middle
        moments.scatter.add_(product).add_(product.T)


def merge(stacked: Tensor, layout: Layout) -> Tensor:
    """Return the vector of all samples, from those of parts of them along the first axis: for ``dist_reduce_fx``."""
    vector = stacked[0].clone()
    whole = layout.unpack(vector)
    for part in map(layout.unpack, stacked[1:]):
        _join(whole, part)
    return vector


def _join(whole: Moments, part: Moments) -> None:
    """Add the moments of a part to those of the whole, in place."""
    divisor = _enlarge_unit(whole, float(part.unit))
    share = (part.unit / divisor).square()
    whole.squares.add_(part.squares * share)
    whole.scatter.add_(part.scatter * share)
    classes = part.counts.nonzero()[:, 0]
    for tile in torch.split(classes, rows_at_once(whole.sums.shape[1])):
        n, sums = part.counts[tile], part.sums[tile]
        known = (whole.counts[tile] > 0)[:, None]
        shifts = whole.shifts[tile].where(known, part.shifts[tile])
        apart = part.shifts[tile] - shifts
        whole.shifts[tile] = shifts
        whole.sums[tile] += sums + n[:, None] * apart
        _turn(whole, tile, apart / divisor, (sums + n[:, None] * apart / 2) / divisor)
    whole.counts.add_(part.counts)


def within_scatter(moments: Moments) -> Tensor:
    """Return the scatter around the class means over unit^2, shape (d, d), or (0, 0) where it is not kept."""
    scatter = moments.scatter.clone()
    if not len(scatter):
        return scatter
    unit = moments.unit.where(moments.unit > 0, 1.0)
    rows = rows_at_once(moments.sums.shape[1])
    for sums, counts in zip(torch.split(moments.sums, rows), torch.split(moments.counts, rows), strict=True):
        scaled = sums / (unit * counts.clamp(min=1).sqrt()[:, None])
        scatter.addmm_(scaled.T, scaled, alpha=-1)
    return scatter


def within_squares(moments: Moments) -> Tensor:
    """Return the squared distances from the mean of the class, summed over the class and over unit^2, shape (C,)."""
    unit = moments.unit.where(moments.unit > 0, 1.0)
    rows = rows_at_once(moments.sums.shape[1])
    spread = torch.cat([torch.linalg.vector_norm(sums / unit, dim=1) for sums in torch.split(moments.sums, rows)])
    return (moments.squares - spread.square_() / moments.counts.clamp(min=1)).clamp(min=0)


def _unit_of(features: Tensor) -> float:
    """Return the unit of the squares of differences of these features."""
    if torch.finfo(features.dtype).bits <= 32:
        return 1.0  # the square of the least number of float32 is far within float64
    least, largest = torch.aminmax(features)
    size = torch.maximum(-least, largest)
    return 1.0 if size > TINY else float(power_of_two_above(size))


def _enlarge_unit(moments: Moments, unit: float) -> float:
    """Divide the squares by the square of a unit at least as large as both, and return it (1 for 0)."""
    before = float(moments.unit)
    common = max(before, unit)
    if common > before:
        share = (before / common) ** 2
        moments.squares.mul_(share)
        moments.scatter.mul_(share)
        moments.unit.fill_(common)
    return common or 1.0
