"""The rules of the public docstrings, each a function from a name to what is wrong with it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from types import FunctionType
from typing import Any

from numpydoc.validate import validate

import etfopt
from etfopt.solvers.base import Solver
from tests.tools.public_names import Name, public_names

ARRAY = re.compile(r"\b(Array|Float64Array|ArrayLike|Tensor|ndarray|NDArray)\b")
CHECK = re.compile(r"^_?(as|require|check|checked|refuse)_")
"""How functions that only check their arguments are called: what they raise, their callers raise."""

FORMAL = ("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "GL08", "GL10", "SS02", "SS03", "SS04", "SS05", "PR02")
"""The rules of numpydoc that are kept by every docstring; those on parameters and returns are below, and stricter."""


def form(name: Name) -> list[str]:
    """Summary, order of the sections and the like, by numpydoc's own rules."""
    if not name.doc:
        return ["no docstring"]
    return [message for code, message in validate(name.path)["errors"] if code in FORMAL]


def is_protocol(kind: type) -> bool:
    """Whether a class only says what others have; nobody builds one."""
    return bool(getattr(kind, "_is_protocol", False))


def wanted_parameters(name: Name) -> list[str]:
    """Names that a caller may pass."""
    found = name.found
    if name.is_class:
        if issubclass(found, Enum) or is_protocol(found):
            return []
        if dataclasses.is_dataclass(found):
            return [field.name for field in dataclasses.fields(found) if field.init]
        if issubclass(found, tuple):
            return list(found._fields)
        own = found.__dict__.get("__init__")
        signature = inspect.signature(own) if own else None
    else:
        signature = inspect.signature(name.function) if name.function and not name.is_property else None
    if signature is None:
        return []
    parameters = list(signature.parameters)
    skipped = ("self", "cls") if name.owner or name.is_class else ()
    return [p for p in parameters if p not in skipped]


def parameters(name: Name) -> list[str]:
    """Every parameter is there by its name; of a record, every field, as a parameter or an attribute."""
    if name.command or name.inherited or (name.overrides and not name.mathematical):
        return []
    known = name.documented(*(("Parameters", "Attributes") if name.is_class else ("Parameters",)))
    missing = [parameter for parameter in wanted_parameters(name) if parameter not in known]
    return [f"parameters without a word: {', '.join(missing)}"] if missing else []


def _annotations(name: Name) -> dict[str, str]:
    if name.is_class:
        fields = inspect.get_annotations(name.found)
        init = name.found.__dict__.get("__init__")
        found = fields if dataclasses.is_dataclass(name.found) or issubclass(name.found, tuple) else {}
        found = found or (inspect.get_annotations(init) if inspect.isfunction(init) else {})
    else:
        found = inspect.get_annotations(name.function) if name.function else {}
    return {key: value if isinstance(value, str) else str(value) for key, value in found.items()}


def returns(name: Name) -> list[str]:
    """What comes back is described in a section of its own; a property is described by its text."""
    if name.is_class or name.is_property or name.command or name.inherited:
        return []
    if name.overrides and not name.mathematical:
        return []
    annotation = _annotations(name).get("return", "None")
    if annotation in ("None", "NoReturn", "Self"):
        return []
    sections = name.sections()
    if sections["Returns"] or sections["Yields"]:
        return []
    return [f"no Returns or Yields for {annotation}"]


def shapes(name: Name) -> list[str]:
    """Every array has a shape."""
    wrong = []
    known = name.documented(*(("Parameters", "Attributes") if name.is_class else ("Parameters",)))
    for parameter, annotation in _annotations(name).items():
        array = ARRAY.search(annotation) and "Callable" not in annotation
        if parameter != "return" and array and not re.search(r"shape|0-d", known.get(parameter, "shape")):
            wrong.append(f"no shape of {parameter}")
    annotation = _annotations(name).get("return", "")
    if ARRAY.search(annotation) and "Callable" not in annotation and not name.is_class:
        sections = name.sections()
        entries = [f"{e.type} {' '.join(e.desc)}" for e in [*sections["Returns"], *sections["Yields"]]]
        text = name.doc if name.is_property else " ".join(entries)
        if not re.search(r"shape|0-d", text):
            wrong.append("no shape of what is returned")
    return wrong


def raises(name: Name) -> list[str]:
    """Every exception that the code raises itself, or by the checks that it calls, is in the docstring."""
    if name.command:
        return []
    functions = [name.function] if name.function else []
    if name.is_class:
        if is_protocol(name.found):
            return []
        functions = [f for key in ("__init__", "__post_init__") if inspect.isfunction(f := vars(name.found).get(key))]
    raised = set().union(*(raised_by(function) for function in functions))
    known = {entry.type or entry.name for entry in name.sections()["Raises"]}
    known = {word for entry in known for word in re.split(r"[,\s]+", entry)}
    return [f"raises {error} and does not say so" for error in sorted(raised - known)]


@functools.cache
def raised_by(function: FunctionType) -> frozenset[str]:
    """Names of the exceptions that a function raises and does not catch, its checks included."""
    if function.__code__.co_filename.startswith("<"):  # written by dataclass or enum
        return frozenset()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    found: set[str] = set()
    for node in _walk(tree.body, frozenset()):
        statement, caught = node
        if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
            names = {_called(statement.exc)}
        elif isinstance(statement, ast.Call) and CHECK.match(_called(statement).rpartition(".")[2]):
            check = _resolved(function, _called(statement))
            names = set(raised_by(check)) if check else set()
        else:
            continue
        found |= {name for name in names if name[:1].isupper() and name not in caught}
    return frozenset(found)


def _walk(nodes: list[Any], caught: frozenset[str]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """All nodes, but for those of inner functions, with the exceptions that are caught around them."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        yield node, caught
        if isinstance(node, ast.Try):
            kinds = [handler.type for handler in node.handlers if handler.type is not None]
            named = [e for kind in kinds for e in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
            names = frozenset(map(ast.unparse, named))
            yield from _walk(node.body, caught | names)
            yield from _walk([*node.handlers, *node.orelse, *node.finalbody], caught)
        else:
            yield from _walk(list(ast.iter_child_nodes(node)), caught)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _resolved(function: FunctionType, called: str) -> FunctionType | None:
    if called.startswith("self."):
        owner = function.__globals__.get(function.__qualname__.partition(".")[0])
        found = getattr(owner, called.removeprefix("self."), None)
    else:
        found = function.__globals__.get(called)
    found = inspect.unwrap(found) if found is not None else None
    return found if inspect.isfunction(found) and found.__module__.startswith("etfopt") else None


def _record(name: Name) -> bool:
    """Whether a class only holds what others compute."""
    kind = name.found
    plain = dataclasses.is_dataclass(kind) and not issubclass(kind, Solver)
    return name.is_class and (issubclass(kind, Enum | tuple) or (plain and kind.__name__ not in etfopt.__all__))


def _check(name: Name) -> bool:
    return bool(CHECK.match(name.path.rpartition(".")[2]))


def _base(name: Name) -> bool:
    """Whether a class is shown by what is derived from it."""
    kinds = [other.found for other in public_names().values() if other.is_class]
    return name.is_class and any(issubclass(kind, name.found) for kind in kinds if kind is not name.found)


def sources(name: Name) -> list[str]:
    """A mathematical function or class names a proof in theory/ or the literature."""
    if not name.mathematical or name.owner or _record(name) or _check(name):
        return []
    said = re.search(r"theory/\w+\.py", name.doc) or name.sections()["References"]
    return [] if said else ["no theory/NAME.py and no References"]


def examples(name: Name) -> list[str]:
    """The mathematical names, and the first ones of the experiments, are shown at work."""
    if name.path not in SHOWN and (not name.mathematical or name.owner):
        return []
    if _record(name) or _check(name) or _base(name):
        return []
    return [] if ">>> " in name.doc else ["no example"]


SHOWN = frozenset(
    f"etfopt.experiments.{name}"
    for name in (
        "config._run.TrainConfig",
        "config._run.build_head",
        "train.train",
        "results.load_run",
        "study.parse_study",
        "losses.dot_regression",
        "optimizers.AGD",
        "comparison.compare",
        "comparison.sign_flip_p_value",
        "comparison.bootstrap_interval",
    )
)
"""Names outside the mathematical modules that must have an example."""
