"""The header of a ``.safetensors`` file: names, dtypes, shapes and places, checked against the size of the file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from etfopt.files._text import parse_json, printable

LARGEST_HEADER = 10**8
"""Bytes of a header, as the format's own library allows."""

BFLOAT16 = "BF16"

DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", BFLOAT16: "<u2", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}
"""NumPy's name of each dtype; bfloat16 is read as its bits."""


@dataclass(frozen=True)
class SafeArray:
    """Where an array lies in the file; `name` is that of its dtype in the format."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as NumPy has it, bits for bfloat16."""
        return np.dtype(DTYPES[self.name])


def read_safetensors_header(file: IO[bytes]) -> dict[str, SafeArray]:
    """Return the arrays of a file by name; anything that does not fit is a `ValueError`."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(LARGEST_HEADER, size - 8):
        raise ValueError("it is no safetensors file: its first 8 bytes do not hold the length of a header")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is damaged: it holds no table of arrays")
    return {name: _checked(name, entry, 8 + length, size) for name, entry in header.items() if name != "__metadata__"}


def _checked(name: str, entry: Any, data: int, size: int) -> SafeArray:
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    shape, ends = (_whole_numbers(fields.get(key)) for key in ("shape", "data_offsets"))
    if shape is None or ends is None or len(ends) != 2:
        raise ValueError(f"its header is damaged: {printable(name)} has no shape and place")
    if dtype not in DTYPES:
        raise ValueError(f"{printable(name)} has dtype {printable(str(dtype))}; save it as F32, F16, BF16 or integers")
    wanted, there = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize, ends[1] - ends[0]
    if wanted != there or data + ends[1] > size:
        what = "the file is truncated" if wanted == there else f"its shape {shape} needs {wanted:,} bytes"
        raise ValueError(f"{printable(name)} lies at bytes {ends[0]:,} to {ends[1]:,} of {size - data:,}; {what}")
    return SafeArray(dtype, shape, data + ends[0])


def _whole_numbers(value: Any) -> tuple[int, ...] | None:
    """Return a list of integers of at least 0 as a tuple; None for anything else."""
    fits = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return tuple(value) if fits else None
