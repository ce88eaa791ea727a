"""The certificate: what it says of a point is true of the problem, whichever way the point was found."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import NearestETF, certify, nearest_etf, simplex_etf, solve
from etfopt.solvers.procrustes import Procrustes
from tests.tools import oracles
from tests.tools.strategies import DEGENERATE, draws, means_with, orthonormal, regular_draws, retract, with_spectrum

MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 5}
ANGLES = (0.0, 1e-12, 1e-8, 1e-4, 1e-2, 0.5, 3.0)


def minimiser(problem: NearestETF) -> np.ndarray:
    A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
    return oracles.rounded(oracles.exact_polar(A)[0])


def moved(U: np.ndarray, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Return a point of the manifold about `angle` away from U."""
    return retract(U + angle * rng.standard_normal(U.shape) / math.sqrt(U.size))


@given(draws(**MODERATE), st.sampled_from(ANGLES))
def test_the_gap_is_the_excess_objective(draw, angle):
    problem, best = draw.problem, solve(draw.problem).U
    U = moved(best, angle, draw.rng)
    excess, size = problem.objective(U) - problem.objective(best), 1 + np.sum(problem.H**2) + problem.delta
    assert certify(problem, U).gap == pytest.approx(excess, abs=1e-13 * size)


@given(regular_draws())
def test_the_opposite_of_the_minimiser_is_as_bad_as_can_be(draw):
    certificate = certify(draw.problem, -solve(draw.problem).U)
    assert certificate.relative_gap == pytest.approx(2, rel=1e-4)
    assert certificate.curvature < 0
    assert not certificate.optimal(1.0)


@given(regular_draws(max_classes=5), st.sampled_from(ANGLES))
def test_no_feasible_point_lies_farther_than_the_distance_bound(draw, angle):
    best = minimiser(draw.problem)
    U = moved(best, angle, draw.rng)
    certificate = certify(draw.problem, U)
    assert np.linalg.norm(U - best) <= certificate.distance_bound
    assert np.linalg.norm((U - best) @ draw.problem.F) <= certificate.etf_distance_bound


@given(regular_draws(max_classes=5), st.sampled_from((1e-10, 1e-6, 1e-2, 0.5, 2.0)))
def test_the_bound_holds_for_points_off_the_manifold(draw, size):
    best = minimiser(draw.problem)
    U = best + size * draw.rng.standard_normal(best.shape)
    assert np.linalg.norm(U - best) <= certify(draw.problem, U).distance_bound


@given(draws(frames=("simplex",), proxes=("none",), kinds=("generic", "tiny"), **MODERATE), st.sampled_from(ANGLES))
def test_the_bound_on_the_etf_needs_no_proximal_term(draw, angle):
    problem, C = draw.problem, draw.problem.C
    reduced = NearestETF(problem.H, frame=simplex_etf(C, reduced=True))
    best = minimiser(reduced) @ reduced.F
    U = moved(solve(problem).U, angle, draw.rng)
    certificate = certify(problem, U)
    assert np.linalg.norm(U @ problem.F - best) <= certificate.etf_distance_bound < math.inf
    assert certificate.distance_bound == math.inf


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("angle", [1e-6, 1e-2, 1.0])
def test_the_bound_on_the_etf_grows_with_the_frame(angle, size, rng):
    F, best = size * orthonormal(5, 3, rng).T, orthonormal(7, 3, rng)
    U = moved(best, angle, rng)
    bound = certify(NearestETF(best @ F, frame=F), U).etf_distance_bound
    assert np.linalg.norm((U - best) @ F) <= bound <= 2 * np.linalg.norm((U - best) @ F)


@pytest.mark.parametrize("shift", [0.0, 1e2, 1e5, 1e8])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-5])
def test_the_bound_survives_a_large_mean_common_to_all_classes(shift, smallest, rng):
    X = with_spectrum(6, np.array([1.0, 0.5, smallest]), rng)
    H = means_with(X) + shift * rng.standard_normal((6, 1))
    centred = oracles.exact(H) * (oracles.mp.eye(4) - oracles.mp.ones(4, 4) / 4)  # what the simplex sees of H
    best = oracles.exact_polar(centred * oracles.exact(simplex_etf(4, reduced=True)).T)[0]
    solution = nearest_etf(H, frame=simplex_etf(4, reduced=True))
    assert np.linalg.norm(solution.U - oracles.rounded(best)) <= solution.certificate.distance_bound


@pytest.mark.parametrize("delta", [1.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("smallest", [1e-2, 1e-4, 1e-6])
def test_the_bound_survives_a_proximal_term_that_cancels_the_data(delta, smallest, rng):
    X, prox = with_spectrum(6, np.array([1.0, 0.5, smallest]), rng), orthonormal(6, 3, rng)
    problem = NearestETF(means_with(X - delta * prox), prox=prox, delta=delta, frame=simplex_etf(4, reduced=True))
    solution = solve(problem)
    assert np.linalg.norm(solution.U - minimiser(problem)) <= solution.certificate.distance_bound


TALL = [10, 10**3, 10**4, 10**5, 10**6]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["svd", "gram", "newton-schulz"])
@pytest.mark.parametrize("d", TALL)
def test_a_column_of_any_length_keeps_the_promises_and_the_bounds_hold(d, method, dtype):
    # an inner product of d equal terms can round the same way d times: seen, 65 u at d = 10**4 and 6600 u at 10**6
    entry = np.float64(dtype(1 / 3))
    problem = NearestETF(np.outer(np.full(d, entry), [1.0, -1.0]).astype(dtype), frame=simplex_etf(2, reduced=True))
    solution = solve(problem, Procrustes(method))
    U, best = solution.U.astype(np.float64), 1 / math.sqrt(d)
    assert abs(math.fsum(U[:, 0] ** 2) - 1) <= 10 * 2 * problem.unit
    assert solution.certificate.feasibility <= 10 * 2 * problem.unit
    assert solution.certificate.relative_stationarity <= 15 * 2 * problem.unit
    assert np.linalg.norm(U - best) <= min(10 * 2 * problem.unit, solution.certificate.distance_bound)


def test_what_counts_as_feasible_grows_by_one_addition_a_doubling_beyond_2048_rows():
    def tolerance(d: int) -> float:
        return certify(
            NearestETF(np.ones((d, 2)), frame=np.array([[1.0, -0.5]])), np.ones((d, 1))
        ).feasibility_tolerance

    units = [tolerance(d) / 2.0**-52 for d in (5, 2048, 4096, 2**20)]
    assert units == pytest.approx([100, 100, 101, 109])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("frame", ["simplex", "reduced"])
@pytest.mark.parametrize("smallest", [1.0, 1e-2])
def test_the_bounds_of_an_answer_right_to_rounding_are_near_rounding(smallest, frame, dtype, rng):
    X = with_spectrum(9, np.array([1.0, 0.5, smallest]), rng)
    solution = nearest_etf(means_with(X).astype(dtype), frame=simplex_etf(4, reduced=frame == "reduced"))
    assert solution.certificate.etf_distance_bound <= 3000 * np.finfo(dtype).eps / smallest


@given(regular_draws(max_classes=5), st.sampled_from((1e-12, 1e-8, 1e-4)))
def test_near_the_minimiser_the_bound_is_of_the_order_of_the_distance(draw, angle):
    problem, best = draw.problem, minimiser(draw.problem)
    U = moved(best, angle, draw.rng)
    certificate = certify(problem, U)
    A = problem.scaled_linear_term.A
    s = np.linalg.svd(A, compute_uv=False)
    rounding = 500 * problem.r * 2.0**-52 * (np.linalg.norm(A) + problem.scaled_linear_term.rounding / problem.unit)
    assert (
        certificate.distance_bound <= (20 * np.linalg.norm(U - best) * s[0] + rounding) / s[-1]
        or not certificate.unique
    )


def test_a_symmetric_positive_product_with_A_is_not_enough_where_d_exceeds_r():
    problem = NearestETF(np.array([[1.0, -1.0], [1.0, -1.0]]), frame=simplex_etf(2, reduced=True))  # A ~ (1, 1)'
    certificate = certify(problem, np.array([[1.0], [0.0]]))
    assert certificate.curvature > 0
    assert certificate.relative_gap == pytest.approx(1 - math.sqrt(0.5))
    assert certificate.relative_stationarity == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("faint", [1e-2, 1e-3, 1e-4, 1e-6])
def test_a_direction_that_the_frame_sees_faintly_is_still_seen(faint, dtype):
    H = np.diag([1.0, 0.5, 0.0]).astype(dtype)
    problem = NearestETF(H, frame=np.diag([1.0, 1.0, faint]))
    U, other = np.eye(3), np.diag([1.0, 1.0, -1.0])  # both are minimisers
    certificate = certify(problem, U)
    assert np.linalg.norm((U - other) @ problem.F) <= certificate.etf_distance_bound


@pytest.mark.parametrize("d", [3, 6])
def test_a_critical_point_that_is_not_the_minimiser_is_told_by_its_curvature(d, rng):
    P, Q, s = orthonormal(d, 3, rng), orthonormal(3, 3, rng), np.array([1.0, 0.5, 0.2])
    H = means_with(P * s @ Q.T)
    certificate = certify(NearestETF(H, frame=simplex_etf(4, reduced=True)), P * [1, 1, -1] @ Q.T)
    assert certificate.relative_stationarity < 1e-14
    assert certificate.curvature == pytest.approx(-0.2)
    assert certificate.gap == pytest.approx(0.4)
    assert certificate.relative_gap == pytest.approx(0.4 / 1.7)
    assert certificate.margin == pytest.approx(0.2)
    assert not certificate.optimal(1e-6)


@given(draws(**MODERATE))
def test_a_random_point_has_no_negative_gap_and_is_not_called_critical(draw):
    problem = draw.problem
    U = orthonormal(problem.d, problem.r, draw.rng)
    certificate, A = certify(problem, U), problem.linear_term
    expected = np.linalg.norm(A - U @ (U.T @ A + A.T @ U) / 2)
    assert certificate.relative_gap >= -1e-14
    assert certificate.stationarity == pytest.approx(expected, abs=1e-14 * np.linalg.norm(A))


@given(regular_draws(max_classes=5))
def test_a_minimiser_is_called_unique_when_the_margin_is_above_what_rounding_the_data_can_do(draw):
    problem, certificate = draw.problem, solve(draw.problem).certificate
    A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
    margin, prox = float(oracles.exact_polar(A)[2][0]), 0.0 if problem.prox is None else problem.prox
    H, F = float(oracles.mp.mnorm(oracles.exact(problem.H), "F")), np.linalg.norm(problem.F)
    rounding = problem.C * problem.unit * (2 * H * F + problem.delta * np.linalg.norm(prox))
    assert certificate.unique or margin < 2 * rounding
    assert not certificate.unique or margin > rounding / 2
    assert certificate.etf_unique or not certificate.unique


@given(draws(kinds=("generic", "repeated", "clustered"), proxes=("none",)))
def test_the_etf_of_spread_out_means_is_unique_in_either_frame(draw):
    certificate = solve(draw.problem).certificate
    assert certificate.etf_unique
    assert certificate.unique == (draw.problem.r == draw.problem.C - 1)


@given(draws(kinds=DEGENERATE, proxes=("none",)))
def test_the_etf_of_degenerate_means_is_not_unique(draw):
    certificate = solve(draw.problem).certificate
    assert not certificate.unique
    assert not certificate.etf_unique
    assert certificate.distance_bound == certificate.etf_distance_bound == math.inf


@given(draws(**MODERATE), st.sampled_from((1e-3, 0.1, 3.0)))
def test_infeasibility_is_measured_and_never_called_optimal(draw, size):
    problem = draw.problem
    U = (1 + size) * solve(problem).U
    certificate = certify(problem, U)
    assert certificate.feasibility == pytest.approx(((1 + size) ** 2 - 1) * math.sqrt(problem.r))
    assert not certificate.feasible
    assert not certificate.optimal(1.0)


@given(draws(**MODERATE), st.integers(-990, 990))
def test_only_what_has_the_units_of_the_objective_changes_with_its_scale(draw, exponent):
    problem = draw.problem
    U = orthonormal(problem.d, problem.r, draw.rng)
    t = 2.0**exponent
    scaled = NearestETF(t * problem.H, prox=problem.prox, delta=t * problem.delta, frame=problem.F)
    before, after = (dataclasses.asdict(certify(p, U)) for p in (problem, scaled))
    for name in ("stationarity", "curvature", "gap", "margin"):
        before[name] *= t
    assert after == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("size", [1e160, 1e300, 1.7e308])
def test_a_point_of_any_finite_size_can_be_judged(size):
    certificate = certify(NearestETF(np.eye(4, 3)), size * np.cos(np.arange(12.0)).reshape(4, 3))
    assert certificate.feasibility >= size
    assert not any(math.isnan(value) for value in dataclasses.asdict(certificate).values())
    assert not certificate.optimal(1.0)


@given(draws())
def test_every_number_of_a_certificate_is_a_number(draw):
    values = dataclasses.asdict(certify(draw.problem, orthonormal(draw.problem.d, draw.problem.r, draw.rng))).values()
    assert not any(math.isnan(value) for value in values)
    assert all(type(value) in (float, bool) for value in values)
