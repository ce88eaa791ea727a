"""Figures of comparisons between solvers: the gap against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from etfopt.plotting._style import GRID, Style, axes_or_new, legend_below, panel_grid

__all__ = ["SolverRun", "draw_convergence", "draw_convergence_page", "handles", "solver_styles"]

FLOOR = float(np.finfo(np.float64).eps)
"""Gaps below the rounding unit of float64 are rounding, and are drawn there."""

SOLVERS: dict[str, Style] = {
    "procrustes": {"color": "#009E73", "marker": "o"},
    "procrustes-svd": {"color": "#009E73", "marker": "<", "linestyle": "--"},
    "procrustes-gram": {"color": "#009E73", "marker": ">", "linestyle": ":"},
    "procrustes-newton-schulz": {"color": "#009E73", "marker": "h", "linestyle": "-."},
    "trust-region": {"color": "#0072B2", "marker": "s"},
    "trust-region-autograd": {"color": "#56B4E9", "marker": "D"},
    "trust-region-restart": {"color": "#0072B2", "marker": "v", "linestyle": "--"},
    "conjugate-gradient": {"color": "#E69F00", "marker": "^"},
    "steepest-descent": {"color": "#D55E00", "marker": "P"},
    "clarabel": {"color": "#CC79A7", "marker": "X"},
    "scs": {"color": "#000000", "marker": "d"},
}
"""Colour, marker and line of each solver."""

OTHERS: tuple[Style, ...] = tuple({"color": "0.5", "marker": marker} for marker in "<>hp*")
"""For solvers without a style of their own."""


class SolverRun(Protocol):
    """What a picture needs of a solver's run on a problem; `etfopt.bench._measure.Row` has it."""

    @property
    def problem(self) -> str:
        """Name of the problem."""

    @property
    def family(self) -> str:
        """Name of the family that the problem belongs to."""

    @property
    def solver(self) -> str:
        """Name of the solver."""

    @property
    def d(self) -> int:
        """Rows of the class means."""

    @property
    def C(self) -> int:
        """Columns of the class means."""

    @property
    def seconds(self) -> float | None:
        """Time of the run; None if it gave no answer."""

    @property
    def relative_gap(self) -> float | None:
        """Relative gap of the answer."""

    @property
    def certified(self) -> bool:
        """Whether the certificate accepts the answer."""

    @property
    def trace(self) -> Sequence[tuple[float, float]]:
        """Pairs of seconds and relative gap, for a solver that iterates."""


def solver_styles(names: Sequence[str]) -> dict[str, Style]:
    """Return colour, marker and line of each solver by name: of those unknown, grey and a marker each.

    Parameters
    ----------
    names : sequence of str
        In the order of the legend.

    Returns
    -------
    dict of str to dict
        Keyword arguments of matplotlib's ``plot``.
    """
    others = [name for name in names if name not in SOLVERS]
    return {name: SOLVERS[name] if name in SOLVERS else OTHERS[others.index(name) % len(OTHERS)] for name in names}


def _styles_of(rows: Sequence[SolverRun]) -> dict[str, Style]:
    return solver_styles(list(dict.fromkeys(row.solver for row in rows)))


def draw_convergence(
    rows: Sequence[SolverRun], *, axes: Axes | None = None, styles: Mapping[str, Style] | None = None
) -> Axes:
    """Draw the relative gap against seconds, a line for each run on one problem.

    A marker is where a run ended, hollow where its point is not optimal. Gaps below the rounding unit are drawn there.

    Parameters
    ----------
    rows : sequence of SolverRun
        Those without an answer are left out.
    axes : Axes, optional
        New ones, with a legend, by default.
    styles : mapping of str to dict, optional
        Of each solver; its own by default.

    Returns
    -------
    Axes
    """
    alone, styles = axes is None, _styles_of(rows) if styles is None else styles
    axes = axes_or_new(axes)
    axes.set(xscale="log", yscale="log")
    axes.axhline(FLOOR, color="0.8", linewidth=0.8, zorder=0)
    for row in rows:
        if row.seconds is None or row.relative_gap is None:
            continue
        style = styles[row.solver]
        if row.trace:
            axes.plot(*zip(*row.trace, strict=True), **{**style, "marker": ""}, linewidth=1.1, alpha=0.75)
        face = style["color"] if row.certified else "white"
        ends: Style = {"markersize": 6 if not row.trace else 4.5, "markerfacecolor": face, "zorder": 3}
        axes.plot(row.seconds, max(row.relative_gap, FLOOR), **{**style, "linestyle": ""}, **ends)
    axes.grid(**GRID)
    axes.tick_params(labelsize=8)
    if alone:
        axes.set(xlabel="seconds", ylabel="relative gap")
        axes.legend(handles=handles(styles), frameon=False, fontsize=8)
    return axes


def draw_convergence_page(rows: Sequence[SolverRun], *, figure: Figure | None = None) -> list[Axes]:
    """Draw `draw_convergence` for every family of problems, a panel each, under one legend.

    A family is shown by the problem to which most solvers gave an answer, the largest of those.

    Parameters
    ----------
    rows : sequence of SolverRun
    figure : Figure, optional
        An empty one; by default one of a size that fits.

    Returns
    -------
    list of Axes
        One for each family.
    """
    shown, styles = _representatives(rows), _styles_of(rows)
    columns = min((5, 4, 3), key=lambda count: -len(shown) % count) if len(shown) > 3 else max(len(shown), 1)
    width = (max(3.0 * columns, 7.5) + 0.5) / columns
    panels = panel_grid(figure, len(shown), columns, (width, 2.7), 1.6, sharex=True, sharey=True)
    for axes, problem in zip(panels, shown, strict=False):
        draw_convergence([row for row in rows if row.problem == problem], axes=axes, styles=styles)
        axes.set_title(problem, fontsize=10)
    for index, axes in enumerate(panels):
        if index + columns >= len(shown):
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel("seconds", fontsize=9)
        if index % columns == 0:
            axes.set_ylabel("relative gap", fontsize=9)
    panels[0].figure.suptitle(
        "Gap against time, one problem of each family, every start a line\n"
        "(a marker where a run ended: filled if certified, hollow if not)",
        fontsize=11,
    )
    legend_below(panels[0], handles(styles), list(styles))
    return panels[: max(len(shown), 1)]


def _representatives(rows: Sequence[SolverRun]) -> list[str]:
    best: dict[str, tuple[tuple[int, int], str]] = {}
    for problem in dict.fromkeys(row.problem for row in rows):
        group = [row for row in rows if row.problem == problem]
        rank = (len({row.solver for row in group if row.seconds is not None}), group[0].d * group[0].C)
        family = group[0].family
        if family not in best or rank >= best[family][0]:
            best[family] = rank, problem
    return [problem for _, problem in best.values()]


def handles(styles: Mapping[str, Style]) -> list[Any]:
    """Return what a legend shows of each solver.

    Parameters
    ----------
    styles : mapping of str to dict
        As `solver_styles` returns them.

    Returns
    -------
    list of Line2D
        One a solver, labelled.
    """
    return [Line2D([], [], label=name, **style) for name, style in styles.items()]
