"""The feature normalisation: along the last axis, with a gradient that relies on no derivative at a kink."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from etfopt.nn import FixedETFHead, UnitFeatures


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 3.0, 1e-30, 1e30])
def test_the_gradient_is_orthogonal_to_features_along_an_axis(dtype, size, generator):
    # the largest entry of such a feature is its norm, where a bound on the norm is exactly reached
    x = (torch.eye(5, dtype=dtype) * size).requires_grad_()
    cotangent = torch.randn(5, 5, dtype=dtype, generator=generator)
    (UnitFeatures(5.0)(x) * cotangent).sum().backward()
    off_diagonal = cotangent * (1 - torch.eye(5, dtype=dtype))
    torch.testing.assert_close(x.grad, 5 / size * off_diagonal)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.5, 1.0]])
def test_first_and_second_derivatives_hold_where_entries_are_zero_or_tied(row):
    if not any(row):  # a zero feature has no direction: its gradient is that of division by one
        x = torch.zeros(1, 3, requires_grad=True)
        UnitFeatures(5.0)(x).sum().backward()
        assert x.grad.tolist() == [[5.0, 5.0, 5.0]]
        assert not torch.func.hessian(lambda v: UnitFeatures(5.0)(v).sum())(x.detach()).any()
        (slope,) = torch.autograd.grad(UnitFeatures(5.0)(x).sum(), x, create_graph=True)
        assert not torch.autograd.grad(slope.sum(), x)[0].any()
        return
    x = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(UnitFeatures(5.0), x)
    assert torch.autograd.gradgradcheck(UnitFeatures(5.0), x)


@pytest.mark.parametrize("shape", [(16,), (4, 16), (3, 7, 16), (2, 3, 7, 16), (0, 16)])
def test_features_are_normalised_along_the_last_axis_whatever_stands_before_it(shape, generator):
    features = torch.randn(shape, generator=generator)
    scaled = UnitFeatures(5.0)(features)
    torch.testing.assert_close(scaled.norm(dim=-1), torch.full(shape[:-1], 5.0))
    torch.testing.assert_close(scaled * features.norm(dim=-1, keepdim=True), 5 * features)


def test_the_exported_head_takes_tokens_as_it_takes_rows(generator):
    head = FixedETFHead(16, 5).eval()
    network = nn.Sequential(UnitFeatures(head.temperature), head.linear())
    tokens = torch.randn(3, 7, 16, generator=generator)
    torch.testing.assert_close(network(tokens), head(tokens.reshape(21, 16)).reshape(3, 7, 5))
