"""The file of a study, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies._plan_values import MOST, cells, grid_of, joined, seeds_of, settings_of, text_of
from etfopt.experiments.studies.plan import Study, Variant
from etfopt.files._text import LARGEST_TOML, parse_toml, read_bounded

__all__ = ["parse_study", "read_study"]

KEYS = ("title", "question", "setup", "findings", "baselines", "seeds", "base", "variants", "grid", "tuning")
OWN = ("name", "only")
"""Keys of a variant that are no settings."""
TUNING_KEYS = ("seeds", "validation", "base", "grid")
VALIDATION = 0.2
"""Share of the training split that judges settings."""


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
    make it; ``grid`` maps settings to lists of values, and every variant is taken with every combination of them, or
    with those alone that its table ``only`` lists in the same way.
    ``tuning`` has a ``grid`` of its own, of settings to be chosen for every variant by its accuracy on a share
    ``validation`` of the training split, 0.2 by default, over ``seeds`` that the study does not use; its ``base`` holds
    settings of these runs alone, such as fewer epochs.
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
        If a key is unknown or missing, a name, seed, value or configuration is there twice, a setting is set by two of
        variant, grid and tuning, a baseline is no variant, or a configuration is refused; the variant is named.

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
    base, grid = settings_of(values.get("base", {}), "base"), grid_of(values.get("grid", {}))
    for settings, where in ((base, "base"), (grid, "grid")):
        if "seed" in settings:
            raise InputError(f"{where}: seed is not set here; the study's seeds are")
    named, places = _named(values.get("variants", [])), _places(values.get("variants", []), grid)
    variants = tuple(_variants(named, places, base, grid))
    _refuse_twins(variants)
    baselines = values.get("baselines", [])
    known = dict.fromkeys(filter(None, (getattr(v, part) for part in ("head", "cell", "name") for v in variants)))
    if not isinstance(baselines, list) or any(name not in known for name in baselines):
        raise InputError(
            f"baselines = {baselines!r} must be a list of variants; known are: {', '.join(map(repr, known))}"
        )
    study = Study(
        name,
        text_of(values, "title"),
        text_of(values, "question"),
        text_of(values, "setup", ""),
        text_of(values, "findings", ""),
        seeds_of(values.get("seeds"), "seeds"),
        variants,
        tuple(baselines),
        tuple(grid),
    )
    if "tuning" not in values:
        return study
    taken = {**grid, **{key: None for own in named.values() for key in own}}
    return replace(study, tuning=_tuning(values["tuning"], study, taken))


def _tuning(table: Any, study: Study, taken: Mapping[str, Any]) -> Study:
    """Return the runs that choose settings for every variant of a study; `taken` are those that tell variants apart."""
    if not isinstance(table, Mapping) or not table.keys() <= set(TUNING_KEYS):
        raise InputError(f"tuning must be a table of {', '.join(TUNING_KEYS)}; got {table!r}")
    grid, seeds = grid_of(table.get("grid", {}), "tuning.grid"), seeds_of(table.get("seeds"), "tuning.seeds")
    base = settings_of(table.get("base", {}), "tuning.base")
    if not grid:
        raise InputError("tuning.grid is empty; give the values to try, as in optimizer.learning_rate = [0.05, 0.1]")
    if shared := sorted(set(seeds) & set(study.seeds)):
        raise InputError(
            f"tuning.seeds: {shared[0]} is a seed of the study; take others, such as {max(study.seeds) + 1}"
        )
    for key in (*grid, *base):
        if key in {"seed", *taken} or (key in grid and key in base):
            raise InputError(f"tuning: {key} is set by the study already, or twice; a tuned setting is set there alone")
    if "data.validation" in base or any(v.config.data.validation is not None for v in study.variants):
        raise InputError("data.validation is set by the tuning, as tuning.validation; leave it out elsewhere")
    _require_few(len(study.variants) * math.prod(map(len, grid.values())))
    base["data.validation"] = table.get("validation", VALIDATION)
    variants = tuple(
        _variant(v.name, cell, v.config, {**base, **place}) for v in study.variants for cell, place in cells(grid)
    )
    _refuse_twins(variants)
    return Study(study.name, f"{study.title}: tuning", study.question, "", "", seeds, variants, (), tuple(grid))


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
        named[name] = settings_of({key: item for key, item in table.items() if key not in OWN}, f"variant {name!r}")
        if "seed" in named[name]:
            raise InputError(f"variant {name!r}: seed is not set here; the study's seeds are")
    return named


def _places(tables: list[Mapping[str, Any]], grid: dict[str, list[Any]]) -> dict[str, dict[str, list[Any]]]:
    """Return the values of the grid that a variant is taken with, by its name, where it has not all."""
    places = {}
    for table in tables:
        where = f"variant {table['name']!r}: only"
        places[table["name"]] = grid_of(table.get("only", {}), where)
        for name, values in places[table["name"]].items():
            if strange := [value for value in values if value not in grid.get(name, [])]:
                raise InputError(f"{where}: {name} = {strange[0]!r} is not in the grid; name values that it has")
    return places


def _variants(
    named: dict[str, dict[str, Any]],
    places: dict[str, dict[str, list[Any]]],
    base: dict[str, Any],
    grid: dict[str, list[Any]],
) -> Iterator[Variant]:
    if not named and not grid:
        raise InputError("there is nothing to compare: [[variants]], or a [grid], or both are needed")
    _require_few(math.prod(map(len, grid.values())) * max(len(named), 1))
    for cell, place in cells(grid):
        for head, own in (named or {"": {}}).items():
            if any(place[key] not in values for key, values in places.get(head, {}).items()):
                continue
            if both := sorted(own.keys() & place.keys()):
                raise InputError(f"variant {joined(head, cell)!r}: {both[0]} is set by the variant and by the grid")
            yield _variant(head, cell, TrainConfig(), {**base, **own, **place})


def _variant(head: str, cell: str, start: TrainConfig, settings: Mapping[str, Any]) -> Variant:
    name = joined(head, cell)
    try:
        return Variant(name, head, cell, start.with_settings(settings))
    except (InputError, TypeError) as error:
        raise InputError(f"variant {name!r}: {error}") from error


def _require_few(count: int) -> None:
    if count > MOST:
        raise InputError(
            f"the grid and the variants make {count:,} variants; at most {MOST:,} are taken: split the study"
        )


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
