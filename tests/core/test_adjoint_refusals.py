"""Where the nearest ETF has no derivative, or a point is no minimiser, no gradient is given out."""

import numpy as np
import pytest
from hypothesis import given

from etfopt import InputError, NearestETF, simplex_etf, solve
from etfopt.adjoint import nearest_etf_jvp, nearest_etf_vjp, polar_derivative
from tests.tools.strategies import DEGENERATE, draws, means_with, orthonormal, retract, with_spectrum

REFUSED = r"U is not the minimiser: .* pass etfopt\.solve\(problem\)\.U"


@pytest.fixture
def problem(rng: np.random.Generator) -> NearestETF:
    X = with_spectrum(6, np.array([1.0, 0.7, 0.4]), rng)
    return NearestETF(means_with(X), frame=simplex_etf(4, reduced=True))


def refuses(problem: NearestETF, U: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nearest_etf_vjp(problem, U, np.ones(U.shape) @ problem.F @ problem.F.T)
    with pytest.raises(InputError, match=message):
        nearest_etf_jvp(problem, U, np.ones(problem.H.shape))


def test_a_random_point_is_refused(problem, rng):
    refuses(problem, orthonormal(6, 3, rng), REFUSED)


def test_a_point_near_the_minimiser_is_refused_unless_it_is_rounding_away(problem, rng):
    U, direction = solve(problem).U, rng.standard_normal((6, 3))
    refuses(problem, retract(U + 1e-4 * direction), REFUSED)
    assert np.isfinite(nearest_etf_vjp(problem, retract(U + 1e-9 * direction), direction).H).all()


@pytest.mark.parametrize("angle", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("r", [3, 40])  # r = 40: the spectrum comes from A'A
def test_a_small_step_out_of_the_column_space_is_refused(rng, r, angle):
    problem = NearestETF(
        means_with(with_spectrum(2 * r + 1, np.linspace(1, 0.7, r), rng)), frame=simplex_etf(r + 1, reduced=True)
    )
    U = solve(problem).U
    outside = rng.standard_normal(U.shape)
    outside -= U @ (U.T @ outside)
    step = np.sqrt(r) * angle * outside / np.linalg.norm(outside)
    refuses(problem, retract(U + step), REFUSED)  # U'A has changed by angle^2 only


def test_a_critical_point_that_is_not_the_minimiser_is_refused(problem):
    P, _, Qt = np.linalg.svd(problem.linear_term, full_matrices=False)
    refuses(problem, P * [1, 1, -1] @ Qt, REFUSED)
    refuses(problem, -P @ Qt, REFUSED)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_point_off_the_manifold_is_refused(problem, factor):
    refuses(problem, factor * solve(problem).U, REFUSED)


@given(draws(kinds=DEGENERATE, proxes=("none",)))
def test_means_that_leave_the_etf_undetermined_have_no_gradient(draw):
    message = r"H leaves the nearest ETF undetermined: A has numerical rank \d+ < r = \d+.*add a proximal term"
    refuses(draw.problem, solve(draw.problem).U, message)


@given(draws(kinds=("generic", "repeated"), frames=("simplex",), proxes=("none",)))
def test_a_loss_of_the_direction_that_the_frame_does_not_see_is_refused(draw):
    problem, U = draw.problem, solve(draw.problem).U
    with pytest.raises(InputError, match=r"the frame does not see.*reduced=True.*proximal term"):
        nearest_etf_vjp(problem, U, np.ones(U.shape))


def test_a_rank_deficient_matrix_has_no_derivative_of_its_polar_factor(rng):
    A = with_spectrum(5, np.array([1.0, 0.5, 0.0]), rng)
    P, _, Qt = np.linalg.svd(A, full_matrices=False)
    with pytest.raises(InputError, match=r"numerical rank 2 < r = 3.*add a proximal term"):
        polar_derivative(A, P @ Qt, A)


@pytest.mark.parametrize("size", [1e160, 1e300, 1.7e308])
def test_a_point_of_any_finite_size_is_refused_without_a_warning(problem, size):
    refuses(problem, size * solve(problem).U, REFUSED)


def test_means_that_differ_by_less_than_rounding_have_no_gradient(rng):
    H = 1e17 + np.zeros((9, 4))
    H += 64 * rng.integers(-4, 5, size=(9, 4))
    problem = NearestETF(H, frame=simplex_etf(4, reduced=True))
    with pytest.raises(InputError, match="H leaves the nearest ETF undetermined"):
        nearest_etf_vjp(problem, solve(problem).U, np.ones((9, 3)))


def test_a_loss_of_the_etf_is_differentiated_at_a_point_that_is_off_by_rounding_of_its_own(rng):
    problem = NearestETF(rng.standard_normal((4, 4)))  # d = C, so that U fills the space and turns the free direction
    U, G = solve(problem).U, rng.standard_normal((4, 4)) @ problem.F
    turn = 1e-7 * rng.standard_normal((4, 4))
    near = retract(U + U @ (turn - turn.T))
    expected = nearest_etf_vjp(problem, U, G).H
    np.testing.assert_allclose(nearest_etf_vjp(problem, near, G).H, expected, rtol=0, atol=1e-5 * np.linalg.norm(G))
    with pytest.raises(InputError, match="a direction of U that the frame does not see"):
        nearest_etf_vjp(problem, near, G + 1e-4)


@pytest.mark.parametrize(("d", "C"), [(11, 2), (5, 3), (40, 10)])
def test_a_point_off_by_rounding_of_single_precision_does_not_leave_a_determined_etf_undetermined(d, C, rng):
    for _ in range(50):
        problem = NearestETF(rng.standard_normal((d, C)))
        U, G = solve(problem).U, rng.standard_normal((d, C)) @ problem.F.T
        wrong = rng.standard_normal((d, C))
        near = retract(U + 5e-7 * wrong / np.linalg.norm(wrong))
        exact, found = (nearest_etf_vjp(problem, point, G).H for point in (U, near))
        assert np.linalg.norm(found - exact) <= 1e-5 * np.linalg.norm(exact)
