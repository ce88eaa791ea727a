"""Derivatives of the bridge by PyTorch's own checkers, in every mode, at every kind of spectrum."""

import numpy as np
import pytest

from tests.tools.blind import blind
from tests.tools.strategies import means_with, with_spectrum

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck, gradgradcheck

from etfopt.nn.functional import frame_tensor, nearest_etf, polar_factor
from tests.tools.node_cases import METHODS, SPECTRA, derivative_cases

DIMENSIONS = {"d = C - 1": 3, "d = C": 4, "d > C": 6}


@pytest.fixture(params=SPECTRA)
def values(request: pytest.FixtureRequest) -> np.ndarray:
    return SPECTRA[request.param]


@pytest.fixture(params=DIMENSIONS)
def d(request: pytest.FixtureRequest) -> int:
    return DIMENSIONS[request.param]


def means(d: int, values: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    return torch.tensor(means_with(with_spectrum(d, values, rng)), requires_grad=True)


def test_first_derivatives_pass_gradcheck_forward_reverse_and_batched(values, d, rng):
    for function, inputs in derivative_cases(d, values, rng, "auto"):
        assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, atol=1e-4, rtol=1e-4)
        assert gradgradcheck(function, inputs, atol=1e-4, rtol=1e-4)


def test_so_do_those_by_products(values, d, rng):
    for function, inputs in derivative_cases(d, values, rng, "newton-schulz")[:4]:
        assert gradcheck(function, inputs, check_forward_ad=True, atol=1e-4, rtol=1e-4)
        assert gradgradcheck(function, inputs, fast_mode=True, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS[1:])
def test_so_do_those_of_values_that_are_hidden(values, method, rng):
    with blind():
        for function, inputs in derivative_cases(5, values, rng, method)[1:3]:
            assert gradcheck(function, inputs, fast_mode=True, check_forward_ad=True, atol=1e-4, rtol=1e-4)
            assert gradgradcheck(function, inputs, fast_mode=True, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (2, 4, 3)])
def test_the_polar_factor_passes_both_checks(shape, rng):
    A = torch.tensor(rng.standard_normal(shape) + np.eye(*shape[-2:]), requires_grad=True)
    assert gradcheck(polar_factor, A, check_forward_ad=True, check_batched_grad=True, atol=1e-4, rtol=1e-4)
    assert gradgradcheck(polar_factor, A, atol=1e-4, rtol=1e-4)


def loss(H: torch.Tensor) -> torch.Tensor:
    """A scalar with a non-trivial Hessian."""
    etf = nearest_etf(H, torch.eye(*H.shape[-2:], dtype=H.dtype), 0.1) @ frame_tensor(H.shape[-1], H)
    return (etf * torch.linspace(-1, 2, etf.numel(), dtype=H.dtype).reshape(etf.shape)).sum().sin()


def by_autograd(H: torch.Tensor) -> torch.Tensor:
    H = H.detach().requires_grad_()
    return torch.autograd.grad(loss(H), H)[0]


def test_forward_mode_is_the_gradient_too(values, rng):
    H, D = means(6, values, rng).detach(), torch.tensor(rng.standard_normal((6, 4)))
    value, slope = torch.func.jvp(loss, (H,), (D,))
    torch.testing.assert_close(value, loss(H))
    torch.testing.assert_close(slope, (by_autograd(H) * D).sum())
    torch.testing.assert_close(torch.func.jacfwd(loss)(H), by_autograd(H))


def test_hessians_agree_however_they_are_taken(values, rng):
    H = means(6, values, rng).detach()
    V = torch.tensor(rng.standard_normal((6, 4)))
    product = (torch.func.hessian(loss)(H) * V).sum((-2, -1))
    leaf = H.clone().requires_grad_()
    first = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad((first * V).sum(), leaf)[0], product)
    torch.testing.assert_close(torch.func.jacrev(torch.func.grad(loss))(H), torch.func.hessian(loss)(H))
    torch.testing.assert_close(torch.func.jvp(torch.func.grad(loss), (H,), (V,))[1], product)


def test_third_derivatives_exist_at_collapse(rng):
    H, D = means(5, np.ones(3), rng), torch.tensor(rng.standard_normal((5, 4)))
    value = loss(H)
    for _ in range(3):
        value = (torch.autograd.grad(value, H, create_graph=True)[0] * D).sum()

    def along(t: float) -> float:
        H2 = (H + t * D).detach().requires_grad_()
        first = (torch.autograd.grad(loss(H2), H2, create_graph=True)[0] * D).sum()
        return (torch.autograd.grad(first, H2)[0] * D).sum().item()

    assert value.item() == pytest.approx((along(1e-4) - along(-1e-4)) / 2e-4, rel=1e-4, abs=1e-4)
