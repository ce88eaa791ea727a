"""Codes on the disk: one file for each search, with its certificate, complete or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from etfopt._arrays import Float64Array
from etfopt._atomic import StorageError, make_folder, write_atomically
from etfopt.errors import InputError
from etfopt.frames._energy import largest_cosine

__all__ = ["Stored", "cache_folder", "load", "store"]

VERSION = 1
"""Of the search and of the bound; it grows when the same arguments would give another code or certificate."""

ENVIRONMENT = "ETFOPT_CACHE"


@dataclass(frozen=True, eq=False)
class Stored:
    """Unit columns, shape (d, C), and what the certificate needs."""

    vectors: Float64Array
    largest_cosine: float
    lower_bound: float
    method: str


def cache_folder(cache: bool | str | PathLike[str]) -> Path | None:
    """Return the folder of the cache; None without one."""
    if isinstance(cache, bool):
        return _default_folder() if cache else None
    try:
        named = os.fspath(cache)
    except TypeError as error:
        message = f"cache must be True, False or a folder; got {cache!r}"
        raise InputError(message, "cache", cache) from error
    if not isinstance(named, str) or not named or "\0" in named:
        raise InputError(f"cache must be True, False or the name of a folder; got {cache!r}", "cache", cache)
    return _folder(named)


def _default_folder() -> Path:
    if named := os.environ.get(ENVIRONMENT):
        return _folder(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "etfopt"


def _folder(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:  # of a user that nobody knows
        return Path(named)


def load(folder: Path | None, d: int, C: int, seed: int, starts: int) -> Stored | None:
    """Return the code that was stored for the same search; None, with a warning if its file is damaged."""
    if folder is None:
        return None
    path = _path(folder, d, C, seed, starts)
    try:
        return _read(path.read_bytes(), d, C, seed, starts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        problem = f"is damaged ({error})"
    warnings.warn(f"{path}: {problem}; the code is computed again", stacklevel=3)
    return None


def store(folder: Path | None, code: Stored, seed: int, starts: int) -> None:
    """Write a code to its file; warn if the folder cannot be used."""
    if folder is None:
        return
    d, C = code.vectors.shape
    path = _path(folder, d, C, seed, starts)
    facts = {"largest_cosine": code.largest_cosine, "lower_bound": code.lower_bound, "method": code.method}
    text = json.dumps({**facts, "key": _key(d, C, seed, starts)})
    buffer = io.BytesIO()
    np.savez(buffer, vectors=code.vectors, facts=np.array(text), digest=np.array(_digest(code.vectors, text)))
    try:
        make_folder(folder)
        write_atomically(path, buffer.getvalue())
    except (InputError, StorageError) as error:
        if not _is_there(path):  # else another process wrote the same file meanwhile
            warnings.warn(f"the code is not cached: {error}; or pass cache=False", stacklevel=3)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder without access
        return False


def _read(content: bytes, d: int, C: int, seed: int, starts: int) -> Stored:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        vectors, text, digest = file["vectors"], str(file["facts"]), str(file["digest"])
    if vectors.shape != (d, C) or vectors.dtype != np.float64:
        raise ValueError("it holds another code")
    if digest != _digest(vectors, text):
        raise ValueError("its checksum is wrong")
    facts = json.loads(text)
    if facts["key"] != _key(d, C, seed, starts):
        raise ValueError("it holds another code")
    # the cosine is measured again: it is the number that everything else relies on
    cosine = largest_cosine(np.ascontiguousarray(vectors.T))
    if not abs(cosine - facts["largest_cosine"]) < 1e-12:
        raise ValueError("its vectors are not those of its certificate")
    return Stored(vectors, float(facts["largest_cosine"]), float(facts["lower_bound"]), str(facts["method"]))


def _path(folder: Path, d: int, C: int, seed: int, starts: int) -> Path:
    digest = hashlib.sha256(_key(d, C, seed, starts).encode()).hexdigest()
    return folder / f"code-{d}x{C}-{digest[:16]}.npz"


def _key(d: int, C: int, seed: int, starts: int) -> str:
    return f"version {VERSION}, d {d}, C {C}, seed {seed}, starts {starts}"


def _digest(vectors: Float64Array, text: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors).tobytes() + text.encode()).hexdigest()
