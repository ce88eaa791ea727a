"""Few columns on the CPU: one faint singular value costs nothing, and what needs an SVD leaves the others alone."""

import numpy as np
import pytest

from tests.tools import oracles
from tests.tools.strategies import orthonormal, with_spectrum

torch = pytest.importorskip("torch")
from etfopt.nn.functional import frame_tensor, nearest_etf
from etfopt.nn.polar import _few
from tests.tools.node_cases import DTYPES, norm, numpy


def found(A: np.ndarray, dtype: torch.dtype) -> _few.Few:
    with _few.IGNORED():
        few = _few.factored(np.float64(numpy(torch.tensor(A, dtype=dtype))), dtype)
    assert few is not None
    return few


@pytest.mark.parametrize("faint", [1e-2, 1e-6, 1e-12, 1e-15])
@pytest.mark.parametrize("shape", [(9, 4), (64, 10), (40, 33)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_faint_singular_value_needs_no_svd_and_keeps_the_promises(dtype, shape, faint, rng, monkeypatch):
    monkeypatch.setattr(_few, "svd_factor", lambda _: pytest.fail("this is three times as slow"))
    (d, r), u = shape, torch.finfo(dtype).eps
    A = numpy(torch.tensor(with_spectrum(d, np.append(np.linspace(0.5, 1, r - 1), faint), rng), dtype=dtype))
    few = found(A, dtype)
    U = numpy(few.U)
    assert norm(U.T @ U - np.eye(r)) <= 10 * r * u
    assert norm(U.T @ A - A.T @ U) <= 15 * r * u * np.linalg.norm(A, 2)
    assert (few.S[..., 0] == 0) == (faint <= r * u)  # then the direction is null, and has no share in the derivative


@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_a_faint_proximal_term_value_and_gradient_are_right_to_sixty_digits_rounded(dtype, delta, rng):
    """The direction that the simplex does not see has a singular value of at most delta."""
    d, C, u = 7, 4, torch.finfo(dtype).eps
    H = torch.tensor(rng.standard_normal((d, C)) / 4, dtype=dtype, requires_grad=True)
    prox, G = (torch.tensor(X, dtype=dtype) for X in (orthonormal(d, C, rng), rng.standard_normal((d, C))))
    U = nearest_etf(H, prox, delta)
    slope = torch.autograd.grad(U, H, G)[0]
    # of the simplex to sixty digits: one rounded to its dtype has a part along 1, as large as a faint delta
    M = oracles.mp.matrix([[oracles.mp.mpf(int(i == j)) - oracles.mp.mpf(1) / C for j in range(C)] for i in range(C)])
    F = M / oracles.mp.sqrt(C - 1)
    A = 2 * oracles.exact(numpy(H)) * F + oracles.mp.mpf(delta) * oracles.exact(numpy(prox))
    exact_U, _, s = oracles.exact_polar(A)
    kappa = float(s[-1] / s[0])
    gradient = oracles.rounded(2 * oracles.exact_polar_derivative(A, oracles.exact(numpy(G))) * F)
    assert norm(numpy(U) - oracles.rounded(exact_U)) <= 10 * C * u * kappa
    assert norm(numpy(slope) - gradient) <= 20 * C * u * kappa * norm(gradient)


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_that_need_the_svd_leave_the_others_of_a_batch_alone(dtype, rng, monkeypatch):
    spectra = [[1, 0.8, 0.5], [1, 1e-5, 1e-5], [1, 0.5, 1e-6], [1, 1, 1], [1, 0.5, 0], [1, 0, 0]]
    batch = np.stack([with_spectrum(6, np.array(s, dtype=float), rng) for s in spectra])
    given, svd = [], _few.svd_factor
    monkeypatch.setattr(_few, "svd_factor", lambda A: given.append(A.shape) or svd(A))
    together, G = found(batch, dtype), torch.tensor(rng.standard_normal(batch.shape), dtype=dtype)
    assert given == [(2, 6, 3)]
    eye = torch.eye(3, dtype=dtype)
    slopes = together.derivative(G, eye)
    for k, A in enumerate(batch):
        alone = found(A, dtype)
        torch.testing.assert_close(together.U[k], alone.U)
        torch.testing.assert_close(slopes[k], alone.derivative(G[k], eye))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_of_few_columns_is_its_members_one_by_one_and_one_node(dtype, rng):
    H = torch.tensor(rng.standard_normal((3, 2, 9, 5)), dtype=dtype, requires_grad=True)
    prox = torch.tensor(orthonormal(9, 5, rng), dtype=dtype, requires_grad=True)
    for frame in (None, frame_tensor(5, H, reduced=True)):
        near, delta = (prox, 3.0) if frame is None else (None, None)
        U = nearest_etf(H, near, delta, frame)
        assert U.grad_fn.name() == "_NodeBackward"
        G = torch.tensor(rng.standard_normal(U.shape), dtype=dtype)
        slopes = torch.autograd.grad(U, (H, prox), G, allow_unused=True)
        members = [nearest_etf(means, near, delta, frame) for means in H.flatten(0, 1)]
        each = torch.autograd.grad(members, (H, prox), list(G.flatten(0, 1)), allow_unused=True)
        torch.testing.assert_close(U.flatten(0, 1), torch.stack(members))
        for slope, sum_of_members in zip(slopes, each, strict=True):
            if sum_of_members is None:
                assert slope is None
            else:
                torch.testing.assert_close(slope, sum_of_members)
