"""Every method of the node keeps the same promises where it serves, hands over where it does not, or says NaN."""

from collections.abc import Iterator

import numpy as np
import pytest

from etfopt import InputError, simplex_etf
from tests.tools import oracles
from tests.tools.blind import blind, coarse
from tests.tools.strategies import with_spectrum

torch = pytest.importorskip("torch")
from etfopt.nn import NearestETFHead
from etfopt.nn.functional import nearest_etf, polar_factor
from etfopt.nn.polar import _products, _routes, polar
from tests.tools.node_cases import DTYPES, METHODS, looking, norm, numpy

LIMITS = {
    ("svd", torch.float32): 1e5,
    ("svd", torch.float64): 1e11,
    ("gram", torch.float32): 7e3,
    ("gram", torch.float64): 7e3,
    ("newton-schulz", torch.float32): 3e3,
    ("newton-schulz", torch.float64): 1e5,
}
"""Condition numbers that each method serves by itself."""


def spectra(kappa: float, r: int) -> Iterator[np.ndarray]:
    """Kinds of spectra of one condition number: graded, one small, half of them small, all but one small."""
    yield np.geomspace(1, 1 / kappa, r)
    yield np.append(np.ones(r - 1), 1 / kappa)
    yield np.repeat([1, 1 / kappa], [r - r // 2, r // 2])
    yield np.append(1, np.full(r - 1, 1 / kappa))


def conditions(method: str, dtype: torch.dtype) -> np.ndarray:
    return np.geomspace(1, LIMITS[method, dtype], 6)


def factor(A: np.ndarray | torch.Tensor, method: str, dtype: torch.dtype, seen: bool) -> torch.Tensor:
    with looking(seen):
        return polar_factor(torch.as_tensor(A, dtype=dtype), method)


# --- the promises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (3, 3), (12, 10), (150, 100)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS[1:])
def test_the_promises_hold_from_condition_one_to_the_limit(method, dtype, shape, seen, rng):
    (d, r), u = shape, torch.finfo(dtype).eps
    for kappa in conditions(method, dtype):
        for values in spectra(kappa, r):
            A = numpy(torch.tensor(with_spectrum(d, values, rng), dtype=dtype))
            U = numpy(factor(A, method, dtype, seen))
            B = U.T @ A
            assert norm(U.T @ U - np.eye(r)) <= 10 * r * u
            assert norm(A - U @ (B + B.T) / 2) <= 15 * r * u * np.linalg.norm(A, 2)
            assert np.linalg.norm(A, "nuc") - np.trace(B) <= 10 * r * u * np.linalg.norm(A, "nuc")


@pytest.mark.parametrize("shape", [(6, 2), (9, 3), (30, 24), (150, 100), (300, 200)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_one_faint_singular_value_the_factor_is_orthonormal_without_polish(dtype, shape, rng, monkeypatch):
    (d, r), u = shape, torch.finfo(dtype).eps
    monkeypatch.setattr(_routes, "_polished", lambda _: pytest.fail("this costs two products"))
    ratio = min(r, 100)
    for kappa in np.geomspace(1.1 * r**0.5, min(ratio, u**-0.25), 6):
        values = np.linspace(1, kappa / ratio, r - 1)  # of which the last is as small as may be
        A = numpy(torch.tensor(with_spectrum(d, np.append(values, 1.02 / kappa), rng), dtype=dtype))
        U = numpy(polar_factor(torch.tensor(A, dtype=dtype)))
        assert norm(U.T @ U - np.eye(r)) <= 10 * r * u
        assert norm(U.T @ A - A.T @ U) <= 15 * r * u * np.linalg.norm(A, 2)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS[1:])
def test_factor_and_gradient_are_right_to_sixty_digits_rounded(method, dtype, seen, rng):
    u = torch.finfo(dtype).eps
    for kappa in conditions(method, dtype):
        for values in spectra(kappa, 3):
            A = torch.tensor(with_spectrum(5, values, rng), dtype=dtype, requires_grad=True)
            G = torch.tensor(rng.standard_normal((5, 3)), dtype=dtype)
            U = factor(A, method, dtype, seen)
            slope = torch.autograd.grad(U, A, G)[0]
            exact, (exact_U, _, s) = oracles.exact(numpy(A)), oracles.exact_polar(oracles.exact(numpy(A)))
            gradient = oracles.rounded(oracles.exact_polar_derivative(exact, oracles.exact(numpy(G))))
            assert norm(numpy(U) - oracles.rounded(exact_U)) <= 10 * 3 * u * float(s[-1] / s[0])
            assert norm(numpy(slope) - gradient) <= 20 * 3 * u * float(s[-1] / s[0]) * norm(gradient)


# --- what a method does not serve ---------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [3.0, 1e3, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["gram", "newton-schulz"])
def test_beyond_the_limit_seen_matrices_are_handed_over(method, dtype, beyond, rng):
    A = torch.tensor(with_spectrum(7, np.array([1, 0.5, 0.1 / LIMITS[method, dtype] / beyond]), rng), dtype=dtype)
    good = torch.tensor(with_spectrum(7, np.array([1, 0.5, 0.1]), rng), dtype=dtype)
    for X in (A, torch.stack([good, A])):
        assert torch.equal(polar_factor(X, method), polar_factor(X, "auto"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_device_gram_waits_in_any_case_and_so_may_look(dtype, rng):
    A = torch.tensor(with_spectrum(7, np.array([1, 1e-4, 1e-4]), rng), dtype=dtype)
    with blind():
        assert torch.equal(polar_factor(A, "gram"), polar_factor(A, "svd"))


@pytest.mark.parametrize("beyond", [30.0, 1e3, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_the_limit_unseen_matrices_are_nan_and_so_are_all_derivatives(dtype, beyond, rng):
    method = "newton-schulz"
    good = torch.tensor(with_spectrum(7, np.array([1, 0.5, 0.1]), rng), dtype=dtype)
    bad = torch.tensor(with_spectrum(7, np.array([1, 0.5, 1 / LIMITS[method, dtype] / beyond]), rng), dtype=dtype)
    A = torch.stack([good, bad]).requires_grad_()
    with blind():
        U = polar_factor(A, method)
        first = torch.autograd.grad(U.pow(3).sum(dim=(-2, -1)), A, torch.ones(2, dtype=dtype), create_graph=True)[0]
        second = torch.autograd.grad(first.pow(2).sum(dim=(-2, -1)), A, torch.ones(2, dtype=dtype))[0]
    for X in (U, first, second):
        assert X[1].isnan().all()  # never a number
        assert X[0].isfinite().all()  # the other matrix of the batch is not concerned
    torch.testing.assert_close(U[0], polar_factor(good))


@pytest.mark.parametrize("dtype", DTYPES)
def test_between_served_and_refused_no_unseen_number_breaks_a_promise(dtype, rng):
    u, outcomes = torch.finfo(dtype).eps, set()
    for kappa in LIMITS["newton-schulz", dtype] * np.geomspace(0.5, 100, 25):
        for values in spectra(kappa, 4):
            A = numpy(torch.tensor(with_spectrum(6, values, rng), dtype=dtype))
            U = numpy(factor(A, "newton-schulz", dtype, False))
            outcomes.add(bool(np.isnan(U).all()))
            if not np.isnan(U).all():
                B = U.T @ A
                assert norm(U.T @ U - np.eye(4)) <= 10 * 4 * u
                assert norm(A - U @ (B + B.T) / 2) <= 15 * 4 * u * np.linalg.norm(A, 2)
    assert outcomes == {True, False}


@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_the_limit_mapped_matrices_and_gradients_are_nan_as_the_compiler_computes_them(dtype, monkeypatch, rng):
    values = np.array([1, 0.5, 0.1]), np.array([1, 0.5, 1e-3 / LIMITS["newton-schulz", dtype]])
    A = torch.stack([torch.tensor(with_spectrum(7, s, rng), dtype=dtype) for s in values])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    slope = torch.func.grad(lambda A: polar(A, "newton-schulz").pow(3).sum())
    for good, bad in (torch.vmap(lambda A: polar(A, "newton-schulz"))(A), torch.vmap(slope)(A)):
        assert good.isfinite().all()
        assert bad.isnan().all()


def test_rounding_coarser_than_the_dtypes_is_caught(rng):
    A = torch.tensor(with_spectrum(40, np.linspace(0.5, 1, 20), rng), dtype=torch.float32)

    with blind():
        assert polar_factor(A, "newton-schulz").isfinite().all()
        with coarse():
            assert polar_factor(A, "newton-schulz").isnan().all()


@pytest.mark.parametrize("method", ["SVD", "polar", "", None, 1])
def test_an_unknown_method_is_refused_with_the_known_ones(method):
    message = r"method = .* is not known; (did you mean 'svd'\? )?choose one of: auto, svd, gram, newton-schulz"
    for call in (
        lambda: nearest_etf(torch.eye(4, 3), method=method),
        lambda: polar_factor(torch.eye(4, 3), method),
        lambda: NearestETFHead(4, 3, method=method),
    ):
        with pytest.raises(InputError, match=message):
            call()


# --- through the steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e3])
def test_the_derivative_through_the_steps_is_the_closed_form_as_the_compiler_needs_it(kappa, rng):
    for values in spectra(kappa, 4):
        A = torch.tensor(with_spectrum(6, values, rng), requires_grad=True)
        G, D = (torch.tensor(rng.standard_normal((6, 4))) for _ in range(2))
        steps, closed = _products.factor_by_products(A).U, polar(A, "newton-schulz")
        slopes = [torch.autograd.grad(U, A, G, create_graph=True)[0] for U in (steps, closed)]
        turns = [torch.autograd.grad((slope * D).sum(), A)[0] for slope in slopes]
        for through, exact in (slopes, turns):
            assert (through - exact).norm() <= 1e-11 * kappa * exact.norm()


@pytest.mark.parametrize("method", METHODS)
def test_equal_class_means_leave_the_proximal_point_however_faint(method, rng):
    prox = torch.linalg.qr(torch.tensor(rng.standard_normal((7, 3)))).Q
    frame = torch.from_numpy(simplex_etf(4, reduced=True))
    for delta in (1e-3, 1e-12, 1e-30):
        with blind():
            U = nearest_etf(torch.zeros(7, 4, dtype=torch.float64), prox, delta, frame, method=method)
        torch.testing.assert_close(U, prox, rtol=0, atol=1e-13)


@pytest.mark.parametrize("hold", [None, [3, 0]])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_svd_that_does_not_converge_is_taken_of_the_transpose_in_float64(dtype, hold, rng, monkeypatch):
    H, at = (torch.tensor(rng.standard_normal(shape), dtype=dtype) for shape in [(2, 7, 5), (7, 4)])
    frame, held = torch.from_numpy(simplex_etf(5, reduced=True)), {"hold": hold, "hold_at": hold and polar_factor(at)}
    works, failed = torch.linalg.svd, []

    def unreliable(A, full_matrices=True):
        if len(failed) == 0 or failed[-1].shape != A.mT.shape or A.dtype != torch.float64:
            failed.append(A)
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return works(A, full_matrices=full_matrices)

    expected = nearest_etf(H, frame=frame, method="svd", **held)
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", unreliable)
        U = nearest_etf(H, frame=frame, method="svd", **held)
    assert failed
    torch.testing.assert_close(U, expected, rtol=0, atol=100 * torch.finfo(dtype).eps)
