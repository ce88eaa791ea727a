"""What the closed form keeps to the bit, or nearly; `test_every_solver.py` has the other symmetries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etfopt import NearestETF, nearest_etf, simplex_etf, solve
from tests.tools.strategies import draws, orthonormal, regular_draws

SOFT = ("generic", "repeated", "clustered")
MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 6}


@given(draws(), st.integers(-60, 60))
def test_scaling_means_and_delta_together_changes_nothing(draw, exponent):
    t = 2.0 ** (exponent if 1e-20 < np.abs(draw.problem.H).max() < 1e20 else 0)
    problem = draw.problem
    scaled = NearestETF(problem.H * problem.dtype.type(t), problem.prox, t * problem.delta, problem.F)
    assert np.array_equal(solve(scaled).U, solve(problem).U)


@given(draws(kinds=SOFT, frames=("simplex",), proxes=("none",), **MODERATE))
def test_both_simplex_frames_find_the_same_etf(draw):
    reduced = nearest_etf(draw.problem.H, frame=simplex_etf(draw.problem.C, reduced=True))
    np.testing.assert_allclose(solve(draw.problem).etf, reduced.etf, rtol=0, atol=1e-13)


@given(draws(**MODERATE), st.integers(-60, 60))
def test_weights_and_delta_scaled_together_change_nothing(draw, exponent):
    problem, t = draw.problem, 2.0**exponent
    weights = draw.rng.uniform(0, 3, problem.C)
    one, other = (
        NearestETF(problem.H, problem.prox, s * problem.delta, problem.F, weights=s * weights) for s in (1.0, t)
    )
    assert np.array_equal(solve(one).U, solve(other).U)


@given(draws(kinds=SOFT, frames=("reduced",), proxes=("none", "far"), deltas=(0.5,), **MODERATE))
def test_a_rotation_of_means_and_held_point_rotates_the_answer_and_classes_can_be_renamed(draw):
    problem, rng, C = draw.problem, draw.rng, draw.problem.C
    if C < 3:
        return
    at, Q, order = orthonormal(problem.d, problem.r, rng), orthonormal(problem.d, problem.d, rng), rng.permutation(C)
    weights, hold = rng.uniform(0.5, 2, C), rng.permutation(C)[: C - 2]
    found = solve(NearestETF(problem.H, problem.prox, problem.delta, problem.F, weights=weights, hold=hold, hold_at=at))
    prox = None if problem.prox is None else Q @ problem.prox
    renamed = NearestETF(
        *(Q @ problem.H[:, order], prox, problem.delta, problem.F[:, order]),
        **{"weights": weights[order], "hold": np.argsort(order)[hold], "hold_at": Q @ at},
    )
    other = solve(renamed)
    bounds = found.certificate.etf_distance_bound + other.certificate.etf_distance_bound
    assert np.linalg.norm(other.etf - Q @ found.etf[:, order]) <= bounds + 1e-13


@given(regular_draws(frames=("reduced",), **MODERATE))
def test_a_point_on_the_etf_is_its_own_answer(draw):
    problem = draw.problem
    U = orthonormal(problem.d, problem.r, draw.rng)
    own = NearestETF(3 * U @ problem.F, U, 0.7, problem.F)
    np.testing.assert_allclose(solve(own).U, U, rtol=0, atol=10 * problem.C * problem.unit)
