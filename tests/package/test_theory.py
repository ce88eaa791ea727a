"""Every claim holds on adversarial cases, is stated and proved in full, and names code that exists."""

import math
import pkgutil
import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sympy")
from theory import registry
from theory.__main__ import README, readme
from theory.registry import Case, Evidence, Part, Residual, at_least, gather

FOLDER = README.parent
ROOT = FOLDER.parent


@pytest.mark.parametrize("name", registry.CLAIMS)
def test_no_counterexample_is_found(name: str) -> None:
    evidence = registry.verify(registry.load(name), budget=150, seed=1)
    assert evidence.holds, evidence.counterexample
    assert evidence.cases >= 100


@pytest.mark.parametrize("name", registry.CLAIMS)
def test_what_a_claim_is_used_for_exists(name: str) -> None:
    named = re.findall(r"`((?:etfopt|theory)[\w.]*)`", registry.load(name).used_in)
    assert named
    for path in named:
        pkgutil.resolve_name(path)


def test_every_file_is_a_claim_or_help_for_one() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert files == {*registry.CLAIMS, "registry", "draws"}


def test_the_readme_has_the_claims_as_they_are() -> None:
    assert README.read_text() == readme(), "run: python -m theory"


def test_a_claim_draws_the_same_cases_whether_alone_or_not() -> None:
    claim = registry.load("temperature")
    assert registry.verify(claim, 30, 5) == registry.verify(claim, 30, 5)
    assert registry.verify(claim, 30, 5).worst_case.seed != registry.verify(claim, 30, 6).worst_case.seed


def _sizes(rng: np.random.Generator):
    size = rng.uniform(0, 2)
    yield Residual(size, 3.0, "size")
    yield Residual(-size, 1.0, "minus size")


def _breaks(rng: np.random.Generator):
    raise ZeroDivisionError("by zero")
    yield rng


def _blind(rng: np.random.Generator):  # noqa: ARG001 - it looks at nothing
    yield from ()


def _undefined(rng: np.random.Generator):  # noqa: ARG001 - a constant
    yield Residual(math.nan, 1.0, "undefined")


def test_the_worst_case_is_kept_and_found_again_from_its_seed(rng) -> None:
    evidence = gather(rng, 200, (Part(_sizes),))
    assert evidence.holds
    assert evidence.cases == 200
    assert evidence.counterexample is None
    worst = evidence.worst_case
    assert (worst.part, worst.what) == ("sizes", "size")
    assert 1.9 < evidence.worst < 2
    assert next(_sizes(np.random.default_rng(worst.seed))).value == evidence.worst


@pytest.mark.parametrize(
    ("part", "what"),
    [(_breaks, "ZeroDivisionError: by zero"), (_blind, "nothing was looked at"), (_undefined, "undefined")],
)
def test_a_case_that_confirms_nothing_is_a_counterexample(rng, part, what: str) -> None:
    evidence = gather(rng, 10, (Part(_sizes, 9), Part(part)))
    assert not evidence.holds
    assert evidence.counterexample is not None
    assert evidence.counterexample.what == what
    assert evidence.cases == 10


def test_a_strict_bound_fails_where_it_is_reached_from_below() -> None:
    assert at_least(2.0, 1.0, "x").value == 0.5
    assert at_least(0.5, 1.0, "x").value > 1
    assert at_least(-1.0, 1.0, "x").value == math.inf
    assert at_least(math.nan, 1.0, "x").value == math.inf
    assert not Evidence(1, Case("p", 0, math.inf, 1.0, "x")).holds


def _exact_and_wrong(rng: np.random.Generator):
    yield Residual(0.0, 0.0, "exact")
    if rng.random() < 0.5:
        yield Residual(2.0, 1.0, "wrong")


def test_what_is_exact_hides_no_counterexample(rng) -> None:
    assert gather(rng, 50, (Part(_exact_and_wrong),)).counterexample is not None
    assert Case("p", 0, -1.0, 0.0, "x").holds
    assert Case("p", 0, 1e-300, 0.0, "x").ratio == math.inf
