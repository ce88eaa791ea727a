"""Files that are complete or absent: after a crash you find the old file or the new one, never a part of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from etfopt.errors import EtfoptError, InputError


class StorageError(EtfoptError, OSError):
    """A file cannot be written, for example because the disk is full. The file that was there before is intact."""


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return a `StorageError` that names the file, the system's reason and a remedy."""
    reason = error.strerror or str(error)
    found = StorageError(f"{path}: cannot be written: {reason}; free some space, or choose another folder")
    found.strerror = reason
    return found


def part_of(path: Path) -> Path:
    """Return the hidden name under which a file is written; it has the file's ending, which plotting libraries need."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and move the finished file to its place in one step.

    If the block raises, the part is removed; `KeyboardInterrupt` included. A file that is replaced keeps its
    permissions.
    """
    part = part_of(path)
    try:
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, part)
            part.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all; its folder must exist."""
    with whole(path) as part, part.open("wb") as file:
        write_through(file.fileno(), content)


def write_through(descriptor: int, content: bytes) -> None:
    """Write all bytes to an open file and wait until the device has them."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder as durable as the files' contents."""
    with suppress(OSError):  # Windows cannot open a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they are missing; an `InputError` names the folder that cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be used as a folder: {error.strerror}; choose another") from error
