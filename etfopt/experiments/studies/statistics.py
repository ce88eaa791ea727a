"""Two variants compared seed by seed: the runs of a seed share backbone and batches, so they form a pair.

`compare` asks whether one variant is better, `steadiness` whether it varies less from seed to seed.

References
----------
Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 (percentile intervals) and 15 (permutations).
Pitman (1939), A note on normal correlation, Biometrika 31. Morgan (1939), A test for the significance of the difference
between the two variances in a sample from a normal bivariate population, Biometrika 31.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["LEVEL", "RESAMPLES", "Comparison", "Steadiness", "compare", "steadiness"]

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0
EXACT = 10
"""With more pairs than this, no p-value is computed: the exact test enumerates all 2**n sign patterns."""
LEAST = 4
"""With fewer pairs than this, standard deviations are compared without interval and p-value."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one quantity, variant minus baseline.

    Attributes
    ----------
    seeds : tuple of int
        Seeds that both variants have finished.
    differences : tuple of float
        One difference for each seed.
    mean, median : float
    interval : pair of float, optional
        Percentile bootstrap interval of the mean over seeds; None with fewer than two seeds.
    p_value : float, optional
        Exact p-value of the sign-flip permutation test; None without pairs, or with more than `EXACT`.
    censored : int
        Number of pairs in which at least one run never reached the level.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    median: float
    interval: tuple[float, float] | None
    p_value: float | None
    censored: int = 0


@dataclass(frozen=True)
class Steadiness:
    """Standard deviations over the seeds that two variants share.

    Attributes
    ----------
    seeds : tuple of int
        Seeds for which both variants have a value.
    deviation, baseline_deviation : float
        Standard deviations with divisor n - 1; NaN with fewer than two seeds.
    ratio : float
        `deviation` over `baseline_deviation`; NaN if the latter is 0.
    interval : pair of float, optional
        Percentile bootstrap interval of the ratio, seeds drawn in pairs; None with fewer than `LEAST` seeds, or a
        deviation of 0.
    p_value : float, optional
        P-value of the Pitman-Morgan test for equal variances of pairs, which assumes normal ones; None like `interval`.
    """

    seeds: tuple[int, ...]
    deviation: float
    baseline_deviation: float
    ratio: float
    interval: tuple[float, float] | None
    p_value: float | None


def compare(
    variant: Mapping[int, float | None], baseline: Mapping[int, float | None], never: float = math.nan
) -> Comparison:
    """Compare two variants by their values for each seed.

    Parameters
    ----------
    variant : mapping of int to float or None
        A value for each seed; None means that the run never reached the level.
    baseline : mapping of int to float or None
        The values of the other variant. Seeds that only one of the two has are ignored.
    never : float
        The number that replaces None.

    Returns
    -------
    Comparison
        Variant minus baseline.

    Examples
    --------
    >>> from etfopt.experiments.studies.statistics import compare
    >>> found = compare({0: 0.9, 1: 0.8, 2: 0.7}, {0: 0.5, 1: 0.6, 2: 0.7})
    >>> round(found.mean, 3), found.p_value
    (0.2, 0.5)
    """
    seeds = tuple(sorted(variant.keys() & baseline.keys()))
    pairs = [(variant[seed], baseline[seed]) for seed in seeds]
    values = [tuple(never if x is None else x for x in pair) for pair in pairs]
    differences = tuple(float(ours - theirs) for ours, theirs in values)
    return Comparison(
        seeds,
        differences,
        float(np.mean(differences)) if seeds else math.nan,
        float(np.median(differences)) if seeds else math.nan,
        bootstrap_interval(differences),
        sign_flip_p_value(differences),
        sum(None in pair for pair in pairs),
    )


def steadiness(variant: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Steadiness:
    """Compare how much two variants vary from seed to seed.

    Parameters
    ----------
    variant : mapping of int to float or None
        A value for each seed.
    baseline : mapping of int to float or None
        The values of the other variant. Pairs in which one value is None are ignored.

    Returns
    -------
    Steadiness
        Variant against baseline.
    """
    both = variant.keys() & baseline.keys()
    seeds = tuple(sorted(seed for seed in both if None not in (variant[seed], baseline[seed])))
    pairs = np.array([[values[seed] for seed in seeds] for values in (variant, baseline)], dtype=float)
    ours, theirs = np.std(pairs, axis=1, ddof=1) if len(seeds) > 1 else (math.nan, math.nan)
    usable = len(seeds) >= LEAST and ours > 0 and theirs > 0
    return Steadiness(
        seeds,
        float(ours),
        float(theirs),
        float(ours / theirs) if theirs > 0 else math.nan,
        _ratio_interval(pairs) if usable else None,
        _pitman_morgan(pairs) if usable else None,
    )


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of the mean; None for fewer than two differences."""
    if len(differences) < 2:
        return None
    found = stats.bootstrap(
        (np.asarray(differences),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def sign_flip_p_value(differences: Sequence[float]) -> float | None:
    """Return the share of the 2**n sign patterns under which the mean is at least as far from 0 as the observed mean.

    If the two variants are exchangeable, all patterns are equally likely, so the test is exact (Fisher 1935, The
    Design of Experiments, section 21). None without differences, or with more than `EXACT`.
    """
    n, x = len(differences), np.asarray(differences)
    if not 0 < n <= EXACT:
        return None
    if n == 1:  # SciPy asks for two
        return 1.0
    found = stats.permutation_test((x,), np.sum, permutation_type="samples", n_resamples=2**EXACT)
    # not SciPy's own p-value: differences of accuracies have ties that rounding breaks, by more than SciPy allows for
    rounding = 1e-12 * float(np.abs(x).sum())
    return float(np.mean(np.abs(found.null_distribution) >= abs(found.statistic) - rounding))


def _ratio_interval(pairs: np.ndarray) -> tuple[float, float]:
    """Bootstrap the ratio without SciPy, which has no quantiles for ratios of 0/0 (left out) and of x/0 (infinite)."""
    n = pairs.shape[1]
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.divide(*np.std(pairs[:, drawn], axis=2, ddof=1))
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(ratios[~np.isnan(ratios)], ends, method="inverted_cdf")
    return float(low), float(high)


def _pitman_morgan(pairs: np.ndarray) -> float:
    """Test whether sums and differences of the pairs are uncorrelated: exactly then the variances are equal."""
    sums, differences = pairs.sum(axis=0), pairs[0] - pairs[1]
    if np.ptp(sums) == 0 or np.ptp(differences) == 0:
        return 1.0 if np.ptp(differences) == 0 else 0.0
    return float(stats.pearsonr(sums, differences).pvalue)
