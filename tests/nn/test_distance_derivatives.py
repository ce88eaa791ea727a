"""Derivatives of the distance to the nearest ETF: of both orders, in every mode, at collapse, where U is not unique."""

import functools

import numpy as np
import pytest

from tests.tools import oracles
from tests.tools.strategies import means_with, orthonormal, with_spectrum

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck, gradgradcheck

from etfopt.nn.functional import etf_distance, frame_tensor
from etfopt.nn.polar._collapsed import Collapsed
from etfopt.nn.polar._factors import Decomposition
from tests.tools.node_cases import DTYPES, METHODS, SPECTRA, norm, numpy

Tensor = torch.Tensor
WEIGHTS = torch.tensor([1.0, 3.0, 0.2, 2.0], dtype=torch.float64)


def means(values: np.ndarray, rng: np.random.Generator, d: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(means_with(with_spectrum(d, values, rng)), dtype=dtype)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("values", SPECTRA)
def test_gradients_are_central_differences(values, free, rng):
    H, F = means(SPECTRA[values], rng) + 0.1, frame_tensor(4, WEIGHTS, reduced=True) + 0.05
    given = [X.clone().requires_grad_() for X in (H, F, WEIGHTS)]
    slopes = torch.autograd.grad(etf_distance(*given, free), given)
    for k, slope in enumerate(slopes):

        def loss(X: np.ndarray, k: int = k) -> float:
            moved = [torch.tensor(X) if i == k else Y.detach() for i, Y in enumerate(given)]
            return float(etf_distance(*moved, free))

        differences = oracles.central_differences(loss, numpy(given[k]), 1e-5)
        assert norm(numpy(slope) - differences) <= 1e-6 * (1 + norm(differences))


CASES = {
    "one": lambda rng: (torch.tensor(rng.standard_normal((6, 4))), WEIGHTS),
    "d = C - 1": lambda rng: (torch.tensor(rng.standard_normal((3, 4))), WEIGHTS),
    "a batch": lambda rng: (torch.tensor(rng.standard_normal((2, 5, 4))), WEIGHTS + torch.arange(2)[:, None]),
    "weights of each": lambda rng: (torch.tensor(rng.standard_normal((5, 4))), WEIGHTS + torch.arange(2)[:, None]),
    "collapsed": lambda rng: (means(np.ones(3), rng), torch.ones(4, dtype=torch.float64)),
    "clustered": lambda rng: (means(SPECTRA["clustered"], rng), WEIGHTS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("free", [True, False])
def test_both_derivatives_pass_the_checks(free, case, rng):
    inputs = tuple(X.clone().requires_grad_() for X in CASES[case](rng))
    function = functools.partial(_of_means_and_weights, free=free)
    options = {"atol": 1e-4, "rtol": 1e-4}
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, **options)
    assert gradgradcheck(function, inputs, fast_mode=case != "one", check_fwd_over_rev=True, **options)


def _of_means_and_weights(H: Tensor, w: Tensor, free: bool) -> Tensor:
    return etf_distance(H, None, w, free)


@pytest.mark.parametrize("free", [True, False])
def test_a_learned_frame_and_learned_weights_have_both_derivatives_in_every_mode(free, rng):
    H, F = torch.tensor(rng.standard_normal((2, 5, 4))), torch.tensor(orthonormal(4, 3, rng).T.copy())
    given, ways = (H, F, WEIGHTS), tuple(torch.tensor(rng.standard_normal(X.shape)) for X in (H, F, WEIGHTS))

    def loss(*given: Tensor) -> Tensor:
        return etf_distance(*given, free).sum()

    leaves = tuple(X.clone().requires_grad_() for X in given)
    assert gradgradcheck(lambda *given: etf_distance(*given, free), leaves, fast_mode=True, atol=1e-4, rtol=1e-4)
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    second = torch.autograd.grad(sum((X * V).sum() for X, V in zip(first, ways, strict=True)), leaves)
    every = (0, 1, 2)
    slopes, bends = torch.func.jvp(torch.func.grad(loss, argnums=every), given, ways)
    torch.testing.assert_close(slopes, first)
    torch.testing.assert_close(bends, second)
    torch.testing.assert_close(
        torch.func.jvp(loss, given, ways)[1], sum((X * V).sum() for X, V in zip(first, ways, strict=True))
    )
    mapped = torch.vmap(torch.func.grad(loss, argnums=every), in_dims=(0, None, None))(*given)
    torch.testing.assert_close((mapped[0], mapped[1].sum(0), mapped[2].sum(0)), first)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("masks", [[], [1], [0, 3]])
def test_second_derivatives_contain_that_of_u_however_they_are_taken(masks, method, rng):
    H, w = torch.tensor(rng.standard_normal((6, 5))), torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0], dtype=torch.float64)
    w = w.index_fill(0, torch.tensor(masks, dtype=torch.int64), 0)
    V = torch.tensor(rng.standard_normal((6, 5)))

    def loss(H: Tensor) -> Tensor:
        return etf_distance(H, None, w, method=method)

    def slope(H: Tensor) -> Tensor:
        leaf = H.detach().clone().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0]

    exact = (slope(H + 1e-5 * V) - slope(H - 1e-5 * V)) / 2e-5
    leaf = H.clone().requires_grad_()
    first = torch.autograd.grad(loss(leaf), leaf, create_graph=True)[0]
    with torch.autograd.forward_ad.dual_level():  # without create_graph
        dual = torch.autograd.forward_ad.make_dual(H.clone().requires_grad_(), V)
        ahead = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss(dual), dual)[0]).tangent
    for found in (
        torch.autograd.grad((first * V).sum(), leaf)[0],
        (torch.func.hessian(loss)(H) * V).sum((-2, -1)),
        torch.func.jvp(torch.func.grad(loss), (H,), (V,))[1],
        torch.func.grad(lambda H: torch.func.jvp(loss, (H,), (V,))[1])(H),
        ahead,
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-7 * float(exact.norm()))
    with pytest.raises(Exception, match="forward mode of forward mode is not supported"):
        torch.func.jacfwd(torch.func.jacfwd(loss))(H)


@pytest.mark.parametrize("shape", [(9, 4), (130, 100), (2, 9, 4)])
def test_one_polar_factor_gives_value_and_gradient(shape, monkeypatch, rng):
    for kind in (Decomposition, Collapsed):
        monkeypatch.setattr(kind, "derivative", lambda *_, **__: pytest.fail("U is not to be differentiated"))
    H = torch.tensor(rng.standard_normal(shape), requires_grad=True)
    etf_distance(H).sum().backward()
    assert H.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 4), (130, 100), (2, 6, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_at_collapse_value_and_gradient_are_zero_to_rounding(weighted, shape, dtype, rng):
    E = torch.tensor(orthonormal(shape[-2], shape[-1] - 1, rng)) @ frame_tensor(shape[-1], WEIGHTS, reduced=True)
    H = (2 * E).expand(shape).to(dtype).requires_grad_()
    w = torch.linspace(0.5, 2, shape[-1], dtype=dtype) if weighted else None
    D = etf_distance(H, None, w)
    slope = torch.autograd.grad(D.sum(), H)[0]
    rounding = 20 * shape[-1] * torch.finfo(dtype).eps
    assert float(D.max().detach()) <= rounding**2
    assert float(slope.norm()) <= 2 * rounding


@pytest.mark.parametrize("case", ["zero", "equal", "one class", "rank one"])
def test_means_without_a_unique_nearest_etf_have_finite_derivatives(case, rng):
    H = (
        {
            "zero": torch.zeros(6, 4),
            "equal": torch.ones(6, 4),
            "one class": torch.eye(6, 4) * torch.tensor([1.0, 0, 0, 0]),
            "rank one": torch.outer(torch.arange(6.0), torch.tensor([1.0, -1, 2, 0])),
        }[case]
        .double()
        .requires_grad_()
    )
    first = torch.autograd.grad(etf_distance(H), H, create_graph=True)[0]
    second = torch.autograd.grad(first.pow(2).sum(), H)[0]
    assert first.isfinite().all()
    assert second.isfinite().all()
    # it is a bound from above: D(H + X) <= D(H) + <gradient, X> + |X|^2
    for size in (1e-3, 1.0):
        X = size * torch.tensor(rng.standard_normal((6, 4)))
        assert etf_distance(H + X) <= etf_distance(H) + (first * X).sum() + X.square().sum() + 1e-12
