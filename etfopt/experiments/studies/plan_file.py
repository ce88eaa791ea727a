"""The file of a study, checked before anything is trained."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies.plan import Study, Variant
from etfopt.files._text import LARGEST_TOML, parse_toml, read_bounded

__all__ = ["parse_study", "read_study"]

KEYS = ("title", "question", "setup", "findings", "baselines", "seeds", "base", "variants", "grid")


MOST = 10_000
"""Variants of a study."""


def read_study(path: Path) -> Study:
    """Read a study from a ``.toml`` file; its name is the file's.

    Parameters
    ----------
    path : Path
        The ``.toml`` file.

    Returns
    -------
    Study
        Every variant with its whole configuration.

    Raises
    ------
    InputError
        If the file is missing or damaged, or the study is refused; see `parse_study`.
    """
    if path.suffix.lower() != ".toml":
        raise InputError(f"{path}: a study is a file that ends in .toml")
    try:
        values = parse_toml(read_bounded(path, LARGEST_TOML))
    except InputError:
        raise
    except ValueError as error:  # TOML and UTF-8 alike
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        return parse_study(values, path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_study(values: Mapping[str, Any], name: str) -> Study:
    """Return the study of a dictionary as a file has it.

    ``base`` holds settings of `TrainConfig`; ``variants`` is a list of tables, each a ``name`` and the settings that
    make it; ``grid`` maps settings to lists of values, and every variant is taken with every combination of them.
    Settings are written as dotted names or as nested tables.

    Parameters
    ----------
    values : mapping
        Content of the file.
    name : str
        Name of the study.

    Returns
    -------
    Study
        Every variant with its whole configuration.

    Raises
    ------
    InputError
        If a key is unknown or missing, a name, seed, value or configuration is there twice, a setting is set both by a
        variant and by the grid, a baseline is no variant, or a configuration is refused; the variant is named.

    Examples
    --------
    >>> from etfopt.experiments.studies.plan_file import parse_study
    >>> variants = [{"name": "nearest"}, {"name": "fixed", "head.name": "fixed"}]
    >>> plan = {"title": "Heads", "question": "Which one?", "seeds": [0, 1], "variants": variants}
    >>> study = parse_study(plan, name="heads")
    >>> [run.folder for run in study.runs()]
    ['nearest-seed0', 'fixed-seed0', 'nearest-seed1', 'fixed-seed1']
    """
    if unknown := [key for key in values if key not in KEYS]:
        raise InputError(f"unknown key{'s' * (len(unknown) > 1)} {', '.join(unknown)}; known are: {', '.join(KEYS)}")
    base, grid = _settings(values.get("base", {}), "base"), _grid(values.get("grid", {}))
    for settings, where in ((base, "base"), (grid, "grid")):
        if "seed" in settings:
            raise InputError(f"{where}: seed is not set here; the study's seeds are")
    variants = tuple(_variants(_named(values.get("variants", [])), base, grid))
    _refuse_twins(variants)
    baselines = values.get("baselines", [])
    known = dict.fromkeys(filter(None, (getattr(v, part) for part in ("head", "cell", "name") for v in variants)))
    if not isinstance(baselines, list) or any(name not in known for name in baselines):
        raise InputError(
            f"baselines = {baselines!r} must be a list of variants; known are: {', '.join(map(repr, known))}"
        )
    return Study(
        name,
        _text(values, "title"),
        _text(values, "question"),
        _text(values, "setup", ""),
        _text(values, "findings", ""),
        _seeds(values.get("seeds")),
        variants,
        tuple(baselines),
    )


def _text(values: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = values.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise InputError(f"{key} must be a {'non-empty ' * (default is None)}string; got {value!r}")
    return " ".join(value.split()) if default is None else value.strip()


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"seeds must be a non-empty list of integers, such as [0, 1, 2]; got {value!r}")
    seeds = tuple(as_integer(seed, f"seeds[{i}]", at_least=0) for i, seed in enumerate(value))
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise InputError(f"seeds: {', '.join(map(str, twice))} is there twice")
    return seeds


def _settings(value: Any, where: str, *, whole_options: bool = True) -> dict[str, Any]:
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


def _grid(value: Any) -> dict[str, list[Any]]:
    grid = _settings(value, "grid", whole_options=False)
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid: {name} must be a non-empty list of values; got {values!r}")
        if len(values) > MOST:
            raise InputError(f"grid: {name} has {len(values):,} values; at most {MOST:,} are taken: split the study")
        if any(item in values[:i] for i, item in enumerate(values)):
            raise InputError(f"grid: {name} = {values!r} has a value twice")
    return grid


def _named(value: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of the file's variants by their names."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise InputError("variants must be tables, each under a line [[variants]]")
    named: dict[str, dict[str, Any]] = {}
    for i, table in enumerate(value):
        name = table.get("name")
        if not isinstance(name, str) or not re.search(r"\w", name) or not name.isprintable():
            raise InputError(f"variants[{i}]: name must be a line with a letter or digit; got {name!r}")
        if name in named:
            raise InputError(f"variant {name!r} is there twice")
        named[name] = _settings({key: item for key, item in table.items() if key != "name"}, f"variant {name!r}")
        if "seed" in named[name]:
            raise InputError(f"variant {name!r}: seed is not set here; the study's seeds are")
    return named


def _variants(named: dict[str, dict[str, Any]], base: dict[str, Any], grid: dict[str, list[Any]]) -> Iterator[Variant]:
    if not named and not grid:
        raise InputError("there is nothing to compare: [[variants]], or a [grid], or both are needed")
    count = math.prod(map(len, grid.values())) * max(len(named), 1)
    if count > MOST:
        raise InputError(
            f"the grid and the variants make {count:,} variants; at most {MOST:,} are taken: split the study"
        )
    for values in itertools.product(*grid.values()):
        place = dict(zip(grid, values, strict=True))
        cell = ", ".join(f"{key}={value}" for key, value in place.items())
        for head, own in (named or {"": {}}).items():
            name = ", ".join(part for part in (head, cell) if part)
            if both := sorted(own.keys() & place.keys()):
                raise InputError(f"variant {name!r}: {both[0]} is set by the variant and by the grid")
            try:
                config = TrainConfig().with_settings({**base, **own, **place})
            except (InputError, TypeError) as error:
                raise InputError(f"variant {name!r}: {error}") from error
            yield Variant(name, head, cell, config)


def _refuse_twins(variants: tuple[Variant, ...]) -> None:
    """Refuse two variants with one folder (file systems may not tell case) or one configuration."""
    for what, keys in (
        ("folder", [v.slug.casefold() for v in variants]),
        ("configuration", [v.config.digest() for v in variants]),
    ):
        seen: dict[str, str] = {}
        for variant, key in zip(variants, keys, strict=True):
            other = seen.setdefault(key, variant.name)
            if other != variant.name:
                raise InputError(f"variants {other!r} and {variant.name!r} have the same {what}")
