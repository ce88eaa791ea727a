"""Names for one kind of thing, each with an import path, so that what is named is imported only when it is used."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etfopt.errors import InputError, choices

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Registry:
    """The things of one kind that can be named: built-in ones by name, anyone's own by import path.

    Making a registry, and checking a name against it, imports nothing of what is named.
    """

    kind: str  # what is named, in messages: "solver"
    paths: Mapping[str, str]  # from names to import paths, "package.module:attribute"

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    @property
    def listed(self) -> str:
        """All that can be given, as a help text says it."""
        return f"{', '.join(self.paths)}, or the import path of your own"

    def checked(self, name: object, argument: str = "") -> str:
        """Return a known name or an import path, or raise `InputError` that names the argument (or the kind)."""
        if isinstance(name, str) and (name in self.paths or IMPORT_PATH.fullmatch(name)):
            return name
        said = argument or self.kind
        remedy = f"{choices(name, self.paths)}; or name your own by its import path, package.module:name"
        raise InputError(f"{said} = {name!r} is not known", said, name, remedy)

    def load(self, name: str, argument: str = "") -> Any:
        """Import what a name or an import path stands for, or raise `InputError` or `MissingExtraError`."""
        name = self.checked(name, argument)
        module, _, attribute = self.paths.get(name, name).partition(":")
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and fails by itself
            raise InputError(
                f"{argument or self.kind} = {name!r}: there is no module {error.name}; install it, or start from the "
                "folder that it lies in"
            ) from error
        if attribute == "__all__":
            attribute = found.__all__[0]
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError as error:
            raise InputError(f"{argument or self.kind} = {name!r}: {error}; name what the module defines") from error
        return found


def modules_of(package: str, folder: Path) -> dict[str, str]:
    """Return a path for each public module of a folder: the module `trust_region` offers "trust-region".

    A module offers the first name of its ``__all__``. A new module is a new name. Nothing is imported.
    """
    names = sorted(path.stem for path in folder.glob("[!_]*.py") if path.stem != "base")
    return {name.replace("_", "-"): f"{package}.{name}:__all__" for name in names}


def called(
    make: Callable[..., Any], where: str, *args: Any, offers: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """Return what a factory makes of its arguments, the options, and those of the offers that it has parameters for.

    An option replaces an offer. Raises `InputError`, with the setting `where` ("backbone"), if the arguments do not
    fit the factory's signature.
    """
    if not callable(make):
        raise InputError(f"{where}: {make!r} cannot be called; name a class or a function")
    try:
        known = inspect.signature(make).parameters
    except ValueError:  # of some that are written in C
        known = MappingProxyType({})
    taken = {name: value for name, value in offers.items() if name in known}
    try:
        if known:
            inspect.signature(make).bind(*args, **{**taken, **options})
        return make(*args, **{**taken, **options})
    except TypeError as error:
        if "argument" not in str(error):
            raise
        name = getattr(make, "__qualname__", repr(make))
        raise InputError(f"{where}: {name}: {error}; its arguments are to be given in {where}.options") from error


def takes_any_keyword(make: Callable[..., Any]) -> bool:
    """Return whether a factory takes keyword arguments of any name."""
    try:
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return False
