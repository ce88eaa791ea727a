"""Times of others over one's own, on many problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from etfopt.plotting._style import COLORS, GRID, MARKERS, Style, axes_or_new

__all__ = ["draw_ratios"]


def draw_ratios(
    problems: Sequence[str], ratios: Mapping[str, Sequence[float | None]], *, axes: Axes | None = None
) -> Axes:
    """Draw times of others over one's own on a logarithmic axis: a line for each problem, a marker for each other.

    Parameters
    ----------
    problems : sequence of str
        Names, from top to bottom.
    ratios : mapping of str to sequence of float or None
        Of each other by name, a ratio for each problem; None where there is none, such as for a wrong answer.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes, (7, 1.2 + 0.22 * len(problems)))
    axes.axvline(1, color="0.4", linewidth=1)
    for k, (name, values) in enumerate(ratios.items()):
        shown = [(value, line) for line, value in enumerate(values) if value is not None]
        if shown:
            look: Style = {"color": COLORS[k % len(COLORS)], "marker": MARKERS[k % len(MARKERS)], "linestyle": "none"}
            axes.plot(*zip(*shown, strict=True), label=name, **look)
    axes.set_xscale("log")
    axes.set_yticks(range(len(problems)), problems)
    axes.set_ylim(len(problems) - 0.5, -0.5)
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel("time over etfopt's, forward and backward (right of the line, etfopt is faster)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return axes
