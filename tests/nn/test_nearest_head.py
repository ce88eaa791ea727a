"""The head with the paper's statistics against the plain transcription of section 5 of method.md, step by step."""

import dataclasses

import numpy as np
import pytest

from tests.tools import oracles

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt import nearest_etf, simplex_etf
from tests.tools.head_cases import paper_nearest

# batches of one class, and of one sample, are among the cases
pytestmark = pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")

C = 5
FULL = [[0, 1, 2, 3, 4, 4, 2], [0, 1, 2, 3, 4], [4, 4, 0, 1, 3], [2], [1, 0, 0], [0, 1, 2, 3, 4, 0]]
LACKING = [[0, 1, 2, 0, 1], [2, 2, 2], [0, 3, 3, 1], [1], [3, 2, 1, 0], [4, 0, 4], [0, 1, 2, 3, 4, 1]]
RATES = {"paper": lambda t: max(2 / (t + 1), 1e-4), "cumulative": lambda t: 1 / t, 0.25: lambda t: 0.25 ** (t > 1)}


class Twin:
    """A head and the transcription, taking the same steps."""

    def __init__(self, d: int, averaging: str | float = "paper", delta: float = 1e-3, **options) -> None:
        self.head = paper_nearest(d, C, averaging=averaging, delta=delta, temperature=4.0, **options).double()
        self.options = {"rate": RATES[averaging], "delta": delta, "tau": 4.0}
        self.memory = oracles.Memory(0, np.zeros((d, C)), np.zeros(C, dtype=bool))
        self.hold_U = not options.get("implicit_gradient", True)

    def step(self, features: np.ndarray, labels: list[int]) -> tuple[oracles.Step, np.ndarray, dict]:
        """Take one step with both; return the transcription's values and gradient, and the head's."""
        leaf, y = torch.tensor(features, requires_grad=True), torch.tensor(labels)
        logits = self.head(leaf, y)
        loss = cross_entropy(logits, y)
        loss.backward()
        first = self.memory.U is None
        # where the first batch leaves U undetermined, its choice is the proximal point: take the head's
        memory = dataclasses.replace(self.memory, U=self.head.U.numpy()) if first else self.memory
        plain = oracles.layer_step(memory, features, np.array(labels), **self.options)
        slope = oracles.layer_gradient(
            memory, features, np.array(labels), base=plain, hold_U=self.hold_U, **self.options
        )
        self.memory = plain.memory
        values = {"logits": logits, "weight": self.head.weight, "bias": self.head.bias, "U": self.head.U}
        values |= {"loss": loss, "mean": self.head.means.mean, "gradient": leaf.grad}
        return plain, slope, {name: value.detach().numpy() for name, value in values.items()}


@pytest.mark.parametrize("averaging", RATES)
@pytest.mark.parametrize("lengths", [FULL, LACKING], ids=["all classes first", "classes lacking"])
@pytest.mark.parametrize(("d", "delta"), [(C, 1e-3), (C + 3, 1e-3), (C + 3, 0.1)])
@pytest.mark.parametrize("implicit", [True, False])
def test_every_step_gives_values_and_gradient_of_the_transcription(implicit, d, delta, lengths, averaging, rng):
    twin = Twin(d, averaging, delta, implicit_gradient=implicit)
    for labels in lengths:
        plain, slope, values = twin.step(rng.standard_normal((len(labels), d)) + 0.5, labels)
        expected = {"logits": plain.logits, "weight": plain.weight, "bias": plain.bias, "loss": plain.loss}
        expected |= {"mean": plain.memory.mean, "U": plain.memory.U}
        for name, value in expected.items():
            np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(values["gradient"], slope, rtol=0, atol=1e-6 * (1 + np.abs(slope).max()))


@pytest.mark.parametrize("d", [C, C + 3])
def test_the_first_step_solves_without_a_proximal_term(d, rng):
    head = paper_nearest(d, C, delta=10.0).double()
    head(torch.tensor(rng.standard_normal((40, d))), torch.arange(40) % C)
    H = head.means.mean.numpy()
    np.testing.assert_allclose(head.weight, nearest_etf(H / np.linalg.norm(H)).weight, rtol=0, atol=1e-12)


def test_the_gradient_through_the_classifier_fades_with_the_rate(rng):
    features, labels = torch.tensor(rng.standard_normal((40, 8))), torch.arange(40) % C
    shares = []
    for averaging in (1.0, 0.1, 0.01):
        slopes = []
        for implicit in (True, False):
            head = paper_nearest(8, C, averaging=averaging, implicit_gradient=implicit).double()
            head(features, labels)
            leaf = features.clone().requires_grad_()
            cross_entropy(head(leaf, labels), labels).backward()
            slopes.append(leaf.grad)
        shares.append(torch.linalg.vector_norm(slopes[0] - slopes[1]).item())
    np.testing.assert_allclose(shares, shares[0] * np.array([1.0, 0.1, 0.01]), rtol=1e-3)


@pytest.mark.parametrize("d", [C, C + 1, C + 7])
def test_the_order_of_the_samples_does_not_matter(d, rng):
    first, second = (paper_nearest(d, C).double() for _ in range(2))
    labels = torch.arange(40) % C
    for _ in range(4):
        features, order = torch.tensor(rng.standard_normal((40, d))), torch.tensor(rng.permutation(40))
        leaf, shuffled = features.clone().requires_grad_(), features[order].clone().requires_grad_()
        cross_entropy(first(leaf, labels), labels).backward()
        cross_entropy(second(shuffled, labels[order]), labels[order]).backward()
        torch.testing.assert_close(first.weight, second.weight, rtol=0, atol=1e-10)
        torch.testing.assert_close(leaf.grad[order], shuffled.grad, rtol=0, atol=1e-10)


def test_the_reduced_frame_gives_the_same_head_with_one_dimension_less(rng):
    frame = torch.tensor(simplex_etf(C, reduced=True))
    full, reduced = paper_nearest(8, C, delta=0.0), paper_nearest(8, C, delta=0.0, frame=frame)
    narrow, labels = paper_nearest(C - 1, C, frame=frame), torch.arange(20) % C
    features = torch.tensor(rng.standard_normal((20, 8)), dtype=torch.float32)
    torch.testing.assert_close(full(features, labels), reduced(features, labels), rtol=0, atol=1e-4)
    assert narrow(features[:, : C - 1], labels).shape == (20, C)
    W = narrow.weight
    torch.testing.assert_close(W @ W.T, (C * torch.eye(C) - 1) / (C - 1), rtol=0, atol=1e-5)


def test_identical_features_do_not_give_an_exploding_gradient():
    features, labels = torch.ones(10, 8, requires_grad=True), torch.arange(10) % C
    cross_entropy(paper_nearest(8, C)(features, labels), labels).backward()
    assert torch.isfinite(features.grad).all()
    assert features.grad.abs().max() < 1e5


def test_features_that_differ_by_rounding_alone_do_not_give_one_either(rng):
    labels = torch.arange(31) % C  # means of 7 and of 6 equal numbers round otherwise than that of 31
    features = torch.tensor(rng.standard_normal(8), dtype=torch.float32).repeat(31, 1).requires_grad_()
    head = paper_nearest(8, C)
    cross_entropy(head(features, labels), labels).backward()
    assert head.means.mean.any()
    assert features.grad.abs().max() < 1  # about 0.1 by the direct path
    torch.testing.assert_close(head.U, torch.eye(8, C), rtol=0, atol=1e-6)
