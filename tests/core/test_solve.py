"""The one verb with the closed form: its promises on accuracy, its symmetries, and what it says when it cannot."""

import math

import numpy as np
import pytest
from hypothesis import given

from etfopt import ConvergenceError, InputError, NearestETF, Termination, nearest_etf, simplex_etf, solve
from etfopt.solvers import procrustes
from etfopt.solvers.base import Candidate, Solver, Stats
from etfopt.solvers.procrustes import Procrustes
from tests.tools import oracles
from tests.tools.strategies import DEGENERATE, DELTAS, draws, means_with, orthonormal, regular_draws, with_spectrum

SOFT = ("generic", "repeated", "clustered")
MODERATE = {"dtypes": (np.float64,), "limit": 0, "max_classes": 6}


def exact_minimiser(problem: NearestETF) -> tuple[np.ndarray, float]:
    """U* to sixty digits, rounded, and the condition number of A."""
    A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
    U, _, s = oracles.exact_polar(A)
    return oracles.rounded(U), float(s[-1] / s[0])


# --- the promises of design.md ------------------------------------------------------------------------------------


every_method = pytest.mark.parametrize("method", ["svd", "gram", "newton-schulz", "auto"])


@every_method
@given(draw=draws(max_classes=20))
def test_the_minimiser_is_orthonormal_stationary_and_optimal_whatever_the_condition(method, draw):
    problem, solution = draw.problem, solve(draw.problem, Procrustes(method))
    A, U, promised = problem.scaled_linear_term.A, solution.U.astype(np.float64), 10 * problem.C * problem.unit
    assert solution.certificate.feasibility <= promised
    assert np.linalg.norm(A - U @ (U.T @ A + A.T @ U) / 2) <= 1.5 * promised * np.linalg.norm(A, 2)
    assert abs(solution.certificate.relative_gap) <= promised
    assert solution.converged


@every_method
@given(draw=regular_draws(max_classes=5))
def test_the_minimiser_is_right_to_ten_c_u_kappa(method, draw):
    problem, (best, kappa) = draw.problem, exact_minimiser(draw.problem)
    assert np.linalg.norm(solve(problem, Procrustes(method)).U - best) <= 10 * problem.C * problem.unit * kappa


@pytest.mark.parametrize("shift", [2.0**7, 2.0**14, 2.0**20])
@pytest.mark.parametrize("smallest", [0.5, 2.0**-10])
def test_a_mean_common_to_all_classes_does_not_loosen_the_promise(shift, smallest):
    X = np.diag([1.0, 0.75, smallest])
    H = np.round(means_with(np.vstack([X, X[::-1] / 4])) * 2**20) / 2**20
    shifted = H + shift * np.array([[1.0], [-2.0], [3.0], [1.0], [0.0], [-1.0]])  # exact: all are multiples of 2^-20
    F = simplex_etf(4, reduced=True)
    _, kappa = exact_minimiser(NearestETF(H, frame=F))
    error = np.linalg.norm(nearest_etf(shifted, frame=F).U - nearest_etf(H, frame=F).U)
    assert error <= 2 * 10 * 4 * 2.0**-52 * kappa


@pytest.mark.parametrize("shift", [2.0**7, 2.0**14, 2.0**30])
@pytest.mark.parametrize("frame", ["simplex", "reduced"])
def test_nor_does_one_whose_mean_rounds(frame, shift, rng):
    H = shift * np.array([[1.0], [-2.0], [3.0], [1.0], [0.7], [-1.3]]) + rng.integers(-(2**20), 2**20, (6, 5)) / 2**20
    F = simplex_etf(5) if frame == "simplex" else simplex_etf(5, reduced=True)
    R = simplex_etf(5, reduced=True)
    centred = oracles.exact(H) * (oracles.mp.eye(5) - oracles.mp.ones(5, 5) / 5)
    U, _, s = oracles.exact_polar(2 * centred * oracles.exact(R).T)
    error = np.linalg.norm(nearest_etf(H, frame=F).etf - oracles.rounded(U) @ R) / np.linalg.norm(R, 2)
    assert error <= 10 * 5 * 2.0**-52 * float(s[-1] / s[0])


@every_method
@pytest.mark.parametrize("seed", [746, 2144, 2577, 4231])
def test_singular_values_that_a_dominating_proximal_term_clusters_do_not_loosen_the_promise(seed, method):
    rng = np.random.default_rng(seed)  # found by search: LAPACK splits such clusters at about fifty units
    prox = orthonormal(3, 3, rng)
    problem = NearestETF(10.0 ** rng.uniform(-12, -5) * rng.standard_normal((3, 3)), prox, 1.0)
    best, kappa = exact_minimiser(problem)
    assert np.linalg.norm(solve(problem, Procrustes(method)).U - best) <= 10 * 3 * problem.unit * kappa


@given(draws(kinds=SOFT, deltas=DELTAS[:-1], **MODERATE))
def test_the_closed_form_agrees_with_slow_descent(draw):
    problem = draw.problem
    slow = oracles.slow_minimum(problem.H, problem.F, problem.prox, problem.delta, draw.rng)
    solution = solve(problem)
    reached = oracles.objective(slow, problem.H, problem.F, problem.prox, problem.delta)
    assert solution.objective <= reached + 1e-12
    # descent crawls where the proximal term alone holds a direction
    easy = problem.prox is None or solution.certificate.margin > 0.01
    assert reached - solution.objective <= (1e-10 if easy else 1e-3)
    if easy:
        np.testing.assert_allclose(slow @ problem.F, solution.etf, rtol=0, atol=1e-5)


# --- degenerate means ---------------------------------------------------------------------------------------------


@given(draws(kinds=DEGENERATE, proxes=("none",)))
def test_degenerate_means_give_a_point_on_the_manifold_that_is_not_called_unique(draw):
    solution = solve(draw.problem)
    numbers = [solution.U, solution.etf, solution.weight, solution.scale, solution.distance, solution.objective]
    assert not any(np.isnan(x).any() for x in numbers)
    assert solution.converged
    assert not solution.certificate.unique


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 0.1, 1.0, 1e30])
@pytest.mark.parametrize(("d", "C"), [(2, 2), (4, 4), (9, 4)])
def test_equal_means_leave_the_etf_undetermined(d, C, size, dtype):
    H = np.full((d, C), size, dtype) * np.linspace(1, 2, d, dtype=dtype)[:, None]
    certificate = nearest_etf(H).certificate
    assert certificate.feasible
    assert not certificate.unique
    assert not certificate.etf_unique


@pytest.mark.parametrize("scale", [np.finfo(np.float64).max / 4, 1e300, 1e-300, 1e-320])
def test_the_ends_of_the_range_are_solved_without_a_warning(scale, rng):
    X = with_spectrum(6, np.array([1.0, 0.7, 0.4]), rng)
    plain, scaled = (nearest_etf(t * means_with(X) / 2, frame=simplex_etf(4, reduced=True)) for t in (1.0, scale))
    assert scaled.certificate.unique
    np.testing.assert_allclose(scaled.U, plain.U, rtol=0, atol=1e-2 if scale < 1e-310 else 1e-13)
    np.testing.assert_allclose(scaled.distance, scale * plain.distance, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("ratio", [1.0, 1e-20, 1e-60])
def test_a_frame_that_sees_only_a_faint_class_is_still_solved(ratio):
    H = np.array([[1e30, 1e30 * ratio], [2e30, 2e30 * ratio]], dtype=np.float32)
    solution = nearest_etf(H, frame=np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(solution.U[:, 0], np.array([1, 2]) / math.sqrt(5), rtol=0, atol=1e-6)


# --- the verb -----------------------------------------------------------------------------------------------------


class Stubborn(Solver):
    """A solver that always returns the same point and is sure of it."""

    def __init__(self, U: np.ndarray) -> None:
        self.U = U

    def gap_tolerance(self, problem: NearestETF) -> float:
        return 1e-10 * problem.C

    def run(self, problem: NearestETF, initial_point: np.ndarray | None = None) -> Candidate:
        assert initial_point is None or initial_point.shape == (problem.d, problem.r)
        return Candidate(self.U, Termination.CLOSED_FORM, Stats("Stubborn", 0.0))


@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.001])
def test_a_solver_that_is_wrong_but_sure_is_not_believed(factor, rng):
    problem = NearestETF(rng.standard_normal((5, 3)), frame=simplex_etf(3, reduced=True))
    U = factor * solve(problem).U
    with pytest.raises(ConvergenceError, match=r"Stubborn.*relative gap.*closed form.*throw=False") as caught:
        solve(problem, Stubborn(U))
    assert np.array_equal(caught.value.solution.U, U)
    assert not solve(problem, Stubborn(U), throw=False).converged


class Limited(Stubborn):
    """A solver with one setting, which it says would help or not."""

    max_iterations = 7

    def __init__(self, U: np.ndarray, termination: Termination) -> None:
        super().__init__(U)
        self.termination = termination

    def run(self, problem: NearestETF, initial_point: np.ndarray | None = None) -> Candidate:
        return Candidate(super().run(problem, initial_point).U, self.termination, Stats("Limited", 0.0))


@pytest.mark.parametrize("termination", Termination)
def test_no_solver_is_advised_to_change_a_setting_that_it_does_not_have(termination: Termination):
    problem = NearestETF(np.eye(5, 3))
    with pytest.raises(ConvergenceError, match=r"Remedies: .*Procrustes\(\), or throw=False") as caught:
        solve(problem, Limited(-solve(problem).U, termination))
    said = str(caught.value)
    assert ("raise max_iterations = 7" in said) == (termination is Termination.ITERATION_LIMIT)
    for name in ("restarts", "max_seconds", "gradient_tolerance"):
        assert name not in said


@pytest.mark.parametrize(("method", "remedy"), [("gram", "Procrustes(method='svd')"), ("svd", "report this as a bug")])
def test_the_closed_form_is_not_advised_to_be_itself(method, remedy, monkeypatch):
    problem = NearestETF(np.eye(5, 3))
    monkeypatch.setattr(procrustes, "_polar", lambda *_: (np.eye(5, 3)[:, ::-1], 0, ""))
    with pytest.raises(ConvergenceError) as caught:
        solve(problem, Procrustes(method))
    assert f"{remedy}, or throw=False to inspect the point" in str(caught.value)


def test_a_solver_that_is_right_is_believed_whoever_it_is(rng):
    problem = NearestETF(rng.standard_normal((5, 3)))
    solution = solve(problem, Stubborn(solve(problem).U), initial_point=np.eye(5, 3))
    assert solution.converged
    assert solution.stats.solver == "Stubborn"


def test_the_closed_form_needs_no_start_and_reports_no_iterations(rng):
    H = rng.standard_normal((5, 3))
    solution = nearest_etf(H, solver=Procrustes(), initial_point=np.eye(5, 3))
    assert np.array_equal(solution.U, nearest_etf(H).U)
    assert solution.termination is Termination.CLOSED_FORM
    assert (solution.stats.solver, solution.stats.iterations, solution.stats.trace) == ("Procrustes", 0, ())


@pytest.mark.parametrize("solver", [Procrustes, len, 7])
def test_what_is_no_solver_is_refused(solver):
    with pytest.raises(InputError, match=r"solver .*Procrustes\(\)"):
        nearest_etf(np.eye(3), solver=solver)
