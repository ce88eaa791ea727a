"""Which measures are computed together, and which are left out because nobody asked."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor

from etfopt.metrics._classes import duality, effective_rank_between, effective_rank_within, log_norm_deviations
from etfopt.metrics._measures import Statistics, equinorms, etf_distances, gram_measures, nc1, vci

GROUPS: dict[str, Callable[[Tensor | None, Statistics], dict[str, Tensor]]] = {
    "nc1": lambda _, stats: {"nc1": nc1(stats)},
    "vci": lambda _, stats: {"vci": vci(stats)},
    "nc2 nc2_means nc3": lambda W, stats: gram_measures(W, stats.H),
    "equinorm_means equinorm_weights equinorm_difference": equinorms,
    "etf_distance_means etf_distance_weights etf_distance_between": etf_distances,
    "equinorm_log_means equinorm_log_weights": log_norm_deviations,
    "unc3 self_duality": lambda W, stats: {} if W is None else duality(W, stats),
    "effective_rank_within": lambda _, stats: {"effective_rank_within": effective_rank_within(stats)},
    "effective_rank_between": lambda _, stats: {"effective_rank_between": effective_rank_between(stats)},
}
"""What is computed together, by the keys of what it gives. What needs a classifier is missing where W is None."""


def measured(keys: Collection[str], W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the measures asked for, and those that come with them."""
    found: dict[str, Tensor] = {}
    for group, compute in GROUPS.items():
        if not set(group.split()).isdisjoint(keys):
            found |= compute(W, stats)
    return found
