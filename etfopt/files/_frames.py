"""Writes frames, and refuses to replace other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from etfopt._atomic import whole
from etfopt.errors import InputError
from etfopt.frames import Frame, FramePair

SUFFIXES = (".npy", ".npz")


def save_frame(frame: Frame | FramePair, path: Path | str) -> None:
    """Write a frame into an ``.npy``, or with its bounds into an ``.npz``, completely or not at all.

    Parameters
    ----------
    frame : Frame or FramePair
        An ``.npy`` holds F. An ``.npz`` holds F, largest_cosine and lower_bound, or F_H and F_W of a pair.
    path : Path or str
        A name that ends in ``.npy`` or ``.npz``; a pair needs ``.npz``.

    Raises
    ------
    InputError
        If the path has another ending, is a folder, its folder is missing, or a pair is to go into an ``.npy``.
    StorageError
        If the file cannot be written.
    """
    path = _frame_path(path)
    if isinstance(frame, FramePair):
        if path.suffix.lower() == ".npy":
            raise InputError(f"{path}: the frame is a pair, F_H and F_W; use a name that ends in .npz")
        arrays: dict[str, Any] = {"F_H": frame.F_H.F, "F_W": frame.F_W.F}
    else:
        known = frame.certificate
        arrays = {"F": frame.F, "largest_cosine": known.largest_cosine, "lower_bound": known.lower_bound}
    with whole(path) as part, part.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, arrays["F"])
        else:
            np.savez(file, **arrays)


def refuse_frame_output(path: Path | str, *, overwrite: bool) -> None:
    """Refuse a path that `save_frame` could not write, or that holds something unless it may be replaced."""
    if _frame_path(path).exists() and not overwrite:
        raise InputError(f"{path}: is there already; choose another name with --out, or replace it with --overwrite")


def _frame_path(path: Path | str) -> Path:
    path = Path(path).resolve()  # through a link, to the file it means
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a frame is saved as .npy or .npz; use a name with one of these endings")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{path}: cannot be written: it is a folder, or its folder is not there; use another name")
    return path
