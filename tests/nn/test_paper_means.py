"""The class means of the paper's release against plain loops: rules, gradients, absent and unseen classes, state."""

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from etfopt import InputError
from etfopt.nn import PaperClassMeans
from etfopt.nn._ranks import Pooled
from etfopt.nn.pooling import class_sums
from tests.tools.head_cases import same, snapshot

# batches of one class, and of one sample, are among the cases
pytestmark = pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")

C, D = 5, 4
LABELS = [[0, 1, 2, 0, 1], [2, 2], [0, 3, 3, 1, 0, 2], [1], [3, 2, 1, 0], [4, 0, 4], [0, 1, 2, 3, 4], [2, 1]]
RULES: dict = {
    "paper": lambda t: max(2 / (t + 1), 1e-4),
    "cumulative": lambda t: 1 / t,
    0.3: lambda t: 1.0 if t == 1 else 0.3,
    1.0: lambda t: float(t > 0),
}


def stream(rng: np.random.Generator, lengths: list[list[int]] = LABELS) -> list[tuple]:
    """Batches that lack classes; class 3 comes late, class 4 later."""
    return [(torch.tensor(rng.standard_normal((len(y), D)) + 3.0), torch.tensor(y, dtype=torch.int64)) for y in lengths]


def plain_means(batches: list[tuple], rate: Callable[[int], float]) -> np.ndarray:
    """Section 5 of method.md, one class at a time. A never-seen class has mu_G as its column."""
    mean, seen = np.zeros((D, C)), np.zeros(C, dtype=bool)
    for t, (features, labels) in enumerate(batches, start=1):
        f, y, a = features.numpy(), labels.numpy(), rate(t)
        mu = f.mean(axis=0)
        for c in range(C):
            if c in y:
                mean[:, c] = a * (f[y == c].mean(axis=0) - mu) + (1 - a) * mean[:, c]
                seen[c] = True
            elif not seen[c]:
                mean[:, c] = mu
    return mean


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_the_plain_loop(rule, rng):
    means, batches = PaperClassMeans(num_classes=C, dim=D, averaging=rule).double(), stream(rng)
    for count, batch in enumerate(batches, start=1):
        returned = means(*batch)
        np.testing.assert_allclose(returned.detach(), plain_means(batches[:count], RULES[rule]), rtol=0, atol=1e-13)
        assert torch.equal(means.mean, returned.detach())
        assert torch.equal(means.global_mean, batch[0].mean(dim=0))
        assert int(means.steps) == count
    assert means.seen.all()


def test_the_rate_of_the_paper_stops_falling_at_its_floor(rng):
    means = PaperClassMeans(num_classes=C, dim=D).double()
    first, second = stream(rng, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
    before = means(*first)
    means.steps.fill_(10**6)
    moved = means(*second) - before
    fresh = PaperClassMeans(num_classes=C, dim=D).double()(*second)
    np.testing.assert_allclose(moved, 1e-4 * (fresh - before), rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("rule", RULES)
def test_only_the_current_batch_carries_a_gradient_with_the_weight_of_its_rate(rule, rng):
    means, batches = PaperClassMeans(num_classes=C, dim=D, averaging=rule).double(), stream(rng)
    G = torch.tensor(rng.standard_normal((D, C)))
    for t, (features, labels) in enumerate(batches, start=1):
        leaf, seen = features.clone().requires_grad_(), means.seen.clone()
        (means(leaf, labels) * G).sum().backward()
        twin = features.clone().requires_grad_()
        mu, total = twin.mean(dim=0), torch.zeros((), dtype=torch.float64)
        for c in range(C):
            if c in labels:
                total = total + G[:, c] @ (twin[labels == c].mean(dim=0) - mu)
            elif not seen[c]:
                total = total + G[:, c] @ mu
        (RULES[rule](t) * total).backward()
        torch.testing.assert_close(leaf.grad, twin.grad)


streams = st.lists(st.lists(st.integers(-1, C - 1), max_size=7), min_size=1, max_size=5)
"""Labels of some batches; -1 is ignored."""


@given(streams, st.sampled_from(list(RULES)), st.integers(0, 2**32 - 1))
def test_the_order_within_a_batch_does_not_matter(lengths, rule, seed):
    rng = np.random.default_rng(seed)
    first, second = (PaperClassMeans(num_classes=C, dim=D, averaging=rule, ignore_index=-1).double() for _ in range(2))
    for features, labels in stream(rng, lengths):
        order = torch.tensor(rng.permutation(len(labels)), dtype=torch.int64)
        torch.testing.assert_close(first(features, labels), second(features[order], labels[order]), rtol=0, atol=1e-13)
    assert torch.equal(first.seen, second.seen)
    assert first.steps == second.steps


@given(streams, st.sampled_from(list(RULES)), st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_how_a_batch_is_split_over_processes_does_not_matter(lengths, rule, seed, size):
    """Every part is summed as its process would sum it; test_ranks.py has the processes themselves."""
    rng = np.random.default_rng(seed)
    whole, pooled = (PaperClassMeans(num_classes=C, dim=D, averaging=rule, ignore_index=-1).double() for _ in range(2))
    for features, labels in stream(rng, lengths):
        owner = torch.tensor(rng.integers(0, size, len(labels)), dtype=torch.int64)
        parts = [class_sums(features[owner == k], labels[owner == k], C, -1)[0] for k in range(size)]
        totals = [torch.stack(part).sum(dim=0) for part in zip(*parts, strict=True)]
        group = mock.patch.object(pooled.ranks, "group", return_value="all")
        with group, mock.patch.object(pooled.ranks, "total", return_value=Pooled(totals, None)):
            returned = pooled(features[owner == 0], labels[owner == 0])
        torch.testing.assert_close(whole(features, labels), returned, rtol=0, atol=1e-13)
    assert torch.equal(whole.seen, pooled.seen)


@pytest.mark.parametrize("rule", RULES)
def test_an_absent_class_keeps_its_column_to_the_bit(rule, rng):
    means = PaperClassMeans(num_classes=C, dim=D, averaging=rule)
    means(torch.tensor(rng.standard_normal((50, D)), dtype=torch.float32), torch.arange(50) % C)
    before = means.mean[:, 4].clone()
    for _ in range(30):
        means(torch.tensor(rng.standard_normal((4, D)), dtype=torch.float32), torch.arange(4))
    assert torch.equal(means.mean[:, 4], before)


@pytest.mark.parametrize("when", [0, 1, 3])
def test_an_empty_batch_changes_nothing(when, rng):
    means = PaperClassMeans(num_classes=C, dim=D)
    for batch in stream(rng)[:when]:
        means(*batch)
    before = snapshot(means)
    assert torch.equal(means(torch.zeros(0, D), torch.zeros(0, dtype=torch.int64)), before["mean"])
    assert same(means.state_dict(), before)


def test_one_sample_is_its_own_mean_and_the_others_are_filled_with_it():
    h = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    means = PaperClassMeans(num_classes=3, dim=4)(h, torch.tensor([1]))
    assert torch.equal(means, torch.stack([h[0], torch.zeros(4), h[0]], dim=1))


def test_evaluation_returns_the_means_and_changes_nothing(rng):
    means, (first, second, *_) = PaperClassMeans(num_classes=C, dim=D), stream(rng)
    means(*first)
    before = snapshot(means)
    means.eval()
    assert torch.equal(means(*second), before["mean"])
    assert torch.equal(means(second[0]), before["mean"])
    assert same(means.state_dict(), before)


def test_what_training_returned_does_not_change_with_later_training(rng):
    means, (first, second, *_) = PaperClassMeans(num_classes=C, dim=D), stream(rng)
    for batch in (first, (torch.zeros(0, D), torch.zeros(0, dtype=torch.int64))):
        returned = means(*batch)
        kept = returned.clone()
        means(*second)
        assert torch.equal(returned, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_features_are_averaged_in_the_precision_of_the_state(dtype, rng):
    features = torch.tensor(rng.standard_normal((4000, D)), dtype=dtype)
    labels = torch.arange(4000) % C
    means = PaperClassMeans(num_classes=C, dim=D)
    torch.testing.assert_close(means(features, labels), PaperClassMeans(num_classes=C, dim=D)(features.float(), labels))
    assert means.mean.dtype == torch.float32


def test_a_rule_of_ones_own_is_named_by_its_import_path(tmp_path, monkeypatch, rng):
    """The rule 1/t, written anew, is "cumulative"."""
    (tmp_path / "my_rules.py").write_text("def plain(t):\n    return t.reciprocal()\n")
    monkeypatch.syspath_prepend(tmp_path)
    ours, own = (
        PaperClassMeans(num_classes=C, dim=D, averaging=rule).double() for rule in ("cumulative", "my_rules:plain")
    )
    for features, labels in stream(rng):
        assert torch.equal(ours(features, labels), own(features, labels))
    with pytest.raises(InputError, match="no module my_rule;"):
        PaperClassMeans(num_classes=C, dim=D, averaging="my_rule:plain")
