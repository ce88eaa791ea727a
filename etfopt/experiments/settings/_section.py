"""Sections of settings: frozen records, checked by pydantic when they are made; what is wrong is said in our words."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from etfopt.errors import InputError, choices, nearest
from etfopt.experiments.settings._options import thawed

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def setting(
    default: Any,
    text: str,
    *,
    option: bool = False,
    identity: bool = True,
    since: str = "0.1",
    before: Any = None,
    **bounds: Any,
) -> Any:
    """Return the field of a setting.

    Parameters
    ----------
    default : object
        Its default.
    text : str
        What it does, for the documentation and the help of the command line.
    option : bool
        Whether the command line has an option of its own for it; ``--set`` takes all.
    identity : bool
        Whether it can change a result. The digest leaves out what cannot.
    since : str
        The version that brought it. What is younger than 0.1 is written down, and is part of the digest, only where it
        differs from its default: so the digests of recorded runs stay.
    before : object
        What older versions did where that is not the default: the value of a record that lacks the setting. It is
        always written down then, and no part of the digest where it has this value.
    **bounds
        Of `pydantic.Field`: ge, gt, le, min_length.
    """
    facts = {"option": option, "identity": identity, "since": since, "before": before}
    return Field(default, description=text, json_schema_extra=facts, **bounds)


class Section(BaseModel):
    """A frozen record of settings. Its fields are made by `setting`, or are sections themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _in_our_words(type(self), error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002 - frozen
        """Return the record with some fields replaced, checked like any other; pydantic's own checks nothing."""
        return type(self)(**{**dict(self), **(update or {})})

    def __repr__(self) -> str:
        """Return the settings that differ from their defaults."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._changed())})"

    __str__ = __repr__

    def _changed(self) -> Iterator[tuple[str, Any]]:
        """Yield the settings that differ from their defaults, by names such as "optimizer.learning_rate"."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                yield from ((f"{name}.{inner}", v) for inner, v in value._changed())
            elif value != field.get_default(call_default_factory=True):
                yield name, value

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._text() == other._text()

    def __hash__(self) -> int:
        return hash(self._text())

    def _text(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        entries = [f"{name} : {_kind(field)}\n    {field.description}" for name, field in cls.model_fields.items()]
        refused = "Raises\n------\nInputError\n    If a setting is not known, or a value is refused."
        about, _heading, example = inspect.cleandoc(cls.__doc__ or "").partition("\nExamples\n")
        parts = [about.rstrip(), "", "Attributes\n----------", *entries, "", refused, ""]
        cls.__doc__ = "\n".join([*parts, f"Examples\n{example}\n"] if example else parts)

    @model_validator(mode="before")
    @classmethod
    def _plain_numbers(cls, values: Any) -> Any:
        """Take NumPy's numbers for Python's, lists for tuples, and one zero for two."""
        return {name: _canonical(value) for name, value in values.items()} if isinstance(values, dict) else values

    @classmethod
    def topic(cls) -> str:
        """Return the name of the table of these settings, as in "optimizer"; empty for the whole."""
        return cls.__name__.removesuffix("Config").lower() if not cls.sections() else ""

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the sections of a record by name."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)}

    @classmethod
    def settings(cls) -> Iterator[tuple[str, FieldInfo]]:
        """Yield all settings by the names that ``--set`` takes, such as "optimizer.learning_rate"."""
        sections = cls.sections()
        for name, field in cls.model_fields.items():
            if name in sections:
                yield from ((f"{name}.{inner}", f) for inner, f in sections[name].settings())
            else:
                yield name, field

    def to_dict(self) -> dict[str, Any]:
        """Return the record as nested dictionaries of numbers, strings, truth values, lists and None."""
        return self._written(identity=False)

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
        sections = cls.sections()
        for name, value in values.items():
            if name in sections and not isinstance(value, Mapping):
                raise InputError(f"{name} = {value!r} must be a table of settings")
        return cls(**{key: sections[key].from_dict(v) if key in sections else v for key, v in values.items()})

    def _written(self, *, identity: bool) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                if written := value._written(identity=identity):  # a section of young defaults alone has nothing
                    values[name] = written
                continue
            facts: Any = field.json_schema_extra
            old = field.get_default(call_default_factory=True) if facts["before"] is None else facts["before"]
            young = facts["since"] != "0.1" and value == old and (identity or facts["before"] is None)
            if not young and (facts["identity"] or not identity):
                values[name] = thawed(value)
        return values

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that some version wrote: settings that it did not know have the value they had then."""
        for name, field in cls.settings() if isinstance(values, Mapping) else ():
            topic, _, key = name.rpartition(".")
            facts: Any = field.json_schema_extra
            if topic and facts["before"] is not None and isinstance(values.get(topic, {}), Mapping):
                values = {**values, topic: {key: facts["before"], **values.get(topic, {})}}
        return cls.from_dict(values)

    def digest(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of the canonical JSON: equal for equal records.

        Settings that change nothing in a result, such as where decoded images are kept, are left out.
        """
        canonical = json.dumps(self._written(identity=True), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def typed(text: str, hint: Any) -> Any:
    """Read a setting's value from a string; what cannot be read is left to the setting's own check."""
    kinds = (tuple,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
    words = {None: NoneType, True: bool, False: bool}
    for word, kind in words.items():
        if kind in kinds and text.lower() == str(word).lower():
            return word
    if tuple in kinds:
        return [typed(item.strip(), float) for item in text.strip("[] ").split(",") if item.strip()]
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _kind(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(kind))
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) + 0.0
    return tuple(value) if isinstance(value, list) else value


def _in_our_words(cls: type[Section], error: ValidationError) -> InputError:
    """Return the first refusal as an error that names setting, value and remedy."""
    details = error.errors()
    if isinstance(inner := details[0].get("ctx", {}).get("error"), InputError):
        return inner
    prefix = f"{cls.topic()}." if cls.topic() else ""
    if unknown := [f"{prefix}{d['loc'][-1]}" for d in details if d["type"] == "extra_forbidden"]:
        known = [prefix + name for name in cls.model_fields]
        said = f"unknown setting{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        return InputError(f"{said}; {nearest(unknown[0], known)}known are: {', '.join(known)}")
    name, value = str(details[0]["loc"][0]), details[0]["input"]
    field = cls.model_fields[name]
    if name in cls.sections():
        return InputError(f"{name} must be a {cls.sections()[name].__name__}; got {value!r}")
    return InputError(f"{prefix}{name} {_refusal(field, details[0], value)}")


def _refusal(field: FieldInfo, detail: ErrorDetails, value: Any) -> str:
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    above = next((bound.gt for bound in field.metadata if hasattr(bound, "gt")), None)
    kind, ctx = detail["type"], detail.get("ctx", {})
    got = f"got {value!r} of type {type(value).__name__}"
    if kind == "literal_error":
        return f"= {value!r} is not known; {choices(value, get_args(field.annotation))}"
    if kind == "less_than_equal":
        return f"must be at most {ctx['le']:g}; got {value:g}"
    if kind.startswith("int") or (kind.startswith("greater") and isinstance(value, int) and isinstance(least, int)):
        return f"must be an integer of at least {least}; {got}"
    huge = kind.startswith("float") and isinstance(value, int) and not isinstance(value, bool)
    if huge or kind.startswith(("greater", "finite")):
        bound = f"above {above:g}" if above is not None else f"at least {least or 0:g}"
        return f"must be finite and {bound}; got {'a number out of range' if huge else format(float(value), 'g')}"
    words = {
        "dict": "a table",
        "float": "a real number",
        "bool": "true or false",
        "string": "a non-empty string",
        "tuple": "a list",
    }
    wanted = next((word for start, word in words.items() if kind.startswith(start)), detail["msg"])
    return f"must be {wanted}; {got}"
