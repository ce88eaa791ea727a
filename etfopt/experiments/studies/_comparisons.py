"""Which variants of a study are compared, in what, and how their spreads compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from etfopt.errors import InputError
from etfopt.experiments.studies._sessions import in_sessions
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.studies.statistics import Comparison, Steadiness, compare, steadiness

COMPARED = ("test_accuracy_first", "test_accuracy_second", "epochs_to_99", "epochs_to_100", "epochs_to_margin_1")
"""Quantities that are compared seed by seed."""

SESSION_COMPARED = ("average_accuracy", "last_accuracy", "base_accuracy", "later_accuracy", "forgetting")
"""The same of runs in sessions."""
COMPARED_TAILS = ("test_accuracy_head", "test_accuracy_middle", "test_accuracy_tail")
"""Those that runs on imbalanced classes have besides."""

STEADY = ("test_accuracy_first", "test_accuracy_second", "epochs_to_99", "cosine_margin")
"""Quantities whose spread between seeds is compared; of runs in sessions none is."""


Found: TypeAlias = dict[str, dict[int, dict[str, float | None]]]
"""The quantities of each run, by variant and seed."""

Result = TypeVar("Result", Comparison, Steadiness)


@dataclass(frozen=True)
class Pair(Generic[Result]):
    """One quantity of a variant compared with the baseline's.

    Attributes
    ----------
    variant, baseline : str
        Names of the two variants.
    quantity : str
        A name in `COMPARED` or `COMPARED_TAILS`, or in `STEADY` for the spread between seeds.
    result : Comparison or Steadiness
        The comparison of the variant with the baseline.
    """

    variant: str
    baseline: str
    quantity: str
    result: Result


def pairs(study: Study, baselines: Sequence[str]) -> list[tuple[str, str]]:
    """Return each variant with those it is compared with; of two that are both baselines, one pair.

    A baseline that is the name of a variant of the file stands for that variant in the same cell of the grid; the
    first one does so by default. A variant without a counterpart is left out. The name of a cell stands for the same
    variant there, and the whole name of a variant for it alone.
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
        return [(v.name, by_cell[v.cell]) for v in variants if v.head != chosen and v.cell in by_cell]
    if chosen and chosen in cells:
        by_head = {v.head: v.name for v in variants if v.cell == chosen}
        return [(v.name, by_head[v.head]) for v in variants if v.cell != chosen and v.head in by_head]
    if chosen not in names:
        known = ", ".join(map(repr, dict.fromkeys([*filter(None, [*heads, *cells]), *names])))
        raise InputError(f"baseline = {chosen!r} is no variant; choose one of: {known}")
    return [(name, chosen) for name in names if name != chosen]


def _by_seed(found: Found, variant: str, quantity: str) -> dict[int, float | None]:
    return {seed: row[quantity] for seed, row in found[variant].items()}


def comparisons(study: Study, found: Found, baselines: Sequence[str]) -> list[Pair[Comparison]]:
    """Compare the variants with their baselines in `COMPARED`, or in `SESSION_COMPARED`.

    They are compared in `COMPARED_TAILS` too where both have these.

    If a run never reached a level, its epoch counts as one after the last: the difference is then a bound, and the
    pair is counted as censored.
    """
    lengths = {variant.name: variant.config.epochs for variant in study.variants}

    def result(ours: str, theirs: str, quantity: str) -> Comparison:
        never = 1.0 + max(lengths[ours], lengths[theirs])
        return compare(_by_seed(found, ours, quantity), _by_seed(found, theirs, quantity), never)

    def compared(pair: tuple[str, str]) -> tuple[str, ...]:
        return SESSION_COMPARED if in_sessions(study) else _compared(found, pair)

    return [Pair(*pair, q, result(*pair, q)) for pair in pairs(study, baselines) for q in compared(pair)]


def _compared(found: Found, pair: tuple[str, str]) -> tuple[str, ...]:
    rows = [row for name in pair for row in found[name].values()]
    imbalanced = rows and all(q in row for row in rows for q in COMPARED_TAILS)
    return COMPARED + (COMPARED_TAILS if imbalanced else ())


def spread_comparisons(study: Study, found: Found, baselines: Sequence[str]) -> list[Pair[Steadiness]]:
    """Compare how the variants and their baselines vary between seeds, in every quantity of `STEADY`."""
    return [
        Pair(ours, theirs, q, steadiness(_by_seed(found, ours, q), _by_seed(found, theirs, q)))
        for ours, theirs in pairs(study, baselines)
        for q in (() if in_sessions(study) else STEADY)
    ]
