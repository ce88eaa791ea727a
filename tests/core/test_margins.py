"""One-vs-rest margins: closed forms, a slow solver, bounds on both sides, and what is not solved."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError
from etfopt.frames import _margin, orthoplex, polygon, reduced, simplex
from etfopt.frames._margin import one_vs_rest_margin
from etfopt.frames._search import search

CLOSED = [
    *((simplex(C), C / (C - 1)) for C in (2, 3, 10)),
    (reduced(40), 40 / 39),
    *((orthoplex(d, C), 1.0) for d, C in ((3, 5), (3, 6), (8, 13), (30, 60))),
    *((polygon(C), 1 - np.cos(2 * np.pi / C)) for C in (5, 8, 101)),
]


@pytest.mark.parametrize(("frame", "rho"), CLOSED, ids=str)
def test_margins_in_closed_form(frame, rho):
    margin = frame.margin
    assert abs(margin.rho - rho) < 1e-13
    assert abs(margin.lower_bound - rho) < 1e-13
    assert margin.gap < 1e-13


def slow(F: np.ndarray, k: int) -> float:
    """Solve one quadratic program by a general method."""
    others = np.delete(F, k, axis=1)
    n = others.shape[1]
    found = scipy.optimize.minimize(
        lambda a: np.sum((F[:, k] - others @ a) ** 2),
        np.full(n, 1 / n),
        jac=lambda a: -2 * others.T @ (F[:, k] - others @ a),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return float(np.sqrt(found.fun))


@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_margins_of_any_vectors(d, C, seed, unit):
    F = np.random.default_rng(seed).standard_normal((d, C))
    F = F / np.linalg.norm(F, axis=0) if unit else F
    margin = one_vs_rest_margin(F)
    slowest = [slow(F, k) for k in range(C)]
    assert abs(margin.rho - min(slowest)) < 1e-6
    assert margin.gap < 1e-9 * np.linalg.norm(F, axis=0).max()
    assert abs(slowest[margin.nearest] - margin.rho) < 1e-6
    assert (margin.bounds <= np.add(slowest, 1e-6)).all()
    assert (margin.distances >= np.subtract(slowest, 1e-6)).all()
    np.testing.assert_allclose(one_vs_rest_margin(7 * F).rho, 7 * margin.rho, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [3, 8])
def test_many_vectors_get_bounds_all_at_once(d, rng, monkeypatch):
    F = rng.standard_normal((d, 60))
    F /= np.linalg.norm(F, axis=0)
    one_by_one = one_vs_rest_margin(F)
    monkeypatch.setattr(_margin, "MANY", 10)
    monkeypatch.setattr(_margin, "BLOCK", 500)
    together = one_vs_rest_margin(F)
    assert abs(together.rho - one_by_one.rho) < 1e-9
    assert (together.bounds <= together.distances + 1e-12).all()
    exact = np.array([_margin._distance(np.ascontiguousarray(F.T), k)[0] for k in range(60)])
    assert (together.bounds <= exact + 1e-9).all()
    assert (together.distances >= exact - 1e-9).all()


def test_only_the_vectors_that_may_decide_are_solved(rng):
    F = rng.standard_normal((4, 20))
    F[:, 3] = F[:, 5] + 1e-3
    F /= np.linalg.norm(F, axis=0)
    gaps = []
    margin = one_vs_rest_margin(F, progress=gaps.append)
    assert margin.nearest in (3, 5)
    assert len(gaps) < 20
    assert gaps == sorted(gaps, reverse=True)


def test_a_tolerance_stops_earlier_and_says_how_far_it_is():
    F = search(5, 40, starts=1).vectors
    exact, rough = one_vs_rest_margin(F), one_vs_rest_margin(F, tolerance=0.05)
    assert rough.lower_bound <= exact.rho <= rough.rho
    assert 0 < rough.gap <= 0.05
    assert exact.gap < 1e-9


def test_many_vectors_are_solved_less_exactly_by_default(monkeypatch):
    F = search(5, 40, starts=1).vectors
    assert one_vs_rest_margin(F).gap < 1e-9
    monkeypatch.setattr(_margin, "FEW", 39)
    monkeypatch.setattr(_margin, "ROUGH", 0.05)
    assert 1e-9 < one_vs_rest_margin(F).gap <= 0.05


@pytest.mark.parametrize(
    ("F", "rho"),
    [
        ([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], 0.0),  # equal vectors
        ([[0.0, 0.0]], 0.0),
        ([[0.0, 2.0]], 2.0),
        ([[1.0, -1.0, 0.25]], 0.0),  # inside the hull of the others
        ([[1e-200, -1e-200]], 2e-200),
        ([[1e150, -1e150]], 2e150),
    ],
)
def test_margins_at_the_edges(F, rho):
    margin = one_vs_rest_margin(F)
    assert margin.rho == pytest.approx(rho, rel=1e-12, abs=1e-15)
    assert margin.gap <= 1e-12 * max(rho, 1e-3)


@pytest.mark.parametrize(
    ("F", "options", "message"),
    [
        ([[1.0], [2.0]], {}, "F has 1 column; a margin needs at least 2"),
        ([[1.0, np.nan]], {}, "F holds 1 value"),
        ([1.0, 2.0], {}, "F must be a matrix"),
        ([[1.0, 2.0]], {"tolerance": 0.0}, "tolerance must be finite and above 0"),
    ],
)
def test_bad_arguments_are_named(F, options, message):
    with pytest.raises(InputError, match=message):
        one_vs_rest_margin(F, **options)
