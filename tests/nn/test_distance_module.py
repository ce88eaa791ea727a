"""The module of the distance: reductions, shares of the squared norm, and features with labels."""

import math

import pytest

from etfopt import InputError, simplex_etf
from tests.tools.strategies import orthonormal

torch = pytest.importorskip("torch")

from etfopt.metrics import NeuralCollapse
from etfopt.nn import ETFDistance
from etfopt.nn.functional import etf_distance

H = torch.arange(12.0).reshape(4, 3).cos()


def test_the_module_reduces_as_the_losses_of_torch_do(rng):
    H, w = torch.tensor(rng.standard_normal((3, 6, 4))), torch.tensor(rng.uniform(0, 1, (3, 4)))
    each = etf_distance(H, weights=w)
    for reduction, expected in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        assert torch.equal(ETFDistance(reduction=reduction)(H, w), expected)
    sets = [H[0], H[1, :, :3]]
    torch.testing.assert_close(ETFDistance()(sets), etf_distance(sets).mean())
    assert not ETFDistance(frame=simplex_etf(4)).state_dict()
    module = ETFDistance(simplex_etf(4), free_scale=False)
    torch.testing.assert_close(module(H), etf_distance(H, torch.tensor(simplex_etf(4)), None, False).mean())
    assert "frame=(4, 4), free_scale=False" in repr(module)


@pytest.mark.parametrize("sets", [False, True])
def test_the_relative_distance_is_a_share_that_shrinking_does_not_change(sets, rng):
    H, w = torch.tensor(rng.standard_normal((3, 6, 4))), torch.tensor(rng.uniform(0, 1, (3, 4)))
    H[0, 0, 2], w[0, 2] = math.nan, 0
    module = ETFDistance(relative=True, reduction="none")
    leaf = H.clone().requires_grad_()
    D = module(list(leaf), list(w)) if sets else module(leaf, w)
    size = (w * H.nan_to_num().square().sum(dim=1)).sum(dim=1)
    torch.testing.assert_close(D, etf_distance(H, weights=w) / size)
    torch.testing.assert_close(module(1e-5 * H, w), D)
    slope = torch.autograd.grad(D.sum(), leaf)[0]
    assert (slope * H.nan_to_num()).sum().abs() <= 1e-12
    assert module(torch.zeros(6, 4)) == 0


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e19, 1e30])
@pytest.mark.parametrize("kind", ["means", "weights", "sets", "features"])
def test_no_size_of_the_class_means_takes_the_relative_distance_out_of_range(kind, size, rng):
    H, w = torch.tensor(rng.standard_normal((6, 4))), torch.tensor([2.0, 1.0, 0.0, 3.0])
    module = ETFDistance(relative=True)
    calls = {
        "means": module,
        "weights": lambda X: module(torch.where(w > 0, X, 1e5 * X), w.to(X)),  # a masked column has no part in the size
        "sets": lambda X: module([X, X[:, :2].detach()]),
        "features": lambda X: module.from_features(X.mT, torch.arange(4)),
    }
    found = []
    for X in (H, (H * size).float()):
        leaf = X.clone().requires_grad_()
        D = calls[kind](leaf)
        D.backward()
        found.append((D.double(), leaf.grad.double() * X.double().abs().max()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relative", [False, True])
def test_features_and_labels_give_the_distance_of_the_classes_that_occur(relative, rng):
    features = torch.tensor(rng.standard_normal((2, 9, 6)), requires_grad=True)
    labels = torch.tensor(rng.permutation([7, 2, 40, -100] * 5)[:18].reshape(2, 9))
    module = ETFDistance(relative=relative)
    means = torch.stack([features[labels == c].mean(dim=0) for c in (2, 7, 40)], dim=1)
    expected = module(means - means.mean(dim=1, keepdim=True))
    found = module.from_features(features, labels)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(D, features)[0] for D in (found, expected)]
    torch.testing.assert_close(*slopes)
    assert not slopes[0][labels == -100].any()


def test_it_is_the_measure_of_collapse_that_the_metrics_report(rng):
    features, labels = torch.tensor(rng.standard_normal((20, 6))), torch.arange(20) % 4
    measure = NeuralCollapse(num_classes=4, dim=6)
    measure.update(features, labels)
    found = ETFDistance(relative=True).from_features(features, labels)
    torch.testing.assert_close(found, measure.compute()["etf_distance_means"].to(found))


def test_features_collapsed_to_some_vertices_of_a_simplex_have_distance_zero(rng):
    E = torch.tensor(orthonormal(9, 7, rng) @ simplex_etf(8, reduced=True))
    labels = torch.tensor([0, 3, 5, 3, 0])
    assert float(ETFDistance().from_features(3 * E[:, labels].mT + 0.7, labels)) <= 1e-28


@pytest.mark.parametrize("labels", [[4, 4, 4], [-100, -100, -100], [-100, 2, -100]])
def test_fewer_than_two_classes_have_distance_zero_and_a_gradient_of_zero(labels):
    features = torch.tensor([[1.0, math.nan], [2.0, 1.0], [0.0, 1.0]], requires_grad=True)
    D = ETFDistance().from_features(features, torch.tensor(labels))
    assert D.item() == 0
    assert not torch.autograd.grad(D, features)[0].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ETFDistance(reduction="max"), r"reduction = 'max' is not known; choose one of: mean, sum, none"),
        (lambda: ETFDistance(method="qr"), r"method = 'qr' is not known"),
        (lambda: ETFDistance(torch.ones(3)), r"frame has shape \(3,\); it must be \(r, C\)"),
        (lambda: ETFDistance(torch.zeros(3, 3)), r"frame of shape \(3, 3\) is zero"),
        (lambda: ETFDistance(simplex_etf(3)).from_features(H, torch.arange(4)), r"this module has a frame"),
        (lambda: ETFDistance().from_features(H, torch.arange(3)), r"labels has shape \(3,\); it must be \(4,\)"),
        (lambda: ETFDistance().from_features(H, torch.arange(4) - 1), r"labels holds -1"),
        (lambda: ETFDistance().from_features(H[0], torch.arange(3)), r"features has shape \(3,\)"),
        (lambda: ETFDistance().from_features(H[:, :2], torch.arange(4)), r"labels holds 4 classes, .* d >= 3 .*d = 2"),
        (
            lambda: ETFDistance().from_features(H * math.nan, torch.arange(4)),
            r"features holds 12 value\(s\) that are NaN",
        ),
    ],
)
def test_a_module_that_cannot_be_built_or_called_so_says_why(call, message):
    with pytest.raises(InputError, match=message):
        call()
