"""Losses: the formula of the text, for every head, and where it is smallest."""

import pytest
import torch

from etfopt.errors import InputError
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


@pytest.mark.parametrize(("options", "tau"), [({}, 1.0), ({"tau": 0.5}, 0.5), ({"tau": 0.0}, 0.0), ({"tau": 2}, 2.0)])
def test_logit_adjustment_weighs_the_exponentials_by_powers_of_the_counts(options, tau: float):
    """At tau = 1 that is the balanced softmax."""
    counts, labels = torch.tensor([60, 5, 20]), torch.tensor([0, 1, 2, 1, 0])
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = counts.double() ** tau * logits.exp()
    expected = -(terms[torch.arange(5), labels] / terms.sum(dim=1)).log().mean()
    found = build_loss(LossConfig(name="logit-adjustment", options=options), counts)(logits, labels)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_equal_counts_adjust_nothing():
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    adjusted = build_loss(LossConfig(name="logit-adjustment"), torch.tensor([7, 7, 7]))(logits, labels)
    torch.testing.assert_close(adjusted, build_loss(LossConfig())(logits, labels))


@pytest.mark.parametrize(
    ("options", "counts", "message"),
    [
        ({"tau": -1.0}, [3, 4], r"loss\.options\.tau must be finite and at least 0"),
        ({"tau": "one"}, [3, 4], r"loss\.options\.tau"),
        ({"temperature": 1.0}, [3, 4], "temperature"),
        ({}, [3, 0], "counts must be above 0"),
        ({}, None, "counts"),
    ],
)
def test_logit_adjustment_says_what_it_cannot_take(options, counts, message: str):
    with pytest.raises(InputError, match=message):
        build_loss(
            LossConfig(name="logit-adjustment", options=options), None if counts is None else torch.tensor(counts)
        )
