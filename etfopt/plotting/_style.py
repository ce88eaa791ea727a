"""What all pictures share: colours, dashes and markers that colour-blind readers and printers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etfopt.files import whole

Style: TypeAlias = dict[str, Any]

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; their yellow, which print loses, is left out."""

DASHES: tuple[Any, ...] = ("--", "-.", "-", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
"""Lines in the order of `COLORS`. There is one fewer, so that no pair of both repeats among 42."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers in the order of `COLORS`."""

GRID: Style = {"color": "0.93", "linewidth": 0.6}

STYLE: Mapping[str, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": GRID["color"],
    "grid.linewidth": GRID["linewidth"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
"""Settings of matplotlib for a page of figures: ``plt.rcParams.update(STYLE)``."""


def axes_or_new(axes: Axes | None, size: tuple[float, float] = (4.5, 3.4)) -> Axes:
    """Return the axes, or those of a new figure of that size in inches."""
    return figure_or_new(None, size).subplots() if axes is None else axes


def figure_or_new(figure: Figure | None, size: tuple[float, float]) -> Figure:
    """Return the figure, or a new one of that size in inches."""
    return Figure(figsize=size, layout="constrained") if figure is None else figure


def panel_grid(
    figure: Figure | None, count: int, columns: int, panel: tuple[float, float], below: float, **shared: Any
) -> list[Axes]:
    """Return axes in rows, those beyond the count invisible; a new figure has this size a panel, and room below."""
    lines = max(1, -(-count // columns))
    figure = figure_or_new(figure, (panel[0] * columns, panel[1] * lines + below))
    found: list[Axes] = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axes in found[max(count, 1) :]:
        axes.set_visible(False)
    return found


def legend_below(panel: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Draw one legend for all panels of a figure, below them."""
    columns = min(len(labels), 4)
    panel.figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def save(axes: Axes | Sequence[Axes], path: Path | str, dpi: int = 110) -> None:
    """Write the figure that axes belong to, as a picture whose format the path's suffix names, put in place whole.

    Parameters
    ----------
    axes : Axes or sequence of Axes
        As a function of this package returned them.
    path : path-like
        In a folder that exists.
    dpi : int
        Points an inch, where the format has points.
    """
    first = axes if isinstance(axes, Axes) else axes[0]
    with whole(Path(path)) as part:
        first.figure.canvas.print_figure(part, dpi=dpi)
