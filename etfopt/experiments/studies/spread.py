"""What the demonstration's runs show: medians and ranges over seeds, as rows and as figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from etfopt.experiments.training.results import RunResult
from etfopt.plotting import cosines, draw_matrix, draw_off_diagonal, draw_page, save

__all__ = ["QUANTITIES", "Spread", "by_head", "cosines", "plot_cosines", "plot_curves", "summary"]

QUANTITIES = {
    "epochs_to_99": "epochs to 99 %",
    "epochs_to_100": "epochs to 100 %",
    "test_accuracy": "test accuracy",
    "cosine_margin": "cosine margin",
    "nc1": "NC1",
    "nc2": "NC2",
    "nc3": "NC3",
    "step_ms": "ms a step",
}

CURVES = ("train_accuracy", "test_accuracy", "train_cosine_margin", "train_nc1", "train_nc2", "train_nc3")


@dataclass(frozen=True)
class Spread:
    """The spread of a quantity over seeds; an epoch that was never reached counts as infinite.

    Attributes
    ----------
    median, low, high : float
        Median, smallest and largest value.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return the spread of values, None standing for infinity.

        Parameters
        ----------
        values : sequence of float or None
            One a seed.

        Returns
        -------
        Spread
            Their median and range.
        """
        numbers = [math.inf if value is None else value for value in values]
        return cls(statistics.median(numbers), min(numbers), max(numbers))


def by_head(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group runs by their head, in order of appearance.

    Parameters
    ----------
    results : sequence of RunResult
        Of any heads and seeds.

    Returns
    -------
    dict of str to list of RunResult
        By the head's name.
    """
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.config.head.name, []).append(result)
    return groups


def summary(results: Sequence[RunResult]) -> dict[str, dict[str, Spread]]:
    """Return, for each head, the spread over seeds of all `QUANTITIES`; measures are those of the last epoch.

    Parameters
    ----------
    results : sequence of RunResult
        Of any heads and seeds.

    Returns
    -------
    dict of str to dict of str to Spread
        By head and quantity.
    """
    rows = {}
    for head, runs in by_head(results).items():
        last = [run.history[-1] for run in runs]
        rows[head] = {
            "epochs_to_99": Spread.of([run.epochs_to(0.99) for run in runs]),
            "epochs_to_100": Spread.of([run.epochs_to(1.0) for run in runs]),
            "test_accuracy": Spread.of([record["test_accuracy"] for record in last]),
            **{
                key: Spread.of([record[f"train_{key}"] for record in last])
                for key in ("cosine_margin", "nc1", "nc2", "nc3")
            },
            "step_ms": Spread.of([run.step_ms for run in runs]),
        }
    return rows


def plot_curves(results: Sequence[RunResult], path: Path) -> None:
    """Draw accuracy, margin and NC1-NC3 against the epoch: median over seeds, and their range as a band.

    Parameters
    ----------
    results : sequence of RunResult
        Of any heads and seeds.
    path : Path
        Of the picture; the suffix says which kind.
    """
    groups = by_head(results)
    seeds = len(next(iter(groups.values())))
    title = f"{results[0].config.data.name}: median and range over {seeds} seed{'s' * (seeds > 1)}"
    save(draw_page(groups, CURVES, title), path)


def plot_cosines(results: Sequence[RunResult], path: Path) -> None:
    """Draw how the class means turn into a simplex ETF.

    Above, the matrix of cosines between class means of the first nearest-ETF run at four epochs, and the ETF's; below,
    the mean distance of its off-diagonal entries from -1/(C-1), for every head.

    Parameters
    ----------
    results : sequence of RunResult
        Among them one of the nearest-ETF head.
    path : Path
        Of the picture; the suffix says which kind.
    """
    shown = next((run for run in results if run.config.head.name == "nearest"), results[0])
    C, last = shown.class_means.shape[2], len(shown.class_means) - 1
    target = np.where(np.eye(C) > 0, 1.0, -1 / (C - 1))
    figure = Figure(figsize=(12, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.0, 1.1])[:, 0]
    epochs = sorted({0, min(1, last), last // 4, last})
    matrices = [(f"epoch {epoch}", cosines(shown.class_means[epoch])) for epoch in epochs] + [("simplex ETF", target)]
    panels = above.subplots(1, len(matrices))
    for axes, (title, matrix) in zip(panels, matrices, strict=True):
        draw_matrix(matrix, title, axes=axes)
    above.colorbar(panels[-1].images[0], ax=panels, shrink=0.9, label="cosine")
    above.suptitle(f"Cosines between the class means, head: {shown.config.head.name}")
    draw_off_diagonal(by_head(results), axes=below.subplots()).legend(frameon=False)
    save(panels[0], path)
