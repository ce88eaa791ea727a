"""Frames F that a class-mean matrix is compared with, by name: one module a frame, found by its file name."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt._registry import Registry, modules_of
from etfopt.errors import InputError
from etfopt.frames.simplex import simplex_etf

__all__ = ["FRAMES", "simplex_etf"]

FRAMES = Registry("frame", modules_of("etfopt.frames", Path(__file__).parent))
"""Functions from the number of classes C to a frame of shape (r, C)."""


def frame_matrix(frame: ArrayLike | str, C: int) -> Array:
    """Return a frame of C vectors from a matrix, or from the name or import path of a function of C."""
    if isinstance(frame, str):
        made = FRAMES.load(frame, "frame")
        if not callable(made):
            message = f"frame = {frame!r} is a {type(made).__name__}"
            raise InputError(message, "frame", frame, "name a function that takes C and returns a frame")
        frame = made(C)
    F = as_matrix(frame, "frame")
    if F.shape[1] != C:
        raise InputError(f"frame has shape {F.shape}; it needs C = {C} columns, one for each column of H", "frame", F)
    if not F.any():
        raise InputError(f"frame of shape {F.shape} is zero", "frame", F, "pass a frame with a non-zero entry")
    return F
