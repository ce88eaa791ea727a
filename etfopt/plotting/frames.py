"""Pictures of class means and of their nearest ETF: arrows in two or three dimensions, cosines in any."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix, require_shape
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.plotting._style import COLORS, MARKERS, Style, axes_or_new, figure_or_new

__all__ = ["cosines", "draw_frame", "draw_matrix"]

VIEW = (18.0, -62.0)
"""Elevation and azimuth from which a tetrahedron shows all its corners."""

NUMBERS = 12
"""Up to so many rows the entries of a matrix are written into it."""


@own_errstate
def cosines(H: Array) -> Array:
    """Return the matrix of cosines between the columns of a matrix.

    Parameters
    ----------
    H : ndarray, shape (d, C)
        One column a class.

    Returns
    -------
    ndarray, shape (C, C)
        Zero columns have cosine 0.
    """
    norms = np.linalg.norm(H, axis=0)
    unit = np.divide(H, norms, out=np.zeros_like(H), where=norms > 0)
    return np.asarray(unit.T @ unit)


def draw_matrix(matrix: ArrayLike, title: str, *, numbers: bool = False, axes: Axes | None = None) -> Axes:
    """Draw a matrix of cosines as an image, from -1 (blue) over 0 (white) to 1 (red).

    Parameters
    ----------
    matrix : array_like, shape (m, n)
    title : str
    numbers : bool
        Whether to write the entries into it, where it has at most 12 rows and columns.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    axes = axes_or_new(axes)
    axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(False)
    if numbers and max(matrix.shape) <= NUMBERS:
        for (i, j), value in np.ndenumerate(matrix):
            shade = "white" if abs(value) > 0.6 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8)
    return axes


def draw_frame(
    H: ArrayLike,
    etf: ArrayLike | None = None,
    *,
    samples: Sequence[ArrayLike] = (),
    limit: float | None = None,
    view: tuple[float, float] = VIEW,
    axes: Axes | None = None,
) -> Any:
    r"""Draw class means as arrows, and their nearest ETF as hollow corners, in two or three dimensions.

    A class has its colour and its marker. A dotted line joins the tip of each arrow to its corner; thin lines join the
    corners: a triangle for three classes, a tetrahedron for four.

    Parameters
    ----------
    H : array_like, shape (d, C), d = 2 or 3
        Class means, one column a class.
    etf : array_like, shape (d, C), optional
        An ETF, of the size to be drawn: ``solution.scale * solution.etf`` is the nearest of any size.
    samples : sequence of array_like, shape (n_c, d)
        Features of each class, one row a sample, drawn as dots.
    limit : float, optional
        Half the width of the picture; by default what holds everything. Several pictures compare with one limit.
    view : pair of float
        Elevation and azimuth in degrees of a picture in three dimensions.
    axes : Axes, optional
        In three dimensions made with ``projection="3d"``. New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If d is neither 2 nor 3, shapes do not match, or the axes have another number of dimensions.
    """
    H = as_matrix(H, "H")
    d, C = H.shape
    if d not in (2, 3):
        raise InputError(
            f"H has {d} rows; only 2 or 3 dimensions can be drawn: project H and the ETF, or draw their cosines"
        )
    solid = d == 3
    if axes is None:
        axes = figure_or_new(None, (4.0, 4.0)).add_subplot(projection="3d" if solid else None)
    if (axes.name == "3d") is not solid:
        remedy = 'with projection="3d"' if solid else "without a projection"
        raise InputError(f"axes has the projection {axes.name!r} and H has {d} rows; make the axes {remedy}")
    corners = None if etf is None else as_matrix(etf, "etf")
    if corners is not None:
        require_shape(corners, (d, C), "etf")
    clouds = [as_matrix(cloud, "samples") for cloud in samples]
    extent = [H, *([] if corners is None else [corners]), *(cloud.T for cloud in clouds)]
    limit = 1.08 * max(float(np.abs(points).max()) for points in extent) if limit is None else limit
    _draw_clouds(axes, clouds)
    if corners is not None:
        _draw_corners(axes, H, corners)
    _draw_arrows(axes, H)
    frame_axes(axes, limit or 1.0, view, solid)
    return axes


def _draw_clouds(axes: Axes, clouds: Sequence[Any]) -> None:
    for c, cloud in enumerate(clouds):
        axes.plot(*cloud.T, linestyle="", marker=".", markersize=2.5, alpha=0.35, color=COLORS[c % len(COLORS)])


def _draw_corners(axes: Axes, H: Any, corners: Any) -> None:
    for a, b in itertools.combinations(corners.T, 2):
        axes.plot(*np.transpose([a, b]), color="0.6", linewidth=0.8)
    for c, (mean, corner) in enumerate(zip(H.T, corners.T, strict=True)):
        color, marker = COLORS[c % len(COLORS)], MARKERS[c % len(MARKERS)]
        axes.plot(*np.transpose([mean, corner]), color=color, linewidth=1.0, linestyle=":")
        hollow: Style = {"markerfacecolor": "white", "markeredgewidth": 1.4, "markersize": 7.5}
        axes.plot(*corner[:, None], color=color, marker=marker, linestyle="", **hollow)


def _draw_arrows(axes: Axes, H: Any) -> None:
    for c, mean in enumerate(H.T):
        color, marker = COLORS[c % len(COLORS)], MARKERS[c % len(MARKERS)]
        axes.plot(*np.transpose([np.zeros_like(mean), mean]), color=color, linewidth=1.8)
        axes.plot(*mean[:, None], color=color, marker=marker, linestyle="", markersize=4.5, label=f"class {c}")


def frame_axes(axes: Any, limit: float, view: tuple[float, float], solid: bool) -> None:
    """Show the cube of that half width, without ticks, and the same scale on every axis."""
    ends = (-limit, limit)
    axes.set(xlim=ends, ylim=ends)
    axes.set_axis_off()
    if not solid:
        axes.set_aspect("equal")
        return
    axes.set(zlim=ends)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    axes.view_init(elev=view[0], azim=view[1])
