"""What many runs show: medians and ranges over seeds, as rows and as figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etfopt.experiments.train import RunResult

__all__ = ["QUANTITIES", "Spread", "by_head", "cosines", "plot_cosines", "plot_curves", "summary"]

# colour-blind safe (Okabe and Ito), and told apart by dashes in print
STYLES = {"learned": ("#D55E00", "--"), "fixed": ("#0072B2", "-."), "nearest": ("#009E73", "-")}

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

PANELS = {
    "train_accuracy": ("training accuracy", "linear"),
    "test_accuracy": ("test accuracy", "linear"),
    "train_cosine_margin": ("cosine margin (training)", "linear"),
    "train_nc1": ("NC1", "log"),
    "train_nc2": ("NC2", "log"),
    "train_nc3": ("NC3", "log"),
}
FLOOR = 1e-8
"""What is zero up to rounding is drawn here on a logarithmic axis."""


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest value over seeds; an epoch that was never reached counts as infinite."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return the spread of values, None standing for infinity."""
        numbers = [math.inf if value is None else value for value in values]
        return cls(statistics.median(numbers), min(numbers), max(numbers))


def by_head(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group runs by their head, in order of appearance."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.config.head.name, []).append(result)
    return groups


def summary(results: Sequence[RunResult]) -> dict[str, dict[str, Spread]]:
    """Return, for each head, the spread over seeds of all `QUANTITIES`; measures are those of the last epoch."""
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


def cosines(H: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the (C, C) matrix of cosines between the columns of H, shape (d, C); zero columns have cosine 0."""
    norms = np.linalg.norm(H, axis=0)
    unit = np.divide(H, norms, out=np.zeros_like(H), where=norms > 0)
    return np.asarray(unit.T @ unit)


def plot_curves(results: Sequence[RunResult], path: Path) -> None:
    """Draw accuracy, margin and NC1-NC3 against the epoch: median over seeds, and their range as a band."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (key, (title, scale)) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for head, runs in by_head(results).items():
            _draw_band(axes, head, np.array([[record[key] for record in run.history] for run in runs]), scale)
        axes.set(title=title, xlabel="epoch", yscale=scale)
        if key.endswith("accuracy"):
            axes.set_ylim(0.9, 1.002)
            axes.set_title(f"{title}, from 0.9")
        if key == "train_cosine_margin":
            C = results[0].class_means.shape[2]
            axes.axhline(C / (C - 1), color="0.5", linewidth=0.8, linestyle=":")
            axes.annotate(
                "collapse", (0, C / (C - 1)), xytext=(0, 2), textcoords="offset points", fontsize=8, color="0.4"
            )
            axes.set_ylim(top=1.12 * C / (C - 1))
    figure.axes[0].legend(loc="lower right", frameon=False)
    seeds = len(next(iter(by_head(results).values())))
    figure.suptitle(f"{results[0].config.data.name}: median and range over {seeds} seed{'s' * (seeds > 1)}")
    figure.savefig(path, dpi=110)


def _draw_band(axes: Axes, head: str, values: np.ndarray[Any, np.dtype[np.float64]], scale: str) -> None:
    values = np.maximum(values, FLOOR) if scale == "log" else values
    color, dashes = STYLES[head]
    epochs = np.arange(values.shape[1])
    axes.plot(epochs, np.median(values, axis=0), color=color, linestyle=dashes, label=head)
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)


def plot_cosines(results: Sequence[RunResult], path: Path) -> None:
    """Draw how the class means turn into a simplex ETF.

    Above, the matrix of cosines between class means of the first nearest-ETF run at four epochs, and the ETF's; below,
    the mean distance of its off-diagonal entries from -1/(C-1), for every head.
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
        image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        axes.set(title=title, xticks=[], yticks=[])
    above.colorbar(image, ax=panels, shrink=0.9, label="cosine")
    above.suptitle(f"Cosines between the class means, head: {shown.config.head.name}")
    axes = below.subplots()
    off_diagonal = ~np.eye(C, dtype=bool)
    for head, runs in by_head(results).items():
        off = [[np.abs(cosines(H) - target)[off_diagonal].mean() for H in run.class_means] for run in runs]
        _draw_band(axes, head, np.array(off), "log")
    axes.set(xlabel="epoch", ylabel="mean |cosine + 1/(C-1)|", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
