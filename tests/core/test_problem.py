"""The problem object: objective, derivatives and linear term, at every scale, and data that nobody can change."""

import numpy as np
import pytest
from hypothesis import given

from etfopt import NearestETF, nearest_etf, simplex_etf
from etfopt._scaling import normalized, rescaled
from tests.tools import oracles
from tests.tools.strategies import Draw, draws, orthonormal

MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 6}


def data(problem: NearestETF) -> tuple:
    """H, F, prox and delta in the order that the oracles take."""
    return problem.H, problem.F, problem.prox, problem.delta


def point(draw: Draw) -> np.ndarray:
    return orthonormal(draw.problem.d, draw.problem.r, draw.rng)


@given(draws(**MODERATE))
def test_the_objective_is_the_one_defined(draw):
    U = draw.rng.standard_normal((draw.problem.d, draw.problem.r))
    assert draw.problem.objective(U) == pytest.approx(oracles.objective(U, *data(draw.problem)), rel=1e-12)


@given(draws(**MODERATE))
def test_on_the_manifold_the_objective_is_linear(draw):
    problem, (U, V) = draw.problem, (point(draw), point(draw))
    difference = -float(np.vdot(problem.linear_term, U - V))
    size = problem.objective(U) + problem.objective(V)
    assert problem.objective(U) - problem.objective(V) == pytest.approx(difference, abs=1e-13 * size)


@given(draws(**MODERATE))
def test_the_gradient_is_the_slope_of_the_objective(draw):
    U, V = point(draw), point(draw)
    slope = (draw.problem.objective(U + 1e-3 * V) - draw.problem.objective(U - 1e-3 * V)) / 2e-3
    scale = 1 + draw.problem.delta + draw.problem.objective(U) + draw.problem.objective(V)
    assert float(np.vdot(draw.problem.gradient(U), V)) == pytest.approx(slope, abs=1e-11 * scale)


@given(draws(**MODERATE))
def test_the_hessian_vector_product_is_the_change_of_the_gradient(draw):
    U, V = point(draw), point(draw)
    change = draw.problem.gradient(U + V) - draw.problem.gradient(U)
    scale = np.linalg.norm(draw.problem.gradient(U)) + np.linalg.norm(change)
    np.testing.assert_allclose(draw.problem.hessian_vector_product(V), change, rtol=0, atol=1e-14 * (1 + scale))


@given(draws(max_classes=5))
def test_the_linear_term_is_right_to_rounding_at_every_scale(draw):
    problem = draw.problem
    A = oracles.exact_linear_term(*data(problem))
    term, two = problem.scaled_linear_term, oracles.mp.mpf(2)
    error = oracles.rounded(A * two**-term.exponent) - term.A
    F, H = np.linalg.norm(problem.F), float(oracles.mp.mnorm(oracles.exact(problem.H), "F") * two**-term.exponent)
    prox = 0.0 if problem.prox is None else np.linalg.norm(problem.prox)
    size = 2 * H * F + float(oracles.exact(problem.delta) * two**-term.exponent) * prox
    assert np.linalg.norm(error) <= 2 * problem.C * 2.0**-52 * size
    assert np.array_equal(problem.linear_term, np.ldexp(term.A, term.exponent))


@given(draws())
def test_the_rounding_level_is_that_of_the_working_dtype(draw):
    problem, term = draw.problem, draw.problem.scaled_linear_term
    spectral = np.linalg.norm(term.A, 2)
    assert term.rounding >= problem.C * problem.unit * spectral * (1 - 1e-12)
    assert term.A.dtype == np.float64


@pytest.mark.parametrize("exponent", [-900, -400, 400, 900])
def test_only_the_product_of_delta_and_the_proximal_point_counts(exponent, rng):
    H, prox, t = rng.standard_normal((6, 4)), rng.standard_normal((6, 4)), 2.0**exponent
    plain, scaled = NearestETF(H, prox, 0.7), NearestETF(H, t * prox, 0.7 / t)
    assert np.array_equal(scaled.linear_term, plain.linear_term)


def test_a_term_that_dwarfs_the_other_by_more_than_the_range_of_float64_is_the_linear_term(rng):
    H, prox = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    data = NearestETF(1e300 * H).linear_term
    assert np.array_equal(NearestETF(1e300 * H, prox, 1e-300).linear_term, data)
    np.testing.assert_allclose(NearestETF(1e-300 * H, prox, 1e300).linear_term, 1e300 * prox, rtol=1e-15)


def test_data_that_the_caller_changes_afterwards_change_nothing(rng):
    H, prox, F = rng.standard_normal((6, 4)), orthonormal(6, 3, rng), simplex_etf(4, reduced=True)
    problem = NearestETF(H, prox=prox, delta=0.5, frame=F)
    before = problem.linear_term
    for array in (H, prox, F):
        array[:] = 99.0
    again = NearestETF(problem.H, prox=problem.prox, delta=0.5, frame=problem.F).linear_term
    assert np.array_equal(problem.linear_term, before)
    assert np.array_equal(again, before)


@pytest.mark.parametrize("name", ["H", "F", "prox"])
def test_the_arrays_of_a_problem_are_read_only(name, rng):
    problem = NearestETF(rng.standard_normal((5, 3)), prox=orthonormal(5, 3, rng), delta=1.0)
    with pytest.raises(ValueError, match="read-only"):
        getattr(problem, name)[0, 0] = 1.0


def test_writing_into_a_returned_linear_term_changes_no_problem(rng):
    problem = NearestETF(rng.standard_normal((5, 3)))
    before = problem.linear_term.copy()
    problem.linear_term[:] = 0.0
    assert np.array_equal(problem.linear_term, before)
    with pytest.raises(ValueError, match="read-only"):
        problem.scaled_linear_term.A[0, 0] = 1.0


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [("float32", "float32"), ("float64", "float64"), ("float16", "float32"), ("int64", "float64"), (">f4", "float32")],
)
def test_the_working_dtype_is_that_of_the_means(given_dtype, kept):
    H = np.array([[3, 0, -1], [0, 2, 1], [1, 1, 0], [2, 2, 5]]).astype(given_dtype)
    solution = nearest_etf(H)
    assert {solution.problem.dtype, solution.U.dtype, solution.etf.dtype, solution.weight.dtype} == {np.dtype(kept)}


def test_a_list_a_transpose_and_a_fortran_array_are_the_same_means(rng):
    H = rng.standard_normal((6, 4))
    strided = np.repeat(H, 2, axis=1)[:, ::2]
    terms = [NearestETF(X).linear_term for X in (H, H.tolist(), np.asfortranarray(H), H.T.copy().T, strided)]
    assert all(np.array_equal(term, terms[0]) for term in terms)


def test_a_delta_of_zero_ignores_the_proximal_point(rng):
    H, prox = rng.standard_normal((6, 4)), orthonormal(6, 4, rng)
    assert np.array_equal(NearestETF(H, prox=prox, delta=0).linear_term, NearestETF(H).linear_term)


@pytest.mark.parametrize("size", [1e300, 1e308, 1.7e308])
def test_a_gradient_within_range_does_not_overflow_on_the_way(size):
    problem = NearestETF(np.eye(4, 3) * size)
    np.testing.assert_allclose(problem.gradient(np.eye(4, 3)), -problem.linear_term, rtol=1e-14)


@pytest.mark.parametrize("value", [0.0, 5e-324, 1.0, 1.7e308])
def test_taking_the_power_of_two_out_is_exact(value):
    X = np.array([[value, -value / 2]])
    Y, e = normalized(X)
    assert np.array_equal(rescaled(Y, e), X)
    assert value == 0 or 0.5 <= np.abs(Y).max() < 1


def test_a_power_of_two_out_of_range_brings_a_number_back_into_it():
    assert rescaled(2.0**1000, -1100) == 2.0**-100
    assert rescaled(2.0**-1000, 1100) == 2.0**100


def test_a_problem_says_its_sizes(rng):
    problem = NearestETF(rng.standard_normal((7, 4)), frame=simplex_etf(4, reduced=True))
    assert (problem.d, problem.C, problem.r) == (7, 4, 3)
    assert repr(problem) == "NearestETF(d=7, C=4, r=3, delta=0, dtype=float64)"


def test_any_frame_of_any_rank_is_accepted(rng):
    for F in (np.eye(2, 5), rng.standard_normal((7, 5)), np.ones((3, 5)), rng.integers(-2, 3, (2, 5))):
        solution = nearest_etf(rng.standard_normal((9, 5)), frame=F)
        np.testing.assert_allclose(np.linalg.norm(solution.etf), np.linalg.norm(F), rtol=1e-14)
