"""Pictures of a frame by itself: its vectors on the circle or the sphere, and the histogram of its cosines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt.errors import InputError
from etfopt.frames import Frame
from etfopt.plotting._style import COLORS, DASHES, axes_or_new, figure_or_new
from etfopt.plotting.frames import VIEW, cosines, frame_axes

__all__ = ["draw_code", "draw_cosine_histogram"]

CONTACT = 1e-6
"""Two vectors are neighbours if their cosine is within this distance of the largest."""

LABELLED = 24
"""Up to so many vectors have their number beside them."""


def draw_code(
    frame: ArrayLike, *, view: tuple[float, float] = VIEW, limit: float = 1.15, axes: Axes | None = None
) -> Any:
    """Draw the vectors of a frame on the unit circle or the unit sphere, and join those at the smallest angle.

    Vectors are drawn with norm 1 and carry the number of their class, up to 24 classes. Lines join the pairs whose
    cosine is within 1e-6 of the largest: the pairs that keep the frame from being better. Lines on the far side of
    the sphere are gray.

    Parameters
    ----------
    frame : Frame or array_like, shape (r, C), r = 2 or 3
        The frame, of any size; no column may be zero.
    view : pair of float
        Elevation and azimuth in degrees of a picture in three dimensions.
    limit : float
        Half the width of the picture.
    axes : Axes, optional
        In three dimensions made with ``projection="3d"``. New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If r is neither 2 nor 3, a column is zero, or the axes have another number of dimensions.
    """
    X = _unit(frame)
    if len(X) not in (2, 3):
        remedy = "draw its cosines with draw_cosine_histogram"
        raise InputError(f"frame has {len(X)} rows; only 2 or 3 dimensions can be drawn: {remedy}")
    solid = len(X) == 3
    if axes is None:
        axes = figure_or_new(None, (4.0, 4.0)).add_subplot(projection="3d" if solid else None)
    if (axes.name == "3d") is not solid:
        remedy = 'with projection="3d"' if solid else "without a projection"
        raise InputError(f"axes has the projection {axes.name!r} and frame has {len(X)} rows; make the axes {remedy}")
    _draw_ball(axes, solid)
    depth = _viewer(view) @ X if solid else np.ones(X.shape[1])
    for i, j in _neighbours(X):
        behind = depth[i] + depth[j] < 0
        axes.plot(*X[:, [i, j]], color="0.7" if behind else COLORS[1], linewidth=0.9 if behind else 1.4)
    if not solid:
        for x in X.T:
            axes.plot(*np.transpose([np.zeros(2), x]), color="0.75", linewidth=0.8, zorder=1)
    _draw_vertices(axes, X)
    frame_axes(axes, limit, view, solid)
    return axes


def draw_cosine_histogram(frames: Mapping[str, ArrayLike], *, bins: int = 60, axes: Axes | None = None) -> Axes:
    """Draw how the cosines between the vectors of frames are distributed, a line for each frame.

    A vertical line marks the largest cosine of each frame. A gray line marks the lower bound on it, where the frame is
    an `etfopt.frames.Frame` and its bound is not the largest cosine itself.

    Parameters
    ----------
    frames : mapping from str to Frame or array_like, shape (r, C)
        Frames by the names that the legend shows.
    bins : int
        Number of bars; they all have the same width.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If there is no frame, or one has a zero column or fewer than 2 columns.
    """
    if not frames:
        raise InputError("frames is empty; pass at least one, as {name: frame}", "frames", frames)
    axes = axes_or_new(axes)
    found = {name: _pairs(_unit(frame, name)) for name, frame in frames.items()}
    low = min(values.min() for values in found.values())
    high = max(values.max() for values in found.values())
    edges = [float(edge) for edge in np.linspace(low - 0.02, high + 0.02, bins + 1)]
    for k, (name, values) in enumerate(found.items()):
        color, dash = COLORS[k % len(COLORS)], DASHES[k % len(DASHES)]
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=weights, histtype="stepfilled", color=color, alpha=0.3)
        label = f"{name}: at most {values.max():.3f}"
        axes.axvline(float(values.max()), color=color, linestyle=dash, linewidth=1.3, label=label)
        frame = frames[name]
        if isinstance(frame, Frame) and not frame.certificate.proven:
            axes.axvline(frame.certificate.lower_bound, color="0.5", linewidth=0.9, linestyle=dash)
    axes.set(xlabel="cosine between two classes", ylabel="share of pairs")
    axes.legend(frameon=False, fontsize=8)
    return axes


def _unit(frame: ArrayLike, name: str = "frame") -> Array:
    """Return the columns of a frame with norm 1."""
    F = as_matrix(np.asarray(frame) if isinstance(frame, Frame) else frame, name)
    norms = np.linalg.norm(F, axis=0)
    if F.shape[1] < 2 or not norms.all():
        remedy = "pass at least 2 vectors, none of them zero"
        raise InputError(f"{name} has shape {F.shape} and {int((norms == 0).sum())} zero column(s); {remedy}", name, F)
    return np.asarray(F / norms)


def _pairs(X: Array) -> Array:
    """Return the cosines between all pairs of unit columns."""
    return np.asarray(cosines(X)[np.triu_indices(X.shape[1], 1)])


def _neighbours(X: Array) -> list[tuple[int, int]]:
    """Return the pairs of columns whose cosine is the largest."""
    gram = np.triu(cosines(X) + 2, 1)
    return [(int(i), int(j)) for i, j in np.argwhere(gram >= gram.max() - CONTACT)]


def _draw_vertices(axes: Any, X: Array) -> None:
    axes.plot(*X, color=COLORS[0], marker="o", linestyle="", markersize=5.5, zorder=3)
    if X.shape[1] <= LABELLED:
        for c, x in enumerate(X.T):
            axes.text(*(1.12 * x), str(c), ha="center", va="center", fontsize=8)


def _viewer(view: tuple[float, float]) -> Array:
    """Return the unit vector towards the viewer."""
    up, round_ = np.deg2rad(view)
    return np.array([np.cos(up) * np.cos(round_), np.cos(up) * np.sin(round_), np.sin(up)])


def _draw_ball(axes: Any, solid: bool) -> None:
    """Draw the unit circle, or meridians and parallels of the unit sphere."""
    turn = np.linspace(0, 2 * np.pi, 121)
    if not solid:
        axes.plot(np.cos(turn), np.sin(turn), color="0.85", linewidth=0.8, zorder=0)
        return
    for angle in np.linspace(0, np.pi, 7)[:-1]:
        axes.plot(np.cos(angle) * np.cos(turn), np.sin(angle) * np.cos(turn), np.sin(turn), color="0.9", linewidth=0.5)
    for height in np.linspace(-1, 1, 7)[1:-1]:
        radius = np.sqrt(1 - height**2)
        axes.plot(radius * np.cos(turn), radius * np.sin(turn), height, color="0.9", linewidth=0.5)
