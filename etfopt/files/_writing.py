"""Writes solutions and numbers, and refuses to replace other files."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from etfopt._atomic import whole
from etfopt.errors import InputError
from etfopt.solution import Solution

PARTS = ("U", "etf", "weight", "scale", "distance", "gap", "margin")
"""Names of the arrays of a solution, in their order."""


def save_solution(solution: Solution, path: Path | str) -> None:
    """Write U, the ETF, the classifier weight and the certificate's numbers into an ``.npz``, completely or not at all.

    Parameters
    ----------
    solution : Solution
        Its parts are stored as U, etf, weight and the certificate's field names.
    path : Path or str
        A name that ends in ``.npz``. A file that is replaced keeps its permissions.

    Raises
    ------
    InputError
        If the path does not end in ``.npz``, is a folder, or its folder is missing.
    StorageError
        If the file cannot be written.
    """
    kept = {"gap": solution.certificate.gap, "margin": solution.certificate.margin}
    arrays: dict[str, Any] = {name: kept[name] if name in kept else getattr(solution, name) for name in PARTS}
    with whole(_solution_path(path)) as part, part.open("wb") as file:  # by its name, NumPy would add .npz to .NPZ
        np.savez(file, **arrays)  # before NumPy 2.2 allow_pickle would be one more array


def _solution_path(path: Path | str) -> Path:
    path = Path(path).resolve()  # through a link, to the file it means
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: the solution is several arrays; use a name that ends in .npz")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{path}: cannot be written: it is a folder, or its folder is not there; use another name")
    return path


def refuse_as_output(path: Path | str, inputs: Iterable[Path | str]) -> None:
    """Refuse a path that `save_solution` could not write, or that would replace what the problem was read from."""
    if _solution_path(path) in [Path(file).resolve() for file in inputs]:
        raise InputError(f"{path}: is a file that the problem is read from; choose another name with --out")
    if not _is_replaceable(Path(path)):
        raise InputError(f"{path}: holds other data than a solution; choose another name with --out")


def _is_replaceable(path: Path) -> bool:
    """Whether the path is free or holds an earlier solution."""
    if not path.exists():
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() == [f"{name}.npy" for name in PARTS]
    except (OSError, zipfile.BadZipFile):
        return False


def refuse_occupied(paths: Iterable[Path], keys: Iterable[str], what: str, *, overwrite: bool) -> None:
    """Refuse to replace results that you may still need. Changes nothing."""
    document, *others = paths
    there = [path for path in (document, *others) if os.path.lexists(path)]
    names = ", ".join(path.name for path in there)
    if there and not _has_keys(document, keys):
        raise InputError(f"{document.parent}: holds {names}, and not of {what}; choose another folder with --out")
    if there and not overwrite:
        raise InputError(
            f"{document.parent}: holds {what} ({names}); choose another folder with --out, or replace it with "
            "--overwrite"
        )


def _has_keys(path: Path, keys: Iterable[str]) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and set(keys) <= document.keys()


def strict_json(value: object, indent: int | None = 1) -> str:
    """Return a value as JSON that every reader takes: NaN and infinity become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
