"""Files as bytes, and JSON and TOML from bytes: all of it bounded, and nothing is passed over."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import IO, Any, TypeVar

from etfopt.errors import InputError

T = TypeVar("T")

LARGEST_TOML = 2**18
"""Bytes of a TOML file; a study has some thousand. `tomllib` needs minutes for some files of a few MiB."""

DEEPEST = 100
"""Levels of a dotted key; the time of `tomllib` grows with their square."""

DOTTED = re.compile(rf"(?<![\w-])(?:(?:[\w-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*\.[ \t]*){{{DEEPEST}}}")


def open_regular(path: Path) -> IO[bytes]:
    """Open an ordinary file for reading; a pipe or a device, which may never end, is an `OSError`."""
    # a pipe is not even opened: that would wait for somebody who writes
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "it is a folder" if path.is_dir() else "it is no ordinary file")
    return path.open("rb")


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of an ordinary file, or raise `InputError` if it has more than the limit or cannot be read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise InputError(f"{path}: is too large: it has {size:,} bytes; at most {limit:,} are read")
            return file.read(size)
    except OSError as error:
        hint = "; check the path" * isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except ValueError as error:  # a path that no system takes
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error


def decoded_text(content: bytes) -> str:
    """Return text in UTF-8, with or without a byte order mark, or raise `ValueError` with the remedy."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error


def printable(name: str) -> str:
    """Return a name from a file as a message can show it: one line of at most 80 characters."""
    return name[:80] if name.isprintable() else repr(name[:80])


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text; NaN, repeated keys, large integers and deep nesting are a `ValueError`."""
    try:
        value = json.loads(decoded_text(content), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _with_small_integers(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON; use a number or null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the tables of a TOML text; deep nesting and large integers are a `ValueError`."""
    if len(content) > LARGEST_TOML:
        raise ValueError(f"it has {len(content):,} bytes; at most {LARGEST_TOML:,} are read as TOML")
    text = decoded_text(content)
    if DOTTED.search(text):
        raise ValueError(f"a key is nested more than {DEEPEST} levels deep")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _with_small_integers(values)


def _with_small_integers(value: T) -> T:
    """Return a value whose integers have 64 bits at most: larger ones cannot be computed with, nor always shown."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, int) and not -(2**63) <= item < 2**64:
            raise ValueError("it holds an integer of more than 64 bits")
        stack += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return value
