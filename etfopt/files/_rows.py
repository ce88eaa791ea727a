"""Arrays of samples, read some rows at a time: ``.npy`` and ``.safetensors`` by memory map, ``.npz`` as a stream."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from etfopt.errors import InputError
from etfopt.files._matrices import LARGEST, chosen_entry, read_array
from etfopt.files._npy import NpyHeader, read_npy_header
from etfopt.files._safetensors import BFLOAT16, SafeArray, read_safetensors_header
from etfopt.files._text import open_regular, printable

AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = (".npz", ".npy", ".safetensors")


@dataclass(frozen=True)
class Rows:
    """An array in a file, whose first axis numbers the samples.

    Attributes
    ----------
    where : str
        File and key, for messages.
    shape : tuple of int
    kind : str
        Of the dtype, as in NumPy: "f" for floating point, "i" and "u" for integers.
    """

    where: str
    shape: tuple[int, ...]
    kind: str
    _batches: Callable[[int], Iterator[AnyArray]]

    def batches(self, rows: int) -> Iterator[AnyArray]:
        """Yield so many rows at a time, the last time fewer: copies in the byte order of the machine."""
        with _named(self.where):
            for part in self._batches(rows):
                yield np.array(part, dtype=part.dtype.newbyteorder("="))

    def read(self) -> AnyArray:
        """Return the whole array."""
        parts = list(self.batches(max(1, self.shape[0]))) if self.shape else []
        if not parts:
            raise InputError(f"{self.where}: has shape {self.shape}; an array with at least one row is needed")
        return np.concatenate(parts)


def open_rows(path: Path | str) -> dict[str, Callable[[], Rows]]:
    """Return the arrays of a file by key; each is looked at when it is called for. An ``.npy`` has the key ""."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a file that ends in {' or '.join(SUFFIXES)} is needed; got {suffix or 'no ending'}")
    with _named(str(path)), open_regular(path) as file:
        if suffix == ".npy":
            return {"": partial(_of_npy, path)}
        if suffix == ".safetensors":
            return _of_safetensors(path, read_safetensors_header(file))
        with zipfile.ZipFile(file) as archive:
            names = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
    return {name: _member(path, name) for name in dict.fromkeys(names)}


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Turn what reading a file raises into an `InputError` that names file and key."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile raises what it happens to meet in a damaged archive
        said = error.strerror if isinstance(error, OSError) else str(error)
        reason = said or str(error) or type(error).__name__
        hint = "; check the path" * isinstance(error, FileNotFoundError)
        raise InputError(f"{where}: cannot be read: {reason}{hint}") from error


def _slices(array: AnyArray) -> Callable[[int], Iterator[AnyArray]]:
    return lambda rows: (array[start : start + rows] for start in range(0, len(array), rows))


def _mapped(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], order: Any = "C") -> AnyArray:
    """Return an array that stays in the file; one without entries cannot be mapped."""
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _of_npy(path: Path) -> Rows:
    with _named(str(path)), open_regular(path) as file:
        header = read_npy_header(file)
        there, start = os.fstat(file.fileno()).st_size - file.tell(), file.tell()
        if there != header.nbytes:
            raise ValueError(
                f"its header says {header.nbytes:,} bytes of {header.dtype} {header.shape}, and {there:,} follow; "
                f"{'it is truncated' if there < header.nbytes else 'save one array in a file'}"
            )
        order = "F" if header.fortran_order else "C"
        array = _mapped(path, header.dtype, start, header.shape, order)
    return Rows(str(path), header.shape, header.dtype.kind, _slices(array))


def _of_safetensors(path: Path, arrays: Mapping[str, SafeArray]) -> dict[str, Callable[[], Rows]]:
    def rows(name: str) -> Rows:
        array = arrays[name]
        mapped = _mapped(path, array.dtype, array.offset, array.shape)
        batches = _widened(mapped) if array.name == BFLOAT16 else _slices(mapped)
        return Rows(_where(path, name), array.shape, "f" if array.name == BFLOAT16 else array.dtype.kind, batches)

    return {name: partial(rows, name) for name in arrays}


def _widened(halves: AnyArray) -> Callable[[int], Iterator[AnyArray]]:
    """Return bfloat16, which NumPy has not, as the float32 whose upper half it is."""
    return lambda rows: ((part.astype(np.uint32) << 16).view(np.float32) for part in _slices(halves)(rows))


def _member(path: Path, key: str) -> Callable[[], Rows]:
    def rows() -> Rows:
        with _named(_where(path, key)), _opened(path, key) as (member, _):
            header = read_npy_header(member)
        return Rows(_where(path, key), header.shape, header.dtype.kind, lambda count: _streamed(path, key, count))

    return rows


def _streamed(path: Path, key: str, rows: int) -> Iterator[AnyArray]:
    """Yield rows of a member of an ``.npz`` as it is decompressed; column order needs all of it."""
    with _opened(path, key) as (member, size):
        header = read_npy_header(member)
        if header.fortran_order and len(header.shape) > 1:
            with _opened(path, key) as (again, _):
                yield from _slices(read_array(again, size))(rows)
            return
        if size - member.tell() != header.nbytes:
            raise ValueError("it is truncated, or longer than it says")
        for start in range(0, header.shape[0], rows):
            yield _part(member, header, min(rows, header.shape[0] - start))
        member.read(1)  # at its end the checksum is compared


def _part(member: IO[bytes], header: NpyHeader, rows: int) -> AnyArray:
    shape = (rows, *header.shape[1:])
    wanted = math.prod(shape) * header.dtype.itemsize
    if wanted > LARGEST:
        raise ValueError(f"{rows} rows have {wanted / 2**30:.3g} GiB; read fewer at a time")
    content = member.read(wanted)
    if len(content) < wanted:
        raise ValueError("it is truncated")
    return np.frombuffer(content, dtype=header.dtype).reshape(shape)


@contextmanager
def _opened(path: Path, key: str) -> Iterator[tuple[IO[bytes], int]]:
    """Yield a member of an archive and its size."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entry = chosen_entry(archive.infolist(), key, path)
        with archive.open(entry) as member:
            yield member, entry.file_size


def _where(path: Path, key: str) -> str:
    return f"{path}: {printable(key)}"
