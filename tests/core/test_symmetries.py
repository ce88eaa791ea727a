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


@given(regular_draws(**MODERATE))
def test_rotating_the_means_rotates_the_minimiser(draw):
    problem = draw.problem
    Q = orthonormal(problem.d, problem.d, draw.rng)
    rotated = changed(problem, H=Q @ problem.H, prox=mapped(problem.prox, lambda X: Q @ X))
    np.testing.assert_allclose(solve(rotated).U, Q @ solve(problem).U, rtol=0, atol=rounding(problem))


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


@given(regular_draws(**MODERATE))
def test_a_mean_common_to_all_classes_changes_nothing(draw):
    problem = draw.problem
    shifted = changed(problem, H=problem.H + draw.rng.standard_normal((problem.d, 1)))
    np.testing.assert_allclose(solve(shifted).U, solve(problem).U, rtol=0, atol=rounding(problem))


@given(regular_draws(**MODERATE), st.integers(1, 4))
def test_padding_with_zero_features_pads_the_minimiser_with_zeros(draw, extra):
    problem = draw.problem

    def padded(X: np.ndarray) -> np.ndarray:
        return np.vstack([X, np.zeros((extra, X.shape[1]))])

    wider = changed(problem, H=padded(problem.H), prox=mapped(problem.prox, padded))
    np.testing.assert_allclose(solve(wider).U, padded(solve(problem).U), rtol=0, atol=rounding(problem))


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
