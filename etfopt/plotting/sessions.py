"""Figures of class-incremental runs: the accuracy after every session."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from etfopt._arrays import as_matrix
from etfopt.plotting._style import axes_or_new, legend_below, panel_grid
from etfopt.plotting.runs import draw_band, styles

__all__ = ["draw_session_page", "draw_sessions"]


def draw_sessions(curves: Mapping[str, ArrayLike], *, axes: Axes | None = None) -> Axes:
    """Draw the accuracy on all classes so far against the session: the median over runs, and their range.

    Parameters
    ----------
    curves : mapping of str to array_like, shape (runs, sessions)
        Accuracies by the label that the legend shows; column 0 is the base session.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If one of them is not a matrix of finite numbers.
    """
    axes = axes_or_new(axes)
    axes.set(xlabel="session", ylabel="test accuracy, all classes so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for label, style in styles(list(curves)).items():
        values = as_matrix(curves[label], f"curves[{label!r}]")
        draw_band(axes, np.arange(values.shape[1], dtype=float), values, label, style)
    return axes


def draw_session_page(cells: Mapping[str, Mapping[str, ArrayLike]], *, figure: Figure | None = None) -> list[Axes]:
    """Draw a panel of `draw_sessions` for each cell of a study, under one legend.

    Parameters
    ----------
    cells : mapping of str to mapping of str to array_like, shape (runs, sessions)
        The curves of each panel by its title; the labels are those of the first one.
    figure : Figure, optional
        An empty one; by default one of a size that fits.

    Returns
    -------
    list of Axes
        One for each panel.
    """
    panels = panel_grid(figure, len(cells), min(len(cells), 3), (4.2, 3.4), 0.7, sharey=True)
    for axes, (title, curves) in zip(panels, cells.items(), strict=False):
        draw_sessions(curves, axes=axes).set_title(title)
    legend_below(panels[0], *panels[0].get_legend_handles_labels())
    return panels[: len(cells)]
