"""Numbers from a CSV; a header or an index is left out where it cannot be data, and never by a guess."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from etfopt.errors import InputError
from etfopt.files._text import decoded_text, printable, read_bounded

LARGEST = 2**28
"""Bytes of a CSV: 256 MiB, some ten million numbers; an ``.npy`` takes more."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)

WHOLE = re.compile(r"\d+", re.ASCII)
WHOLE_FIELD = re.compile(r'(?:^|,)\s*"?[+-]?\d+"?\s*(?:,|$)', re.ASCII)

MISSING = ("", "-", "?", "na", "n/a", "#n/a", "nan", "null", "none", "missing")
"""Spellings of a missing value; they are not names of columns."""

Line: TypeAlias = tuple[int, str]
"""Its number in the file, from 1, and what is on it."""


@dataclass(frozen=True)
class _Names:
    """Which row and column of a table are names; `why` is empty where the caller said so."""

    header: bool
    index: bool
    why: str = ""


def read_table(path: Path, header: bool | None, index: bool | None) -> NDArray[np.float64]:
    """Read a CSV; see `load_matrix`."""
    try:
        lines = list(_lines(decoded_text(read_bounded(path, LARGEST))))
        if not lines:
            raise ValueError("it holds no numbers")
        _require_commas(lines)
        names = _found(lines, header, index)
        body = lines[names.header :]
        if not body:
            raise ValueError("it holds a header and no numbers")
        table = _numbers(body, names.index)
    except InputError as error:
        if error.argument is None:  # of the file itself
            raise
        message = f"{path}: cannot be read: {error.args[0]}"
        raise InputError(message, argument=error.argument, remedy=error.remedy) from error
    except (ValueError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if names.why:
        warnings.warn(f"{path}: {names.why}; a {len(table)} x {table.shape[1]} matrix is left", stacklevel=3)
    return table


def _lines(text: str) -> Iterator[Line]:
    """Yield the lines that hold something, without comments, by their numbers in the file."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if content := line.partition("#")[0].strip(" \t"):
            yield number, content


def _require_commas(lines: list[Line]) -> None:
    """Raise `ValueError` where another mark separates the fields, with the line of pandas that reads such a file."""
    sample = [line for _, line in lines[:20]]
    for mark, name, separator in ((";", "semicolons", ";"), ("\t", "tabs", "\\t"), (" ", "spaces", r"\s+")):
        if all(mark in line and (mark == ";" or "," not in line) and '"' not in line for line in sample):
            decimal = ", decimal=','" if any(re.search(r"\d,\d", line) for line in sample) else ""
            named = re.match(r"[^\W\d]", sample[0]) and not NUMBER.match(sample[0])
            header = "" if named else ", header=None"
            raise ValueError(
                f"the file has {name}, and numbers separated by commas are needed: pandas.read_csv(old, "
                f"sep='{separator}'{decimal}{header}).to_csv(new, header=False, index=False)"
            )


def _fields(line: str) -> list[str]:
    if '"' not in line:
        return [field.strip() for field in line.split(",")]
    try:
        return [field.strip() for field in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except csv.Error as error:
        raise ValueError(f"quotes that do not match: {error}") from error


# --- names ---------------------------------------------------------------------------------------------------------


def _found(lines: list[Line], header: bool | None, index: bool | None) -> _Names:
    """Return which row and column are names, or raise `ValueError` where they may be names or data."""
    first = _fields(lines[0][1])
    whys = []
    corner = header is not False and len(first) > 1 and not first[0]  # as pandas names an index
    corner = corner and (_are_words(first[1:]) or _are_counted(first[1:]))
    if header is None and (corner or _are_words(first)):
        header = True
        whys.append(f"row 1 ({', '.join(map(printable, first[:3]))}{', ...' * (len(first) > 3)}) is a header")
    if index is None and corner:
        index = True
        whys.append("the first column, which has no name, is an index")
    if header is None and _may_be_names(first, [line for _, line in lines[1:]]):
        raise _ambiguous("row", first[:4], "header")
    if header and len(lines) > 1:
        width = len(_fields(lines[1][1]))
        if 2 <= len(first) == width - 1 and index is not False:  # as R writes the names of rows
            index = True
            whys.append("the first column, for which the header has no name, is an index")
        elif len(first) != width:
            raise ValueError(
                f"its header has {len(first)} fields, and the row below has {width}: complete one of them. If the "
                "commas are decimal marks, write points"
            )
    if index is None:
        halves = [line.partition(",") for _, line in lines[bool(header) :]]
        column = [name.strip(' \t"') for name, *_ in halves]
        if _may_be_names(column, [rest for *_, rest in halves]):
            raise _ambiguous("column", column[:4], "index")
    return _Names(bool(header), bool(index), f"{' and '.join(whys)}: left out" if whys else "")


def _are_words(fields: list[str]) -> bool:
    """Whether all fields begin with a letter, and none is a number or says that a value is missing."""
    return all(re.match(r"[^\W\d]", field) and field.lower() not in (*MISSING, "inf", "infinity") for field in fields)


def _may_be_names(fields: list[str], others: list[str]) -> bool:
    """Whether the fields count, or are the only whole numbers of the table, three or more and no two alike."""
    if _are_counted(fields):
        return True
    if len(fields) < 3 or not all(map(WHOLE.fullmatch, fields)) or len(set(fields)) < len(fields):
        return False
    return any(others) and not any(WHOLE_FIELD.search(line) for line in others)


def _are_counted(fields: list[str]) -> bool:
    """Whether the fields are 0, 1, 2, ... or 1, 2, 3, ..., two or more, written as whole numbers."""
    if len(fields) < 2 or fields[0] not in ("0", "1"):
        return False
    return all(field == str(n) for n, field in enumerate(fields, start=int(fields[0])))


def _ambiguous(what: str, fields: list[str], name: str) -> InputError:
    counted = ", ".join(fields[:3]) + ", ..." * (len(fields) > 3)
    return InputError(
        f"its first {what} is {counted}: {'an' if name == 'index' else 'a'} {name}, as pandas writes one, or data? "
        "Save it without (to_csv(..., header=False, index=False)), or say which",
        argument=name,
        remedy=f"pass {name}=True or {name}=False",
    )


# --- numbers -------------------------------------------------------------------------------------------------------


def _numbers(lines: list[Line], index: bool) -> NDArray[np.float64]:
    """Return the table without its first column, if that is an index."""
    texts = [_without_first(line) if index else line for _, line in lines]
    try:
        return np.loadtxt(texts, dtype=np.float64, delimiter=",", quotechar='"', comments=None, ndmin=2)
    except ValueError as error:
        raise _fault(lines, index) or error from error


def _without_first(line: str) -> str:
    return ",".join(_fields(line)[1:])


def _fault(lines: list[Line], index: bool) -> ValueError | None:
    """Return what is wrong in the first line that is no row of numbers."""
    width = 0
    for number, line in lines:
        try:
            fields = _fields(line)[index:]
        except ValueError as error:
            return ValueError(f"line {number} has {error}")
        for column, field in enumerate(fields, start=1 + index):
            if problem := _problem(field):
                return ValueError(f"line {number}, column {column}: {problem}")
            if not NUMBER.fullmatch(field):
                message = f"line {number}, column {column}: {field[:40]!r} is not a number"
                if number == lines[0][0]:
                    return InputError(
                        message, argument="header", remedy="if the first row holds names, pass header=True"
                    )
                if column == 1:
                    remedy = "if the first column holds names, pass index=True"
                    return InputError(message, argument="index", remedy=remedy)
                return ValueError(message)
        width = width or len(fields)
        if len(fields) != width:
            text = f"line {number} has {len(fields) + index} columns, and the first one {width + index}; complete it"
            return ValueError(text)
    return None


def _problem(field: str) -> str:
    """Return why a field is not a number, with the remedy, if the field itself shows it; else an empty text."""
    if field.lower() in MISSING:
        return f"{field!r}: a value is missing; fill it or leave out its row"
    if field.endswith(("j", "j)")):
        return f"{field!r} is complex; real numbers are needed"
    if re.fullmatch(r"[+-]?\d+(,\d+)+", field):
        return (
            f"{field[:40]!r} is not a number: write a decimal comma as a point, and leave out thousands separators; "
            "pandas.read_csv has decimal=',' and thousands=',' for them"
        )
    return ""
