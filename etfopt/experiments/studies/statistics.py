"""Two variants compared seed by seed: the runs of a seed share backbone and batches, so their difference is a pair's.

References
----------
Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 13 (percentile intervals) and 15 (permutations).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "EXACT",
    "LEVEL",
    "RESAMPLES",
    "Comparison",
    "bootstrap_interval",
    "compare",
    "few_seeds",
    "sign_flip_p_value",
]

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0
EXACT = 10
"""Most pairs of which all sign patterns are enumerated."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one quantity, variant minus baseline.

    Attributes
    ----------
    seeds : tuple of int
        Those that both have finished.
    differences : tuple of float
        One for each seed.
    mean, median : float
    interval : pair of float, optional
        Percentile bootstrap interval of the mean over seeds; None with fewer than two.
    p_value : float, optional
        Exact, of the sign-flip permutation test; None with no pair, or more than `EXACT`.
    censored : int
        Pairs in which at least one run never reached what was waited for.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    median: float
    interval: tuple[float, float] | None
    p_value: float | None
    censored: int = 0


def compare(
    variant: Mapping[int, float | None], baseline: Mapping[int, float | None], never: float = float("nan")
) -> Comparison:
    """Compare two variants by their values for each seed.

    Parameters
    ----------
    variant : mapping of int to float or None
        A value a seed; None stands for "never".
    baseline : mapping of int to float or None
        The same of the other; seeds that only one has are left out.
    never : float
        What "never" counts as.

    Returns
    -------
    Comparison
        Of variant minus baseline.

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
        float(np.mean(differences)) if seeds else float("nan"),
        float(np.median(differences)) if seeds else float("nan"),
        bootstrap_interval(differences),
        sign_flip_p_value(differences),
        sum(None in pair for pair in pairs),
    )


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of the mean, from `RESAMPLES` draws of a generator with a fixed seed.

    Parameters
    ----------
    differences : sequence of float
        One a seed.

    Returns
    -------
    pair of float, or None
        Ends of the interval at `LEVEL`; None for fewer than two differences.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Examples
    --------
    >>> from etfopt.experiments.studies.statistics import bootstrap_interval
    >>> low, high = bootstrap_interval([0.01, 0.02, 0.03, 0.02, 0.01])
    >>> low > 0, high < 0.03
    (True, True)
    """
    n = len(differences)
    if n < 2:
        return None
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    low, high = np.quantile(np.asarray(differences)[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def sign_flip_p_value(differences: Sequence[float]) -> float | None:
    """Return the share of the 2**n sign patterns under which the mean is at least as far from 0 as it is.

    If it makes no difference which of a pair is which, all patterns are equally likely: the test is exact.

    Parameters
    ----------
    differences : sequence of float
        One a seed.

    Returns
    -------
    float or None
        None where there are none, or too many to go through.

    References
    ----------
    Fisher (1935), The Design of Experiments, section 21.

    Examples
    --------
    >>> from etfopt.experiments.studies.statistics import sign_flip_p_value
    >>> sign_flip_p_value([1.0, 2.0, 3.0, 1.0, 2.0])  # 2 of 32 patterns
    0.0625
    """
    n, x = len(differences), np.asarray(differences)
    if not 0 < n <= EXACT:
        return None
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    rounding = 1e-12 * float(np.abs(x).sum())
    return float(np.mean(np.abs(signs @ x) >= abs(float(x.sum())) - rounding))


def few_seeds(n: int) -> str | None:
    """Say what so few pairs cannot show.

    Parameters
    ----------
    n : int
        Number of pairs.

    Returns
    -------
    str or None
        None if there are enough for a p-value below 0.05.
    """
    if 2 / 2**n <= 1 - LEVEL:
        return None
    least = min(1.0, 2 / 2**n)
    return (
        f"With {n} pair{'s' * (n != 1)} of runs the sign-flip test gives no p-value below {least:.3g}, whatever the "
        "difference, and a bootstrap interval over so few is narrower than it should be: take these as descriptions."
    )
