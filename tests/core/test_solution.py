"""What a solution reports, against definitions written out here."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from scipy.optimize import minimize_scalar

from etfopt import NearestETF, nearest_etf, simplex_etf, solve
from etfopt.solvers.base import Stats
from tests.tools import oracles
from tests.tools.strategies import draws, orthonormal

MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 6}


@given(draws(**MODERATE))
def test_the_parts_of_a_solution_follow_from_u(draw):
    problem, solution = draw.problem, solve(draw.problem)
    np.testing.assert_allclose(solution.etf, solution.U @ problem.F, rtol=0, atol=1e-15)
    objective = oracles.objective(solution.U, problem.H, problem.F, problem.prox, problem.delta)
    assert solution.objective == pytest.approx(objective, rel=1e-12)


@given(draws(max_classes=12))
def test_the_rows_of_the_weight_are_an_etf_of_unit_norm(draw):
    C, W = draw.problem.C, solve(draw.problem).weight.astype(np.float64)
    expected = (np.eye(C) * C - 1) / (C - 1)
    np.testing.assert_allclose(W @ W.T, expected, rtol=0, atol=10 * C * draw.problem.unit)
    assert W.shape == (C, draw.problem.d)


@given(draws(**MODERATE))
def test_the_scale_is_the_best_size_of_the_etf(draw):
    solution, H = solve(draw.problem), draw.problem.H
    best = minimize_scalar(lambda s: np.sum((H - s * solution.etf) ** 2), bracket=(0, 1)).x
    assert solution.scale == pytest.approx(best, abs=1e-6 * (1 + np.linalg.norm(H)))


@given(draws(max_classes=6, dtypes=(np.float64,)))
def test_the_distance_is_that_of_the_nuclear_norm_formula(draw):
    problem = draw.problem
    size = np.abs(problem.H).max() or 1.0
    H, F = problem.H / size, problem.F
    nuclear = np.linalg.svd(H @ F.T, compute_uv=False).sum()
    squared = np.sum(H**2) - nuclear**2 / np.sum(F**2)
    assert (solve(problem).distance / size) ** 2 == pytest.approx(squared, abs=1e-13 * np.sum(H**2))


@given(draws(**MODERATE))
def test_no_etf_of_any_size_lies_nearer_than_the_distance(draw):
    problem, distance = draw.problem, solve(draw.problem).distance
    for _ in range(20):
        E = orthonormal(problem.d, problem.r, draw.rng) @ problem.F
        s = np.vdot(problem.H, E) / np.vdot(E, E)
        assert np.linalg.norm(problem.H - s * E) >= distance * (1 - 1e-12) - 1e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distance_of_collapsed_means_is_rounding_and_their_scale_is_exact(dtype, rng):
    U = orthonormal(9, 5, rng)
    H = (7.5 * U @ simplex_etf(5)).astype(dtype)
    solution = nearest_etf(H)
    assert solution.distance <= 10 * 5 * np.finfo(dtype).eps * 7.5
    assert solution.scale == pytest.approx(7.5, rel=5 * float(np.finfo(dtype).eps))


def test_the_distance_keeps_digits_near_collapse(rng):
    U, offset = orthonormal(9, 5, rng), 1e-10 * np.full((9, 5), 1.0)  # a common mean: no rotation can follow it
    H = U @ simplex_etf(5) + offset
    assert nearest_etf(H).distance == pytest.approx(np.linalg.norm(offset), rel=1e-4)


def test_the_distance_does_not_depend_on_the_proximal_term(rng):
    H, far = rng.standard_normal((7, 4)), orthonormal(7, 4, rng)
    plain, pulled = nearest_etf(H), nearest_etf(H, prox=far, delta=50.0)
    assert pulled.distance == pytest.approx(plain.distance, rel=1e-12)


def test_the_distance_of_a_rejected_answer_is_still_that_of_the_means(rng):
    problem = NearestETF(rng.standard_normal((7, 4)))
    good = solve(problem)
    bad = dataclasses.replace(good, U=orthonormal(7, 4, rng), converged=False)  # -U would have the same distance
    assert bad.distance == pytest.approx(good.distance, rel=1e-12)


def test_an_objective_out_of_range_is_infinite_and_the_distance_is_not():
    solution = nearest_etf(np.eye(5, 3) * 1e200)
    assert solution.objective == np.inf
    assert np.isfinite(solution.distance)


def test_a_solution_cannot_be_reassigned(rng):
    solution = nearest_etf(rng.standard_normal((5, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        solution.U = np.eye(5, 3)


def test_a_solution_and_its_certificate_are_shown_in_a_few_lines_without_arrays(rng):
    solution = nearest_etf(rng.standard_normal((500, 100)), reduced=True)
    for shown, words in (
        (solution, ("d=500, C=100, r=99", "Procrustes", "optimal", "relative", "at most", "unique")),
        (solution.certificate, ("feasible up to", "relative", "at most", "unique", "stationarity")),
    ):
        lines = repr(shown).splitlines()
        assert len(lines) <= 7
        assert max(map(len, lines)) < 100
        assert all(word in repr(shown) for word in words)
        assert shown._repr_html_().count("<tr>") == len(lines) - 1
    rejected = dataclasses.replace(solution, converged=False, stats=Stats("<b>mine</b>", 0.0))
    assert "rejected (closed_form)" in repr(rejected)
    assert "&lt;b&gt;mine" in rejected._repr_html_()
