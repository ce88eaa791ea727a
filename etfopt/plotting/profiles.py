"""Performance profiles: which solver is fastest how often, and how often it succeeds at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etfopt.plotting._style import GRID, Style, axes_or_new, legend_below, panel_grid
from etfopt.plotting.solvers import handles, solver_styles

__all__ = ["Profiles", "draw_profile", "draw_profile_page"]

LEFT = 0.7
"""Where the profiles begin: left of 1, so that the fastest solver's line is seen to rise."""

Profiles: TypeAlias = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""For each solver the steps of its performance profile: factors tau, and shares from each tau on."""


def draw_profile(profiles: Profiles, *, axes: Axes | None = None, right: float | None = None) -> Axes:
    r"""Draw Dolan and More's performance profiles: the share of problems solved within a factor of the fastest time.

    Where a line ends on the right is the share that the solver solves at all.

    Parameters
    ----------
    profiles : mapping of str to (tau, share)
        By solver; one without steps solved nothing and has no line.
    axes : Axes, optional
        New ones, with a legend, by default.
    right : float, optional
        Where the axis ends; by default twice the largest factor.

    Returns
    -------
    Axes

    References
    ----------
    Dolan and More (2002), Benchmarking optimization software with performance profiles, Math. Program. 91.
    """
    alone, styles = axes is None, solver_styles(list(profiles))
    axes = axes_or_new(axes)
    right = _right_end([profiles]) if right is None else right
    for solver, (tau, share) in profiles.items():
        if tau:
            x, y = [tau[0], *tau, right], [0.0, *share, share[-1]]
            marks: Style = {"markevery": [len(x) - 1], "markersize": 6, "clip_on": False, "linewidth": 1.6}
            axes.plot(x, y, drawstyle="steps-post", label=solver, **styles[solver], **marks)
    axes.set(xscale="log", xlim=(LEFT, right), ylim=(0, 1.03))
    axes.set_xlabel("time to that gap, over that of the fastest solver")
    axes.grid(**GRID)
    if alone:
        axes.legend(handles=handles(styles), frameon=False, fontsize=8)
    return axes


def draw_profile_page(tables: Mapping[float, Profiles], *, figure: Figure | None = None) -> list[Axes]:
    """Draw `draw_profile` for several accuracies, a panel each, under one legend.

    Parameters
    ----------
    tables : mapping of float to profiles
        By the relative gap at which a problem counts as solved; all of the same solvers.
    figure : Figure, optional
        An empty one; by default one of a size that fits.

    Returns
    -------
    list of Axes
        One for each accuracy.
    """
    panels = panel_grid(figure, len(tables), len(tables), (10 / len(tables), 4.8), 0.0, sharey=True)
    right = _right_end(list(tables.values()))
    for axes, (accuracy, profiles) in zip(panels, tables.items(), strict=True):
        draw_profile(profiles, axes=axes, right=right)
        axes.set_title(f"solved: relative gap at most {accuracy:.0e}", fontsize=11)
    panels[0].figure.suptitle(
        "Performance profiles: further left is faster, higher is surer; a refusal counts as unsolved", fontsize=11
    )
    panels[0].set_ylabel("share of problems and starts solved")
    names = list(dict.fromkeys(name for profiles in tables.values() for name in profiles))
    legend_below(panels[0], handles(solver_styles(names)), names)
    return panels


def _right_end(tables: Sequence[Profiles]) -> float:
    return 2 * max((tau[-1] for profiles in tables for tau, _ in profiles.values() if tau), default=5.0)
