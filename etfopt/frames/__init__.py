"""Frames F that a class-mean matrix is compared with, by name: one module a frame, found by its file name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt._registry import Registry, modules_of
from etfopt.errors import InputError
from etfopt.frames._frame import Frame, FrameCertificate
from etfopt.frames._seli import FramePair, seli
from etfopt.frames.best import best_frame
from etfopt.frames.code import code
from etfopt.frames.orthogonal import orthogonal
from etfopt.frames.orthoplex import orthoplex
from etfopt.frames.polygon import polygon
from etfopt.frames.reduced import reduced
from etfopt.frames.simplex import simplex, simplex_etf

__all__ = [
    "FRAMES",
    "Frame",
    "FrameCertificate",
    "FramePair",
    "best_frame",
    "code",
    "orthogonal",
    "orthoplex",
    "polygon",
    "reduced",
    "seli",
    "simplex",
    "simplex_etf",
]

FRAMES = Registry("frame", modules_of("etfopt.frames", Path(__file__).parent))
"""Functions of the number of classes C, or of d and C, that return a frame with C columns."""


def frame_matrix(frame: Frame | ArrayLike | str, C: int, d: int | None = None) -> Array:
    """Return the matrix F of C vectors from a `Frame`, a matrix, or the name or import path of a function.

    The function is called with C, and with d if it has a parameter of that name, as "orthoplex" and "code" have.
    """
    if isinstance(frame, str):
        frame = made_frame(frame, C, d)
    if isinstance(frame, FramePair):
        message = "frame is a pair of frames, for imbalanced classes"
        raise InputError(message, "frame", frame, "pass its F_H for class means, or its F_W for the classifier")
    F = frame.F if isinstance(frame, Frame) else as_matrix(frame, "frame")
    if F.shape[1] != C:
        raise InputError(f"frame has shape {F.shape}; it needs C = {C} columns, one for each column of H", "frame", F)
    if not F.any():
        raise InputError(f"frame of shape {F.shape} is zero", "frame", F, "pass a frame with a non-zero entry")
    return F


def made_frame(name: str, C: int, d: int | None = None) -> Any:
    """Return what a function that is named makes of C, and of d if it takes it: a `Frame` or a matrix."""
    make = FRAMES.load(name, "frame")
    if not callable(make):
        message = f"frame = {name!r} is a {type(make).__name__}"
        raise InputError(message, "frame", name, "name a function that takes C and returns a frame")
    parameters = _parameters(make)
    if "d" not in parameters:
        return make(C)
    if d is None:
        message = f"frame = {name!r} depends on the dimension d, which is not known here"
        raise InputError(message, "frame", name, f"pass the frame itself, e.g. etfopt.frames.best_frame(d, {C})")
    return make(C=C, d=d) if "C" in parameters else make(C, d=d)


def _parameters(make: Callable[..., Any]) -> Collection[str]:
    """Return the names of a function's parameters."""
    try:
        return inspect.signature(make).parameters.keys()
    except ValueError:  # of some that are written in C
        return ()
