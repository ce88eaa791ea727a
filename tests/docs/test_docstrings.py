"""Every public name says what it takes, gives and refuses, and where it comes from; its examples run as written."""

import dataclasses
import doctest
import importlib
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT

pytest.importorskip("numpydoc")
torch = pytest.importorskip("torch")
for extra in ("pymanopt", "cvxpy", "torchmetrics", "pytorch_lightning", "typer", "matplotlib"):
    pytest.importorskip(extra)
from etfopt.polar import polar_factor
from tests.tools import docstrings
from tests.tools.public_names import Name, modules, public_names, referenced

RULES = (
    docstrings.form,
    docstrings.fields,
    docstrings.shapes,
    docstrings.raises,
    docstrings.sources,
    docstrings.examples,
)
SOURCES = sorted([*(ROOT / "etfopt").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("[eh]*/*.md")])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_public_docstring_keeps_the_rule(rule) -> None:
    wrong = {path: found for path, name in public_names().items() if (found := rule(name))}
    assert not wrong


def test_public_names_are_found_by_the_hundred_and_members_with_them() -> None:
    assert len(public_names()) > 150
    assert {"etfopt.problem.NearestETF", "etfopt.problem.NearestETF.objective"} <= public_names().keys()


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert importlib.import_module(module).__doc__ or module == "etfopt.solvers"  # which is empty on purpose


# --- the rules themselves: each must see what it is there for -------------------------------------------------------


def refuses(X):
    if not X:
        raise ValueError("X is empty")


def without_words(X: np.ndarray, size: int) -> np.ndarray:
    """Return something."""
    refuses(X)
    if size:
        raise TypeError(f"size = {size}")
    try:
        raise KeyError(size)
    except KeyError:
        return X


def without_shapes(X: np.ndarray) -> np.ndarray:
    """Return something.

    Parameters
    ----------
    X : ndarray
        Its size is not said.

    Returns
    -------
    ndarray
        Nor is this one's.
    """
    return X


@dataclasses.dataclass
class Record:
    """A record whose field has no word."""

    size: int


def test_each_rule_sees_what_is_missing(monkeypatch) -> None:
    bare = Name("tests.docs.test_docstrings.without_words", without_words)
    shapeless = Name("tests.docs.test_docstrings.without_shapes", without_shapes)
    words, missing = docstrings.form(bare)
    assert re.fullmatch(r"Parameters \{'(X|size)', '(X|size)'\} not documented", words)
    assert missing == "No Returns section found"
    assert docstrings.fields(Name("r.Record", Record)) == ["parameters without a word: size"]
    assert docstrings.raises(bare) == ["raises TypeError and does not say so"]  # a caught one is none
    assert docstrings.raised_by(polar_factor) == {"InputError"}  # by a check that it calls
    assert docstrings.form(shapeless) == docstrings.raises(shapeless) == []
    assert docstrings.shapes(shapeless) == ["no shape of X", "no shape of what is returned"]
    assert docstrings.form(Name("test_docstrings.refuses", refuses)) == ["no docstring"]
    monkeypatch.setattr(without_shapes, "__module__", "etfopt.geometry")
    assert docstrings.sources(shapeless)
    assert docstrings.examples(shapeless)


def test_names_that_must_have_an_example_are_there() -> None:
    there = {path.rpartition(".")[2] for path in public_names() if path.startswith("etfopt.experiments.")}
    assert set(docstrings.SHOWN) <= there


# --- where the proofs are -------------------------------------------------------------------------------------------


def test_every_file_of_the_theory_that_is_cited_exists() -> None:
    cited = {(path.name, name) for path in SOURCES for name in re.findall(r"theory/(\w+)\.py", path.read_text())}
    assert len(cited) > 20
    assert not [citation for citation in cited if not (ROOT / "theory" / f"{citation[1]}.py").exists()]


def test_the_code_that_a_claim_names_cites_the_claim() -> None:
    from theory import registry

    missing = defaultdict(list)
    for claim in registry.claims():
        for used in set(re.findall(r"`(etfopt\.[\w.]+)`", claim.used_in)):
            if f"theory/{claim.id}.py" not in _documentation(used):
                missing[used].append(claim.id)
    assert not missing


def _documentation(dotted: str) -> str:
    """The docstrings of an object, and of the class and the module that hold it."""
    parts = dotted.split(".")
    holders = [pkgutil.resolve_name(".".join(parts[:k])) for k in range(len(parts), 1, -1)]
    return "\n".join(getattr(found, "__doc__", None) or "" for found in holders[:3])


# --- examples -------------------------------------------------------------------------------------------------------

WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "etfopt").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_a_module_run_as_written(module: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with torch.random.fork_rng(), np.printoptions(precision=4, suppress=True):
        torch.manual_seed(0)
        failed, attempted = doctest.testmod(importlib.import_module(module), report=True, optionflags=options)
    assert attempted > 0
    assert failed == 0


# --- the reference of the documentation -----------------------------------------------------------------------------


PACKAGES = ("etfopt", "etfopt.solvers", "etfopt.nn", "etfopt.nn.heads", "etfopt.metrics", "etfopt.plotting")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_exports_is_in_the_reference(package: str) -> None:
    module, listed = importlib.import_module(package), referenced()
    exported = [getattr(module, name) for name in module.__all__]
    assert not [found for found in exported if isinstance(found, type) and not any(found is x for x in listed)]
