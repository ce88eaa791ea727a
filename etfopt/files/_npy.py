"""The header of an ``.npy``, read before anything is allocated."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

__all__ = ["NpyHeader", "read_npy_header"]

NUMBERS = "biufc"
"""Kinds of dtype that are numbers or truth values."""


@dataclass(frozen=True)
class NpyHeader:
    """Header of an ``.npy``; the dtype is one of numbers or truth values."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the array, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy_header(file: IO[bytes]) -> NpyHeader:
    """Read the header of an ``.npy`` and stop where the array begins."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that Python 2 wrote, and of odd literals in damaged headers
            version = np.lib.format.read_magic(file)
            # version 3 has the layout of version 2, and differs in the names of fields, which are refused below
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # NumPy evaluates the header, and a damaged one raises what the parser happens to meet
        raise ValueError(f"its header is damaged: {_first_line(error)}") from error
    if any(n < 0 for n in shape):
        raise ValueError(f"its header is damaged: it says shape {shape}")
    if dtype.kind not in NUMBERS or dtype.shape:
        what = "Python objects, which are never loaded" if dtype.hasobject else f"{dtype}, which are no numbers"
        raise ValueError(f"it holds {what}; save numbers, e.g. numpy.asarray(array, dtype=float)")
    return NpyHeader(tuple(map(int, shape)), bool(fortran_order), dtype)


def _first_line(error: Exception) -> str:
    return f"{str(error).strip() or type(error).__name__}".splitlines()[0][:200]
