"""Whether one variant differs less from seed to seed than another: the ratio of their standard deviations.

References
----------
Pitman (1939), A note on normal correlation, Biometrika 31. Morgan (1939), A test for the significance of the difference
between the two variances in a sample from a normal bivariate population, Biometrika 31.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from etfopt.experiments.studies.statistics import LEVEL, RESAMPLES, SEED

__all__ = ["Steadiness", "steadiness"]

LEAST = 4
"""Fewest pairs of which an interval and a p-value are given."""


@dataclass(frozen=True)
class Steadiness:
    """Standard deviations over the seeds that two variants share.

    Attributes
    ----------
    seeds : tuple of int
        Those that both have finished and in which both values are there.
    deviation, baseline_deviation : float
        With divisor n - 1; NaN with fewer than two seeds.
    ratio : float
        The first over the second; NaN where the second is 0.
    interval : pair of float, optional
        Percentile bootstrap interval of the ratio, seeds drawn in pairs; None with fewer than `LEAST`, or a
        deviation of 0.
    p_value : float, optional
        Of the test of Pitman and Morgan for equal variances of pairs, which supposes normal ones; None as above.
    """

    seeds: tuple[int, ...]
    deviation: float
    baseline_deviation: float
    ratio: float
    interval: tuple[float, float] | None
    p_value: float | None


def steadiness(variant: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Steadiness:
    """Compare the spread of two variants by their values for each seed.

    Parameters
    ----------
    variant : mapping of int to float or None
        A value a seed.
    baseline : mapping of int to float or None
        The same of the other; a pair in which one is None is left out.

    Returns
    -------
    Steadiness
        Of variant against baseline.
    """
    both = variant.keys() & baseline.keys()
    seeds = tuple(sorted(seed for seed in both if None not in (variant[seed], baseline[seed])))
    pairs = np.array([[variant[seed], baseline[seed]] for seed in seeds], dtype=float).reshape(len(seeds), 2)
    ours, theirs = np.std(pairs, axis=0, ddof=1) if len(seeds) > 1 else (np.nan, np.nan)
    usable = len(seeds) >= LEAST and ours > 0 and theirs > 0
    return Steadiness(
        seeds,
        float(ours),
        float(theirs),
        float(ours / theirs) if theirs > 0 else float("nan"),
        _interval(pairs) if usable else None,
        _pitman_morgan(pairs) if usable else None,
    )


def _interval(pairs: np.ndarray) -> tuple[float, float]:
    n = len(pairs)
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    ours, theirs = np.moveaxis(np.std(pairs[drawn], axis=1, ddof=1), 1, 0)
    moved = (ours > 0) | (theirs > 0)  # a draw of one seed alone says nothing
    with np.errstate(divide="ignore"):
        ratios = ours[moved] / theirs[moved]
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")  # some may be infinite
    return float(low), float(high)


def _pitman_morgan(pairs: np.ndarray) -> float:
    """Variances are equal exactly where sums and differences of the pairs are not correlated."""
    sums, differences = pairs.sum(axis=1), pairs[:, 0] - pairs[:, 1]
    if np.ptp(sums) == 0 or np.ptp(differences) == 0:
        return 1.0 if np.ptp(differences) == 0 else 0.0
    return float(stats.pearsonr(sums, differences).pvalue)
