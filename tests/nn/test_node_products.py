"""Matrix products alone: nobody looks at a value, and the polynomials are what they are said to be."""

import numpy as np
import pytest

from tests.tools.blind import blind, coarse, waits
from tests.tools.strategies import orthonormal, with_spectrum

torch = pytest.importorskip("torch")
from etfopt import simplex_etf
from etfopt.nn.functional import nearest_etf, on_frame, polar_factor
from etfopt.nn.polar import _products, _sylvester
from tests.tools.node_cases import DTYPES

# --- on a device, one look before a decomposition, which waits in any case ----------------------------------------


def slope(A: torch.Tensor, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = A.clone().requires_grad_()
    U = polar_factor(leaf)
    return U.detach(), torch.autograd.grad(U, leaf, G)[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_device_what_products_do_not_serve_is_decomposed(dtype, rng):
    faint = torch.tensor(with_spectrum(9, np.array([1, 0.5, 1e-7]), rng), dtype=dtype)
    G = torch.tensor(rng.standard_normal((9, 3)), dtype=dtype)
    for A in (faint, torch.stack([faint, faint.flip(0)])):
        with blind(), waits() as noted:
            U, gradient = slope(A, G.expand(A.shape))
        assert sum("linalg" in name for name in noted) == 1
        torch.testing.assert_close(U.mT @ U, torch.eye(3, dtype=dtype).expand(*A.shape[:-2], 3, 3))
        assert gradient.isfinite().all()


@pytest.mark.parametrize("framed", [False, True])
def test_on_a_device_means_near_collapse_are_not_decomposed_either(framed, rng):
    C = 80
    frame = torch.from_numpy(simplex_etf(C, reduced=True)) if framed else None
    U = torch.tensor(orthonormal(90, C, rng))[:, : C - framed]
    H = on_frame(U, frame) if frame is None else U @ frame
    H = (H + 1e-7 * torch.tensor(rng.standard_normal(H.shape))).requires_grad_()
    prox, delta = (None, None) if framed else (U, 0.01)
    with blind(), waits() as noted:
        near = nearest_etf(H, prox, delta, frame)
        inner = torch.autograd.grad(near.pow(3).sum(), H)[0]
    assert near.grad_fn.name() == "_NodeBackward"
    assert not any("linalg_eig" in name or "linalg_svd" in name for name in noted)
    plain = nearest_etf(H, prox, delta, frame, method="svd")
    torch.testing.assert_close(near, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(inner, torch.autograd.grad(plain.pow(3).sum(), H)[0], rtol=0, atol=1e-11)


def test_on_a_device_other_means_are_found_by_products(rng):
    H, prox = (torch.tensor(rng.standard_normal((90, 70))) for _ in range(2))
    with blind(), waits() as noted:
        U = nearest_etf(H, prox, 0.3)
    assert not any("linalg" in name for name in noted)
    torch.testing.assert_close(U, nearest_etf(H, prox, 0.3, method="svd"), rtol=0, atol=1e-11)


# --- the polynomials ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polynomial", "low", "deviation"),
    [(_products.GAIN, 0.3, 0.1085), (_products.CLOSING, 0.8042054504524597, 8.02e-4)],
)
def test_the_polynomials_are_minimax_by_chebyshevs_alternation(polynomial, low, deviation):
    x = np.linspace(low, 1, 200_001)
    values = sum(c * x**n for c, n in zip(polynomial, (1, 3, 5), strict=True))
    centre, size = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
    assert size / centre == pytest.approx(deviation, rel=2e-3)
    turns = [centre - size, centre + size] * 2
    picks = [x[0], *x[1:-1][np.diff(np.sign(np.diff(values))) != 0], x[-1]]
    found = [sum(c * p**n for c, n in zip(polynomial, (1, 3, 5), strict=True)) for p in picks]
    np.testing.assert_allclose(found, turns, rtol=0, atol=1e-9)


def test_no_polynomial_sends_a_large_singular_value_low_or_a_small_one_down():
    x = np.linspace(1e-6, 1, 100_001)
    for a, b, c in (_products.GAIN, _products.CLOSING, _products.ORDER_THREE):
        values = a * x + b * x**3 + c * x**5
        assert (values >= np.minimum(x, 0.3)).all()


def test_the_bound_on_the_spectral_norm_is_never_below_it_and_at_most_the_fourth_root_of_r_above(rng):
    for r in (1, 2, 9, 64):
        for values in (np.ones(r), np.eye(r)[0], np.geomspace(1, 1e-3, r)):
            Q = orthonormal(r, r, rng)
            bound = float(_products.spectral_bound(torch.tensor((Q * values) @ Q.T)))
            assert 1 - 1e-14 <= bound <= r**0.25 * (1 + 1e-14)


# --- the skew equation --------------------------------------------------------------------------------------------


def equation(values: np.ndarray, dtype: torch.dtype, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """B of these eigenvalues, its inverse, a skew R, and the solution of B Omega + Omega B = R."""
    Q = orthonormal(len(values), len(values), rng)
    R = rng.standard_normal(Q.shape)
    R -= R.T
    solution = Q @ ((Q.T @ R @ Q) / (values[:, None] + values)) @ Q.T
    return tuple(torch.tensor(X, dtype=dtype) for X in ((Q * values) @ Q.T, (Q / values) @ Q.T, R, solution))


@pytest.mark.parametrize("r", [2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_skew_equation_is_solved_to_rounding_or_is_nan(dtype, r, rng):
    u, widest = torch.finfo(dtype).eps, _sylvester.WIDEST[dtype]
    for nu in widest / r**0.25 * np.geomspace(1e-2, 1e3, 21):
        for values in (np.geomspace(1, nu**-2, r), np.append(np.ones(r - 1), nu**-2)):
            B, inverse, R, solution = equation(values, dtype, rng)
            found = _sylvester.solve_skew(B, inverse, R)
            error, size = torch.linalg.matrix_norm(found - solution), torch.linalg.matrix_norm(solution)
            assert found.isnan().all() or error <= 2 * r * u * nu**2 * size
            if nu <= widest / r**0.25:
                assert found.isfinite().all()
            if nu >= 30 * widest:
                assert found.isnan().all()


def test_rounding_coarser_than_the_dtypes_is_caught_in_the_equation_too(rng):
    B, inverse, R, _ = equation(np.linspace(0.5, 1, 20), torch.float32, rng)
    assert _sylvester.solve_skew(B, inverse, R).isfinite().all()
    with coarse():
        assert _sylvester.solve_skew(B, inverse, R).isnan().all()
