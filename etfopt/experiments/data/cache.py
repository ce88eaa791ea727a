"""Decoded images on the disk: made once, mapped into memory by every later run, whatever their size."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL
import torch
from filelock import FileLock

from etfopt.errors import InputError
from etfopt.experiments.data.images import MappedPixels, value_counts
from etfopt.files import whole
from etfopt.files._npy import read_npy_header
from etfopt.files._text import open_regular, parse_json

__all__ = ["digest_of", "mapped"]

VERSION = 2
"""Of the files and of how images are decoded; it grows when a file of the version before would not do."""

LARGEST_FOOTER = 2**20

Bytes: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def digest_of(files: Sequence[Path], settings: object) -> str:
    """Return the SHA-256 of what decoded images depend on.

    That is: the path of every file relative to the folder that holds all, its size and time of modification, the order
    of the files, some settings, and the version of Pillow. What is in the files is not read.
    """
    common = len(os.path.commonpath(files))
    digest = hashlib.sha256(repr((VERSION, PIL.__version__, settings)).encode())
    for path in files:
        try:
            facts = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        digest.update(repr((str(path)[common:], facts.st_size, facts.st_mtime_ns)).encode())
    return digest.hexdigest()


def mapped(folder: Path, name: str, key: str, count: int, make: Callable[[], Iterator[Bytes]]) -> MappedPixels:
    """Return images from the file of a key, which is made if it is not there.

    The file is an ``.npy``, and after the array a line of JSON with the key and how often each channel has each of the
    256 values. It is put in place whole. Processes that ask for it at once wait for the first one, which makes it.
    """
    path = folder / f"{name}-{key[:16]}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with FileLock(path.with_name(f".{path.stem}.lock")):
                if not path.exists():
                    _write(path, key, count, make())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; make room, or name another folder by data.cache"
        ) from error
    return _opened(path, key, count)


def _write(path: Path, key: str, count: int, chunks: Iterator[Bytes]) -> None:
    first = next(chunks)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *first.shape[1:])}
    counts = torch.zeros(first.shape[1], 256, dtype=torch.int64)
    # written from beginning to end: to write into a map when the disk is full ends the process without a word
    with whole(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chain([first], chunks):
            file.write(chunk.tobytes())
            counts += value_counts(torch.from_numpy(chunk))
        file.write(json.dumps({"key": key, "counts": counts.tolist()}).encode())
        file.flush()
        os.fsync(file.fileno())


def _opened(path: Path, key: str, count: int) -> MappedPixels:
    try:
        with open_regular(path) as file:
            header, start = read_npy_header(file), file.tell()
            size = os.fstat(file.fileno()).st_size
            file.seek(min(start + header.nbytes, size))
            footer = parse_json(file.read(LARGEST_FOOTER))
        shape = header.shape
        if header.dtype != np.uint8 or header.fortran_order or len(shape) != 4 or shape[0] != count:
            raise ValueError("it holds other images")
        if footer["key"] != key:
            raise ValueError("it holds other images")
        counts = torch.tensor(footer["counts"], dtype=torch.int64).reshape(shape[1], 256)
        if (counts < 0).any() or (counts.sum(dim=1) != math.prod(shape) // shape[1]).any():
            raise ValueError("its counts are not those of its images")
        pixels = np.memmap(path, np.uint8, "r", start, shape)
        return MappedPixels(pixels, counts)
    except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: is damaged, or no file of decoded images: {error}; remove it, and it is made anew"
        ) from error
