"""The public names of the package, as the tests of their docstrings read them."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from numpydoc.docscrape import NumpyDocString

import etfopt
from tests import ROOT

MATHEMATICAL = re.compile(
    r"etfopt\.(geometry|polar\..*|frames\..*|problem|certificate|adjoint|implicit|solution|_linear_term|solvers\..*|nn\..*|metrics\..*)"
)
"""Modules whose names must say where the mathematics is proved or published."""


@dataclass(frozen=True)
class Name:
    """A public class, function, method or property.

    Attributes
    ----------
    path : str
        Where it is defined, dotted.
    found : object
        As it stands in its module or class.
    owner : type, optional
        The class of a method or property.
    """

    path: str
    found: Any
    owner: type | None = None

    @property
    def function(self) -> FunctionType | None:
        """What runs: the constructor's checks are those of the class."""
        found = self.found
        found = getattr(found, "fget", None) or getattr(found, "func", None) or getattr(found, "__func__", found)
        return inspect.unwrap(found) if inspect.isfunction(inspect.unwrap(found)) else None

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.found)

    @property
    def is_property(self) -> bool:
        return isinstance(self.found, property | functools.cached_property)

    @property
    def module(self) -> str:
        return (self.owner or self.found).__module__

    @property
    def doc(self) -> str:
        return inspect.cleandoc(getattr(self.found, "__doc__", None) or "")

    @property
    def mathematical(self) -> bool:
        return bool(MATHEMATICAL.fullmatch(self.module))

    @property
    def command(self) -> bool:
        """Whether it is a command, whose docstring is the help text and whose options document themselves."""
        return self.module.startswith("etfopt.cli")

    @property
    def overrides(self) -> bool:
        """Whether the contract of a method is that of a class of another package, which calls it."""
        bases = self.owner.__mro__[1:] if self.owner else ()
        name = self.path.rpartition(".")[2]
        return any(name in vars(base) and not base.__module__.startswith("etfopt") for base in bases)

    @property
    def inherited(self) -> bool:
        """Whether it is a method that a base class in etfopt declares and documents."""
        bases = self.owner.__mro__[1:] if self.owner else ()
        return any(_ours(base) and self.path.rpartition(".")[2] in vars(base) for base in bases)

    def sections(self) -> dict[str, list[Any]]:
        """The docstring's sections as numpydoc reads them."""
        return dict(NumpyDocString(self.doc))

    def documented(self, *sections: str) -> dict[str, str]:
        """Names in these sections with their types and descriptions; of a class, also what its bases document."""
        found: dict[str, str] = {}
        texts = [self.doc]
        if self.is_class:
            texts += [inspect.cleandoc(b.__doc__ or "") for b in self.found.__mro__[1:] if _ours(b)]
        for text in texts:
            read = dict(NumpyDocString(text))
            for section in sections:
                for entry in read[section]:
                    for name in re.split(r",\s*", entry.name):
                        found.setdefault(name.lstrip("*"), f"{entry.type}\n{' '.join(entry.desc)}")
        return found


def _ours(kind: type) -> bool:
    return kind.__module__.startswith("etfopt")


def modules() -> list[str]:
    """The public modules: no part of the name begins with an underscore."""
    found = [module.name for module in pkgutil.walk_packages(etfopt.__path__, "etfopt.")]
    return sorted(["etfopt", *(name for name in found if not re.search(r"\._", name))])


def referenced() -> list[Any]:
    """What the pages of docs/reference/ list; of a module, all that it exports."""
    found: list[Any] = []
    text = "\n".join(page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md")))
    for block in re.findall(r"```\{eval-rst\}\n(.*?)```", text, re.DOTALL):
        current = re.search(r"\.\. currentmodule:: (\S+)", block)
        for entry in re.findall(r"^   (\w[\w.]*)$", block, re.MULTILINE):
            listed = pkgutil.resolve_name(f"{current[1]}.{entry}" if current else entry)
            found += [listed, *(getattr(listed, name) for name in getattr(listed, "__all__", ()))]
    return found


@functools.cache
def public_names() -> dict[str, Name]:
    """What the reference lists, by the path of its definition, classes before their members."""
    names: dict[str, Name] = {}
    for found in referenced():
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            continue
        path = f"{found.__module__}.{found.__qualname__}"
        names[path] = Name(path, found)
        for member, value in vars(found).items() if inspect.isclass(found) else ():
            described = isinstance(value, property | functools.cached_property | classmethod | staticmethod)
            if not member.startswith("_") and (described or inspect.isfunction(value)):
                names[f"{path}.{member}"] = Name(f"{path}.{member}", value, found)
    return names
