"""Held classes: vertices that stay exactly, the others optimal for what is left."""

import numpy as np
import pytest

from etfopt import InputError, NearestETF, certify, nearest_etf, simplex_etf, solve
from etfopt.adjoint import kkt_vjp, nearest_etf_jvp, nearest_etf_vjp
from etfopt.solvers.trust_region import TrustRegion
from tests.tools import oracles
from tests.tools.strategies import orthonormal
from tests.tools.weighted_cases import drawn

HELD = [1, 4]


@pytest.fixture
def problem(rng) -> NearestETF:
    """d = 8, C = 6, the reduced simplex, two classes held, weights and a proximal term."""
    return NearestETF(
        rng.standard_normal((8, 6)),
        orthonormal(8, 5, rng),
        0.3,
        simplex_etf(6, reduced=True),
        weights=[3, 1, 2, 0, 5, 1],
        hold=HELD,
        hold_at=orthonormal(8, 5, rng),
    )


def holding(problem: NearestETF, rng: np.random.Generator) -> np.ndarray:
    """Return a random point that keeps the held vertices."""
    free = problem.free
    return problem.held.assembled(orthonormal(free.d, free.r, rng))


def test_a_thousand_problems_with_held_classes_keep_the_promise(rng):
    held = 0
    for _ in range(1000):
        problem = drawn(rng, hold=True)
        found = solve(problem, throw=False)
        promised = 10 * max(problem.C, problem.r) * problem.unit
        assert found.converged, problem
        assert abs(found.certificate.relative_gap) <= promised
        assert found.certificate.feasibility <= promised
        if problem.held is not None:
            held += 1
            F = problem.F[:, list(problem.held.classes)]
            moved = np.linalg.norm((found.U - problem.held.U0) @ F, axis=0)
            assert moved.max() <= promised * np.linalg.norm(F, axis=0).max()
    assert held > 500


def test_the_excess_objective_of_a_point_that_holds_is_the_gap(problem, rng):
    best = solve(problem)
    for _ in range(20):
        U = holding(problem, rng)
        certificate = certify(problem, U)
        assert certificate.feasible
        assert problem.objective(U) - best.objective == pytest.approx(certificate.gap, rel=1e-12)
        assert np.linalg.norm(U - best.U) <= certificate.distance_bound
        assert np.linalg.norm((U - best.U) @ problem.F) <= certificate.etf_distance_bound


def test_a_point_that_does_not_hold_is_infeasible_and_the_bound_holds_all_the_same(problem, rng):
    best = solve(problem)
    for size in (1e-10, 1e-3, 1.0):
        U = np.linalg.qr(best.U + size * rng.standard_normal((8, 5)))[0]
        U *= np.sign(np.sum(U * best.U, axis=0))
        certificate = certify(problem, U)
        assert not certificate.feasible
        assert certificate.held == pytest.approx(np.linalg.norm((U - best.U) @ problem.held.Q_held), rel=1e-4)
        assert np.linalg.norm(U - best.U) <= certificate.distance_bound
    assert "held" in repr(certificate)


def test_the_bound_sees_held_vertices_that_only_changed_places(problem):
    best, held = solve(problem).U, problem.held
    turned = best + (held.V[:, ::-1] - held.V) @ held.Q_held.T
    certificate = certify(problem, turned)
    assert certificate.feasibility < 1e-14
    assert not certificate.feasible
    assert 1 < np.linalg.norm(turned - best) <= certificate.distance_bound
    assert np.linalg.norm((turned - best) @ problem.F) <= certificate.etf_distance_bound


def test_the_cotangents_are_those_of_central_differences_and_held_vertices_are_constants(problem, rng):
    G, at, w = rng.standard_normal((8, 5)), problem.held.U0, problem.weights

    def loss(H: np.ndarray = problem.H, w: np.ndarray = w, prox: np.ndarray = problem.prox) -> float:
        other = NearestETF(H, prox, 0.3, problem.F, weights=np.abs(w), hold=HELD, hold_at=at)
        return float(np.vdot(G, solve(other).U))

    U = solve(problem).U
    found = nearest_etf_vjp(problem, U, G)
    for name, X, f in (
        ("H", problem.H, lambda H: loss(H=H)),
        ("prox", problem.prox, lambda prox: loss(prox=prox)),
        ("weights", w, lambda w: loss(w=w)),
    ):
        expected = oracles.central_differences(f, X, 1e-5)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-8, err_msg=name)
    assert not found.H[:, HELD].any()
    assert not found.weights[HELD].any()
    np.testing.assert_allclose(kkt_vjp(problem, U, G), found.H, rtol=0, atol=1e-12)


def test_pushing_forward_is_the_adjoint_of_pulling_back(problem, rng):
    U, dH, dw, X = solve(problem).U, *(rng.standard_normal(n) for n in ((8, 6), 6, (8, 6)))
    dw[3] = 0  # the masked class
    pulled, pushed = nearest_etf_vjp(problem, U, X @ problem.F.T), nearest_etf_jvp(problem, U, dH, dw)
    assert np.vdot(pulled.H, dH) + pulled.weights @ dw == pytest.approx(np.vdot(X, pushed), rel=1e-12)
    assert not pushed[:, HELD].any()


@pytest.mark.parametrize("exponent", [-1000, -400, 400, 1000])
def test_the_gradient_is_homogeneous_at_every_scale(exponent, rng):
    H, at, G, t = rng.standard_normal((8, 6)), orthonormal(8, 5, rng), rng.standard_normal((8, 5)), 2.0**exponent
    plain, scaled = (NearestETF(s * H, reduced=True, hold=HELD, hold_at=at) for s in (1.0, t))
    U = solve(plain).U
    assert np.array_equal(solve(scaled).U, U)
    expected, found = nearest_etf_vjp(plain, U, G), nearest_etf_vjp(scaled, U, G)
    assert np.array_equal(found.H * t, expected.H)
    assert np.array_equal(found.weights, expected.weights)
    pushed = nearest_etf_jvp(scaled, U, t * H[:, ::-1])
    np.testing.assert_allclose(pushed, nearest_etf_jvp(plain, U, H[:, ::-1]), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("w", [1e-300, 1e300])
@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_extreme_means_with_extreme_weights_are_no_other_problem(size, w, rng):
    H, at = rng.standard_normal((8, 6)), orthonormal(8, 5, rng)
    plain = nearest_etf(H, reduced=True, hold=HELD, hold_at=at)
    found = nearest_etf(size * H, reduced=True, hold=HELD, hold_at=at, weights=np.full(6, w))
    np.testing.assert_allclose(found.U, plain.U, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [1e-43, 1e-40, 1e38])
def test_single_precision_at_the_ends_of_its_range_keeps_its_digits(size, rng):
    H, at = (size * rng.uniform(-3, 3, (8, 6))).astype(np.float32), orthonormal(8, 5, rng)
    single = nearest_etf(H, reduced=True, hold=HELD, hold_at=at)
    double = nearest_etf(H.astype(np.float64), reduced=True, hold=HELD, hold_at=at)
    np.testing.assert_allclose(single.U, double.U, rtol=0, atol=1e-5)


def test_means_within_the_span_of_the_held_vertices_leave_the_free_ones_undetermined(rng):
    """Their part outside it is rounding alone, which must not decide a vertex."""
    for _ in range(50):
        d, at = 30, orthonormal(30, 5, rng)
        V = at @ simplex_etf(6, reduced=True)[:, HELD]
        H = V @ rng.standard_normal((2, 6)) * 10.0 ** rng.uniform(0, 6)
        found = nearest_etf(H, reduced=True, hold=HELD, hold_at=at).certificate
        assert (found.unique, found.etf_unique, found.distance_bound) == (False, False, np.inf), d


def test_means_of_held_classes_decide_nothing_however_large(rng):
    H, at = rng.standard_normal((8, 6)), orthonormal(8, 5, rng)
    large = np.where(np.isin(np.arange(6), HELD), 1e12 * H, H)
    found = [nearest_etf(X, reduced=True, hold=HELD, hold_at=at) for X in (H, large)]
    assert np.array_equal(found[0].U, found[1].U)
    assert found[0].certificate.distance_bound == found[1].certificate.distance_bound


def test_the_square_frame_keeps_its_free_direction(rng):
    H, at = rng.standard_normal((9, 6)), orthonormal(9, 6, rng)
    square = nearest_etf(H, hold=HELD, hold_at=at)
    assert (square.certificate.unique, square.certificate.etf_unique) == (False, True)
    F = simplex_etf(6, reduced=True)
    reduced = nearest_etf(H, frame=F, hold=HELD, hold_at=at @ simplex_etf(6) @ F.T * 5)
    np.testing.assert_allclose(square.etf, reduced.etf, rtol=0, atol=1e-13)


def test_holding_what_is_optimal_changes_nothing(rng):
    H = rng.standard_normal((9, 6))
    free = nearest_etf(H, reduced=True)
    held = nearest_etf(H, reduced=True, hold=range(4), hold_at=free.U)
    np.testing.assert_allclose(held.etf, free.etf, rtol=0, atol=1e-14)
    assert held.distance == pytest.approx(free.distance, rel=1e-14)


def test_a_trace_is_in_the_units_of_the_whole_objective(problem):
    pytest.importorskip("pymanopt")
    found = solve(problem, TrustRegion(restarts=1))
    assert found.stats.trace[-1].objective == pytest.approx(found.objective, rel=1e-12)
    start = solve(problem, TrustRegion(max_iterations=1), initial_point=found.U)
    np.testing.assert_allclose(start.U, found.U, rtol=0, atol=1e-6)


def test_where_only_held_classes_have_weights_every_solver_returns_a_point_that_holds(problem, rng):
    pytest.importorskip("pymanopt")
    weights = np.where(np.isin(np.arange(6), HELD), 1.0, 0.0)
    alone = NearestETF(problem.H, reduced=True, weights=weights, hold=HELD, hold_at=problem.held.U0)
    for solver in ("procrustes", "trust-region", "steepest-descent"):
        found = solve(alone, solver, initial_point=orthonormal(8, 5, rng))
        assert found.converged
        assert not found.certificate.etf_unique
    with pytest.raises(InputError, match="H leaves the nearest ETF undetermined"):
        nearest_etf_vjp(alone, found.U, np.ones((8, 5)))


def test_points_and_objectives_beyond_the_range_are_no_nan(problem):
    pytest.importorskip("pymanopt")
    certificate = certify(problem, np.full((8, 5), 1e200))
    assert not certificate.feasible
    assert certificate.held > 1e150
    large = NearestETF(1e300 * problem.H, reduced=True, hold=HELD, hold_at=problem.held.U0)
    assert solve(large, TrustRegion(restarts=1)).stats.trace[-1].objective == np.inf


def test_copies_keep_what_is_held_and_no_basis_can_be_written(problem):
    for other in (problem.fresh(), problem.without_prox):
        assert other.held.classes == (1, 4)
        assert np.array_equal(other.held.U0, problem.held.U0)
    assert repr(problem).endswith("weighted, held=2)")
    for basis in problem.held[1:]:
        with pytest.raises(ValueError, match="read-only"):
            basis[0, 0] = 1.0


def test_a_solver_by_itself_refuses_held_classes(problem):
    with pytest.raises(InputError, match=r"held=2.*run it on problem\.free"):
        TrustRegion().run(problem)


def test_a_derivative_at_a_point_that_does_not_hold_is_refused(problem, rng):
    with pytest.raises(InputError, match="does not hold the classes"):
        nearest_etf_vjp(problem, orthonormal(8, 5, rng), np.ones((8, 5)))


def test_an_orthonormal_point_in_the_dtype_of_the_means_can_be_held(rng):
    at = orthonormal(8, 5, rng).astype(np.float32)
    H = rng.standard_normal((8, 6))
    assert nearest_etf(H.astype(np.float32), reduced=True, hold=HELD, hold_at=at).converged
    with pytest.raises(InputError, match=r"hold_at is not on the manifold.*pass etfopt\.polar_factor"):
        nearest_etf(H, reduced=True, hold=HELD, hold_at=at)


def powers(rng: np.random.Generator, C: int) -> dict[str, np.ndarray | int]:
    """Draw powers of two of columns and weights, of the frame, the proximal point and delta, that keep the problem."""
    while True:
        H, total, F = rng.integers(-1000, 1001, C), int(rng.integers(-1500, 1501)), int(rng.integers(-400, 401))
        prox = int(rng.integers(-1000, 1001))
        weights, delta = total - H, total + F - prox
        if np.abs(weights).max() <= 1000 and abs(delta) <= 1000:
            return {"H": H, "weights": weights, "F": F, "prox": prox, "delta": delta}


@pytest.mark.parametrize("hold", [None, [0], [2, 1]])
def test_powers_of_two_anywhere_in_the_data_only_scale_the_answers(hold, rng):
    for _ in range(40):
        C, d = 4, 3 + int(rng.choice([0, 3]))
        H, w, P, at = (
            rng.standard_normal((d, C)),
            rng.uniform(0.5, 2, C),
            orthonormal(d, 3, rng),
            orthonormal(d, 3, rng),
        )
        F, held = rng.standard_normal((3, C)), {} if hold is None else {"hold": hold, "hold_at": at}
        plain, e = NearestETF(H, P, 0.5, F, weights=w, **held), powers(rng, C)
        data = (np.ldexp(H, e["H"]), np.ldexp(P, e["prox"]), float(np.ldexp(0.5, e["delta"])), np.ldexp(F, e["F"]))
        scaled = NearestETF(*data, weights=np.ldexp(w, e["weights"]), **held)
        U, V, G = solve(plain).U, orthonormal(d, 3, rng), rng.standard_normal((d, 3))
        np.testing.assert_allclose(solve(scaled).U, U, rtol=0, atol=1e-12)
        assert certify(scaled, V).relative_gap == pytest.approx(certify(plain, V).relative_gap, rel=1e-12)
        expected, found = nearest_etf_vjp(plain, U, G), nearest_etf_vjp(scaled, solve(scaled).U, G)
        for name in ("H", "weights", "prox"):
            there, here = np.ldexp(getattr(expected, name), -e[name]), getattr(found, name)
            size = np.abs(getattr(expected, name)).max() * np.ldexp(1.0, -e[name])
            sure = np.isfinite(there) & (size > 1e-290)
            np.testing.assert_array_less(np.abs(here - there)[sure], np.broadcast_to(1e-11 * size, sure.shape)[sure])
        values = [scaled.objective(V), *scaled.gradient(V).ravel(), *scaled.hessian_vector_product(V).ravel()]
        assert not np.isnan([*values, solve(scaled).distance, solve(scaled).scale]).any()
