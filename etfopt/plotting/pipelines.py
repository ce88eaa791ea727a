"""The closed form against the paper's pipeline: time against the number of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from etfopt.plotting._style import GRID, Style, axes_or_new

__all__ = ["draw_pipelines"]

LOOKS: tuple[Style, ...] = (
    {"color": "#009E73", "marker": "o", "linestyle": "-"},
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "0.4", "marker": "^", "linestyle": ":"},
)


def draw_pipelines(
    shapes: Sequence[tuple[int, int]], seconds: Mapping[str, Sequence[float | None]], *, axes: Axes | None = None
) -> Axes:
    """Draw seconds a step, forward and backward together, against the number of classes: a line for each pipeline.

    Parameters
    ----------
    shapes : sequence of pair of int
        Dimension d and number of classes C of each problem.
    seconds : mapping of str to sequence of float or None
        For up to three pipelines by name, the time for each shape; None where a pipeline cannot run.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    axes = axes_or_new(axes, (6, 4))
    for (label, times), look in zip(seconds.items(), LOOKS, strict=False):
        ran = [(C, time) for (_, C), time in zip(shapes, times, strict=True) if time is not None]
        if ran:
            axes.loglog(*zip(*ran, strict=True), label=label, **look)
    axes.set(xlabel="classes C", ylabel="seconds a step, forward and backward")
    axes.set_xticks([C for _, C in shapes], [f"{C}\nd = {d}" for d, C in shapes])
    axes.minorticks_off()
    axes.grid(**GRID)
    axes.legend(frameon=False, loc="upper right")
    return axes
