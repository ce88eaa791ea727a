"""Figures of training runs.

Runs come in groups, a label each; of a group the median over its runs is a line and their range a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etfopt._arrays import Array
from etfopt.plotting._style import COLORS, DASHES, Style, axes_or_new, legend_below, panel_grid
from etfopt.plotting.frames import cosines

__all__ = [
    "FLOOR",
    "PANELS",
    "Groups",
    "Run",
    "draw_band",
    "draw_margins",
    "draw_measure",
    "draw_off_diagonal",
    "draw_page",
    "styles",
]


class Run(Protocol):
    """What a picture needs of a training run; `etfopt.experiments.training.results.RunResult` has it."""

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One record an epoch, from epoch 0: measures by name."""

    @property
    def class_means(self) -> Array:
        """Centred class means, shape (epochs + 1, d, C)."""

    def margins(self, split: str = ...) -> np.ndarray[Any, Any]:
        """Return the sorted cosine margins after the last epoch.

        Parameters
        ----------
        split : "train" or "test"
            Of which samples.

        Returns
        -------
        ndarray, shape (n,)
            Ascending.
        """


Groups: TypeAlias = Mapping[str, Sequence[Run]]

HEADS: dict[str, Style] = {
    "learned": {"color": "#D55E00", "linestyle": "--"},
    "fixed": {"color": "#0072B2", "linestyle": "-."},
    "nearest": {"color": "#009E73", "linestyle": "-"},
}
FLOOR = 1e-8
"""What is zero up to rounding is drawn here on a logarithmic axis."""
SHARES = 201
"""Points of the curve P_CM."""

PANELS = {
    "train_accuracy": ("training accuracy", "linear"),
    "train_loss": ("training loss", "log"),
    "test_accuracy": ("test accuracy", "linear"),
    "train_cosine_margin": ("cosine margin (training)", "linear"),
    "train_nc1": ("NC1", "log"),
    "train_nc2": ("NC2", "log"),
    "train_nc3": ("NC3", "log"),
    "train_equinorm_difference": ("WH-equinorm", "log"),
}
"""Title and scale of a measure's axis."""


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Return the style of each label: a head's own where all labels are heads, else by place in the list.

    Parameters
    ----------
    labels : sequence of str
        In the order of the legend.

    Returns
    -------
    dict of str to dict
        Keyword arguments of matplotlib's ``plot``.
    """
    if set(labels) <= set(HEADS):
        return {label: HEADS[label] for label in labels}
    return {
        label: {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)]}
        for i, label in enumerate(labels)
    }


def draw_band(axes: Axes, x: Array, values: Array, label: str, style: Style) -> None:
    """Draw median and range of values over runs.

    Parameters
    ----------
    axes : Axes
    x : ndarray, shape (points,)
    values : ndarray, shape (runs, points)
    label : str
        For the legend.
    style : dict
        Keyword arguments of matplotlib's ``plot``, with a colour.
    """
    values = np.maximum(values, FLOOR) if axes.get_yscale() == "log" else values
    axes.plot(x, np.median(values, axis=0), label=label, **style)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)


def draw_measure(groups: Groups, measure: str, *, axes: Axes | None = None) -> Axes:
    """Draw a measure against the epoch: the median over the runs of each group, and their range.

    Parameters
    ----------
    groups : mapping of str to sequence of Run
        Of runs of different lengths, as far as the shortest went.
    measure : str
        A key of `PANELS`.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes)
    title, scale = PANELS[measure]
    axes.set(title=title, xlabel="epoch", yscale=scale)
    for label, style in styles(list(groups)).items():
        epochs = min(len(run.history) for run in groups[label])
        values = np.array([[record[measure] for record in run.history[:epochs]] for run in groups[label]])
        draw_band(axes, np.arange(epochs, dtype=float), values, label, style)
    if measure == "train_cosine_margin":
        _mark_collapse(axes, groups)
    if measure.endswith("accuracy"):
        axes.set_ylim(*_after_the_rise(groups, measure))
    return axes


def _after_the_rise(groups: Groups, measure: str) -> tuple[float, float]:
    """Return the ends of an axis that is not filled by the first tenth of the epochs."""
    values = [[record[measure] for record in run.history] for runs in groups.values() for run in runs]
    low, high = min(min(row[max(1, len(row) // 10) :] or row) for row in values), max(map(max, values))
    room = 0.05 * (high - low) + 1e-3
    return low - room, high + room


def _mark_collapse(axes: Axes, groups: Groups) -> None:
    """Draw the margin at collapse, C/(C-1), where all runs have the same C."""
    sizes = {run.class_means.shape[2] for runs in groups.values() for run in runs}
    if len(sizes) > 1:
        return
    C = sizes.pop()
    axes.axhline(C / (C - 1), color="0.5", linewidth=0.8, linestyle=":")
    axes.annotate("collapse", (0, C / (C - 1)), xytext=(0, 2), textcoords="offset points", fontsize=8, color="0.4")
    axes.set_ylim(top=1.12 * C / (C - 1))


def draw_margins(groups: Groups, split: str = "train", *, axes: Axes | None = None) -> Axes:
    """Draw P_CM: the cosine margins after the last epoch in ascending order, against the share of the samples.

    Parameters
    ----------
    groups : mapping of str to sequence of Run
        Of runs that came to their end.
    split : str
        Whose samples.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes)
    share = np.linspace(0, 1, SHARES)
    axes.set(title=f"sorted margins, P_CM ({'training' if split == 'train' else split})", xlabel="share of samples")
    for label, style in styles(list(groups)).items():
        margins = np.array([np.quantile(run.margins(split), share) for run in groups[label]])
        draw_band(axes, share, margins, label, style)
    axes.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    return axes


def draw_off_diagonal(groups: Groups, *, axes: Axes | None = None) -> Axes:
    """Draw the mean distance of the cosines between class means from -1/(C-1), against the epoch.

    Parameters
    ----------
    groups : mapping of str to sequence of Run
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes)
    axes.set(xlabel="epoch", ylabel="mean |cosine + 1/(C-1)|", yscale="log")
    for label, style in styles(list(groups)).items():
        off = np.array([[_off_diagonal(H) for H in run.class_means] for run in groups[label]])
        draw_band(axes, np.arange(off.shape[1], dtype=float), off, label, style)
    return axes


def _off_diagonal(H: Array) -> float:
    C = H.shape[1]
    return float(np.abs(cosines(H) + 1 / (C - 1))[~np.eye(C, dtype=bool)].mean())


def draw_page(
    groups: Groups, measures: Sequence[str], title: str, *, margins: bool = False, figure: Figure | None = None
) -> list[Axes]:
    """Draw a panel for each measure, and one for the sorted margins, under one legend.

    Parameters
    ----------
    groups : mapping of str to sequence of Run
    measures : sequence of str
        Keys of `PANELS`.
    title : str
    margins : bool
        Whether the last panel shows the sorted margins.
    figure : Figure, optional
        An empty one; by default one of a size that fits.

    Returns
    -------
    list of Axes
        One for each panel.
    """
    count = len(measures) + margins
    columns = min(count, 4 if count > 6 else 3)
    panels = panel_grid(figure, count, columns, (3.6, 2.9), 0.5)
    for axes, measure in zip(panels, measures, strict=False):
        draw_measure(groups, measure, axes=axes)
    if margins:
        draw_margins(groups, axes=panels[len(measures)])
    legend_below(panels[0], *panels[0].get_legend_handles_labels())
    panels[0].figure.suptitle(title)
    return panels[:count]
