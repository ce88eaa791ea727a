"""What the three heads share: one interface, features of one norm, saved state, evaluation without effect."""

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest

from etfopt import simplex_etf

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.functional import cross_entropy

from etfopt.nn import LearnedHead
from tests.tools.head_cases import HEADS, LABELS, STATEFUL, C, D, batch, paper_fixed, same, snapshot


@pytest.fixture(params=HEADS)
def make(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    return request.param


@pytest.fixture
def head(make: Callable[..., nn.Module]) -> nn.Module:
    return make(D, C)


class Network(nn.Module):
    def __init__(self, head: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.backbone = nn.Linear(6, D)
        self.head = head(D, C)  # the one line

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.backbone(x), labels)


@pytest.mark.parametrize("head", [*HEADS])
def test_swapping_heads_in_a_network_is_one_line(head, rng):
    network, x = Network(head), torch.tensor(rng.standard_normal((24, 6)), dtype=torch.float32)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = cross_entropy(network(x, LABELS), LABELS)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[1]
    assert network.eval()(x).shape == (24, C)
    assert (network.head.weight.shape, network.head.bias.shape) == ((C, D), (C,))


def test_logits_are_those_of_the_weight_and_bias_on_features_of_norm_tau(head, rng):
    features = batch(rng)
    logits = head(features, LABELS)
    f = head.temperature * features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits, f @ head.weight.T + head.bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.eval()(features), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e-3, 1e3, 1e15, 1e30])
def test_the_length_of_a_feature_does_not_matter(head, scale, rng):
    features, twin = batch(rng), copy.deepcopy(head)
    torch.testing.assert_close(head(features, LABELS), twin(scale * features, LABELS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_feature_of_zeros_stays_zero_in_every_precision(head, dtype, rng):
    features = batch(rng).to(dtype)
    features[3] = 0
    logits = head(features, LABELS)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[3].float(), head.bias, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_in_low_precision_follows_the_one_in_single(head, dtype, rng):
    low, digits = copy.deepcopy(head).to(dtype), torch.finfo(dtype).eps
    for _ in range(4):
        features = batch(rng).to(dtype)
        logits = head(features.float(), LABELS)
        torch.testing.assert_close(low(features, LABELS).float(), logits, rtol=0, atol=100 * digits)
        torch.testing.assert_close(low.weight.float(), head.weight, rtol=0, atol=20 * digits)


@pytest.mark.parametrize("make", STATEFUL)
@pytest.mark.parametrize("size", [0.01, 7.0])
def test_the_rows_have_unit_norm_whatever_the_size_of_the_frame(make, size, rng):
    head = make(D, C, frame=size * torch.tensor(simplex_etf(C, reduced=True), dtype=torch.float32))
    head(batch(rng), LABELS)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(C), rtol=0, atol=1e-5)


def test_evaluation_changes_nothing_and_needs_no_labels(head, rng):
    head(batch(rng), LABELS)
    head.eval()
    before, features = snapshot(head), batch(rng)
    assert torch.equal(head(features), head(features, LABELS))
    assert same(head.state_dict(), before)


@pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_empty_and_one_sample_batches_are_valid(head, mode, n, rng):
    head(batch(rng), LABELS)
    before, features = snapshot(head), batch(rng, n).requires_grad_()
    logits = getattr(head, mode)()(features, LABELS[:n])
    logits.sum().backward()
    assert logits.shape == (n, C)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features.grad).all()
    assert same(head.state_dict(), before) or (n == 1 and mode == "train")


def test_saved_state_resumes_to_the_bit(make, head, rng):
    batches = [batch(rng) for _ in range(5)]
    for features in batches[:3]:
        head(features, LABELS)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    resumed = make(D, C)
    resumed.load_state_dict(torch.load(file))
    twins = (resumed, copy.deepcopy(head))
    for features in batches[3:]:
        expected = head(features, LABELS)
        for twin in twins:
            assert torch.equal(twin(features, LABELS), expected)
            assert same(twin.state_dict(), head.state_dict())


def test_several_forwards_may_come_before_one_backward(head, rng):
    batches, apart = [batch(rng) for _ in range(3)], copy.deepcopy(head)
    leaves = [features.clone().requires_grad_() for features in batches]
    sum(cross_entropy(head(leaf, LABELS), LABELS) for leaf in leaves).backward()
    for leaf, features in zip(leaves, batches, strict=True):
        alone = features.clone().requires_grad_()
        cross_entropy(apart(alone, LABELS), LABELS).backward()
        torch.testing.assert_close(leaf.grad, alone.grad, rtol=0, atol=1e-7)


def test_autocast_leaves_the_stored_classifier_in_full_precision(head, rng):
    twin, features = copy.deepcopy(head), batch(rng)
    with torch.autocast("cpu", torch.bfloat16):
        head(features, LABELS)
    twin(features, LABELS)
    torch.testing.assert_close(head.weight, twin.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.bias, twin.bias, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", STATEFUL)
def test_a_head_moved_to_double_precision_is_as_exact_as_one(make, rng):
    head = make(D, C).double()
    head(batch(rng).double(), LABELS)
    expected = (C * torch.eye(C, dtype=torch.float64) - 1) / (C - 1)
    torch.testing.assert_close(head.weight @ head.weight.T, expected, rtol=0, atol=1e-13)


def test_the_fixed_head_of_the_paper_is_the_canonical_etf_with_the_bias_of_the_batch(rng):
    head, features = paper_fixed(D, C), batch(rng)
    head(features, LABELS)
    canonical = np.sqrt(C) * simplex_etf(C) @ np.eye(C, D)
    mu = (5.0 * features / features.norm(dim=1, keepdim=True)).mean(dim=0)
    np.testing.assert_allclose(head.weight, canonical, rtol=0, atol=1e-6)
    torch.testing.assert_close(head.bias, -head.weight @ mu, rtol=0, atol=1e-5)


def test_the_learned_head_steps_along_the_unconstrained_gradient_and_returns_to_the_sphere(rng):
    head, features = LearnedHead(D, C), batch(rng)
    rows = head.rows.detach().clone().requires_grad_()
    cross_entropy(head.temperature * nn.functional.normalize(features) @ rows.T, LABELS).backward()
    cross_entropy(head(features, LABELS), LABELS).backward()
    torch.testing.assert_close(head.rows.grad, rows.grad)
    torch.optim.SGD(head.parameters(), lr=3.0).step()
    torch.testing.assert_close(head.weight, nn.functional.normalize(rows - 3 * rows.grad), rtol=0, atol=1e-6)
    head(features, LABELS)
    torch.testing.assert_close(head.rows.detach(), head.weight, rtol=0, atol=1e-7)
    assert not head.bias.any()


def test_parametrized_rows_are_the_same_in_training_and_evaluation(rng):
    head = LearnedHead(D, C)
    torch.nn.utils.parametrizations.weight_norm(head, "rows")
    optimiser = torch.optim.SGD(head.parameters(), lr=1.0)
    for _ in range(2):
        cross_entropy(head(batch(rng), LABELS), LABELS).backward()
        optimiser.step()
    x = batch(rng)
    logits = head(x, LABELS)
    torch.testing.assert_close(head.eval()(x), logits)
