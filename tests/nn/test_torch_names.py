"""What `etfopt.nn` loads, and where the package uses names that PyTorch does not promise to keep."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
import etfopt

PACKAGE = Path(etfopt.__file__).parent
OURS = {"self", "self.learned", "cls", "super()", "incoming"}
"""What may have private attributes of our own."""


def test_importing_the_bridge_loads_neither_the_compiler_nor_scipy():
    program = "import sys, etfopt.nn; print({'torch._dynamo', 'sympy', 'scipy.linalg'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def borrowed(source: str) -> list[str]:
    """Private names of others that a module uses."""
    found = []
    for node in ast.walk(ast.parse(source)):
        attribute = isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in ("_replace", "_asdict")
        if attribute and ast.unparse(node.value) not in OURS:
            found.append(ast.unparse(node))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            found += [f"{node.module}.{x.name}" for x in node.names if private(f"{node.module}.{x.name}")]
    return found


def test_private_names_of_torch_are_used_in_one_file():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "torch" in (source := path.read_text(encoding="utf-8")) and borrowed(source)
    }
    assert users == {"_torch.py"}
