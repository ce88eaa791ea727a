"""Losses: the formula of the text, for every head, and where it is smallest."""

import pytest
import torch

from etfopt.experiments.networks.losses import build_loss, dot_regression
from etfopt.experiments.settings import LossConfig
from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead


@pytest.mark.parametrize("make", [LearnedHead, FixedETFHead, NearestETFHead])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_dot_regression_is_the_formula_in_features_weight_and_bias(make, temperature: float):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 8, generator=generator), torch.arange(12) % 4
    head = make(8, 4, temperature=temperature)
    loss = dot_regression(head(features, labels), labels).detach()
    f, W, b = head.normalize(features), head.weight, head.bias
    dots = [float(W[y] @ x + b[y]) for x, y in zip(f, labels.tolist(), strict=True)]
    assert float(loss) == pytest.approx(sum((dot - 1) ** 2 for dot in dots) / (2 * 12), rel=1e-5)


def test_at_temperature_one_collapse_is_the_minimum_and_above_it_is_not():
    labels = torch.arange(8) % 4
    for temperature, value in ((1.0, 0.0), (5.0, 8.0), (0.5, 0.125)):
        head = FixedETFHead(6, 4, temperature=temperature).double()
        features = head.weight[labels].clone().requires_grad_()
        loss = dot_regression(head(features, labels), labels).detach()
        assert float(loss) == pytest.approx(value, abs=1e-6)
    head = FixedETFHead(6, 4, temperature=5.0).double()
    spare = torch.linalg.svd(head.weight).Vh[-1]  # orthogonal to the ETF
    on_the_cone = 0.2 * head.weight[labels] + (1 - 0.04) ** 0.5 * spare
    head.eval()  # without the mean of the batch
    assert float(dot_regression(head(on_the_cone), labels)) == pytest.approx(0, abs=1e-6)


def test_dot_regression_has_the_gradient_of_its_formula_and_cross_entropy_is_torchs():
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 1, 0])
    dot_regression(logits, labels).backward()
    expected = torch.zeros(5, 3, dtype=torch.float64)
    rows = torch.arange(5)
    expected[rows, labels] = (logits.detach()[rows, labels] - 1) / 5
    torch.testing.assert_close(logits.grad, expected)
    cross_entropy = -torch.log_softmax(logits, dim=1)[rows, labels].mean()
    torch.testing.assert_close(build_loss(LossConfig())(logits, labels), cross_entropy)
