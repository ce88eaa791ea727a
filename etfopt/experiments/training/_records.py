"""The files of a run: complete or absent, with a schema version, written by one process at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from etfopt import _atomic
from etfopt._atomic import storage_error
from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.files import strict_json, write_atomically
from etfopt.files._text import parse_json, read_bounded

SCHEMA = 1
"""Version of the files of a run. Increase it when an older etfopt cannot read the new files."""

LARGEST = 2**26
"""Bytes of a JSON file of a run or a study: 64 MiB."""
LARGEST_LINES = 2**30
"""Bytes of the records of a run, which has one or two thousand for each epoch."""
LOCK, CONFIG = ".lock", "config.json"

Record: TypeAlias = dict[str, float]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the folder of a run for this process; the system releases the lock of a killed process."""
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{path}: another process is at work on this run; wait for it, or use another folder"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be locked: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def refuse_locked(path: Path) -> None:
    """Refuse the folder of a run that another process has locked. Changes nothing."""
    if (path / LOCK).exists():
        with locked(path):
            pass


def _append(path: Path, content: bytes) -> None:
    """Append bytes to a file, all of them or none."""
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
    """Write an object as JSON, the schema first; NaN and infinity become null."""
    write_atomically(path, strict_json({"schema": SCHEMA, **value}).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote, without the schema."""
    try:
        value = parse_json(read_bounded(path, LARGEST))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: is damaged: {error}") from error
    if not isinstance(value, dict) or "schema" not in value:
        raise InputError(f"{path}: is not a file of a run: it has no schema; name the folder of a run")
    if value.pop("schema") != SCHEMA:
        raise InputError(f"{path}: was written by another version of etfopt; this one reads schema {SCHEMA}")
    return value


def _line(record: Record) -> bytes:
    return (strict_json({"schema": SCHEMA, **record}, indent=None)).encode()


def append_line(path: Path, record: Record) -> None:
    """Add a record to a file of JSON lines."""
    _append(path, _line(record))


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """Replace a file of JSON lines."""
    write_atomically(path, b"".join(map(_line, records)))


def read_lines(path: Path) -> list[Record]:
    """Read a file of JSON lines, null as NaN. A last line without its end, from a crash, is ignored."""
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
        what = f"{odd[0][:40]!r} is not a number" if odd else f"epoch {number} is due"
        raise InputError(f"{path}: is damaged: line {number + 1}: {what}")
    return {key: math.nan if value is None else value for key, value in record.items()}


def _is_number(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or isinstance(value, float)


# --- configuration -------------------------------------------------------------------------------------------------


def write_config(folder: Path, config: TrainConfig) -> None:
    """Write the configuration of a run into its folder."""
    write_json(folder / CONFIG, {"config": config.to_dict()})


def config_of(folder: Path) -> TrainConfig:
    """Read the configuration of the run in a folder."""
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder}: holds no run: there is no {CONFIG} in it; name the folder of a run")
    settings = read_json(path).get("config", {})
    try:
        return TrainConfig.from_record(settings)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: holds no configuration of a run: {error}") from error
