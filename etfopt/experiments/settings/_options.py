"""Keyword arguments in a configuration: plain values that cannot be changed."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Annotated, Any

from pydantic import AfterValidator

from etfopt.errors import InputError


class Frozen(dict[str, Any]):
    """A table that cannot be changed."""

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("the options of a configuration cannot be changed; make another one by with_settings")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment] # none of them returns
    update = pop = popitem = clear = setdefault = _refuse  # type: ignore[assignment] # as above

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (dict(self),)


def frozen(value: Any) -> Any:
    """Return a value of plain numbers, strings, truth values, None, tuples and frozen tables."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return Frozen({key: frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value) + 0.0
    raise InputError(
        f"an option is {value!r} of type {type(value).__name__}; options are finite numbers, strings, true or false, "
        "lists and tables of these: make anything else from them in your own code"
    )


def thawed(value: Any) -> Any:
    """Return a copy for JSON."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return list(map(thawed, value)) if isinstance(value, tuple) else value


Options = Annotated[dict[str, Any], AfterValidator(frozen)]


def guessed(text: str) -> Any:
    """Read an option that was typed: none, or what TOML reads (true, 3, 1e-3, [1, 2], "text"), or the text itself."""
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        try:
            return float(text)
        except ValueError:
            return text
