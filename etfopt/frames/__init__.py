"""Frames F that a class-mean matrix is compared with, by name: one module a frame, found by its file name."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt._registry import Registry, modules_of
from etfopt.errors import InputError
from etfopt.frames.simplex import simplex_etf

__all__ = ["FRAMES", "frame_matrix", "simplex_etf"]

FRAMES = Registry("frame", modules_of("etfopt.frames", Path(__file__).parent))
"""Functions from the number of classes C to a frame of shape (r, C)."""


def frame_matrix(frame: ArrayLike | str, C: int) -> Array:
    """Return a frame of C vectors that is given as a matrix, by name or by import path.

    Parameters
    ----------
    frame : array_like, shape (r, C), or str
        A matrix; or the name, or the import path ``package.module:function``, of a function that takes C and returns
        one.
    C : int
        Number of classes.

    Returns
    -------
    ndarray, shape (r, C)
        The frame, read-only.

    Raises
    ------
    InputError
        If the name is not known, or the matrix is not finite and real, has other than C columns, or is zero.

    Examples
    --------
    >>> from etfopt.frames import frame_matrix
    >>> frame_matrix("reduced", 2).round(4)
    array([[ 0.7071, -0.7071]])
    """
    if isinstance(frame, str):
        made = FRAMES.load(frame, "frame")
        if not callable(made):
            message = f"frame = {frame!r} is a {type(made).__name__}"
            remedy = "name a function that takes C and returns a frame"
            raise InputError(message, argument="frame", value=frame, remedy=remedy)
        frame = made(C)
    F = as_matrix(frame, "frame")
    if F.shape[1] != C:
        message = f"frame has shape {F.shape}; it needs C = {C} columns, one for each column of H"
        raise InputError(message, argument="frame", value=F)
    if not F.any():
        message = f"frame of shape {F.shape} is zero"
        raise InputError(message, argument="frame", value=F, remedy="pass a frame with a non-zero entry")
    return F
