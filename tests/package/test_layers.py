"""Nothing optional leaks into the core, and layers see only lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import etfopt
from tests import ROOT

PACKAGE = Path(etfopt.__file__).parent
SOLVERS = "etfopt.solvers"
OPTIONAL = (
    *("torch", "torchvision", "torchmetrics", "pytorch_lightning", "lightning", "pymanopt", "autograd", "cvxpy"),
    *("clarabel", "scs", "jax", "matplotlib", "sklearn", "pandas", "typer", "rich", "click", "hypothesis", "pytest"),
)


def python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter that sees the same package and treats warnings as errors."""
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-P", "-W", "error", "-c", script]  # -P: not whatever lies in the working directory
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def succeeds(script: str) -> str:
    done = python(script)
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
"""


def test_importing_the_core_brings_in_numpy_and_scipy_only():
    script = """
import sys, numpy, scipy.linalg
before = set(sys.modules)
import etfopt
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
print(*sorted(name for name in sys.modules if name.partition(".")[0] in OPTIONAL))
"""
    third_party, optional = succeeds(f"OPTIONAL = {OPTIONAL!r}\n{script}").split("\n")[:2]
    assert third_party == "etfopt"
    assert optional == ""


def test_the_core_solves_certifies_and_differentiates_with_everything_optional_blocked():
    succeeds(
        BLOCKER
        + """
import numpy as np, etfopt
from etfopt.adjoint import nearest_etf_vjp
solution = etfopt.nearest_etf(np.eye(6, 4), prox=np.eye(6, 4), delta=1e-3)
assert solution.converged and solution.certificate.unique and solution.distance >= 0
assert nearest_etf_vjp(solution.problem, solution.U, np.ones((6, 4))).H.shape == (6, 4)
try:
    import torch
except ImportError:
    pass
else:
    raise AssertionError("the blocker does not block")
"""
    )


MISSING = [  # one package of several; tests/package/test_extras.py has every module with none of them
    *(("etfopt.metrics", name, "metrics") for name in ("torch", "torchmetrics")),
    *(("etfopt.experiments", name, "experiments") for name in ("torch", "pytorch_lightning", "sklearn", "matplotlib")),
]


@pytest.mark.parametrize(("module", "package", "extra"), MISSING)
def test_a_missing_extra_is_named_with_its_pip_line(module, package, extra):
    script = f"""
import sys, etfopt
sys.modules[{package!r}] = None  # what an import finds for a package that is not there
try:
    import {module}
except etfopt.MissingExtraError as error:
    assert isinstance(error, (ImportError, etfopt.EtfoptError))
    print(error.name, error)
"""
    said = succeeds(script)
    assert said.startswith(f"{package} {package} is not installed")
    assert f"pip install 'etfopt[{extra}]'" in said


@pytest.mark.parametrize("command", ["solve --help", "demo --help"])
def test_a_missing_command_line_extra_is_one_line_and_no_traceback(command):
    script = f"""
import sys
sys.modules["typer"] = None
sys.argv = ["etfopt", *{command!r}.split()]
from etfopt.__main__ import main
main()
"""
    done = python(script)
    assert done.returncode == 2
    assert "pip install 'etfopt[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_layering_rule_holds():
    pytest.importorskip("importlinter")
    done = python("from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("path", sorted((PACKAGE / "solvers").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_solver_knows_no_other_solver(path):
    """Nor does one that is added tomorrow: it imports the protocol and private helpers alone."""
    if path.stem == "relaxation":  # the deprecated name of a module
        return
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names = {alias.name for n in nodes if isinstance(n, ast.ImportFrom) and n.module == SOLVERS for alias in n.names}
    seen = {module.removeprefix(f"{SOLVERS}.") for module in modules if module.startswith(f"{SOLVERS}.")} | names
    assert all(name == "base" or name.startswith("_") for name in seen)


LAZY = """
import sys
from etfopt.solvers import SOLVERS, {name}, as_solver
assert as_solver("procrustes").method == "auto" and "trust-region" in SOLVERS
assert not {others} & set(sys.modules), set(sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "others"),
    [("Procrustes", {"pymanopt", "autograd", "cvxpy"}), ("TrustRegion", {"cvxpy"}), ("ConvexRelaxation", {"pymanopt"})],
)
def test_a_solver_is_imported_without_the_extras_of_others(name, others):
    pytest.importorskip("pymanopt")
    pytest.importorskip("cvxpy")
    succeeds(LAZY.format(name=name, others=others))


OPTIONAL_MODULES = {"__main__", "_memory", "_torch"}
CORE = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in OPTIONAL_MODULES)


@pytest.mark.parametrize("name", [*CORE, "solvers/__init__", "solvers/base", "solvers/procrustes"])
def test_no_module_of_the_core_imports_an_optional_package_even_inside_a_function(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {module.partition(".")[0] for module in imported} & set(OPTIONAL)


def test_every_error_is_caught_by_the_common_base_and_by_its_builtin():
    builtin = {"InputError": ValueError, "ConvergenceError": RuntimeError, "MissingExtraError": ImportError}
    for name, base in builtin.items():
        assert issubclass(getattr(etfopt, name), etfopt.EtfoptError)
        assert issubclass(getattr(etfopt, name), base)
