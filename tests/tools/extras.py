"""Which extra each public module of the package needs, and which modules each extra promises; no test in itself."""

import re
import tomllib

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: requirements
    for name, requirements in PROJECT["optional-dependencies"].items()
    if name not in ("docs", "dev", "integrations", "timm")  # they are for the checkout
}

NEEDS = {  # a module and all below it; the longest name that fits counts, and what fits none is the core
    "etfopt.nn": "torch",
    "etfopt.metrics": "metrics",
    "etfopt.plotting": "plots",
    "etfopt.experiments": "experiments",
    "etfopt.cli": "cli",
    "etfopt.solvers.conjugate_gradient": "riemannian",
    "etfopt.solvers.steepest_descent": "riemannian",
    "etfopt.solvers.trust_region": "riemannian",
    "etfopt.solvers.convex_relaxation": "convex",
    "etfopt._memory": "torch",
    "etfopt.bench.head": "experiments",
    "etfopt.bench.loops": "experiments",
    "etfopt.bench.measures": "metrics",
    "etfopt.bench.node": "torch",
    "etfopt.bench.peers": "torch",
    "etfopt.bench.pipelines": "riemannian",
}


def modules() -> list[str]:
    """Return the public modules of the checkout: those of whose names none begins with an underscore."""
    found = []
    for path in sorted((ROOT / "etfopt").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return found


def needed(module: str) -> str:
    """Return the extra that a module needs; empty for the core."""
    fitting = [name for name in NEEDS if module == name or module.startswith(f"{name}.")]
    return NEEDS[max(fitting, key=len)] if fitting else ""


def brought(extra: str) -> set[str]:
    """Return the extras that one brings along, itself among them."""
    found = {extra}
    for requirement in EXTRAS[extra]:
        if inner := re.match(r"etfopt\[([\w,]+)\]", requirement):
            found = found.union(*map(brought, inner[1].split(",")))
    return found


def promised(extra: str) -> tuple[list[str], list[str]]:
    """Return the modules that import with one extra alone, and those that do not; without an extra, for ""."""
    there = {"", *(brought(extra) if extra else ())}
    names = modules()
    return [name for name in names if needed(name) in there], [name for name in names if needed(name) not in there]
