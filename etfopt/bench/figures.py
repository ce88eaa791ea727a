"""Figures of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etfopt.bench.measure import FLOOR, Row, Status
from etfopt.bench.summary import performance_profile, ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from etfopt.bench.pipelines import Row as PipelineRow  # which needs the extra of the trust region

__all__ = ["plot_convergence", "plot_pipelines", "plot_profiles"]

ACCURACIES = (1e-4, 1e-8)
"""Relative gaps at which the profiles count a problem as solved."""

LEFT = 0.7
"""Where the profiles begin: left of 1, so that the fastest solver's line is seen to rise."""

Style = dict[str, Any]
STYLES: dict[str, Style] = {
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
"""Colour, marker and line of each solver, in Okabe and Ito's colours, which colour-blind readers tell apart."""

OTHERS: tuple[Style, ...] = tuple({"color": "0.5", "marker": marker} for marker in "<>hp*")
"""For solvers without a style of their own."""


def plot_pipelines(rows: Sequence[PipelineRow], path: Path) -> None:
    """Draw seconds a step against C, forward and backward together, for both pipelines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog([r.C for r in rows], [r.forward + r.backward for r in rows], "o-", color="#009E73", label="closed form")
    ran = [(r.C, r.paper_forward + r.paper_backward) for r in rows if r.paper_forward and r.paper_backward]
    if ran:
        axes.loglog(*zip(*ran, strict=True), "s--", color="#D55E00", label="trust region, dense gradient")
    axes.loglog([r.C for r in rows], [r.linear for r in rows], "^:", color="0.4", label="linear layer, batch 256")
    axes.set(xlabel="classes C", ylabel="seconds a step, forward and backward")
    axes.set_xticks([r.C for r in rows], [f"{r.C}\nd = {r.d}" for r in rows])
    axes.minorticks_off()
    axes.grid(color="0.93", linewidth=0.6)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=110)


def plot_convergence(rows: Sequence[Row], path: Path) -> None:
    """Draw the relative gap against seconds: a panel for each family of problems, a line for each start.

    A family is shown by the problem to which most solvers gave an answer, the largest of those. A marker is where a run
    ended, hollow where its point is not optimal. Gaps below the rounding unit are drawn there.
    """
    from matplotlib.figure import Figure

    shown, styles = _representatives(rows), _styles(rows)
    columns = min((5, 4, 3), key=lambda count: -len(shown) % count) if len(shown) > 3 else max(len(shown), 1)
    lines = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(max(3.0 * columns, 7.5) + 0.5, 2.7 * lines + 1.6), layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes, problem in zip(panels, shown, strict=False):
        _draw_runs(axes, [row for row in rows if row.problem == problem], styles)
        axes.set_title(problem, fontsize=10)
    for index, axes in enumerate(panels):
        axes.set_visible(index < len(shown))
        if index + columns >= len(shown):
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel("seconds", fontsize=9)
        if index % columns == 0:
            axes.set_ylabel("relative gap", fontsize=9)
    figure.suptitle(
        "Gap against time, one problem of each family, every start a line\n"
        "(a marker where a run ended: filled if certified, hollow if not)",
        fontsize=11,
    )
    _finish(figure, styles, path)


def _representatives(rows: Sequence[Row]) -> list[str]:
    best: dict[str, tuple[tuple[int, int], str]] = {}
    for problem in dict.fromkeys(row.problem for row in rows):
        group = [row for row in rows if row.problem == problem]
        rank = (len({row.solver for row in group if row.seconds is not None}), group[0].d * group[0].C)
        family = group[0].family
        if family not in best or rank >= best[family][0]:
            best[family] = rank, problem
    return [problem for _, problem in best.values()]


def _styles(rows: Sequence[Row]) -> dict[str, Style]:
    names = list(dict.fromkeys(row.solver for row in rows))
    others = [name for name in names if name not in STYLES]
    return {name: STYLES[name] if name in STYLES else OTHERS[others.index(name) % len(OTHERS)] for name in names}


def _draw_runs(axes: Axes, rows: Sequence[Row], styles: dict[str, Style]) -> None:
    axes.set(xscale="log", yscale="log")
    axes.axhline(FLOOR, color="0.8", linewidth=0.8, zorder=0)
    for row in rows:
        if row.seconds is None or row.relative_gap is None:
            continue
        style = styles[row.solver]
        if row.trace:
            axes.plot(*zip(*row.trace, strict=True), **{**style, "marker": ""}, linewidth=1.1, alpha=0.75)
        face = style["color"] if row.status is Status.CERTIFIED else "white"
        ends: Style = {"markersize": 6 if not row.trace else 4.5, "markerfacecolor": face, "zorder": 3}
        axes.plot(row.seconds, max(row.relative_gap, FLOOR), **{**style, "linestyle": ""}, **ends)
    axes.grid(color="0.93", linewidth=0.6)
    axes.tick_params(labelsize=8)


def plot_profiles(rows: Sequence[Row], path: Path) -> None:
    r"""Draw Dolan and More's performance profiles: the share of problems solved within a factor of the fastest time.

    One panel for each accuracy. Where a line ends on the right is the share that the solver solves at all.
    """
    from matplotlib.figure import Figure

    styles = _styles(rows)
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    panels = figure.subplots(1, len(ACCURACIES), sharey=True)
    tables = [ratios(rows, accuracy) for accuracy in ACCURACIES]
    finite = [value for table in tables for values in table.values() for value in values if value < math.inf]
    right = 2 * max(finite, default=5.0)
    for axes, accuracy, table in zip(panels, ACCURACIES, tables, strict=True):
        for solver, values in table.items():
            tau, share = performance_profile(values)
            if tau:
                x, y = [tau[0], *tau, right], [0.0, *share, share[-1]]
                marks: Style = {"markevery": [len(x) - 1], "markersize": 6, "clip_on": False, "linewidth": 1.6}
                axes.plot(x, y, drawstyle="steps-post", **styles[solver], **marks)
        axes.set(xscale="log", xlim=(LEFT, right), ylim=(0, 1.03))
        axes.set_xlabel("time to that gap, over that of the fastest solver")
        axes.set_title(f"solved: relative gap at most {accuracy:.0e}", fontsize=11)
        axes.grid(color="0.93", linewidth=0.6)
    figure.suptitle(
        "Performance profiles: further left is faster, higher is surer; a refusal counts as unsolved", fontsize=11
    )
    panels[0].set_ylabel("share of problems and starts solved")
    _finish(figure, styles, path)


def _finish(figure: Figure, styles: dict[str, Style], path: Path) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
