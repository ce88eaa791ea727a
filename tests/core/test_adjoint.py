"""The closed-form derivative against sixty digits, differences and the paper's dense formula, and where it refuses."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etfopt import NearestETF, simplex_etf, solve
from etfopt.adjoint import nearest_etf_jvp, nearest_etf_vjp, polar_derivative
from etfopt.polar._products import sym
from tests.tools import oracles
from tests.tools.strategies import Draw, draws, means_with, regular_draws

SOFT = ("generic", "repeated", "clustered")
MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 5}
SMALL = {"max_classes": 4, "limit": 250}  # the reciprocal of a scale must be representable too


def exact_linear_term(problem: NearestETF):
    return oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)


def condition(problem: NearestETF) -> tuple[float, float]:
    """Smallest singular value of A and its condition number, from sixty digits."""
    s = oracles.exact_polar(exact_linear_term(problem))[2]
    return float(s[0]), float(s[-1] / s[0])


def relative(X: np.ndarray, reference: np.ndarray) -> float:
    """Relative error, in units that neither overflow nor underflow."""
    size = np.abs(reference).max()
    return float(np.linalg.norm((X.astype(np.float64) - reference) / size) / np.linalg.norm(reference / size))


def turns(U: np.ndarray, G: np.ndarray) -> bool:
    """Whether a cotangent has enough of what can turn U: relative errors of a gradient near zero mean nothing."""
    return bool(np.linalg.norm(G - U @ sym(U.T @ G)) > 0.5 * np.linalg.norm(G))


# --- the promises of design.md ------------------------------------------------------------------------------------


@given(regular_draws(**SMALL))
def test_the_gradient_is_right_to_twenty_c_u_kappa(draw):
    problem, G = draw.problem, draw.cotangent()
    assume(turns(solve(problem).U, G))
    dA = oracles.exact_polar_derivative(exact_linear_term(problem), oracles.exact(G))
    reference = oracles.rounded(2 * dA * oracles.exact(problem.F))
    gradient = nearest_etf_vjp(problem, solve(problem).U, G)
    bound = 20 * problem.C * problem.unit * condition(problem)[1]
    assert gradient.H.dtype == problem.dtype
    assert relative(gradient.H, reference) <= bound
    if problem.prox is not None:
        assert relative(gradient.prox, oracles.rounded(oracles.exact(problem.delta) * dA)) <= bound


@given(regular_draws(max_classes=3, limit=0))
def test_the_gradient_agrees_with_central_differences(draw):
    problem, G = draw.problem, draw.cotangent()
    smallest, kappa = condition(problem)
    gradient = nearest_etf_vjp(problem, solve(problem).U, G).H
    assume(reaches_the_steepest(problem, gradient, G))

    def loss(H: np.ndarray) -> float:  # by more digits than the differences need: theirs is then the only error
        A = oracles.exact_linear_term(H, problem.F, problem.prox, problem.delta)
        return float(np.vdot(G, oracles.rounded(oracles.exact_polar(A)[0])))

    step = smallest * (problem.unit * kappa) ** (1 / 3)
    differences = oracles.central_differences(loss, problem.H.astype(np.float64), step)
    assert relative(gradient, differences) <= 10 * (problem.unit * kappa) ** (2 / 3)


def reaches_the_steepest(problem: NearestETF, gradient: np.ndarray, G: np.ndarray) -> bool:
    """Whether a gradient has a tenth of the largest size that a cotangent like G can give.

    Central differences err by the curvature of the steepest direction; a gradient that hardly sees it drowns in that.
    """
    if problem.d == problem.r == 1:
        return False
    s = oracles.exact_polar(exact_linear_term(problem))[2]
    steepest = 1 / s[0] if problem.d > problem.r else 2 / (s[0] + s[1])
    size = np.linalg.norm(gradient.astype(np.float64)) * np.sqrt(problem.C - 1) / 2
    return bool(size > 0.1 * float(steepest) * np.linalg.norm(G))


@pytest.mark.parametrize("delta", [1e-1, 1e-2, 1e-3, 1e-5, 1e-8, 1e-11, 1e-14])
@given(draws(kinds=SOFT, frames=("simplex",), proxes=("near",), dtypes=(np.float64,), limit=0))
def test_a_small_proximal_weight_does_not_leak_into_losses_of_the_etf(delta, draw):
    assert leak(draw, delta) <= 30 * delta + 1e-6


@pytest.mark.parametrize("delta", [1e-9, 1e-11, 1e-13])
@given(draws(kinds=SOFT, frames=("simplex",), proxes=("far",), dtypes=(np.float64,), limit=0))
def test_nor_does_it_with_a_far_proximal_point(delta, draw):
    assert leak(draw, delta) <= 30 * delta + 1e-6


@pytest.mark.parametrize("delta", [1e-9, 1e-11, 1e-13, 1e-14, 1e-15])
@pytest.mark.parametrize("angle", [0.0, 0.01, 0.05, 0.3, 1.5])
def test_a_negligible_proximal_weight_does_not_leave_a_determined_etf_undetermined(angle, delta, rng):
    c, s = np.cos(angle), np.sin(angle)
    prox = np.array([[c, -s], [s, c]]) @ np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)  # at angle 0 along H
    problem = NearestETF(means_with(np.array([[1.0], [0.0]])), prox, delta)
    assert solve(problem).certificate.etf_unique
    assert leak(Draw(problem, rng), delta) <= 30 * delta + 1e-6


def leak(draw: Draw, delta: float) -> float:
    """Relative error of the gradient of a loss of U F, against the reduced frame without a proximal term."""
    H, C = draw.problem.H / np.linalg.norm(draw.problem.H), draw.problem.C
    plain, pulled = NearestETF(H, frame=simplex_etf(C, reduced=True)), NearestETF(H, draw.problem.prox, delta)
    G = draw.rng.standard_normal(H.shape)
    first, second = (nearest_etf_vjp(p, solve(p).U, G @ p.F.T).H for p in (plain, pulled))
    return relative(second, first)


# --- what the derivative must satisfy -----------------------------------------------------------------------------


@given(regular_draws(limit=0))
def test_the_rows_of_the_gradient_sum_to_zero(draw):
    gradient = nearest_etf_vjp(draw.problem, solve(draw.problem).U, draw.cotangent()).H
    tolerance = 10 * draw.problem.C * draw.problem.unit * np.linalg.norm(gradient)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, rtol=0, atol=tolerance)


@given(regular_draws(**MODERATE))
def test_a_cotangent_that_only_stretches_u_gives_no_gradient(draw):
    problem, U = draw.problem, solve(draw.problem).U
    S = sym(draw.rng.standard_normal((problem.r, problem.r)))
    smallest, _ = condition(problem)
    gradient = nearest_etf_vjp(problem, U, U @ S)
    assert np.linalg.norm(gradient.H) <= 100 * problem.unit * np.linalg.norm(S) / smallest


@given(draws(kinds=SOFT, **MODERATE))
def test_pulling_back_is_the_adjoint_of_pushing_forward(draw):
    problem, U = draw.problem, solve(draw.problem).U
    G, D = draw.rng.standard_normal(problem.H.shape), draw.rng.standard_normal(problem.H.shape)
    pulled, pushed = nearest_etf_vjp(problem, U, G @ problem.F.T).H, nearest_etf_jvp(problem, U, D)
    size = np.linalg.norm(pulled) * np.linalg.norm(D) + np.linalg.norm(pushed) * np.linalg.norm(G)
    assert np.vdot(pulled, D) == pytest.approx(np.vdot(G, pushed), abs=1e-10 * (1 + size))


@given(draws(kinds=SOFT, **MODERATE))
def test_pushing_forward_is_the_change_of_the_etf(draw):
    problem, D = draw.problem, draw.rng.standard_normal(draw.problem.H.shape)
    assume(problem.prox is None or condition(problem)[0] > 0.02)

    def etf(step: float) -> np.ndarray:
        return solve(NearestETF(problem.H + step * D, problem.prox, problem.delta, problem.F)).etf

    change = (etf(1e-5) - etf(-1e-5)) / 2e-5
    pushed = nearest_etf_jvp(problem, solve(problem).U, D)
    np.testing.assert_allclose(pushed, change, rtol=0, atol=1e-4 * (1 + np.linalg.norm(pushed) ** 3))


@given(regular_draws(frames=("reduced",), **MODERATE))
def test_the_derivative_of_the_polar_factor_is_that_of_sixty_digits_and_self_adjoint(draw):
    A, U = draw.problem.linear_term, solve(draw.problem).U
    X, Y = draw.rng.standard_normal(A.shape), draw.rng.standard_normal(A.shape)
    assume(turns(U, X))
    DX, DY = polar_derivative(A, U, X), polar_derivative(A, U, Y)
    exact = oracles.rounded(oracles.exact_polar_derivative(oracles.exact(A), oracles.exact(X)))
    smallest, kappa = condition(draw.problem)
    assert relative(DX, exact) <= 1e-13 * kappa
    assert np.vdot(DX, Y) == pytest.approx(np.vdot(X, DY), abs=1e-12 * kappa / smallest)


def test_the_sixty_digit_derivative_agrees_with_sixty_digit_differences(rng):
    A, X, h = *(oracles.exact(rng.standard_normal((5, 3))) for _ in range(2)), oracles.mp.mpf(10) ** -20
    ahead, behind = (oracles.exact_polar(A + t * X)[0] for t in (h, -h))
    error = oracles.mp.mnorm((ahead - behind) / (2 * h) - oracles.exact_polar_derivative(A, X), "F")
    assert error < 1e-30


@given(draws(kinds=SOFT, proxes=("none", "near"), dtypes=(np.float64,), limit=0), st.integers(-900, 900))
def test_scaling_means_and_delta_divides_the_gradient(draw, exponent):
    problem, G, t = draw.problem, draw.cotangent(), 2.0**exponent
    scaled = NearestETF(t * problem.H, problem.prox, t * problem.delta, problem.F)
    before, after = (nearest_etf_vjp(p, solve(p).U, G).H for p in (problem, scaled))
    np.testing.assert_allclose(t * after, before, rtol=1e-13, atol=1e-13 * np.abs(before).max())


@given(draws(proxes=("near",), limit=0))
def test_the_proximal_point_gets_its_share(draw):
    problem, G = draw.problem, draw.cotangent()
    assume(solve(problem).certificate.unique)
    gradient = nearest_etf_vjp(problem, solve(problem).U, G)
    np.testing.assert_allclose(
        gradient.prox @ problem.F * 2 / problem.delta, gradient.H, rtol=1e-4, atol=1e-5 * np.abs(gradient.H).max()
    )


def test_without_a_proximal_point_there_is_no_gradient_for_it(rng):
    problem = NearestETF(rng.standard_normal((5, 3)))
    assert nearest_etf_vjp(problem, solve(problem).U, rng.standard_normal((5, 3)) @ problem.F.T).prox is None


@pytest.mark.parametrize("size", [1e308, 1e-308])
def test_a_huge_or_tiny_cotangent_overflows_nowhere_on_the_way(size, rng):
    problem = NearestETF(8 * rng.standard_normal((5, 4)))
    E = rng.uniform(-1, 1, (5, 4)) @ problem.F.T
    plain, scaled = (nearest_etf_vjp(problem, solve(problem).U, t * E).H for t in (1.0, size))
    np.testing.assert_allclose(scaled / size, plain, rtol=0, atol=1e-6 * np.abs(plain).max())


def test_a_gradient_out_of_single_precision_is_infinite_and_warns_of_nothing(rng):
    problem = NearestETF((1e-42 * rng.standard_normal((5, 4))).astype(np.float32))
    gradient = nearest_etf_vjp(problem, solve(problem).U, rng.standard_normal((5, 4)) @ problem.F.T).H
    assert not np.isnan(gradient).any()


@pytest.mark.parametrize("d", [10**4, 10**5])
def test_the_gradient_of_a_long_column_of_equal_entries_keeps_the_promise(d):
    # there sums of equal terms round the same way: the minimiser is constant, and so is what U takes out of G
    problem = NearestETF(np.outer(np.full(d, 1 / 3), [1.0, -1.0]), frame=simplex_etf(2, reduced=True))
    G = np.where(np.arange(d) % 2, 0.7, 0.4)[:, None]
    size = float(oracles.exact(1 / 3) * 4 * oracles.exact(problem.F[0, 0]) * oracles.mp.sqrt(d))
    exact = 2 * (G - math.fsum(G[:, 0]) / d) / size @ problem.F
    found = nearest_etf_vjp(problem, solve(problem).U, G).H
    assert np.linalg.norm(found - exact) <= 20 * 2 * problem.unit * np.linalg.norm(exact)
