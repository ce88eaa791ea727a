"""The values in the file of a study: texts, seeds, settings, and grids of settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from etfopt._scalars import as_integer
from etfopt.errors import InputError

MOST = 10_000
"""Variants of a study."""


def text_of(values: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = values.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise InputError(f"{key} must be a {'non-empty ' * (default is None)}string; got {value!r}")
    return " ".join(value.split()) if default is None else value.strip()


def seeds_of(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} must be a non-empty list of integers, such as [0, 1, 2]; got {value!r}")
    seeds = tuple(as_integer(seed, f"{where}[{i}]", at_least=0) for i, seed in enumerate(value))
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise InputError(f"{where}: {', '.join(map(str, twice))} is there twice")
    return seeds


def settings_of(value: Any, where: str, *, whole_options: bool = True) -> dict[str, Any]:
    """Return settings by their dotted names, whichever way they are written."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table of settings; got {value!r}")
    found: dict[str, Any] = {}
    for name, item in _leaves(value, whole_options):
        if name in found:
            raise InputError(f"{where}: {name} is set twice")
        found[name] = item
    return found


def _leaves(table: Mapping[str, Any], whole_options: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and not (whole_options and key == "options"):
            yield from _leaves(value, whole_options, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def grid_of(value: Any, where: str = "grid") -> dict[str, list[Any]]:
    grid = settings_of(value, where, whole_options=False)
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: {name} must be a non-empty list of values; got {values!r}")
        if len(values) > MOST:
            raise InputError(f"{where}: {name} has {len(values):,} values; at most {MOST:,} are taken: split the study")
        if any(item in values[:i] for i, item in enumerate(values)):
            raise InputError(f"{where}: {name} = {values!r} has a value twice")
    return grid


def cells(grid: dict[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every combination of the values of a grid, with its name; the last setting varies fastest."""
    for values in itertools.product(*grid.values()):
        place = dict(zip(grid, values, strict=True))
        yield joined(*(f"{key}={value}" for key, value in place.items())), place


def joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
