"""Every route to the polar factor keeps the same promises, or hands over and says why."""

import numpy as np
import pytest
from scipy.linalg import helmert

from etfopt import ConvergenceError, NearestETF, simplex_etf, solve
from etfopt.polar import _gram as _polar
from etfopt.solvers.procrustes import Procrustes, ProcrustesStats
from tests.tools.strategies import means_with, orthonormal, with_spectrum

DTYPES = [np.float32, np.float64]


def problem_with(values, d: int, dtype: type, rng: np.random.Generator) -> NearestETF:
    """A problem with the reduced simplex whose linear term has these singular values."""
    C = len(values) + 1
    H = means_with(with_spectrum(d, np.asarray(values, dtype=float), rng)).astype(dtype)
    return NearestETF(H, frame=simplex_etf(C, reduced=True).astype(dtype))


def stats(problem: NearestETF, method: str) -> ProcrustesStats:
    solution = solve(problem, Procrustes(method))
    assert solution.converged
    assert isinstance(solution.stats, ProcrustesStats)
    return solution.stats


def stationarity(problem: NearestETF, U: np.ndarray) -> float:
    """||A - U sym(U'A)|| / ||A||_2 over what is promised."""
    A, U = problem.scaled_linear_term.A, U.astype(float)
    residual = np.linalg.norm(A - U @ (U.T @ A + A.T @ U) / 2)
    return residual / np.linalg.norm(A, 2) / (15 * problem.C * problem.unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["svd", "gram", "newton-schulz"])
def test_a_well_conditioned_problem_is_solved_by_the_route_asked_for(method, dtype, rng):
    run = stats(problem_with(rng.uniform(0.5, 1, 12), 40, dtype, rng), method)
    assert (run.method, run.fallback) == (method, "")
    assert (run.iterations > 0) == (method == "newton-schulz")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["gram", "newton-schulz"])
@pytest.mark.parametrize("kappa", [3.0, 30.0, 500.0, 5e3, 1e5, 1e7, 1e9, 1e14])
@pytest.mark.parametrize("d", [12, 30])
def test_squaring_the_condition_number_costs_no_accuracy(d, kappa, method, dtype, rng):
    for values in (np.geomspace(1, 1 / kappa, 12), [1.0] * 11 + [1 / kappa], [1.0] + [1 / kappa] * 11):
        problem = problem_with(values, d, dtype, rng)
        solution = solve(problem, Procrustes(method))
        assert solution.converged
        assert solution.certificate.feasibility <= 10 * problem.C * problem.unit
        assert stationarity(problem, solution.U) <= 1


@pytest.mark.parametrize(("dtype", "last"), [(np.float64, 1e5), (np.float32, 3e3)])
def test_what_a_route_cannot_serve_goes_to_the_next_and_the_reason_is_kept(dtype, last, rng):
    problem = problem_with([1.0, 0.9, 0.8, 1 / last], 20, dtype, rng)
    run = stats(problem, "newton-schulz")
    assert run.method == "svd"
    first, second = run.fallback.split("; ")
    assert first.startswith("newton-schulz: ")
    assert second.startswith("gram: a singular value of ")
    assert stats(problem, "gram").fallback == second


def test_the_gram_route_serves_the_direction_that_the_simplex_does_not_see(rng):
    for d in (6, 9, 30):
        problem = NearestETF(rng.standard_normal((d, 6)))
        assert stats(problem, "gram").method == "gram"
        np.testing.assert_allclose(solve(problem).etf, solve(problem, Procrustes("svd")).etf, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", ["gram", "newton-schulz", "auto"])
def test_means_that_are_all_equal_fall_back_and_succeed(method):
    assert stats(NearestETF(np.ones((7, 4))), method).method in ("gram", "svd")


def test_products_alone_take_fewer_steps_near_collapse(rng):
    frame = simplex_etf(20, reduced=True)
    steps = []
    for noise in (0.5, 0.05, 1e-4, 0.0):
        H = orthonormal(50, 19, rng) @ frame + noise * rng.standard_normal((50, 20)) / np.sqrt(50 * 20)
        steps.append(stats(NearestETF(H, frame=frame), "newton-schulz").iterations)
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]
    assert steps[-1] <= 3


@pytest.mark.parametrize(
    ("dtype", "r", "noise", "route"),
    [
        (np.float32, 70, 0.01, "newton-schulz"),
        (np.float32, 70, None, "gram"),
        (np.float32, 30, 0.01, "gram"),
        (np.float64, 70, 0.01, "gram"),
    ],
)
def test_auto_chooses_by_shape_precision_and_conditioning(dtype, r, noise, route, rng):
    frame = simplex_etf(r + 1, reduced=True)
    H = rng.standard_normal((120, r + 1)) / np.sqrt(120 * (r + 1))
    H = H if noise is None else orthonormal(120, r, rng) @ frame + noise * H
    assert stats(NearestETF(H.astype(dtype), frame=frame.astype(dtype)), "auto").method == route


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [2, 5, 7])
def test_the_promised_gap_is_ten_units_for_every_class_or_row(r, dtype, rng):
    problem = NearestETF(rng.standard_normal((9, 5)).astype(dtype), frame=rng.standard_normal((r, 5)))
    assert Procrustes().gap_tolerance(problem) == 10 * max(r, 5) * np.finfo(dtype).eps


def failing(*_, **__):
    raise np.linalg.LinAlgError("Eigenvalues did not converge")


def test_an_eigensolver_that_fails_is_a_recorded_fallback(monkeypatch, rng):
    problem = problem_with([1.0, 0.9, 0.8], 20, np.float64, rng)
    with monkeypatch.context() as patch:
        patch.setattr(np.linalg, "eigh", failing)
        run = Procrustes("gram").run(problem).stats
    assert (run.method, run.fallback) == ("svd", "gram: LAPACK's syevd: Eigenvalues did not converge")


def test_an_svd_that_fails_is_a_recorded_fallback_and_two_that_fail_are_an_error(monkeypatch, rng):
    problem = problem_with([1.0, 0.9, 0.8], 20, np.float64, rng)
    with monkeypatch.context() as patch:
        patch.setattr(np.linalg, "svd", failing)
        candidate = Procrustes("svd").run(problem)
        assert candidate.stats.fallback == "LAPACK's gesdd: Eigenvalues did not converge"
        np.testing.assert_allclose(candidate.U.T @ candidate.U, np.eye(3), rtol=0, atol=1e-14)
        patch.setattr("scipy.linalg.svd", failing)
        with pytest.raises(ConvergenceError, match=r"20 x 3 float64 matrix .* gesdd and gesvd both failed"):
            Procrustes("svd").run(problem)


@pytest.mark.parametrize("wrong", [np.ones, np.zeros, lambda shape: np.full(shape, np.nan)])
def test_singular_vectors_that_are_not_orthonormal_are_a_failure_of_lapack_too(wrong, monkeypatch, rng):
    problem = problem_with([1.0, 0.9, 0.8], 20, np.float64, rng)
    with monkeypatch.context() as patch:
        patch.setattr(np.linalg, "svd", lambda *_, **__: (wrong((20, 3)), np.ones(3), wrong((3, 3))))
        patch.setattr(np.linalg, "eigh", lambda *_: (np.ones(3), wrong((3, 3))))
        candidate = Procrustes("gram").run(problem)
    assert candidate.stats.method == "svd"
    assert candidate.stats.fallback == (
        "gram: LAPACK's syevd: eigenvectors that are not orthonormal; "
        "LAPACK's gesdd: singular vectors that are not orthonormal"
    )
    np.testing.assert_allclose(candidate.U, solve(problem).U, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", ["gram", "newton-schulz"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("r", "kappa"), [(60, 50.0), (60, 100.0), (60, 119.0), (300, 550.0)])
def test_many_classes_of_middling_condition_keep_the_promises(r, kappa, dtype, method, rng):
    problem = problem_with(np.geomspace(1, 1 / kappa, r), r + 20, dtype, rng)
    solution = solve(problem, Procrustes(method))
    assert solution.certificate.feasibility <= 10 * r * problem.unit / 10  # a tenth: the last step earns its place
    assert stationarity(problem, solution.U) <= 1


def test_a_proximal_term_alone_decides_where_the_means_are_zero(rng):
    prox = orthonormal(7, 4, rng)
    problem = NearestETF(np.zeros((7, 4)), prox=1e-200 * prox, delta=1e-200)
    np.testing.assert_allclose(solve(problem).U, prox, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "rank"), [(5, 1), (8, 2), (24, 12), (60, 2)])
def test_the_directions_that_a_structured_range_leaves_are_orthogonal_to_it(d, rank, dtype):
    P = helmert(d, full=True).T[:, :rank].astype(dtype)
    E = _polar._complement(P, d - rank)
    rounding = 3 * d * float(np.finfo(dtype).eps)
    assert np.linalg.norm(P.T @ E) <= rounding
    assert np.linalg.norm(E.T @ E - np.eye(d - rank)) <= rounding
