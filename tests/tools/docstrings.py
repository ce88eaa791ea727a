"""The rules of the public docstrings, each a function from a name to what is wrong with it.

numpydoc checks form, parameters and returns. It cannot know the rest: shapes, sources, examples, exceptions. pydoclint
knows none of these either, refuses "shape (d, C)" where it expects the annotation, and cannot read two parameters in
one line.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from enum import Enum
from types import FunctionType

from numpydoc.validate import validate

import etfopt
from etfopt.solvers.base import Solver
from tests.tools.public_names import Name, public_names

ARRAY = re.compile(r"^(?!.*Callable).*\b(Array|Float64Array|ArrayLike|Tensor|ndarray|NDArray)\b")
SHAPE = re.compile(r"shape|0-d")
CHECK = re.compile(r"^_?(as|require|check|checked|refuse)_")
"""Functions with such a name check their arguments; what they raise, their callers raise."""

FORM = ("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08", "GL10", "SS02", "SS03", "SS04", "SS05", "PR02", "PR03")
CALLED = ("PR01", "RT01", "YD01")
"""numpydoc's rules for functions: parameters, Returns and Yields."""

SHOWN = ("TrainConfig", "build_head", "train", "load_run", "parse_study", "dot_regression", "AGD", "compare")
"""Names of the experiments that must have an example."""


def form(name: Name) -> list[str]:
    """Form by numpydoc's rules, and for functions that are no commands or hooks of other packages, completeness."""
    if not name.doc:
        return ["no docstring"]
    elsewhere = name.inherited or (name.overrides and not name.mathematical)
    called = not (name.is_class or name.is_property or name.command or elsewhere)
    codes = (*FORM, *(CALLED if called else ()))
    codes = [code for code in codes if code != "RT01" or _annotations(name).get("return") != "Self"]
    found = [message for code, message in validate(name.path)["errors"] if code in codes]
    return [message for message in found if message != "Unknown parameters {'**options'}"]  # of a TypedDict


def fields(name: Name) -> list[str]:
    """Every field of a record and every parameter of a constructor is described, as a parameter or an attribute."""
    kind = name.found
    if not name.is_class or issubclass(kind, Enum) or is_protocol(kind):
        return []
    if dataclasses.is_dataclass(kind):
        wanted = [field.name for field in dataclasses.fields(kind) if field.init]
    elif issubclass(kind, tuple):
        wanted = list(kind._fields)
    else:
        own = kind.__dict__.get("__init__")
        wanted = list(inspect.signature(own).parameters)[1:] if own else []
    known = name.documented("Parameters", "Attributes")
    missing = [field for field in wanted if field not in known]
    if "options" in missing and all(key in known for key in inspect.signature(kind).parameters):
        missing.remove("options")  # one by one
    return [f"parameters without a word: {', '.join(missing)}"] if missing else []


def is_protocol(kind: type) -> bool:
    """Whether a class only says what others have; nobody builds one."""
    return bool(getattr(kind, "_is_protocol", False))


def _annotations(name: Name) -> dict[str, str]:
    found = name.function
    if name.is_class:
        record = dataclasses.is_dataclass(name.found) or issubclass(name.found, tuple)
        found = name.found if record else vars(name.found).get("__init__")
    annotations = inspect.get_annotations(found) if inspect.isclass(found) or inspect.isfunction(found) else {}
    return {key: value if isinstance(value, str) else str(value) for key, value in annotations.items()}


def shapes(name: Name) -> list[str]:
    """Every array has a shape."""
    annotations = {key: value for key, value in _annotations(name).items() if ARRAY.search(value)}
    known = name.documented("Parameters", *(["Attributes"] if name.is_class else []))
    wrong = [f"no shape of {key}" for key in annotations if not SHAPE.search(known.get(key, "shape"))]
    if "return" in annotations and not name.is_class:
        sections = name.sections()
        entries = [f"{e.type} {' '.join(e.desc)}" for e in [*sections["Returns"], *sections["Yields"]]]
        if not SHAPE.search(name.doc if name.is_property else " ".join(entries)):
            wrong.append("no shape of what is returned")
    return wrong


def raises(name: Name) -> list[str]:
    """Every exception that the code of a function or constructor raises itself is in the docstring."""
    functions = [name.function] if name.function else []
    if name.is_class and not is_protocol(name.found):
        functions = [f for key in ("__init__", "__post_init__") if inspect.isfunction(f := vars(name.found).get(key))]
    if name.command:
        return []
    raised = set().union(*map(raised_by, functions))
    known = set(re.split(r"[,\s]+", " ".join(entry.type or entry.name for entry in name.sections()["Raises"])))
    return [f"raises {error} and does not say so" for error in sorted(raised - known)]


def raised_by(function: FunctionType) -> set[str]:
    """Names of the exceptions that a function raises itself and does not catch; a check that it calls raises ours."""
    if function.__code__.co_filename.startswith("<"):  # written by dataclass or enum
        return set()
    code = inspect.getsource(function)
    raised = set(re.findall(r"^\s*raise ([A-Z]\w+)\(", code, re.MULTILINE))
    raised |= (
        {"InputError"} if re.search(r"(?<![\w.])_?(as|require|check|refuse)_\w+\(", code.partition(":\n")[2]) else set()
    )
    caught = re.findall(r"^\s*except \(?([\w, |]+)\)?", code, re.MULTILINE)
    return raised - set(re.split(r"\W+", " ".join(caught)))


def _explained_elsewhere(name: Name) -> bool:
    """Whether a name is a check, or a class that only holds results."""
    kind = name.found
    record = dataclasses.is_dataclass(kind) and not issubclass(kind, Solver) and kind.__name__ not in etfopt.__all__
    return bool(CHECK.match(name.path.rpartition(".")[2])) or (
        name.is_class and (record or issubclass(kind, Enum | tuple))
    )


def sources(name: Name) -> list[str]:
    """A mathematical function or class names a proof in theory/ or the literature."""
    if not name.mathematical or name.owner or _explained_elsewhere(name):
        return []
    said = re.search(r"theory/\w+\.py", name.doc) or name.sections()["References"]
    return [] if said else ["no theory/NAME.py and no References"]


def examples(name: Name) -> list[str]:
    """The mathematical names, and the first ones of the experiments, are shown at work; bases by what derives."""
    first = name.path.startswith("etfopt.experiments.") and name.path.rpartition(".")[2] in SHOWN
    if name.owner or not (first or name.mathematical) or _explained_elsewhere(name):
        return []
    kinds = [other.found for other in public_names().values() if other.is_class]
    if name.is_class and any(issubclass(kind, name.found) for kind in kinds if kind is not name.found):
        return []
    return [] if ">>> " in name.doc else ["no example"]
