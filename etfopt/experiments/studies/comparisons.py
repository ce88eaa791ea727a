"""Which variants of a study are compared, in what, and how their spreads compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from etfopt.errors import InputError
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.statistics import Comparison, compare
from etfopt.experiments.studies.steadiness import Steadiness, steadiness

__all__ = ["COMPARED", "STEADY", "Pair", "SpreadPair", "comparisons", "pairs", "spread_comparisons"]

COMPARED = ("test_accuracy_first", "test_accuracy_second", "epochs_to_99", "epochs_to_100", "epochs_to_margin_1")
"""What is compared seed by seed."""

STEADY = ("test_accuracy_first", "test_accuracy_second", "epochs_to_99", "cosine_margin")
"""Of what the spread between seeds is compared."""


Found: TypeAlias = dict[str, dict[int, dict[str, float | None]]]
"""By variant and seed, the quantities of a run."""


@dataclass(frozen=True)
class Pair:
    """One quantity of a variant compared with the baseline's.

    Attributes
    ----------
    variant, baseline : str
        Names of the two.
    quantity : str
        One of `COMPARED`.
    result : Comparison
        Of variant minus baseline.
    """

    variant: str
    baseline: str
    quantity: str
    result: Comparison


@dataclass(frozen=True)
class SpreadPair:
    """The spread between seeds of one quantity of a variant compared with the baseline's.

    Attributes
    ----------
    variant, baseline : str
        Names of the two.
    quantity : str
        One of `STEADY`.
    result : Steadiness
        Of variant against baseline.
    """

    variant: str
    baseline: str
    quantity: str
    result: Steadiness


def pairs(study: Study, baselines: Sequence[str]) -> list[tuple[str, str]]:
    """Return each variant with those it is compared with; of two that are both baselines, one pair.

    A baseline that is the name of a variant of the file stands for that variant in the same cell of the grid; the
    first one does so by default. The name of a cell stands for the same variant there, and the whole name of a variant
    for it alone.

    Parameters
    ----------
    study : Study
        Its variants and cells.
    baselines : sequence of str
        Names of variants.

    Returns
    -------
    list of pair of str
        Variant and baseline.

    Raises
    ------
    InputError
        If there is no such variant.
    """
    found: list[tuple[str, str]] = []
    for baseline in baselines or [""]:
        found += [pair for pair in _pairs(study, baseline) if pair not in found and pair[::-1] not in found]
    return found


def _pairs(study: Study, baseline: str) -> list[tuple[str, str]]:
    variants = study.variants
    heads, cells, names = ([getattr(v, part) for v in variants] for part in ("head", "cell", "name"))
    chosen = baseline or heads[0] or names[0]
    if chosen and chosen in heads:
        by_cell = {v.cell: v.name for v in variants if v.head == chosen}
        return [(v.name, by_cell[v.cell]) for v in variants if v.head != chosen]
    if chosen and chosen in cells:
        by_head = {v.head: v.name for v in variants if v.cell == chosen}
        return [(v.name, by_head[v.head]) for v in variants if v.cell != chosen]
    if chosen not in names:
        known = ", ".join(map(repr, dict.fromkeys([*filter(None, [*heads, *cells]), *names])))
        raise InputError(f"baseline = {chosen!r} is no variant; choose one of: {known}")
    return [(name, chosen) for name in names if name != chosen]


def _by_seed(found: Found, variant: str, quantity: str) -> dict[int, float | None]:
    return {seed: row[quantity] for seed, row in found[variant].items()}


def comparisons(study: Study, found: Found, baselines: Sequence[str]) -> list[Pair]:
    """Compare the variants with their baselines in all that is `COMPARED`.

    Parameters
    ----------
    study : Study
    found : dict
        By variant and seed, the quantities of a run.
    baselines : sequence of str
        Variants of the file, or whole names; the first variant where there are none.

    Returns
    -------
    list of Pair
        Variant by variant.

    Notes
    -----
    An epoch that never came counts as one after the last: such a difference is a bound, and is marked as one.
    """
    lengths = {variant.name: variant.config.training.epochs for variant in study.variants}
    return [
        Pair(
            ours,
            theirs,
            q,
            compare(_by_seed(found, ours, q), _by_seed(found, theirs, q), 1.0 + max(lengths[ours], lengths[theirs])),
        )
        for ours, theirs in pairs(study, baselines)
        for q in COMPARED
    ]


def spread_comparisons(study: Study, found: Found, baselines: Sequence[str]) -> list[SpreadPair]:
    """Compare the spread between seeds of the variants with that of their baselines, in all that is `STEADY`.

    Parameters
    ----------
    study : Study
        Its variants and cells.
    found : dict
        By variant and seed, the quantities of a run.
    baselines : sequence of str
        Variants of the file, or whole names; the first variant where there are none.

    Returns
    -------
    list of SpreadPair
        Variant by variant.
    """
    return [
        SpreadPair(ours, theirs, q, steadiness(_by_seed(found, ours, q), _by_seed(found, theirs, q)))
        for ours, theirs in pairs(study, baselines)
        for q in STEADY
    ]
