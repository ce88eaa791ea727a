"""Sections of a configuration: frozen records whose every field is checked and made canonical when they are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Self, TypeVar

from etfopt._arrays import as_integer
from etfopt.errors import InputError

__all__ = ["Section", "choice", "flag", "integer", "number", "optional", "setting", "text"]

Check = Callable[[Any, str], Any]
"""Takes a value and the setting's name; returns the value in canonical form, or raises `InputError`."""

T = TypeVar("T")


def setting(default: T, check: Check, *, identity: bool = True) -> T:
    """Return a dataclass field with a default and a check; without identity, the digest leaves it out."""
    field: T = dataclasses.field(default=default, metadata={"check": check, "identity": identity})
    return field


def choice(*known: str) -> Check:
    """Return a check for one of some words."""

    def check(value: Any, name: str) -> str:
        if value not in known:
            raise InputError(f"{name} = {value!r} is not known; choose one of: {', '.join(known)}")
        return str(value)

    return check


def number(least: float = 0.0, most: float = math.inf, *, above: float = -math.inf) -> Check:
    """Return a check for a finite real number, at least `least`, at most `most`, greater than `above`."""

    def check(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{name} must be a real number; got {value!r} of type {type(value).__name__}")
        try:
            x = float(value)
        except OverflowError:
            x = math.inf
        if not math.isfinite(x) or x <= above or x < least:
            bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
            raise InputError(f"{name} must be finite and {bound}; got {x}")
        if x > most:
            raise InputError(f"{name} must be at most {most:g}; got {x:g}")
        return x + 0.0  # one zero, not two

    return check


def integer(least: int, most: int | None = None) -> Check:
    """Return a check for an integer of at least `least` and at most `most`."""

    def check(value: Any, name: str) -> int:
        n = as_integer(value, name, at_least=least)
        if most is not None and n > most:
            raise InputError(f"{name} must be at most {most}; got {n}")
        return n

    return check


def flag(value: Any, name: str) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false; got {value!r} of type {type(value).__name__}")
    return value


def text(value: Any, name: str) -> str:
    """Check a string."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} must be a non-empty string; got {value!r}")
    return value


def optional(check: Check) -> Check:
    """Return a check that lets None pass."""
    return lambda value, name: None if value is None else check(value, name)


@dataclasses.dataclass(frozen=True)
class Section:
    """A frozen record of settings; fields are made by `setting`, or are sections themselves."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if (kind := _section(field)) is not None:
                if not isinstance(value, kind):
                    raise InputError(f"{field.name} must be a {kind.__name__}; got {value!r}")
                continue
            checked = field.metadata["check"](value, self._path(field.name))
            object.__setattr__(self, field.name, checked)

    @classmethod
    def _path(cls, name: str) -> str:
        """Name of a setting in messages, as `--set` takes it: "optimizer.learning_rate"."""
        topic = cls.__name__.removesuffix("Config").lower()
        return name if cls._nested() else f"{topic}.{name}"

    @classmethod
    def _nested(cls) -> bool:
        return any(_section(field) is not None for field in dataclasses.fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as nested dictionaries of numbers, strings, truth values, lists and None."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of a nested dictionary, such as `to_dict` gives; what is left out has its default.

        Raises
        ------
        InputError
            If a key is not known (the known ones are listed), or a value is refused.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a table of settings is needed; got a {type(values).__name__}")
        sections = _sections(cls)
        _refuse_unknown(values, cls, "")
        arguments: dict[str, Any] = {}
        for key, value in values.items():
            kind = sections.get(key)
            if kind is not None:
                if not isinstance(value, Mapping):
                    raise InputError(f"{key} = {value!r} must be a table of settings")
                _refuse_unknown(value, kind, f"{key}.")
            arguments[key] = value if kind is None else kind(**{name: _frozen(item) for name, item in value.items()})
        return cls(**arguments)

    def _identity(self) -> dict[str, Any]:
        """Return `to_dict` without the settings that are no part of the digest."""
        values = self.to_dict()
        for field in dataclasses.fields(self):
            if _section(field) is not None:
                values[field.name] = getattr(self, field.name)._identity()
            elif not field.metadata["identity"]:
                del values[field.name]
        return values

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of the canonical JSON: equal for equal records.

        Settings that change nothing in a result, such as where decoded images are kept, are left out.
        """
        canonical = json.dumps(self._identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _sections(cls: type[Section]) -> dict[str, type[Section]]:
    return {f.name: kind for f in dataclasses.fields(cls) if (kind := _section(f)) is not None}


def _section(field: dataclasses.Field[Any]) -> type[Section] | None:
    factory: Any = field.default_factory
    return factory if isinstance(factory, type) and issubclass(factory, Section) else None


def _refuse_unknown(values: Mapping[str, Any], cls: type[Section], prefix: str) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    unknown: Sequence[str] = [f"{prefix}{key}" for key in values if key not in known]
    if unknown:
        raise InputError(
            f"unknown setting{'s' * (len(unknown) > 1)} {', '.join(unknown)}; "
            f"known are: {', '.join(prefix + name for name in known)}"
        )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
