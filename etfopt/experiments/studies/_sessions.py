"""What a report says of runs in sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies.plan import Study
from etfopt.experiments.training._sessions import NEW, OF_SESSION, OLD
from etfopt.experiments.training.results import RunResult

SESSION_QUANTITIES = {
    "average_accuracy": "average",
    "last_accuracy": "after the last session",
    "base_accuracy": "base classes, after the last",
    "later_accuracy": "later classes, after the last",
    "old_accuracy": "older classes",
    "new_accuracy": "newest classes",
    "forgetting": "forgetting",
}
"""Names of what is reported of a run in sessions, all of the test split."""


def in_sessions(study: Study) -> bool:
    """Return whether the runs of a study are in sessions."""
    return all(variant.config.sessions.count for variant in study.variants)


def last_epochs(config: TrainConfig) -> list[int]:
    """Return the last epoch of every session."""
    plan = config.sessions
    return [config.training.epochs + number * plan.epochs for number in range(plan.count + 1)]


def accuracy_curves(runs: Mapping[str, Sequence[RunResult]]) -> dict[str, list[list[float]]]:
    """Return the accuracy on all classes so far after every session, of each run of each variant."""
    return {
        name: [[run.history[epoch]["test_accuracy"] for epoch in last_epochs(run.config)] for run in group]
        for name, group in runs.items()
    }


def session_quantities(run: RunResult) -> dict[str, float | None]:
    """Return all `SESSION_QUANTITIES` of a run."""
    ends = [run.history[epoch] for epoch in last_epochs(run.config)]
    of_session = [[end[f"test_{OF_SESSION}{j}"] for end in ends] for j in range(len(ends))]
    last = [accuracies[-1] for accuracies in of_session]
    return {
        "average_accuracy": _mean([end["test_accuracy"] for end in ends]),
        "last_accuracy": ends[-1]["test_accuracy"],
        "base_accuracy": last[0],
        "later_accuracy": _mean(last[1:]),
        "old_accuracy": _mean([end[f"test_{OLD}"] for end in ends[1:]]),
        "new_accuracy": _mean([end[f"test_{NEW}"] for end in ends[1:]]),
        "forgetting": _mean([max(row[j:-1]) - row[-1] for j, row in enumerate(of_session[:-1])]),
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
