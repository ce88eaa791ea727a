"""All that the report of a study says, as numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etfopt.experiments.studies._comparisons import Pair, comparisons, spread_comparisons
from etfopt.experiments.studies._numbers import Collected, Spread, collect, quantities, two_epochs
from etfopt.experiments.studies._tried import Tried, is_chosen
from etfopt.experiments.studies.statistics import Comparison, Steadiness
from etfopt.experiments.studies.tuning import tried
from etfopt.experiments.training._run_folder import read_starts

__all__ = ["Report", "make_report"]


@dataclass(frozen=True)
class Report:
    """All numbers of a report.

    Attributes
    ----------
    collected : Collected
    epochs : dict
        The two epochs of the table of accuracies, by variant.
    values : dict
        The quantities of each run, by variant and seed.
    spreads : dict
        The spread of each quantity over seeds, by variant with finished runs.
    pairs : list of Pair
    spread_pairs : list of Pair
    origins : list of dict
        Versions and revisions that the runs were made with, without repetition.
    tried : list of Tried
        What was tried to choose settings; empty if they were given.
    """

    collected: Collected
    epochs: dict[str, tuple[int, int]]
    values: dict[str, dict[int, dict[str, float | None]]]
    spreads: dict[str, dict[str, Spread]]
    pairs: list[Pair[Comparison]]
    spread_pairs: list[Pair[Steadiness]]
    origins: list[dict[str, Any]]
    tried: list[Tried] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; an epoch that never came is null there.

        Returns
        -------
        dict
            A dictionary of dictionaries, lists, strings and numbers.
        """
        found = self.collected
        return {
            "study": found.study.to_dict(),
            "epochs": {name: list(pair) for name, pair in self.epochs.items()},
            "missing": found.missing,
            "diverged": found.diverged,
            "origins": self.origins,
            "runs": {name: {str(seed): row for seed, row in rows.items()} for name, rows in self.values.items()},
            "spreads": {
                name: {key: dataclasses.asdict(spread) for key, spread in row.items()}
                for name, row in self.spreads.items()
            },
            "comparisons": list(map(_pair, self.pairs)),
            "spread_comparisons": list(map(_pair, self.spread_pairs)),
            "tuning": [
                {
                    "variant": t.variant,
                    "values": t.values,
                    "validation": {str(seed): accuracy for seed, accuracy in t.accuracies.items()},
                    "chosen": is_chosen(found.study, t),
                }
                for t in self.tried
            ],
        }


def _pair(pair: Pair[Any]) -> dict[str, Any]:
    names = {"variant": pair.variant, "baseline": pair.baseline, "quantity": pair.quantity}
    return {**names, **dataclasses.asdict(pair.result)}


def make_report(folder: Path, baselines: Sequence[str] = (), epochs: tuple[int, int] | None = None) -> Report:
    """Read the runs of a study and compute everything that its report says.

    Parameters
    ----------
    folder : Path
        Folder of the study, or of runs named VARIANT-seedN.
    baselines : sequence of str
        The variants that the others are compared with; by default the study's, or the first.
    epochs : pair of int, optional
        The two epochs of the table of accuracies. The default is a quarter of all, and all.

    Returns
    -------
    Report
        All numbers; `write_report` puts them on paper.

    Raises
    ------
    InputError
        If there is nothing to report, or a baseline or an epoch does not exist.
    """
    found = collect(folder)
    baselines = baselines or found.study.baselines
    which = two_epochs(found.study, epochs)
    values = {
        name: {run.config.seed: quantities(run, which[name]) for run in runs} for name, runs in found.runs.items()
    }
    spreads = {
        name: {key: Spread.of([row[key] for row in rows.values()]) for key in next(iter(rows.values()))}
        for name, rows in values.items()
        if rows
    }
    compared = comparisons(found.study, values, baselines), spread_comparisons(found.study, values, baselines)
    return Report(found, which, values, spreads, *compared, _origins(found), tried(folder))


def _origins(found: Collected) -> list[dict[str, Any]]:
    keys = ("etfopt", "torch", "python", "platform", "git", "accelerator", "precision")
    origins: list[dict[str, Any]] = []
    for run in (run for runs in found.runs.values() for run in runs):
        for start in read_starts(run.path):
            origin = {key: start.get(key) for key in keys}
            if origin not in origins:
                origins.append(origin)
    return origins
