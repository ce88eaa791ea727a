"""The class means of every epoch in one ``.npy`` that grows by an epoch at a time."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from etfopt import _atomic
from etfopt.errors import InputError
from etfopt.files._npy import NpyHeader, read_npy_header
from etfopt.files._text import open_regular

Means: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def append_means(path: Path, means: Means, epoch: int) -> None:
    """Add the class means of an epoch, shape (d, C), to an ``.npy`` of shape (epochs, d, C); later ones are dropped.

    The header, which holds the number of epochs, is written after the array. So a file that was being written when the
    process was killed is that of the epochs before. NumPy leaves room in the header for the first axis to grow.
    """
    content = np.ascontiguousarray(means, dtype=np.float64).tobytes()
    try:
        with path.open("r+b" if epoch else "w+b") as file:
            if not epoch:
                _write_header(file, (0, *means.shape))
            start = _data_start(file, path, epoch, means.shape)
            file.seek(start + epoch * len(content))
            file.truncate()
            file.flush()
            _atomic.write_through(file.fileno(), content)
            file.seek(0)
            _write_header(file, (epoch + 1, *means.shape))
            file.flush()
    except OSError as error:
        raise _atomic.storage_error(path, error) from error


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _data_start(file: Any, path: Path, epochs: int, shape: tuple[int, ...]) -> int:
    """Where the array begins, in a file that holds at least so many epochs."""
    count, *rest = _read_header(file, path).shape
    if tuple(rest) != shape or count < epochs:
        raise InputError(
            f"{path}: holds {count} epochs of shape {tuple(rest)}; {epochs} of shape {shape} were expected"
        )
    return int(file.tell())


def _read_header(file: Any, path: Path) -> NpyHeader:
    file.seek(0)
    try:
        header = read_npy_header(file)
    except ValueError as error:
        raise InputError(f"{path}: is damaged: {error}") from error
    if len(header.shape) != 3 or header.dtype != np.dtype("<f8") or header.fortran_order:
        raise InputError(f"{path}: is damaged: it holds {header.dtype} {header.shape}, and no class means of epochs")
    return header


def read_means(path: Path, epochs: int) -> Means:
    """Return the first epochs that `append_means` wrote, shape (epochs, d, C)."""
    try:
        with open_regular(path) as file:
            count, *shape = _read_header(file, path).shape
            if count < epochs:
                raise InputError(f"{path}: holds the class means of {count} epochs; {epochs} were expected")
            number = epochs * math.prod(shape)
            if os.fstat(file.fileno()).st_size - file.tell() < 8 * number:  # before room is made for them
                raise InputError(f"{path}: is damaged: it is truncated")
            means: Means = np.fromfile(file, np.dtype("<f8"), number).reshape(epochs, *shape)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return means
