"""What each measure of `NeuralCollapse` is, and what it needs; names are checked without importing torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etfopt._options import METRICS
from etfopt.errors import InputError, nearest

__all__ = ["CATALOG", "FEATURE_MEASURES", "MEASURES", "Measure"]


class Measure(NamedTuple):
    """What a measure is and needs; the formulas are in the documentation, "All measures".

    Attributes
    ----------
    what : str
        In a few words.
    at_collapse : float or None
        Its value at collapse to a simplex with balanced classes, None where that depends on the number of classes.
    classifier : bool
        Whether it needs the weight of a classifier; NaN without.
    offset : bool
        Whether an offset of all features changes it.
    scatter : bool
        Whether it needs the d x d matrix of sums of squares within classes.
    pairwise : bool
        Whether it takes time O(C^2 d).
    frame : bool
        Whether it needs ``NeuralCollapse(frame=...)``.

    References
    ----------
    Papyan, Han, Donoho (2020), and the references of `NeuralCollapse`.

    Examples
    --------
    >>> from etfopt.metrics import CATALOG
    >>> [name for name, measure in CATALOG.items() if measure.pairwise]
    ['cdnv', 'gnc2']
    """

    what: str
    at_collapse: float | None = 0.0
    classifier: bool = False
    offset: bool = False
    scatter: bool = False
    pairwise: bool = False
    frame: bool = False


CATALOG = {
    "accuracy": Measure("share of right predictions", 1.0, classifier=True, offset=True),
    "nc1": Measure("variance within over between classes", scatter=True),
    "vci": Measure("variance between classes that the variance within hides", scatter=True),
    "nc2": Measure("distance of the classifier's Gram matrix from that of a simplex", classifier=True),
    "nc2_means": Measure("the same of the class means"),
    "nc3": Measure("the same of the products of classifier and class means", classifier=True),
    "nc4": Measure("norm of the logits of the global mean", classifier=True, offset=True),
    "equinorm_means": Measure("variation of the norms of class means"),
    "equinorm_weights": Measure("variation of the norms of the classifier's rows", classifier=True),
    "equinorm_difference": Measure("absolute difference of these two", classifier=True),
    "etf_distance_means": Measure("squared distance of the class means to the nearest simplex"),
    "etf_distance_weights": Measure("squared distance of the classifier to the nearest simplex", classifier=True),
    "etf_distance_between": Measure("squared distance between these two simplices", classifier=True),
    "cdnv": Measure("variances of two classes over their squared distance, mean over pairs", pairwise=True),
    "gnc2": Measure("deviation of log inverse distances of normalised means", pairwise=True),
    "equinorm_log_means": Measure("deviation of the log norms of class means"),
    "equinorm_log_weights": Measure("deviation of the log norms of the classifier's rows", classifier=True),
    "unc3": Measure("variation of the products of a classifier's row and its class mean", classifier=True),
    "self_duality": Measure("mean distance of the directions of a row and its class mean", classifier=True),
    "effective_rank_within": Measure("exp of the spectral entropy within classes", None, scatter=True),
    "effective_rank_between": Measure("exp of the spectral entropy between classes, C - 1 at collapse", None),
    "frame_distance_means": Measure("squared distance of the class means to the nearest frame", frame=True),
    "frame_distance_weights": Measure(
        "squared distance of the classifier to the nearest frame", classifier=True, frame=True
    ),
}
"""Every measure of `NeuralCollapse` by its key."""

MEASURES = tuple(CATALOG)[:13]
"""Keys of what ``NeuralCollapse.compute()`` returns by default."""

FEATURE_MEASURES = tuple(key for key in MEASURES if not CATALOG[key].classifier)
"""Those of `MEASURES` that need no classifier."""


def as_measures(measures: Iterable[str] | str | None, *, frame: bool) -> tuple[str, ...]:
    """Return the keys asked for in the order of the catalog, or raise; None and "all" include those that fit."""
    usable = [key for key, measure in CATALOG.items() if frame or not measure.frame]
    if measures is None:
        return tuple(key for key in usable if key in MEASURES or CATALOG[key].frame)
    if measures == "all":
        return tuple(usable)
    if isinstance(measures, str):
        raise InputError(f"measures is {measures!r}; pass a list of names, 'all', or None for the usual ones")
    asked = list(measures)
    if unknown := [key for key in asked if key not in CATALOG]:
        raise InputError(f"measures holds {unknown[0]!r}, which is no measure; choose from {', '.join(CATALOG)}")
    if not asked:
        raise InputError("measures is empty; name at least one measure, or pass None for the usual ones")
    if missing := [key for key in asked if key not in usable]:
        raise InputError(f"measures holds {missing[0]!r}, which needs a frame; pass frame=..., e.g. frame='simplex'")
    return tuple(key for key in usable if key in asked)


def measures_and_metrics(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide what ``--measures`` names into keys of the catalog (and "all") and metrics, or raise `InputError`."""
    measures = [name for name in names if name in CATALOG or name == "all"]
    metrics = [name for name in names if name not in measures]
    for name in metrics:
        if name not in METRICS and ":" not in name:
            raise InputError(
                f"--measures {name!r} is not known; {nearest(name, [*METRICS, *CATALOG])}"
                f"choose a metric ({METRICS.listed}), a measure "
                f"({', '.join(key for key in CATALOG if not CATALOG[key].frame)}), or all"
            )
    if framed := [key for key in measures if key != "all" and CATALOG[key].frame]:
        raise InputError(
            f"--measures {framed[0]} needs a frame, which this command does not take; use "
            "etfopt.metrics.NeuralCollapse(frame=...)"
        )
    return measures, metrics
