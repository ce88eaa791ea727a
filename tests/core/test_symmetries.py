"""What the problem does not depend on, the answer does not depend on either."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etfopt import NearestETF, nearest_etf, simplex_etf, solve
from tests.tools import oracles
from tests.tools.strategies import draws, orthonormal, regular_draws

SOFT = ("generic", "repeated", "clustered")
MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 6}


def changed(problem: NearestETF, **replaced) -> NearestETF:
    parts = {"H": problem.H, "prox": problem.prox, "delta": problem.delta, "frame": problem.F}
    return NearestETF(**{**parts, **replaced})


def mapped(X: np.ndarray | None, function) -> np.ndarray | None:
    return None if X is None else function(X)


def rounding(problem: NearestETF) -> float:
    """Generous bound on the change of U that rounding H and delta U_prox, of order 1 + delta, can cause."""
    A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
    return 1e-12 * (1 + problem.delta) / float(oracles.exact_polar(A)[2][0])


def padded(X: np.ndarray) -> np.ndarray:
    return np.vstack([X, np.zeros((2, X.shape[1]))])


@given(regular_draws(**MODERATE))
def test_rotating_padding_and_shifting_the_means_do_to_the_minimiser_what_they_do_to_a_point(draw):
    problem, U = draw.problem, solve(draw.problem).U
    Q = orthonormal(problem.d, problem.d, draw.rng)
    for move in (lambda X: Q @ X, padded):
        moved = changed(problem, H=move(problem.H), prox=mapped(problem.prox, move))
        np.testing.assert_allclose(solve(moved).U, move(U), rtol=0, atol=rounding(problem))
    shifted = changed(problem, H=problem.H + draw.rng.standard_normal((problem.d, 1)))
    np.testing.assert_allclose(solve(shifted).U, U, rtol=0, atol=rounding(problem))


@given(draws(kinds=SOFT, frames=("simplex",), **MODERATE))
def test_permuting_the_classes_permutes_the_columns_of_the_etf(draw):
    problem, order = draw.problem, draw.rng.permutation(draw.problem.C)
    permuted = changed(problem, H=problem.H[:, order], prox=mapped(problem.prox, lambda X: X[:, order]))
    np.testing.assert_allclose(solve(permuted).etf, solve(problem).etf[:, order], rtol=0, atol=1e-9)


@given(draws(), st.integers(-60, 60))
def test_scaling_means_and_delta_together_changes_nothing(draw, exponent):
    t = 2.0 ** (exponent if 1e-20 < np.abs(draw.problem.H).max() < 1e20 else 0)
    scaled = changed(draw.problem, H=draw.problem.H * draw.problem.dtype.type(t), delta=t * draw.problem.delta)
    assert np.array_equal(solve(scaled).U, solve(draw.problem).U)


@given(draws(kinds=SOFT, frames=("simplex",), proxes=("none",), **MODERATE))
def test_both_simplex_frames_find_the_same_etf(draw):
    reduced = nearest_etf(draw.problem.H, frame=simplex_etf(draw.problem.C, reduced=True))
    np.testing.assert_allclose(solve(draw.problem).etf, reduced.etf, rtol=0, atol=1e-13)


@given(regular_draws(frames=("reduced",), **MODERATE))
def test_a_point_on_the_etf_is_its_own_answer(draw):
    problem = draw.problem
    U = orthonormal(problem.d, problem.r, draw.rng)
    own = changed(problem, H=3 * U @ problem.F, prox=U, delta=0.7)
    np.testing.assert_allclose(solve(own).U, U, rtol=0, atol=10 * problem.C * problem.unit)
