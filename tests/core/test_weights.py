"""Class weights: the promises of the plain problem on hostile weights, masks, and what weights mean."""

import numpy as np
import pytest

from etfopt import InputError, NearestETF, certify, nearest_etf, simplex_etf, solve
from etfopt.adjoint import kkt_vjp, nearest_etf_jvp, nearest_etf_vjp
from tests.tools import oracles
from tests.tools.strategies import orthonormal
from tests.tools.weighted_cases import Sixty, drawn, frame_of

DETERMINED = {"weights": ("equal", "counts", "graded", "masked", "huge and tiny"), "frames": ("reduced", "free")}
COUNTS = np.array([3.0, 1.0, 2.0, 0.0, 5.0])


@pytest.fixture
def problem(rng) -> NearestETF:
    """d = 7, C = 5, the reduced simplex, one class masked, a proximal term."""
    return NearestETF(
        rng.standard_normal((7, 5)), orthonormal(7, 4, rng), 0.3, simplex_etf(5, reduced=True), weights=COUNTS
    )


# --- the promises -------------------------------------------------------------------------------------------------


def test_a_thousand_weighted_problems_keep_the_promise(rng):
    for _ in range(1000):
        problem = drawn(rng)
        found = solve(problem, throw=False)
        promised = 10 * max(problem.C, problem.r) * problem.unit
        assert found.converged, problem
        assert abs(found.certificate.relative_gap) <= promised
        assert found.certificate.feasibility <= promised


@pytest.mark.parametrize("hold", [False, True])
def test_minimiser_and_gradients_agree_with_sixty_digits(hold, rng):
    compared = 0
    while compared < 60:
        problem = drawn(rng, hold=hold, means=("generic", "centred", "unequal columns"), **DETERMINED)
        found = solve(problem)
        if problem.C > 5 or not found.certificate.unique:
            continue
        exact = Sixty(problem)
        rounding = max(problem.C, problem.r) * problem.unit * exact.condition
        if rounding > 1e-3:
            continue
        compared += 1
        off = np.linalg.norm(found.U - oracles.rounded(exact.U))
        assert off <= min(10 * rounding, found.certificate.distance_bound)
        G = rng.standard_normal((problem.d, problem.r))
        gradient = nearest_etf_vjp(problem, found.U, G)
        (dH, dw, dprox), (of_H, of_w, of_prox) = exact.cotangents(G), exact.steepest(G)
        assert (np.linalg.norm(gradient.H - dH, axis=0) <= 20 * rounding * of_H).all()
        assert (np.abs(gradient.weights - dw) <= 20 * rounding * of_w).all()
        if gradient.prox is not None:
            assert np.linalg.norm(gradient.prox - dprox) <= 20 * rounding * of_prox


def test_the_cotangents_are_those_of_central_differences(problem, rng):
    G = rng.standard_normal((7, 4))

    def loss(H: np.ndarray = problem.H, w: np.ndarray = COUNTS, prox: np.ndarray = problem.prox) -> float:
        return float(np.vdot(G, solve(NearestETF(H, prox, 0.3, problem.F, weights=np.abs(w))).U))

    found = nearest_etf_vjp(problem, solve(problem).U, G)
    for name, X, f in (
        ("H", problem.H, lambda H: loss(H=H)),
        ("prox", problem.prox, lambda prox: loss(prox=prox)),
        ("weights", COUNTS, lambda w: loss(w=w)),
    ):
        expected = oracles.central_differences(f, X, 1e-5)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-8, err_msg=name)
    assert not found.H[:, 3].any()


def test_pushing_forward_is_the_adjoint_of_pulling_back_and_the_change_of_the_etf(problem, rng):
    U, dH, dw = solve(problem).U, rng.standard_normal((7, 5)), rng.uniform(-1, 1, 5) * (COUNTS > 0)
    X = rng.standard_normal((7, 5))
    pulled, pushed = nearest_etf_vjp(problem, U, X @ problem.F.T), nearest_etf_jvp(problem, U, dH, dw)
    assert np.vdot(pulled.H, dH) + pulled.weights @ dw == pytest.approx(np.vdot(X, pushed), rel=1e-12)

    def etf(t: float) -> np.ndarray:
        other = NearestETF(problem.H + t * dH, problem.prox, 0.3, problem.F, weights=COUNTS + t * dw)
        return solve(other).etf

    np.testing.assert_allclose(pushed, (etf(1e-5) - etf(-1e-5)) / 2e-5, rtol=0, atol=1e-9)


@pytest.mark.parametrize("frame", ["simplex", "reduced", "free"])
def test_a_loss_of_the_classes_that_are_there_is_differentiable_while_others_have_free_vertices(frame, rng):
    H, w = rng.standard_normal((9, 6)), np.array([2.0, 1, 0, 3, 0, 1])
    F, there = frame_of(frame, 6, np.random.default_rng(3)), w > 0
    X = rng.standard_normal((9, 6)) * there

    def loss(H: np.ndarray = H, w: np.ndarray = w) -> float:
        return float(np.vdot(X, solve(NearestETF(H, frame=F, weights=w)).etf))

    problem = NearestETF(H, frame=F, weights=w)
    U = solve(problem).U
    assert not certify(problem, U).etf_unique
    found = nearest_etf_vjp(problem, U, X @ problem.F.T)
    of_H = oracles.central_differences(lambda H: loss(H=H), H, 1e-5)
    of_w = [
        oracles.central_differences(lambda x, c=c: loss(w=np.where(np.arange(6) == c, x, w)), w[c : c + 1], 1e-5)
        for c in np.flatnonzero(there)
    ]
    np.testing.assert_allclose(found.H, of_H, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.weights[there], np.ravel(of_w), rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="no class with a positive weight sees"):
        nearest_etf_vjp(problem, U, np.ones((9, 6)) * [0, 0, 1, 0, 0, 0] @ problem.F.T)
    with pytest.raises(InputError, match="H leaves the nearest ETF undetermined"):
        nearest_etf_jvp(problem, U, X)


def test_the_dense_formula_of_the_paper_agrees(problem, rng):
    U, G = solve(problem).U, rng.standard_normal((7, 4))
    np.testing.assert_allclose(kkt_vjp(problem, U, G), nearest_etf_vjp(problem, U, G).H, rtol=0, atol=1e-12)


# --- what weights mean --------------------------------------------------------------------------------------------


def test_objective_gradient_and_hessian_are_those_of_the_weighted_sum(problem, rng):
    U, V = rng.standard_normal((2, 7, 4))
    R = problem.H - U @ problem.F
    value = sum(COUNTS[c] * R[:, c] @ R[:, c] for c in range(5)) + 0.15 * np.sum((U - problem.prox) ** 2)
    assert problem.objective(U) == pytest.approx(value, rel=1e-13)
    slope = (problem.objective(U + 1e-3 * V) - problem.objective(U - 1e-3 * V)) / 2e-3
    assert np.vdot(problem.gradient(U), V) == pytest.approx(slope, rel=1e-10)
    change = problem.gradient(U + V) - problem.gradient(U)
    np.testing.assert_allclose(problem.hessian_vector_product(V), change, rtol=1e-12, atol=1e-12)


def test_scale_and_distance_are_the_best_of_any_size(rng):
    H, F = rng.standard_normal((7, 5)), simplex_etf(5, reduced=True)
    found = solve(NearestETF(H, frame=F, weights=COUNTS))

    def squared(s: float, U: np.ndarray) -> float:
        return float(np.sum(COUNTS * np.sum((H - s * U @ F) ** 2, axis=0)))

    assert found.distance**2 == pytest.approx(squared(found.scale, found.U), rel=1e-13)
    for s, U in [(1.01 * found.scale, found.U), (0.99 * found.scale, found.U), (found.scale, orthonormal(7, 4, rng))]:
        assert squared(s, U) > found.distance**2
    pulled = solve(NearestETF(H, orthonormal(7, 4, rng), 10.0, F, weights=COUNTS))
    assert pulled.distance == pytest.approx(found.distance, rel=1e-13)


def test_a_whole_weight_is_a_repeated_class(rng):
    H, F, prox = rng.standard_normal((6, 3)), rng.standard_normal((4, 3)), orthonormal(6, 4, rng)
    weighted = NearestETF(H, prox, 0.1, F, weights=[3, 1, 2])
    repeated = NearestETF(np.repeat(H, [3, 1, 2], axis=1), prox, 0.1, np.repeat(F, [3, 1, 2], axis=1))
    np.testing.assert_allclose(weighted.linear_term, repeated.linear_term, rtol=0, atol=1e-14)
    assert solve(weighted).objective == pytest.approx(solve(repeated).objective, rel=1e-14)
    assert solve(weighted).distance == pytest.approx(solve(repeated).distance, rel=1e-12)


@pytest.mark.parametrize("frame", ["simplex", "reduced"])
def test_equal_weights_change_nothing_and_a_common_factor_only_delta(frame, rng):
    H, r = rng.standard_normal((6, 4)), 4 if frame == "simplex" else 3
    prox = orthonormal(6, r, rng)
    plain = nearest_etf(H, prox=prox, delta=0.25, frame=frame)
    ones = nearest_etf(H, prox=prox, delta=0.25, frame=frame, weights=np.ones(4))
    eights = nearest_etf(H, prox=prox, delta=2.0, frame=frame, weights=np.full(4, 8))
    assert np.array_equal(plain.U, ones.U)
    assert np.array_equal(plain.U, eights.U)
    assert eights.objective == pytest.approx(8 * plain.objective, rel=1e-14)


def test_a_masked_column_is_not_read(rng):
    H, weights = rng.standard_normal((6, 4)), [1.0, 0.0, 2.0, 1.0]
    with_nan = np.where(np.arange(4) == 1, np.nan, H)
    found = [nearest_etf(X, weights=weights, reduced=True) for X in (H, with_nan)]
    assert np.array_equal(found[0].U, found[1].U)
    assert found[0].distance == found[1].distance
    assert not found[1].problem.H[:, 1].any()
    gradient = nearest_etf_vjp(found[1].problem, found[1].U, np.eye(6, 3))
    assert not gradient.H[:, 1].any()
    assert gradient.weights[1] == 0


def test_repr_and_copies_keep_the_weights(problem):
    assert repr(problem) == "NearestETF(d=7, C=5, r=4, delta=0.3, dtype=float64, weighted)"
    assert np.array_equal(problem.fresh().linear_term, problem.linear_term)
    assert np.array_equal(problem.without_prox.weights, COUNTS)
    with pytest.raises(ValueError, match="read-only"):
        problem.weights[0] = 2.0


# --- scales -------------------------------------------------------------------------------------------------------


def test_weights_undo_the_scales_of_single_columns(rng):
    """A class of size 1e-300 and weight 1e300 counts as one of size 1 and weight 1; its rounding is not lost."""
    H, D = rng.standard_normal((7, 5)), 2.0 ** np.array([-1000, 1000, -1000, 990, -30])
    plain, scaled = NearestETF(H, reduced=True), NearestETF(H * D, reduced=True, weights=1 / D)
    assert np.array_equal(solve(plain).U, solve(scaled).U)
    assert scaled.scaled_linear_term.rounding == pytest.approx(plain.scaled_linear_term.rounding)
    assert np.isfinite(solve(scaled).distance)
    assert solve(scaled).distance > 0


@pytest.mark.parametrize("w", [1e-310, 1e-300, 1e300])
@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_no_weight_overflows_or_underflows(size, w, rng):
    H, U = rng.standard_normal((7, 5)), orthonormal(7, 4, rng)
    plain, scaled = NearestETF(H, reduced=True), NearestETF(size * H, reduced=True, weights=np.full(5, w))
    np.testing.assert_allclose(solve(scaled).etf, solve(plain).etf, rtol=0, atol=1e-14)
    certificate = certify(scaled, U)
    assert certificate.relative_gap == pytest.approx(certify(plain, U).relative_gap, rel=1e-12)
    assert scaled.objective(U) >= 0
    assert not np.isnan(scaled.gradient(U)).any()
    assert not np.isnan(scaled.hessian_vector_product(U)).any()


# --- uniqueness ---------------------------------------------------------------------------------------------------


def test_the_vertex_of_one_absent_class_is_determined_by_the_others_and_those_of_two_are_not(rng):
    H = rng.standard_normal((8, 5))
    one, two = (nearest_etf(H, weights=w, reduced=True).certificate for w in ([1, 1, 1, 1, 0], [1, 1, 1, 0, 0]))
    assert (one.unique, one.etf_unique) == (True, True)
    assert (two.unique, two.etf_unique, two.etf_distance_bound) == (False, False, np.inf)


def test_no_frame_and_no_weights_hide_that_an_absent_vertex_is_free(rng):
    """A frame sees little of some directions, and small weights blur the null space: neither makes it unique."""
    for _ in range(300):
        C = int(rng.integers(3, 7))
        F = rng.standard_normal((int(rng.integers(2, C + 1)), C))
        F *= np.geomspace(1, 10.0 ** -rng.uniform(0, 3), len(F))[:, None]
        weights = 10.0 ** rng.uniform(-16, 0, C) * (rng.random(C) < 0.6)
        if weights.any() and np.linalg.matrix_rank(F[:, weights > 0]) < np.linalg.matrix_rank(F):
            found = nearest_etf(rng.standard_normal((len(F) + 2, C)), frame=F, weights=weights)
            assert not found.certificate.etf_unique
