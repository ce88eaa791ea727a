"""The files of a run: written whole or not at all, of one schema, by one process at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.files import _atomic, strict_json, write_atomically
from etfopt.files._atomic import storage_error
from etfopt.files._text import parse_json, read_bounded

__all__ = [
    "CONFIG",
    "SCHEMA",
    "Record",
    "append_line",
    "config_of",
    "locked",
    "read_json",
    "read_lines",
    "refuse_locked",
    "write_config",
    "write_json",
    "write_lines",
]

SCHEMA = 1
"""Version of every file of a run; it grows when a reader of the version before could not read the next."""

LARGEST = 2**26
"""Bytes of a JSON file of a run or a study: 64 MiB."""
LARGEST_LINES = 2**30
"""Bytes of the records of a run: a thousand or two an epoch."""
LOCK, CONFIG = ".lock", "config.json"

Record: TypeAlias = dict[str, float]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder of a run for this process; the system takes the lock away from one that was killed.

    Parameters
    ----------
    path : Path
        Folder of the run.

    Yields
    ------
    None
        The block runs with the folder held.

    Raises
    ------
    InputError
        If another process holds it.
    """
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{path}: another process is at work on this run; wait for it, or use another folder"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def refuse_locked(path: Path) -> None:
    """Refuse the folder of a run that another process is at work on. Changes nothing.

    Parameters
    ----------
    path : Path
        The folder; it may be missing.

    Raises
    ------
    InputError
        If another process holds it.
    """
    if (path / LOCK).exists():
        with locked(path):
            pass


def _append(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file; none of them stays if not all can be written."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                _atomic.write_through(file.fileno(), content)
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        raise storage_error(path, error) from error


# --- JSON ----------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON, the schema first; what is NaN or infinite becomes null.

    Parameters
    ----------
    path : Path
        Of the file.
    value : dict
        The object.
    """
    write_atomically(path, strict_json({"schema": SCHEMA, **value}).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without the schema.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    InputError
        If it is missing, damaged, or of another schema.
    """
    try:
        value = parse_json(read_bounded(path, LARGEST))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: is damaged: {error}") from error
    if not isinstance(value, dict) or "schema" not in value:
        raise InputError(f"{path}: is not a file of a run: it has no schema")
    if value.pop("schema") != SCHEMA:
        raise InputError(f"{path}: was written by another version of etfopt; this one reads schema {SCHEMA}")
    return value


def _line(record: Record) -> bytes:
    return (strict_json({"schema": SCHEMA, **record}, indent=None)).encode()


def append_line(path: Path, record: Record) -> None:
    """Add a record to a file of JSON lines.

    Parameters
    ----------
    path : Path
        Of the file, made if missing.
    record : dict
        One line.
    """
    _append(path, _line(record))


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """Write a file of JSON lines anew.

    Parameters
    ----------
    path : Path
        Of the file.
    records : sequence of dict
        One a line.
    """
    write_atomically(path, b"".join(map(_line, records)))


def read_lines(path: Path) -> list[Record]:
    """Read a file of JSON lines, null as NaN; a last line that is torn is left out.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    list of dict
        One a line.

    Raises
    ------
    InputError
        If the file is missing, or a line before the last is damaged or not of the epoch after the one before it.
    """
    *lines, _torn = read_bounded(path, LARGEST_LINES).split(b"\n")
    return [_record(path, number, line) for number, line in enumerate(lines)]


def _record(path: Path, number: int, line: bytes) -> Record:
    """Read one line; the first is of epoch 0."""
    try:
        record = parse_json(line)
    except ValueError as error:
        raise InputError(f"{path}: is damaged: line {number + 1}: {error}") from error
    if not isinstance(record, dict) or record.pop("schema", None) != SCHEMA:
        raise InputError(f"{path}: was written by another version of etfopt; this one reads schema {SCHEMA}")
    odd = [key for key, value in record.items() if value is not None and not _is_number(value)]
    if odd or record.get("epoch") != number:
        what = f"{odd[0][:40]!r} is no number" if odd else f"epoch {number} is due"
        raise InputError(f"{path}: is damaged: line {number + 1}: {what}")
    return {key: math.nan if value is None else value for key, value in record.items()}


def _is_number(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or isinstance(value, float)


# --- configuration -------------------------------------------------------------------------------------------------


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the configuration of a run into its folder.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : TrainConfig
        The configuration.
    """
    write_json(folder / CONFIG, {"config": config.to_dict()})


def config_of(folder: Path) -> TrainConfig:
    """Read the configuration of the run in a folder.

    Parameters
    ----------
    folder : Path
        Folder of the run.

    Returns
    -------
    TrainConfig
        The configuration that the run was started with.

    Raises
    ------
    InputError
        If the folder holds no run, or its ``config.json`` is damaged, of another schema, or no configuration.
    """
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder}: holds no run: there is no {CONFIG} in it; name the folder of a run")
    settings = read_json(path).get("config", {})
    try:
        return TrainConfig.from_dict(settings)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: holds no configuration of a run: {error}") from error
