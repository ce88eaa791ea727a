"""What docs/promises.md calls stable, as it was written down: ``python -m tests.tools.promised`` writes it anew.

A release may add names, arguments with a default, options and keys. ``promised.json`` is written anew only where one
is taken away on purpose, which the changelog then says.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import json
import operator
import pkgutil
import re
import sys
import tempfile
from importlib import import_module
from typing import Any

import numpy as np
from typer.main import get_command
from typer.testing import CliRunner

from etfopt.cli import app
from tests import ROOT

FILE = ROOT / "tests" / "docs" / "promised.json"
ROOT_COMMAND = get_command(app)

LONG = 60
"""A default whose text is longer is written as three dots."""

HEADS = ("NearestETFHead", "FixedETFHead", "LearnedHead")
METRICS = ("NeuralCollapse", "CosineMargin", "NumericalRank", "NearestMeanMismatch")

SHOWN = {
    "solve": "solve means.npy",
    "frame": "frame --dim 3 --classes 4",
    "measure": "measure layers.npz",
    "verify": "verify --claim simplex --budget 2",
}
"""Commands that are quick enough to be run for the keys of their ``--json`` alone."""


def listed() -> dict[str, Any]:
    """What the API reference lists, by the name that a user imports."""
    found: dict[str, Any] = {}
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for block in re.findall(r"```\{eval-rst\}\n(.*?)```", page.read_text(), re.DOTALL):
            current = re.search(r"\.\. currentmodule:: (\S+)", block)
            for entry in re.findall(r"^   (\w[\w.]*)$", block, re.MULTILINE):
                module = current[1] if current else entry.rpartition(".")[0]
                name = f"{module}.{entry.removeprefix(f'{module}.')}"
                try:  # a function before a module of the same name
                    value = operator.attrgetter(name.removeprefix(f"{module}."))(import_module(module))
                except AttributeError:
                    value = pkgutil.resolve_name(name)
                found[name] = value
                found |= {f"{name}.{one}": getattr(value, one) for one in getattr(value, "__all__", ())}
    return found


def names() -> dict[str, dict[str, list[str]]]:
    """Return the parameters of all that is listed, under the empty name, and of the public members of classes."""
    found = {}
    for name, value in sorted(listed().items()):
        found[name] = {"": parameters(value)}
        own = inspect.isclass(value) and value.__module__.startswith("etfopt")
        bases = [base for base in value.__mro__ if base.__module__.startswith("etfopt")] if own else []
        members = sorted({one for base in bases for one in vars(base) if not one.startswith("_")})
        found[name] |= {one: parameters(getattr(value, one)) for one in members}
    return found


def parameters(value: object) -> list[str]:
    """Return the parameters of what can be called, with short defaults; an asterisk begins those by keyword alone."""
    try:
        enumeration = isinstance(value, type) and issubclass(value, enum.Enum)  # its signature is Python's
        signature = inspect.signature(value) if callable(value) and not enumeration else None
    except (TypeError, ValueError):
        signature = None
    shown: list[str] = []
    for one in signature.parameters.values() if signature else ():
        if one.kind is one.KEYWORD_ONLY and not any(text.startswith("*") for text in shown):
            shown.append("*")
        default = re.sub(r"<(\w+) (\S+?) at 0x\w+>", r"<\1 \2>", repr(one.default))
        default = default if len(default) < LONG else "..."
        name = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "") + one.name
        shown.append(name if one.default is one.empty else f"{name}={default}")
    return shown


def options(group: Any = ROOT_COMMAND, path: str = "etfopt") -> dict[str, list[str]]:
    """Return the options of every command, by its words."""
    found = {path: sorted(o for one in group.params for o in (*one.opts, *one.secondary_opts) if o.startswith("--"))}
    for name, command in getattr(group, "commands", {}).items():
        found |= options(command, f"{path} {name}")
    return found


def keys(command: str) -> set[str]:
    """The keys that a command's ``--json`` had when they were written down."""
    return set(json.loads(FILE.read_text())["json"][command])


def printed(command: str) -> dict[str, Any]:
    """Run a command of `SHOWN` in this folder, and return what its ``--json`` prints."""
    rng = np.random.default_rng(0)
    np.save("means.npy", rng.standard_normal((5, 3)))
    np.savez("layers.npz", features=rng.standard_normal((12, 4)), labels=np.arange(12) % 3)
    done = CliRunner().invoke(app, [*SHOWN[command].split(), "--json"], catch_exceptions=False)
    return dict(json.loads(done.stdout))


def states() -> dict[str, dict[str, str]]:
    """Return dtype and shape of all that the state of a head and of a metric holds."""
    import torch

    from etfopt import metrics, nn

    with torch.random.fork_rng():
        modules: list[Any] = [getattr(nn, name)(dim=6, num_classes=4) for name in HEADS]
    for name in METRICS:
        modules.append(metric := getattr(metrics, name)(num_classes=4, dim=6))
        metric.persistent(True)
    return {type(module).__name__: {key: _kept(x) for key, x in module.state_dict().items()} for module in modules}


def _kept(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__


def main() -> None:
    """Write down what is promised from here on."""
    was = json.loads(FILE.read_text())["json"] if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shown = {command: sorted(printed(command)) for command in SHOWN}
    promised = {"names": names(), "options": options(), "json": was | shown, "states": states()}
    lines = (
        f"  {json.dumps(part)}: {{\n"
        + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
        + "\n  }"
        for part, entries in promised.items()
    )
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
