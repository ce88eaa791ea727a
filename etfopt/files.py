"""Class means from files, solutions and numbers into files."""

from __future__ import annotations

import json
import math
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from etfopt.errors import InputError
from etfopt.solution import Solution

__all__ = ["load_matrix", "save_solution", "strict_json"]

SUFFIXES = (".npy", ".npz", ".csv")


def load_matrix(path: Path, key: str | None = None) -> np.ndarray[Any, np.dtype[Any]]:
    """Read an array from ``.npy``, ``.npz`` or ``.csv`` (numbers separated by commas, no header).

    Parameters
    ----------
    path : Path
    key : str, optional
        Which array of an ``.npz``; not needed where it holds only one.

    Raises
    ------
    InputError
        If the file is missing, of another kind, damaged, or holds several arrays and no key was given.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path}: cannot read a {path.suffix or 'file without suffix'}; use one of {', '.join(SUFFIXES)}"
        )
    try:
        if path.suffix == ".csv":
            return np.loadtxt(path, delimiter=",", ndmin=2)
        # opened here, since np.load leaves a damaged archive open
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            return np.asarray(content[_chosen(content.files, key, path)])
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _chosen(names: list[str], key: str | None, path: Path) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        wanted = "name one with --key" if key is None else f"{key!r} is not among them"
        raise InputError(f"{path}: holds the arrays {', '.join(names) or '(none)'}; {wanted}")
    return key


def save_solution(solution: Solution, path: Path) -> None:
    """Write U, the ETF, the classifier weight and the certificate's numbers into an ``.npz``, whole or not at all.

    Raises
    ------
    InputError
        If the path does not end in ``.npz`` or cannot be written.
    """
    if path.suffix != ".npz":
        raise InputError(f"{path}: the solution is several arrays; use a name that ends in .npz")
    certificate = solution.certificate
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            try:
                np.savez(
                    file,
                    U=solution.U,
                    etf=solution.etf,
                    weight=solution.weight,
                    scale=solution.scale,
                    distance=solution.distance,
                    gap=certificate.gap,
                    margin=certificate.margin,
                )
                file.close()
                Path(file.name).chmod(0o666 & ~_umask())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def strict_json(value: object) -> str:
    """Return `value` as JSON that every reader takes: what is NaN or infinite becomes null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
