"""Every module says which extra it needs where it is missing, and each extra brings what its modules import."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import etfopt
from tests.tools import extras

PACKAGE = Path(etfopt.__file__).parent


def third_party(tree: ast.AST) -> set[str]:
    """Optional packages that a module imports; those of functions too, and none that only types need."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            found |= third_party(node)
    return found & BROUGHT.keys()


NAMES = {
    "scikit-learn": "sklearn",
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "pytorch-lightning": "pytorch_lightning",
}
BROUGHT: dict[str, set[str]] = {}
"""Every module that an extra brings, with the extras that do."""
for extra in extras.EXTRAS:
    for requirement in (line for part in extras.brought(extra) for line in extras.EXTRAS[part]):
        name = re.match(r"[\w-]+", requirement)[0]
        if name != "etfopt":
            BROUGHT.setdefault(NAMES.get(name, name), set()).add(extra)


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if third_party(ast.parse(path.read_text(encoding="utf-8")))]


def test_the_packages_of_the_extras_are_those_that_the_source_imports():
    imported = set().union(*(third_party(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES))
    elsewhere = {"mpmath", "sympy", "tensorboardX"}  # by theory/, beside the package, and by Lightning
    assert imported == BROUGHT.keys() - elsewhere


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
def test_what_a_module_imports_comes_with_the_extra_that_it_says_it_needs(path):
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    private = {"etfopt._torch": "torch", "etfopt.cli._tables": "cli", "etfopt.cli._bench_tables": "cli"}
    private |= dict.fromkeys(("etfopt.cli._settings", "etfopt.cli._training"), "experiments")
    there = extras.brought(private.get(module) or extras.needed(module) or "all")
    needed = third_party(ast.parse(path.read_text(encoding="utf-8")))
    assert not {package for package in needed if not BROUGHT[package] & there}


@pytest.fixture(scope="module")
def without_extras() -> dict[str, str]:
    """What importing each public module says where no optional package is installed; empty if it is imported."""
    script = f"""
import importlib, json, sys
for name in {sorted({*BROUGHT, "click", "lightning_fabric", "torchvision"})!r}:
    sys.modules[name] = None
import etfopt
said = {{}}
for name in {extras.modules()!r}:
    try:
        importlib.import_module(name)
        said[name] = ""
    except etfopt.MissingExtraError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=extras.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", extras.modules())
def test_every_public_module_imports_or_names_its_pip_line(name, without_extras):
    extra = extras.needed(name)
    assert without_extras[name].endswith(f"run: pip install 'etfopt[{extra}]'" if extra else "")
    assert bool(extra) == bool(without_extras[name])
