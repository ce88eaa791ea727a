"""Measures over pairs of classes, tile by tile in O(C d) memory, or over a sample of the pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.metrics._measures import Statistics
from etfopt.metrics._moments import rows_at_once

Progress = Callable[[int, int], object]

# Classes of a tile: a tile of pairs takes 8 MiB.
TILE = 1024
# Of the squared sizes of two vectors: a squared distance below this share is taken from their difference, since the
# rounding of |a|^2 + |b|^2 - 2a'b would show.
CLOSE = 1e-4


class PairMeasures(NamedTuple):
    r"""Measures over pairs of classes.

    Attributes
    ----------
    pairs : int
        Number of pairs that they are of.
    cdnv : float
        Mean of the class-distance normalised variances.
    cdnv_error : float
        Standard error of `cdnv` from sampling, 0 where all pairs were taken. Few close pairs can decide the mean: a
        sample that misses them understates both.
    gnc2 : float
        Standard deviation of the log inverse distances.
    gnc2_error : float
        Standard error of `gnc2` from sampling, to first order, 0 where all pairs were taken.
    log_inverse_distance : float
        Mean of the log inverse distances.

    References
    ----------
    Galanti, György, Hutter (2022) for CDNV; Liu, Yu, Weller, Schölkopf (2023) and Wu, Papyan (2024) for GNC2.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NeuralCollapse
    >>> metric = NeuralCollapse(num_classes=3, dim=3, measures=["cdnv"])
    >>> metric.update(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4))
    >>> metric.pairwise().pairs
    3
    """

    pairs: int
    cdnv: float
    cdnv_error: float
    gnc2: float
    gnc2_error: float
    log_inverse_distance: float


class Values(NamedTuple):
    """Of some pairs: NaN where rounding cannot tell two means apart, or a mean from the global mean."""

    cdnv: Tensor
    log_inverse: Tensor


class Vectors(NamedTuple):
    """Class means of a tile, with what their distances need."""

    rows: Tensor  # (t, d)
    unit: Tensor  # (t, d)
    squared: Tensor  # (t,)
    variances: Tensor  # (t,)


def all_pairs(stats: Statistics, progress: Progress | None = None) -> PairMeasures:
    """Return the measures over all pairs of classes that occurred; `progress` gets the tiles done and their number."""
    seen = stats.seen.nonzero()[:, 0]
    tiles = torch.split(seen, TILE)
    total, done = len(tiles) * (len(tiles) + 1) // 2, 0
    cdnv, log_inverse = _Mean(), _Mean()
    for i, first in enumerate(tiles):
        a = _vectors(stats, first)
        for j in range(i, len(tiles)):
            b = a if i == j else _vectors(stats, tiles[j])
            values = _tile(a, b, stats.floor, triangle=i == j)
            cdnv.add(values.cdnv)
            log_inverse.add(values.log_inverse)
            done += 1
            if progress is not None:
                progress(done, total)
    return PairMeasures(cdnv.n, cdnv.value, 0.0, log_inverse.deviation, 0.0, log_inverse.value)


def sampled_pairs(stats: Statistics, pairs: int, seed: int, progress: Progress | None = None) -> PairMeasures:
    """Return estimates from pairs drawn with replacement, and standard errors; all pairs if there are no more."""
    seen = stats.seen.nonzero()[:, 0]
    if pairs >= len(seen) * (len(seen) - 1) // 2:
        return all_pairs(stats, progress)
    first, second = drawn_pairs(len(seen), pairs, seed)
    cdnv, log_inverse = of_pairs(stats, seen[first], seen[second], progress)
    mean, deviation = float(log_inverse.mean()), float(log_inverse.std(correction=0))
    fourth = float((log_inverse - mean).square().square().mean())
    # the variance of a sample variance, over the square of the slope of the square root
    error = (max(0.0, fourth - deviation**4) / pairs) ** 0.5 / (2 * deviation) if deviation > 0 else 0.0
    cdnv_error = float(cdnv.std(correction=0)) / pairs**0.5
    return PairMeasures(pairs, float(cdnv.mean()), cdnv_error, deviation, error, mean)


def drawn_pairs(classes: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw pairs of two different classes with replacement, every pair with the same chance."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(classes, (pairs,), generator=generator)
    other = torch.randint(classes - 1, (pairs,), generator=generator)
    return first, other + (other >= first)


def of_pairs(stats: Statistics, first: Tensor, second: Tensor, progress: Progress | None = None) -> Values:
    """Return the values of given pairs of classes, shape (m,); NaN for a class with itself or one without samples."""
    found = []
    rows = rows_at_once(stats.H.shape[1])
    tiles = list(zip(torch.split(first, rows), torch.split(second, rows), strict=True))
    for i, (p, q) in enumerate(tiles, start=1):
        a, b = _vectors(stats, p), _vectors(stats, q)
        plain, unit = (a.rows - b.rows).square().sum(dim=1), (a.unit - b.unit).square().sum(dim=1)
        found.append(_values(a.variances + b.variances, plain, unit, stats.floor))
        if progress is not None:
            progress(i, len(tiles))
    return Values(*(torch.cat(x) for x in zip(*found, strict=True)))


def _vectors(stats: Statistics, classes: Tensor) -> Vectors:
    rows = stats.H[classes]
    norms = torch.linalg.vector_norm(rows, dim=1)
    unit = torch.where((norms > stats.floor)[:, None], rows / norms[:, None], torch.nan)
    return Vectors(rows, unit, norms.square(), stats.variances[classes])


def _tile(a: Vectors, b: Vectors, floor: float, *, triangle: bool) -> Values:
    """Return the values of all pairs of two tiles, in one vector; of each pair within a tile once."""
    products = a.rows @ b.rows.T
    sizes = a.squared[:, None] + b.squared
    plain = sizes - 2 * products
    unit = 2 - 2 * products / (a.squared[:, None] * b.squared).sqrt()
    close = (plain < CLOSE * sizes) | (unit < CLOSE)
    above = torch.ones_like(close).triu(diagonal=1) if triangle else close
    if triangle:
        close = close & above
    p, q = close.nonzero(as_tuple=True)
    rows = rows_at_once(a.rows.shape[1])
    for i, j in zip(torch.split(p, rows), torch.split(q, rows), strict=True):
        plain[i, j] = (a.rows[i] - b.rows[j]).square().sum(dim=1)
        unit[i, j] = (a.unit[i] - b.unit[j]).square().sum(dim=1)
    no_direction = a.unit[:, 0].isnan()[:, None] | b.unit[:, 0].isnan()
    unit = unit.masked_fill(no_direction, torch.nan)
    spreads = a.variances[:, None] + b.variances
    if triangle:
        spreads, plain, unit = spreads[above], plain[above], unit[above]
    return _values(spreads.flatten(), plain.flatten(), unit.flatten(), floor)


def _values(spreads: Tensor, plain: Tensor, unit: Tensor, floor: float) -> Values:
    """Return the values from squared distances of means and of their directions."""
    cdnv = torch.where(plain > floor**2, spreads / (2 * plain), torch.nan)
    return Values(cdnv, torch.where(unit > floor**2, -0.5 * unit.log(), torch.nan))


class _Mean:
    """Mean and standard deviation of numbers that come in parts, by the update of Chan, Golub and LeVeque."""

    def __init__(self) -> None:
        self.n, self.value, self._squares = 0, torch.nan, 0.0

    def add(self, x: Tensor) -> None:
        if not (m := len(x)):
            return
        mean = float(x.mean())
        squares = float((x - mean).square().sum())
        if self.n:
            apart = mean - self.value
            squares += apart**2 * self.n * m / (self.n + m)
            mean = self.value + apart * m / (self.n + m)
        self.n, self.value, self._squares = self.n + m, mean, self._squares + squares

    @property
    def deviation(self) -> float:
        return (self._squares / self.n) ** 0.5 if self.n else torch.nan
