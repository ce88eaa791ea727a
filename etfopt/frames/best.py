"""The best frame that is known for d dimensions and C classes, and why it is."""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import TYPE_CHECKING, TypedDict, Unpack, overload

from numpy.typing import ArrayLike

from etfopt.errors import InputError
from etfopt.frames._closed import closed_form
from etfopt.frames._frame import Frame
from etfopt.frames._regimes import Regime, regime
from etfopt.frames._seli import FramePair, as_counts, seli
from etfopt.frames.code import code

if TYPE_CHECKING:
    from etfopt.frames._search import Progress

__all__ = ["best_frame"]

REASONS: dict[Regime, str] = {
    "simplex": "C = {C} <= d + 1 = {d1}: the simplex has the smallest possible largest cosine, -1/{C1}",
    "orthoplex": "d + 2 = {d2} <= C = {C} <= 2d = {dd}: no frame has a largest cosine below 0, which {k} orthogonal "
    "simplices have",
    "polygon": "d = 2: the regular polygon has the smallest possible largest cosine, cos(2 pi/{C})",
    "code": "C = {C} > 2d = {dd}: no closed form is known, so the frame was computed",
}


class SearchOptions(TypedDict, total=False):
    """The options of a search, for the signatures that type checkers see."""

    seed: int
    starts: int | None
    cache: bool | str | PathLike[str]
    progress: Progress | None


@overload
def best_frame(d: int, C: int, counts: None = None, **search: Unpack[SearchOptions]) -> Frame: ...


@overload
def best_frame(d: int, C: int, counts: ArrayLike, **search: Unpack[SearchOptions]) -> Frame | FramePair: ...


def best_frame(
    d: int,
    C: int,
    counts: ArrayLike | None = None,
    *,
    seed: int = 0,
    starts: int | None = None,
    cache: bool | str | PathLike[str] = True,
    progress: Progress | None = None,
) -> Frame | FramePair:
    r"""Return the best known frame of C classes in d dimensions, with the reason for the choice.

    ================  ==========================  =======================================
    d, C              frame                       largest cosine
    ================  ==========================  =======================================
    C <= d + 1        `etfopt.frames.reduced`     :math:`-1/(C-1)`, proven optimal
    d + 2 <= C <= 2d  `etfopt.frames.orthoplex`   0, proven optimal
    d = 2             `etfopt.frames.polygon`     :math:`\cos(2\pi/C)`, proven optimal
    C > 2d            `etfopt.frames.code`        computed, with a lower bound
    ================  ==========================  =======================================

    Parameters
    ----------
    d : int
        Number of features.
    C : int
        Number of classes, at least 2.
    counts : array_like, shape (C,), optional
        Number of training samples of each class. If they differ and d >= C - 1, the pair of frames of
        `etfopt.frames.seli` is returned: the geometry to which imbalanced classes collapse. With fewer dimensions no
        such geometry is known, and the balanced frame is returned; its `reason` says so.
    seed, starts, cache, progress : int, int, bool or path, callable, optional
        The options of `etfopt.frames.code`. Only computed frames use them.

    Returns
    -------
    Frame or FramePair
        The attribute `reason` says why it was chosen.

    Raises
    ------
    InputError
        If d or C is no such integer, d = 1 and C > 2, or `counts` are not C positive numbers.

    References
    ----------
    Rankin (1955); ``theory/simplex.py``, ``theory/orthoplex.py``, ``theory/seli.py``.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.best_frame(64, 10).reason
    'C = 10 <= d + 1 = 65: the simplex has the smallest possible largest cosine, -1/9'
    >>> etfopt.frames.best_frame(64, 100).largest_cosine
    0.0
    >>> pair = etfopt.frames.best_frame(64, 3, counts=[50, 20, 20])
    >>> pair.F_W.name
    'seli-W'
    """
    d, C, best = regime(d, C)
    imbalance = "" if counts is None else _imbalance(d, C, counts)
    if counts is not None and imbalance and d >= C - 1:
        pair = seli(counts)
        return FramePair(*(dataclasses.replace(frame, reason=imbalance) for frame in pair))
    reason = REASONS[best].format(C=C, d1=d + 1, C1=C - 1, d2=d + 2, dd=2 * d, k=C - d)
    frame = closed_form(best, d, C) or code(d, C, seed=seed, starts=starts, cache=cache, progress=progress)
    return dataclasses.replace(frame, reason=f"{reason}. {imbalance}" if imbalance else reason)


def _imbalance(d: int, C: int, counts: ArrayLike) -> str:
    """Return what class sizes say about the choice; nothing if all are equal."""
    n = as_counts(counts)
    if len(n) != C:
        raise InputError(f"counts has {len(n)} entries for C = {C} classes", "counts", counts, "pass one a class")
    if n.min() == n.max():
        return ""
    sizes = f"class sizes differ by a factor of {n.max() / n.min():.4g}"
    if d < C - 1:
        return f"The {sizes}, but the SELI geometry needs d >= C - 1 = {C - 1}: this frame treats all classes alike"
    return f"the {sizes}: imbalanced classes collapse to the SELI geometry, with one frame for means and one for W"
