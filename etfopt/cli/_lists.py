"""Lists of numbers and of classes that are typed on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt._arrays import Array

FILES = (".npy", ".npz", ".csv")

LARGEST = 10**6
"""Largest number of a class: a range with a slip of the keyboard would fill the memory."""


def names_a_file(text: str) -> bool:
    """Return whether a value is the name of a file with an array, and not a list or the name of something else."""
    return Path(text).suffix.lower() in FILES


def numbers(text: str, option: str, example: str) -> Array:
    """Return one number a class from a list, or from a file."""
    import numpy as np

    from etfopt.files import load_matrix

    if names_a_file(text):
        named = False if text.lower().endswith(".csv") else None  # whole numbers are no names here
        read = np.asarray(load_matrix(text, header=named, index=named))
        if max(read.shape, default=0) != read.size:
            message = f"{text}: holds an array of shape {read.shape}"
            raise InputError(message, option, text, "save one number for each class")
        return read.ravel()
    try:
        return np.array([float(word) for word in text.split(",")])
    except ValueError:
        remedy = f"write numbers separated by commas, as {example}, or the name of a file (.npy, .npz, .csv)"
        raise InputError(f"--{option} {text!r} is no list of numbers", option, text, remedy) from None


def classes(text: str, option: str) -> list[int]:
    """Return classes from numbers and ranges, 0,3,5-9."""
    found: list[int] = []
    for word in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", word)
        if ends is None or not int(ends[1]) <= int(ends[2] or ends[1]) <= LARGEST:
            remedy = "write numbers from 0 on and ranges, separated by commas, as 0,3,5-9"
            raise InputError(f"--{option} {text!r} is no list of classes", option, text, remedy)
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return found
