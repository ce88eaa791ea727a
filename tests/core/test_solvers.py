"""One contract for every solver: feasible, certified or honestly not converged, agreeing in U F, judged by others."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from etfopt import ConvergenceError, InputError, NearestETF, Solution, Termination, nearest_etf, simplex_etf, solve
from etfopt.solvers import ConjugateGradient, ConvexRelaxation, SteepestDescent, TrustRegion, _pymanopt, _riemannian
from etfopt.solvers.base import Solver
from etfopt.solvers.convex_relaxation import RelaxationStats
from etfopt.solvers.procrustes import Procrustes
from tests.tools.plain_pymanopt import our_trust_region, paper_problem, plain_trust_region
from tests.tools.strategies import means_with, orthonormal, with_spectrum

EXACT: dict[str, Solver] = {
    "procrustes": Procrustes(),
    "procrustes, svd": Procrustes("svd"),
    "procrustes, gram": Procrustes("gram"),
    "procrustes, newton-schulz": Procrustes("newton-schulz"),
    "trust region": TrustRegion(restarts=1),
    "trust region, autograd": TrustRegion(restarts=1, derivatives="autograd"),
    "trust region, polar": TrustRegion(restarts=1, retraction="polar"),
    "clarabel": ConvexRelaxation(),
    "scs": ConvexRelaxation("SCS"),
}
FIRST_ORDER: dict[str, Solver] = {
    "conjugate gradient": ConjugateGradient(restarts=1),
    "steepest descent": SteepestDescent(restarts=1, max_iterations=300),
}
SOLVERS = EXACT | FIRST_ORDER


def problems() -> dict[str, NearestETF]:
    rng = np.random.default_rng(0)
    reduced = simplex_etf(4, reduced=True)
    generic = rng.standard_normal((9, 4))
    prox = orthonormal(9, 4, rng)
    return {
        "generic": NearestETF(generic),
        "proximal": NearestETF(generic, prox, 0.1),
        "reduced": NearestETF(generic, frame=reduced),
        "collapsed": NearestETF(orthonormal(9, 3, rng) @ reduced),
        "repeated": NearestETF(means_with(with_spectrum(9, np.array([1.0, 1.0, 0.5]), rng)), frame=reduced),
        "ill-conditioned": NearestETF(means_with(with_spectrum(9, np.array([1.0, 0.1, 1e-3]), rng)), frame=reduced),
        "rank one": NearestETF(np.outer(rng.standard_normal(9), rng.standard_normal(4))),
        "zero": NearestETF(np.zeros((9, 4))),
        "d = C": NearestETF(rng.standard_normal((4, 4)), orthonormal(4, 4, rng), 1e-3),
        "d = C - 1": NearestETF(rng.standard_normal((3, 4)), frame=reduced),
        "huge": NearestETF(1e200 * generic),
        "tiny": NearestETF(1e-200 * generic),
        "single precision": NearestETF(generic.astype(np.float32), frame=reduced),
        "two classes": NearestETF(rng.standard_normal((5, 2))),
        "another frame": NearestETF(rng.standard_normal((6, 5)), frame=rng.standard_normal((2, 5))),
    }


PROBLEMS = problems()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_verdict_is_the_certificates_and_it_is_true(solver, problem):
    problem = PROBLEMS[problem]
    solution, best = solve(problem, SOLVERS[solver], throw=False), solve(problem)
    assert solution.certificate.feasible
    assert solution.U.dtype == problem.dtype
    assert isinstance(solution.termination, Termination)
    assert solution.converged == solution.certificate.optimal(SOLVERS[solver].gap_tolerance(problem))
    if solution.converged and best.certificate.etf_unique:
        scale = np.linalg.norm(problem.F, 2)
        distance = np.linalg.norm(solution.etf.astype(float) - best.etf)
        assert distance <= solution.certificate.etf_distance_bound + best.certificate.etf_distance_bound
        assert distance <= 1e-3 * scale


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", EXACT)
def test_solvers_that_promise_the_optimum_reach_it(solver, problem):
    solution = solve(PROBLEMS[problem], EXACT[solver], throw=False)
    assert solution.converged, solution.certificate


@pytest.mark.parametrize("solver", [TrustRegion, ConjugateGradient, SteepestDescent])
def test_descent_starts_where_it_is_told_and_repeats_with_the_seed(solver, rng):
    problem = NearestETF(rng.standard_normal((8, 3)), orthonormal(8, 3, rng), 0.5)
    first, second = (solve(problem, solver(seed=3), throw=False) for _ in range(2))
    assert np.array_equal(first.U, second.U)
    at_the_answer = solve(problem, solver(), initial_point=solve(problem).U)
    assert at_the_answer.stats.iterations <= 3
    assert at_the_answer.stats.trace[0].gradient_norm < 1e-9


@pytest.mark.parametrize("solver", [TrustRegion, ConjugateGradient, SteepestDescent])
@pytest.mark.parametrize("start", [1.0, -1.0, 1 - 1e-7])
def test_two_classes_on_a_line_leave_nothing_to_descend_and_the_certificate_judges_the_start(solver, start):
    problem = NearestETF(np.array([[1.0, -0.5]]), frame=simplex_etf(2, reduced=True))
    solution = solve(problem, solver(), initial_point=np.array([[start]]), throw=False)
    assert solution.termination is Termination.GRADIENT_TOLERANCE
    assert solution.converged == (start == 1)
    assert len(solution.stats.trace) == solution.stats.iterations == 1
    assert solution.stats.trace[0].objective == pytest.approx(solution.objective)
    assert solve(problem, solver(restarts=1), initial_point=np.array([[-1.0]])).converged


@pytest.mark.parametrize("solver", [TrustRegion, ConjugateGradient, SteepestDescent])
def test_descent_from_an_exact_critical_point_stays_there(solver):
    saddle = np.eye(4, 3) * [1, -1, 1]
    solution = solve(NearestETF(np.eye(4, 3), frame=np.eye(3)), solver(), initial_point=saddle, throw=False)
    assert np.array_equal(solution.U, saddle)
    assert solution.termination is Termination.GRADIENT_TOLERANCE
    assert not solution.converged


@pytest.mark.parametrize("solver", [TrustRegion, ConjugateGradient, SteepestDescent])
def test_the_trace_falls_to_the_objective_of_the_answer(solver, rng):
    problem = NearestETF(3 * rng.standard_normal((8, 3)), orthonormal(8, 3, rng), 0.5)
    solution = solve(problem, solver(max_iterations=40), throw=False)
    trace = solution.stats.trace
    assert len(trace) == solution.stats.iterations
    assert [point.iteration for point in trace] == list(range(1, len(trace) + 1))
    assert np.all(np.diff([point.seconds for point in trace]) >= 0)
    objectives = np.array([point.objective for point in trace])
    assert np.all(np.diff(objectives) <= 1e-12)
    # steepest descent takes one more step after it has last looked at the gradient
    last_step = objectives[-1] - solution.objective
    assert -1e-12 <= last_step <= (0.1 if solver is SteepestDescent else 1e-12)


def test_both_kinds_of_derivatives_walk_the_same_path(rng):
    problem = NearestETF(rng.standard_normal((8, 3)), orthonormal(8, 3, rng), 0.01)
    written, traced = (solve(problem, TrustRegion(derivatives=kind)).stats for kind in ("analytic", "autograd"))
    assert written.iterations == traced.iterations
    np.testing.assert_allclose(
        [p.objective for p in written.trace], [p.objective for p in traced.trace], rtol=1e-9, atol=1e-12
    )


def test_limits_end_a_run_and_are_named():
    problem = PROBLEMS["proximal"]
    short = solve(problem, TrustRegion(max_iterations=1), throw=False)
    assert short.termination is Termination.ITERATION_LIMIT
    assert not short.converged
    late = solve(problem, TrustRegion(max_seconds=1e-9), throw=False)
    assert late.termination is Termination.TIME_LIMIT
    with pytest.raises(ConvergenceError, match=r"TrustRegion.*relative gap.*raise max_iterations"):
        solve(problem, TrustRegion(max_iterations=1))


def test_with_room_all_of_a_hundred_starts_reach_the_certified_optimum(rng):
    problem = NearestETF(rng.standard_normal((12, 5)), orthonormal(12, 5, rng), 1e-3)
    assert all(solve(problem, TrustRegion(seed=seed), throw=False).converged for seed in range(100))


def test_a_start_in_the_wrong_component_is_confident_wrong_and_found_out(rng):
    problem = NearestETF(rng.standard_normal((4, 4)), orthonormal(4, 4, rng), 0.05)
    best = solve(problem)
    solutions: list[Solution] = [solve(problem, TrustRegion(seed=seed), throw=False) for seed in range(100)]
    for solution in solutions:
        assert solution.termination is Termination.GRADIENT_TOLERANCE
        assert solution.converged == (np.linalg.det(solution.U) * np.linalg.det(best.U) > 0)
    missed = [solution for solution in solutions if not solution.converged]
    assert 30 < len(missed) < 70  # each component holds half of the starts
    assert all(solution.certificate.curvature < 0 for solution in missed)
    with pytest.raises(ConvergenceError, match=r"wrong component.*restarts"):
        solve(problem, TrustRegion(), initial_point=missed[0].U)
    assert solve(problem, TrustRegion(restarts=1), initial_point=missed[0].U).converged


@pytest.mark.parametrize("seed", range(8))
def test_the_trust_region_needs_no_more_iterations_than_a_plain_script(seed):
    problem, start = paper_problem(20, 5, seed)
    ours, plain = (run(problem, start, 1e-6) for run in (our_trust_region, plain_trust_region))
    assert ours.iterations <= plain.iterations
    np.testing.assert_allclose(ours.U @ problem.F, plain.U @ problem.F, rtol=0, atol=1e-4)


def test_the_trace_of_a_later_start_counts_the_earlier_ones(rng, monkeypatch):
    problem = NearestETF(rng.standard_normal((4, 4)), orthonormal(4, 4, rng), 0.05)
    wrong = solve(problem).U.copy()
    wrong[:, 0] *= -1
    start = orthonormal(4, 4, rng)
    start[:, 0] *= np.sign(np.linalg.det(start) * np.linalg.det(wrong))
    first = solve(problem, TrustRegion(), initial_point=start, throw=False)
    assert not first.converged
    ticks = count()
    for module in (_riemannian, _pymanopt):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    both = solve(problem, TrustRegion(restarts=1), initial_point=start)
    assert both.stats.trace[0].seconds == len(first.stats.trace) + 1
    assert both.stats.trace[-1].seconds < both.stats.seconds


@pytest.mark.parametrize("backend", ["CLARABEL", "SCS"])
@pytest.mark.parametrize("name", ["generic", "proximal", "reduced", "repeated", "rank one", "zero", "d = C"])
def test_the_relaxation_is_tight_and_its_bounds_enclose_the_nuclear_norm(name, backend):
    stats = solve(PROBLEMS[name], ConvexRelaxation(backend), throw=False).stats
    assert isinstance(stats, RelaxationStats)
    assert stats.primal <= stats.nuclear_norm + 1e-12
    assert stats.dual >= stats.nuclear_norm - 1e-12
    assert stats.dual - stats.primal <= (1e-5 if backend == "CLARABEL" else 1e-2)
    assert stats.status.startswith("optimal")


@pytest.mark.parametrize("backend", ["CLARABEL", "SCS"])
def test_the_relaxation_has_an_answer_for_every_rank_deficient_problem(rng, backend):
    # to one such problem in some 150 SCS answers NaN where it may factorise with MKL
    for r in (3, 4, 5) * 100:
        A = orthonormal(r, r, rng) @ simplex_etf(r) @ orthonormal(r, r, rng)
        F = simplex_etf(r + 1, reduced=True)
        problem = NearestETF(A @ F, frame=F)
        stats = solve(problem, ConvexRelaxation(backend), throw=False).stats
        assert isinstance(stats, RelaxationStats)
        assert stats.dual - stats.primal <= (1e-5 if backend == "CLARABEL" else 1e-3)


def test_the_relaxation_says_when_its_minimiser_is_not_on_the_manifold():
    inside, on = (solve(PROBLEMS[name], ConvexRelaxation()).stats for name in ("rank one", "reduced"))
    assert not inside.on_manifold
    assert inside.infeasibility > 0.1
    assert on.on_manifold


def test_a_conic_solver_that_breaks_down_is_an_error_with_size_and_conditioning(monkeypatch, rng):
    import cvxpy

    def breaks_down(*_, **__):
        raise cvxpy.error.SolverError("numerical difficulties")

    monkeypatch.setattr(cvxpy.Problem, "solve", breaks_down)
    with pytest.raises(
        ConvergenceError, match=r"CLARABEL .* r = 3 and condition number \d.*numerical diff.*Procrustes"
    ):
        nearest_etf(rng.standard_normal((8, 3)), solver=ConvexRelaxation())


def test_a_conic_solver_without_an_answer_is_an_error_with_its_status(monkeypatch, rng):
    import cvxpy

    monkeypatch.setattr(cvxpy.Problem, "solve", lambda *_, **__: None)
    monkeypatch.setattr(cvxpy.Problem, "status", "infeasible_inaccurate")
    with pytest.raises(ConvergenceError, match=r"SCS found no solution .*: infeasible_inaccurate"):
        nearest_etf(rng.standard_normal((8, 3)), solver=ConvexRelaxation("SCS"))


def test_a_relaxation_too_large_to_check_is_refused(rng):
    with pytest.raises(InputError, match=r"order 82; max_size = 40 .*use Procrustes\(\), or raise max_size"):
        nearest_etf(rng.standard_normal((50, 41)), solver=ConvexRelaxation())
    with pytest.raises(InputError, match="max_size = 2"):
        nearest_etf(rng.standard_normal((5, 3)), solver=ConvexRelaxation(max_size=2))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Procrustes, {"method": "qr"}, "method = 'qr' is not known; choose one of: newton-schulz, gram, svd, auto"),
        (TrustRegion, {"max_iterations": 0}, "max_iterations must be an integer of at least 1; got 0"),
        (TrustRegion, {"gradient_tolerance": 0.0}, "gradient_tolerance must be finite and above 0"),
        (TrustRegion, {"max_seconds": -1}, "max_seconds must be finite and above 0"),
        (TrustRegion, {"restarts": -1}, "restarts must be an integer of at least 0"),
        (TrustRegion, {"derivatives": "jax"}, "derivatives = 'jax' is not known; choose one of: analytic, autograd"),
        (TrustRegion, {"retraction": "exp"}, "retraction = 'exp' is not known; choose one of: qr, polar"),
        (ConvexRelaxation, {"backend": "MOSEK"}, "backend = 'MOSEK' is not known; choose one of: CLARABEL, SCS"),
        (ConvexRelaxation, {"max_size": 0}, "max_size must be an integer of at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
