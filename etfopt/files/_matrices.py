"""Class means from ``.npy``, ``.npz`` and ``.csv``."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from etfopt.errors import InputError
from etfopt.files._npy import NpyHeader, read_npy_header
from etfopt.files._tables import read_table
from etfopt.files._text import open_regular, printable

SUFFIXES = (".npy", ".npz", ".csv")
LARGEST = 2**32
"""Bytes of an array: 4 GiB."""
CHUNK = 2**24
"""Bytes that are read at a time."""
ARCHIVE, ARRAY = b"PK", b"\x93NUMPY"
"""First bytes of an ``.npz`` and of an ``.npy``."""

AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def load_matrix(
    path: Path | str, key: str | None = None, *, header: bool | None = None, index: bool | None = None
) -> AnyArray:
    """Read an array from ``.npy``, ``.npz`` or ``.csv``: nothing is run, and sizes are checked before they are needed.

    A CSV holds numbers separated by commas. Lines that are empty or begin with ``#``, a byte order mark and quotes
    around numbers are passed over. A first row of names, and a first column under an empty name (as
    ``pandas.DataFrame.to_csv`` writes them), are left out with a warning. A first row or column of the whole numbers
    0, 1, 2, ... or 1, 2, 3, ..., or of the only whole numbers of the table, may be names or data: it is refused unless
    `header` or `index` says which.

    Parameters
    ----------
    path : Path or str
        The suffix says what kind of file it is.
    key : str, optional
        Which array of an ``.npz``; not needed where it holds only one.
    header : bool, optional
        Whether the first row of a CSV is left out; None finds out.
    index : bool, optional
        Whether the first column of a CSV is left out; None finds out.

    Returns
    -------
    ndarray, any shape
        The array as stored; a CSV gives a matrix of float64.

    Raises
    ------
    InputError
        If the file is missing, of another kind, damaged, or does not hold numbers; if an array has more than 4 GiB;
        if it holds several arrays and no key was given; if a CSV may have names that are numbers.

    Warns
    -----
    UserWarning
        If a header or an index was recognised and left out.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a file that ends in {' or '.join(SUFFIXES)} is needed; got {suffix or 'no ending'}")
    if key is not None and suffix != ".npz":
        raise InputError(f"{path}: holds one array, so the key {key!r} has no meaning; leave it out")
    for name, value in (("header", header), ("index", index)):
        if value is not None and suffix != ".csv":
            raise InputError(f"{path}: is no CSV, so {name} = {value} has no meaning; leave it out")
    if suffix == ".csv":
        return read_table(path, header, index)
    try:
        with open_regular(path) as file:
            return _read_numpy(file, key, path)
    except InputError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _read_numpy(file: IO[bytes], key: str | None, path: Path) -> AnyArray:
    """Read what the first bytes say that it is, whichever of the two suffixes it has."""
    start = file.read(len(ARRAY))
    file.seek(0)
    if start.startswith(ARCHIVE):
        return _read_archive(file, key, path)
    if start != ARRAY:
        raise ValueError("it is empty" if not start else "it is neither an .npy nor an .npz of NumPy")
    return read_array(file, os.fstat(file.fileno()).st_size)


def read_array(file: IO[bytes], size: int) -> AnyArray:
    """Read an ``.npy`` of so many bytes, no more and no less."""
    header = read_npy_header(file)
    _require_small(header)
    there, nbytes = size - file.tell(), header.nbytes
    if there != nbytes:
        remedy = "it is truncated" if there < nbytes else "save one array in a file"
        raise ValueError(
            f"its header says {nbytes:,} bytes of {header.dtype} {header.shape}, and {there:,} follow; {remedy}"
        )
    content = np.empty(nbytes, dtype=np.uint8)
    for start in range(0, nbytes, CHUNK):
        wanted = min(CHUNK, nbytes - start)
        part = file.read(wanted)
        if len(part) < wanted:
            raise ValueError("it is truncated")
        content[start : start + wanted] = np.frombuffer(part, dtype=np.uint8)
    if file.read(1):  # at the end of a member of an archive, its checksum is compared
        raise ValueError("it is longer than it says")
    array: AnyArray = content.view(header.dtype) if nbytes else np.empty(0, header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def _require_small(header: NpyHeader) -> None:
    if header.nbytes > LARGEST:
        raise ValueError(
            f"it declares {header.dtype} {header.shape}, which is {header.nbytes / 2**30:.3g} GiB; at most "
            f"{LARGEST / 2**30:g} GiB are read from a file. Load larger ones by numpy.load and call etfopt.nearest_etf"
        )


def _read_archive(file: IO[bytes], key: str | None, path: Path) -> AnyArray:
    try:
        with zipfile.ZipFile(file) as archive:
            entry = chosen_entry(archive.infolist(), key, path)
            with archive.open(entry) as member:
                if member.read(len(ARRAY)) != ARRAY:
                    raise InputError(f"{path}: {printable(entry.filename)} is not an array")
            with archive.open(entry) as member:
                return read_array(member, entry.file_size)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile raises what it happens to meet in a damaged archive
        raise ValueError(str(error) or type(error).__name__) from error


def chosen_entry(entries: list[zipfile.ZipInfo], key: str | None, path: Path) -> zipfile.ZipInfo:
    """Return the entry of an archive that a key names, or the only one; an `InputError` says what there is."""
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if key is None and len(set(names)) == 1:
        key = names[0]
    if key is None or key not in names:
        remedy = "name one with key" if key is None else f"{key!r} is not among them"
        shown = ", ".join(map(printable, names[:10])) + (", ..." if len(names) > 10 else "")
        raise InputError(f"{path}: holds the arrays {shown or '(none)'}", argument="key", value=key, remedy=remedy)
    if names.count(key) > 1:
        raise InputError(f"{path}: holds {key} {names.count(key)} times; save each array under a name of its own")
    entry = entries[names.index(key)]
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {key} is compressed in a way that NumPy does not write; save it by numpy.savez")
    return entry
