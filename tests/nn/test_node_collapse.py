"""Means near collapse, whose polar factor and derivative are products and no decomposition.

The core, in float64, is the reference; for float64 it is as exact as its promises.
"""

import itertools
import math

import numpy as np
import pytest

from etfopt.adjoint import polar_derivative
from tests.tools.blind import waits
from tests.tools.strategies import orthonormal

torch = pytest.importorskip("torch")
from etfopt.nn.functional import frame_tensor, nearest_etf
from etfopt.nn.polar import _collapsed
from etfopt.nn.polar._collapsed import Collapsed, near_collapse
from etfopt.nn.polar._gram import gram

SHAPES = ((64, 64), (130, 80))
KINDS = ("spread evenly", "one apart", "two apart", "two clusters")


def matrix(shape: tuple[int, int], eigenvalues: np.ndarray, first: float, rng: np.random.Generator) -> np.ndarray:
    """A with the given eigenvalues of A'A, after the first, which is that of a direction near equal entries."""
    d, r = shape
    Q = rng.standard_normal((r, r))
    Q[:, 0] = 1 + 0.02 * rng.standard_normal(r)
    Q = np.linalg.qr(Q)[0]
    return orthonormal(d, r, rng) @ (Q * np.sqrt([first, *eigenvalues])) @ Q.T


def eigenvalues(kind: str, r: int, e: float) -> np.ndarray:
    """r - 1 numbers that differ from 1 by at most e."""
    found = np.ones(r - 1)
    match kind:
        case "spread evenly":
            found += np.linspace(-e, e, r - 1)
        case "one apart":
            found[0] -= e
        case "two apart":
            found[:2] += -e, e
        case "two clusters":
            found[: r // 2] += e
    return found


def find(A: torch.Tensor, apart: bool = True) -> Collapsed | None:
    return near_collapse(A, A.mT @ A, float(A.square().sum()), apart)


def losses(found: Collapsed, A: torch.Tensor, G: torch.Tensor) -> dict[str, float]:
    """What is off, over what is promised."""
    r, u = A.shape[1], torch.finfo(A.dtype).eps
    wide = A.double().numpy()
    P, s, Qh = np.linalg.svd(wide, full_matrices=False)
    kappa, U, exact = s[0] / s[-1], found.U.double().numpy(), polar_derivative(wide, P @ Qh, G.double().numpy())
    B = U.T @ wide
    slope = found.derivative(G).double().numpy()
    return {
        "orthonormality": np.linalg.norm(U.T @ U - np.eye(r)) / (10 * r * u),
        "factorisation": np.linalg.norm(wide - U @ (B + B.T) / 2) / (15 * r * u * s[0]),
        "gap": abs(np.sum(wide * U) / s.sum() - 1) / (10 * r * u),
        "U": np.linalg.norm(U - P @ Qh) / (10 * r * u * kappa),
        "derivative": np.linalg.norm(slope - exact) / (20 * r * u * kappa * np.linalg.norm(exact)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_that_is_served_is_served_to_the_promises(shape, kind, dtype, rng):
    served = set()
    for e in np.geomspace(0.02, 300, 14) * (1e-3 if dtype == torch.float32 else 1e-5):
        for condition in (0.8, 60.0):
            A = matrix(shape, eigenvalues(kind, shape[1], e), condition**-2, rng)
            A, G = (torch.tensor(X, dtype=dtype) for X in (A, rng.standard_normal(shape)))
            found = find(A)
            if found is not None:
                served.add(found.terms)
                for what, share in losses(found, A, G).items():
                    assert share <= 0.5, (what, e, condition)
    assert served == {1, 2, 3}


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("rounding", [1e-6, 1e-3])  # at the first the steps decide how many terms it takes
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_what_the_terms_leave_out_is_below_the_bound(terms, rounding, share, rng):
    e = share * max(e for e in np.geomspace(1e-6, 0.9, 400) if (_collapsed._terms(e * e, rounding) or 4) <= terms)
    for kind, alpha, whole in itertools.product(KINDS, (-0.5, 0.0, 50.0), (True, False)):
        _leaves_out_less(terms, e, rounding, kind, alpha, whole, rng)


def _leaves_out_less(terms, e, rounding, kind, alpha, whole, rng) -> None:
    r = 12
    Q = orthonormal(r, r, rng)
    values = np.array([0, *(eigenvalues(kind, r, 1.0) - 1)])
    values *= e / np.sqrt(np.linalg.norm(values**2))  # so that |E^2| = e^2
    E, v = (torch.tensor(X) for X in (Q * values @ Q.T, Q[:, 0].copy()))
    N = _collapsed._series(E, E @ E, terms)
    exact = Q * ((1 + values) ** -0.5 - 1) @ Q.T
    assert np.linalg.norm(N.numpy() - exact) <= rounding / 2
    # T without error, so that the steps alone are seen, at A = B
    T = np.eye(r) + exact + alpha * np.outer(Q[:, 0], Q[:, 0])
    found = Collapsed(*(torch.tensor(X) for X in (np.eye(r), T, exact)), v, alpha, terms)
    # of all cotangents, that of one pair of eigenvectors is served worst
    G = rng.standard_normal((r, r)) if whole else np.outer(Q[:, 1], Q[:, -1])
    slope = polar_derivative(np.linalg.inv(T), np.eye(r), G)
    off = np.linalg.norm(found.derivative(torch.tensor(G)).numpy() - slope)
    assert off <= 4 * rounding * np.linalg.norm(slope)


@pytest.mark.parametrize("apart", [True, False])
def test_the_largest_spread_served_is_not_far_from_the_largest_that_three_terms_serve(apart, rng):
    served = [e for e in np.geomspace(1e-2, 0.5, 20) if _tried(e, apart, rng)]
    assert 0.05 <= max(served) <= 0.2


def _tried(e: float, apart: bool, rng: np.random.Generator) -> bool:
    values = eigenvalues("spread evenly", 100, e)
    A = matrix((120, 100), values, 0.04 if apart else 1.0, rng)
    return find(torch.tensor(A, dtype=torch.float32), apart) is not None


def test_a_direction_apart_that_is_not_near_equal_entries_is_left_to_others(rng):
    for value in (0.02, 0.3, 3.0, 30.0):
        A = matrix((120, 100), np.array([value, *np.ones(98)]), 0.04, rng)
        assert find(torch.tensor(A, dtype=torch.float32)) is None
        assert find(torch.tensor(A, dtype=torch.float32), apart=False) is None


def test_so_is_one_that_is_fainter_than_a_gram_matrix_tells_or_null(rng):
    for dtype in (torch.float32, torch.float64):
        for first in (100.5**-2, 1e-12, 0.0):
            A = matrix((250, 200), np.ones(199), first, rng)
            assert find(torch.tensor(A, dtype=dtype)) is None
        assert find(torch.tensor(matrix((250, 200), np.ones(199), 99**-2, rng), dtype=dtype)) is not None


def test_so_is_one_that_the_iteration_has_not_found(rng):
    Q = np.linalg.qr(np.column_stack([1 + 3 * rng.standard_normal(100), rng.standard_normal((100, 99))]))[0]
    values = np.array([0.9, *np.ones(99)])  # too near the others for the power iteration, and too far to be one
    A = torch.tensor(orthonormal(120, 100, rng) @ (Q * np.sqrt(values)) @ Q.T, dtype=torch.float64)
    assert find(A) is None


def means(shape: tuple[int, int], noise: float, rng: np.random.Generator, dtype: torch.dtype) -> list[torch.Tensor]:
    """Class means of norm 1 at that distance from a simplex, its U, and a cotangent."""
    U, X = orthonormal(*shape, rng), rng.standard_normal(shape)
    H = (U - U.mean(axis=1, keepdims=True)) / math.sqrt(shape[1] - 1) + noise * X / np.linalg.norm(X)
    return [torch.tensor(Y, dtype=dtype) for Y in (H / np.linalg.norm(H), U, rng.standard_normal(shape))]


@pytest.mark.parametrize(("noise", "dtype"), [(0.01, torch.float32), (0.04, torch.float32), (1e-5, torch.float64)])
@pytest.mark.parametrize("frame", ["paper", "reduced"])
def test_means_near_collapse_are_decomposed_neither_forwards_nor_backwards(frame, noise, dtype, rng):
    H, U, G = means((128, 100), noise, rng, dtype)
    F = frame_tensor(100, H, reduced=True) if frame == "reduced" else None
    prox, delta = (U, 1e-3) if F is None else (None, 0.0)
    with waits() as noted:
        found, slope = _value_and_slope(H, G if F is None else G[:, :99], prox, delta, F)
    assert not any("linalg" in name for name in noted)
    others = _value_and_slope(H, G if F is None else G[:, :99], prox, delta, F, method="svd")
    rounding = 500 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, others[0], rtol=0, atol=rounding)
    torch.testing.assert_close(slope, others[1], rtol=0, atol=rounding * float(others[1].norm()))


def _value_and_slope(H, G, prox, delta, frame, method="auto"):
    H = H.clone().requires_grad_()
    U = nearest_etf(H, prox, delta, frame, method=method)
    return U.detach(), torch.autograd.grad(U, H, G)[0]


def test_other_means_are_decomposed_once(rng):
    H, U, G = means((128, 100), 0.3, rng, torch.float32)
    with waits() as noted:
        _value_and_slope(H, G, U, 1e-3, None)
    assert sum("eigh" in name for name in noted) == 1


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_derivatives_of_higher_order_are_those_of_a_batch_of_one(noise, rng):
    H, U, G = means((70, 64), noise, rng, torch.float64)
    found = []
    for batch in ((), (1,)):
        leaf, pull = (X.expand(*batch, *X.shape).clone().requires_grad_() for X in (H, U))
        first = torch.autograd.grad(nearest_etf(leaf, pull, 0.02).pow(3).sum(), (leaf, pull), create_graph=True)
        second = torch.autograd.grad(sum((X * G).sum() for X in first), (leaf, pull))
        found.append([X.detach().reshape(H.shape) for X in (*first, *second)])
    for single, batched in zip(*found, strict=True):
        torch.testing.assert_close(single, batched, rtol=0, atol=1e-9 * float(batched.norm()))


def test_nothing_of_a_faint_proximal_term_leaks_into_losses_of_the_etf(rng):
    H, U, X = means((128, 100), 1e-6, rng, torch.float64)
    G = X @ frame_tensor(100, H).mT
    for delta in (1e-2, 1e-3, 3e-4, 1e-5):  # the last is too faint for products
        slope, exact = (_value_and_slope(H, G, U, delta, None, method)[1] for method in ("auto", "svd"))
        torch.testing.assert_close(slope, exact, rtol=0, atol=1e-12 * float(exact.norm()))


@pytest.mark.parametrize("shape", [(520, 512), (600, 513), (1, 515)])
def test_the_gram_matrix_of_a_wide_matrix_is_that_of_its_blocks(shape, rng):
    A = torch.tensor(rng.standard_normal(shape))
    torch.testing.assert_close(gram(A), A.mT @ A, rtol=0, atol=1e-12)
    torch.testing.assert_close(gram(A[None]), (A.mT @ A)[None], rtol=0, atol=1e-12)
