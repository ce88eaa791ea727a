"""The page of all error messages, read from the source before the build."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "etfopt"
KINDS = ("InputError", "ConvergenceError", "EtfoptError", "MissingExtraError", "StorageError")

INTRODUCTION = """# All error messages

Search this page for a part of your message that holds no name or number of yours. Words in braces stand for what the
message inserts. Where a remedy is fixed, it follows the message. [What to do when ...](howto/errors.md) explains the
frequent ones.
"""


class Message(NamedTuple):
    """One message of the source: the module and the exception that raises it, its text and its remedy."""

    module: str
    kind: str
    text: str
    remedy: str


def messages(package: Path = PACKAGE) -> list[Message]:
    """Return every message that a ``raise`` of the package states itself, by module."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [message for function in _functions(tree) for message in _raised(function, module)]
    return sorted(set(found))


def write_messages(target: Path) -> None:
    """Write the page."""
    lines = [INTRODUCTION]
    group = ""
    for message in messages():
        if message.module != group:
            group = message.module
            lines += [f"\n## {group}\n"]
        remedy = f" **Remedy:** {_plain(message.remedy)}" if message.remedy else ""
        lines.append(f"- {_plain(message.text)}{remedy}")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _raised(function: ast.AST, module: str) -> Iterator[Message]:
    """Yield the messages of a function; one that stands in a variable is looked up among its assignments."""
    known = {
        target.id: _text(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        call = node.exc
        kind = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if kind not in KINDS or not call.args:
            continue
        remedies = [keyword.value for keyword in call.keywords if keyword.arg == "remedy"] or call.args[3:4]
        text, remedy = (_text(part, known) for part in (call.args[0], *(remedies or [ast.Constant("")])))
        if len(re.findall(r"\b[a-z]{2,}\b", re.sub(r"\{[^}]*\}", "", text))) > 1:  # not only what another function says
            yield Message(module, kind, text, remedy)


def _text(node: ast.expr, known: dict[str, str] | None = None) -> str:
    """Return what an expression says, with names in braces for what it inserts."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(_text(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, known) + _text(right, known)
        case ast.Name(id=name) if known and name in known:
            return known[name]
        case ast.FormattedValue(value=value):
            return "{" + re.sub(r"\W+", " ", ast.unparse(value)).strip() + "}"
        case _:
            return ""


def _plain(text: str) -> str:
    """Return text so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#$~])", r"\\\1", " ".join(text.split()))
