"""The symmetries of the problem, for every solver and for the bridge: each answer is judged by its own certificate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings

from etfopt import InputError, NearestETF, certify, solve
from etfopt.adjoint import nearest_etf_vjp
from etfopt.solvers import ConjugateGradient, ConvexRelaxation, SteepestDescent, TrustRegion
from etfopt.solvers.base import Solver
from etfopt.solvers.procrustes import Procrustes
from tests.tools import oracles
from tests.tools.strategies import Draw, draws, orthonormal
from tests.tools.weighted_cases import drawn

torch = pytest.importorskip("torch")
from etfopt.nn.functional import nearest_etf

SOFT = {"kinds": ("generic", "repeated", "clustered"), "dtypes": (np.float64,), "limit": 0, "max_classes": 4}
some = settings(max_examples=max(4, settings().max_examples // 6))
"""A sixth of the profile's examples: there are ten methods, five symmetries, and slow solvers among them."""


def solved_by(solver: Solver) -> Callable[[NearestETF], np.ndarray]:
    return lambda problem: solve(problem, solver, throw=False).U


def bridge(problem: NearestETF, dtype: torch.dtype = torch.float64) -> np.ndarray:
    prox = None if problem.prox is None else torch.tensor(problem.prox, dtype=dtype)
    H, frame = torch.tensor(problem.H, dtype=dtype), torch.tensor(problem.F, dtype=dtype)
    return nearest_etf(H, prox, problem.delta, frame).double().numpy()


SINGLE = 1e-5


@dataclass(frozen=True)
class Method:
    """A way to U, the relative gap that it promises here, and hence how near to the minimiser it comes."""

    run: Callable[[NearestETF], np.ndarray]
    gap: float

    def etf(self, problem: NearestETF) -> tuple[np.ndarray, float]:
        """Return U F and how far it may be from the nearest ETF, by the certificate; check the promised gap."""
        U = self.run(problem)
        certificate = certify(problem, U)
        assert certificate.relative_gap <= self.gap
        assert certificate.feasibility <= (1e-5 if self.gap == SINGLE else 1e-12)
        return U @ problem.F, certificate.etf_distance_bound


METHODS = {
    "svd": Method(solved_by(Procrustes("svd")), 1e-13),
    "gram": Method(solved_by(Procrustes("gram")), 1e-13),
    "newton-schulz": Method(solved_by(Procrustes("newton-schulz")), 1e-13),
    "trust region": Method(solved_by(TrustRegion(restarts=1)), 1e-10),
    # these two promise nothing within so few iterations: what they reach is judged all the same
    "conjugate gradient": Method(solved_by(ConjugateGradient(restarts=1, max_iterations=100)), np.inf),
    "steepest descent": Method(solved_by(SteepestDescent(restarts=1, max_iterations=30)), np.inf),
    "clarabel": Method(solved_by(ConvexRelaxation()), 1e-6),
    "scs": Method(solved_by(ConvexRelaxation("SCS")), 1e-4),
    "bridge": Method(bridge, 1e-13),
    "bridge, single precision": Method(lambda problem: bridge(problem, torch.float32), SINGLE),
}


def changed(problem: NearestETF, H: np.ndarray, prox: Callable[[np.ndarray], np.ndarray], t: float = 1) -> NearestETF:
    moved = None if problem.prox is None else prox(problem.prox)
    return NearestETF(t * H, moved, t * problem.delta, problem.F)


def rotated(draw: Draw) -> tuple:
    Q = orthonormal(draw.problem.d, draw.problem.d, draw.rng)
    return changed(draw.problem, Q @ draw.problem.H, lambda X: Q @ X), lambda E: Q @ E


def permuted(draw: Draw) -> tuple:
    F, order = draw.problem.F, draw.rng.permutation(draw.problem.C)
    # F P = R F where the frame has full rank; the simplex M has not, and there M P = P M
    R = np.eye(len(order))[:, order] if len(F) == len(order) else F[:, order] @ np.linalg.pinv(F)
    return changed(draw.problem, draw.problem.H[:, order], lambda X: X @ R), lambda E: E[:, order]


def scaled(draw: Draw) -> tuple:
    t = 10.0 ** draw.rng.uniform(-6, 6)
    return changed(draw.problem, draw.problem.H, lambda X: X, t), lambda E: E


def shifted(draw: Draw) -> tuple:
    b = 3 * draw.rng.standard_normal((draw.problem.d, 1))
    return changed(draw.problem, draw.problem.H + b, lambda X: X), lambda E: E


def padded(draw: Draw) -> tuple:
    def pad(X: np.ndarray) -> np.ndarray:
        return np.vstack([X, np.zeros((2, X.shape[1]))])

    return changed(draw.problem, pad(draw.problem.H), pad), pad


SYMMETRIES = (rotated, permuted, scaled, shifted, padded)
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
@some
@given(draw=draws(deltas=(1e-3, 0.5), proxes=("none", "near"), **SOFT))
def test_a_symmetry_of_the_problem_is_one_of_the_answer(method, draw):
    etf, bound = METHODS[method].etf(draw.problem)
    for symmetry in SYMMETRIES:
        other, expected = symmetry(draw)
        moved, moved_bound = METHODS[method].etf(other)
        assert np.linalg.norm(moved - expected(etf)) <= bound + moved_bound, symmetry.__name__


@every_method
@some
@given(draw=draws(deltas=(1e-3, 0.5), proxes=("none", "near", "far"), **SOFT))
def test_every_method_agrees_with_sixty_digits_in_the_etf_and_the_gap(method, draw):
    problem = draw.problem
    etf, bound = METHODS[method].etf(problem)
    if solve(problem).certificate.unique:
        A = oracles.exact_linear_term(problem.H, problem.F, problem.prox, problem.delta)
        U, _, s = oracles.exact_polar(A)
        assert np.linalg.norm(etf - oracles.rounded(U) @ problem.F) <= bound
        # the gap is what the objective exceeds |H|^2 + |F|^2 + delta/2 (r + |prox|^2) - |A|_* by
        prox = 0.0 if problem.prox is None else problem.prox
        least = -float(sum(s)) + problem.delta / 2 * (problem.r + np.sum(np.square(prox)))
        least += np.sum(problem.H**2) + np.sum(problem.F**2)
        excess = oracles.objective(METHODS[method].run(problem), problem.H, problem.F, problem.prox, problem.delta)
        assert excess - least <= (METHODS[method].gap * float(sum(s)) + 1e-12 * (1 + least)) * 1.01
    else:
        best = solve(problem)
        assert np.linalg.norm(etf - best.etf) <= bound + best.certificate.etf_distance_bound


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("method", [name for name in METHODS if "bridge" not in name])
def test_every_solver_keeps_its_promise_with_weights_and_held_classes(method, hold, rng):
    kinds = {"weights": ("equal", "masked", "one class"), "means": ("generic", "centred"), "dtypes": (np.float64,)}
    for _ in range(6):
        problem = drawn(rng, hold=hold, frames=("simplex", "reduced"), **kinds)
        etf, bound = METHODS[method].etf(problem)
        best = solve(problem)
        if best.certificate.etf_unique:
            assert np.linalg.norm(etf - best.etf) <= bound + best.certificate.etf_distance_bound
        if problem.held is not None:
            moved = (etf - problem.held.U0 @ problem.F)[:, list(problem.held.classes)]
            assert np.linalg.norm(moved) <= 1e-13


@pytest.mark.parametrize("method", METHODS)
@some
@given(draw=draws(deltas=(0.5,), proxes=("none", "near"), **SOFT))
def test_a_gradient_at_the_answer_of_any_method_is_that_at_the_closed_forms_or_refused(method, draw):
    problem, G, U = draw.problem, draw.cotangent(), METHODS[method].run(draw.problem)
    if certify(problem, U).relative_stationarity < 1e-7:
        expected = nearest_etf_vjp(problem, solve(problem).U, G).H
        found = nearest_etf_vjp(problem, U, G).H
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * (1 + np.linalg.norm(G)))
    elif certify(problem, U).relative_stationarity > 1e-5:
        with pytest.raises(InputError, match="not the minimiser"):
            nearest_etf_vjp(problem, U, G)


@pytest.mark.parametrize("solver", [ConjugateGradient, SteepestDescent])  # the trust region's trace begins a step later
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_trace_is_in_the_units_of_the_objective(solver, size, rng):
    problem, start = NearestETF(size * rng.standard_normal((7, 4))), orthonormal(7, 4, rng)
    trace = solve(problem, solver(max_iterations=5), initial_point=start, throw=False).stats.trace
    assert trace[0].objective == pytest.approx(problem.objective(start), rel=1e-9)
