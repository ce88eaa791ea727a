"""Pictures of growth: where the vertices of the old classes went, and where those of the new classes are."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix, require_shape
from etfopt.errors import InputError
from etfopt.plotting._style import COLORS, axes_or_new

__all__ = ["draw_growth"]


def draw_growth(
    before: ArrayLike, after: ArrayLike, *, means: ArrayLike | None = None, axes: Axes | None = None
) -> Axes:
    r"""Draw how far the vertices of K1 classes moved when K2 - K1 classes were added, a point for each class.

    The height of an old class is the cosine between its vertex before and after: 1 where it stayed. The height of a new
    class, drawn with means only, is the cosine between its vertex and its class mean: 1 where the mean lies on it. A
    dotted line shows the best mean that a growing simplex can reach for its old classes,
    :math:`\sqrt{(K_1-1) K_2/(K_1(K_2-1))}`.

    Parameters
    ----------
    before : array_like, shape (d, K1)
        Vertices of the old classes before, such as ``solution.etf``, of any size.
    after : array_like, shape (d, K2), K2 >= K1
        Vertices afterwards, those of the old classes first.
    means : array_like, shape (d, K2 - K1), optional
        Class means of the new classes.
    axes : Axes, optional
        New ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the shapes do not fit, or K1 < 2.
    """
    old, new = as_matrix(before, "before"), as_matrix(after, "after")
    (d, K1), (d2, K2) = old.shape, new.shape
    if d2 != d or K2 < K1 or K1 < 2:
        message = f"before has shape {old.shape} and after {new.shape}"
        raise InputError(message, "after", new, "pass d x K1 and d x K2 vertices, 2 <= K1 <= K2, old classes first")
    axes = axes_or_new(axes)
    kept = _cosines(old, new[:, :K1])
    axes.plot(range(K1), kept, color=COLORS[1], marker="o", linestyle="", label=f"old classes, mean {kept.mean():.3f}")
    if means is not None:
        targets = as_matrix(means, "means")
        require_shape(targets, (d, K2 - K1), "means")
        reached = _cosines(targets, new[:, K1:])
        label = f"new classes, mean {reached.mean():.3f}"
        axes.plot(range(K1, K2), reached, color=COLORS[0], marker="s", linestyle="", label=label)
    best = math.sqrt((K1 - 1) * K2 / (K1 * (K2 - 1)))
    axes.axhline(best, color="0.5", linestyle=":", linewidth=1.0, label=f"best of a growing simplex, {best:.3f}")
    axes.set(xlabel="class", ylabel="cosine", title=f"{K1} classes grow to {K2}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return axes


def _cosines(X: Array, Y: Array) -> Array:
    """Return the cosine between each column of X and that of Y; 0 where one is zero."""
    norms = np.linalg.norm(X, axis=0) * np.linalg.norm(Y, axis=0)
    products = np.sum(X * Y, axis=0)
    return np.asarray(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))
