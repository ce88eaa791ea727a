"""The nearest head's options beside the paper: `shrinkage`, and classifying a batch before it is learned from."""

import copy
from collections.abc import Callable

import numpy as np
import pytest

from tests.tools import oracles
from tests.tools.blind import blind
from tests.tools.running import PRIOR, LastBatch, RunningAccount

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt import InputError
from etfopt.nn import NearestETFHead

# batches of one class, and of one sample, are among the cases
pytestmark = pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")

C, D, TAU = 5, 7, 4.0
LACKING = [[0, 1, 2, 0, 1], [2, 2, 2], [0, 3, 3, 1], [1], [3, 2, 1, 0], [4, 0, 4], [0, 1, 2, 3, 4, 1]]


@pytest.fixture(params=["running", "paper"])
def make(request: pytest.FixtureRequest) -> Callable[..., NearestETFHead]:
    def made(**options) -> NearestETFHead:
        return NearestETFHead(D, C, temperature=TAU, statistics=request.param, **options).double()

    return made


def stream(rng: np.random.Generator) -> list[tuple]:
    return [(torch.tensor(rng.standard_normal((len(y), D)) + 0.5), torch.tensor(y)) for y in LACKING]


def shrunk_rows(head: NearestETFHead, s: float) -> np.ndarray:
    """Rows of s (UM)' + (1-s) H', brought to unit length; M has Frobenius norm 1, and so has H."""
    U, seen = head.U.numpy(), head.means.occurred.numpy()
    H = head.means.centred().numpy() * seen
    M = oracles.simplex(C) if head.frame is None else oracles.reduced_simplex(C)
    rows = s * (U @ M / np.linalg.norm(M)).T + (1 - s) * (H / max(np.linalg.norm(H), 1e-300)).T
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def account_of(head: NearestETFHead) -> RunningAccount | LastBatch:
    return RunningAccount(D, C) if head.statistics == "running" else LastBatch(D)


def centred(head: NearestETFHead, f: torch.Tensor, center: np.ndarray) -> torch.Tensor:
    """Features minus what a training step centres by, with the gradient of the batch's part of it."""
    share = len(f) / (len(f) + PRIOR) if head.statistics == "running" else 1
    mean = f.mean(dim=0)
    return f - (torch.tensor(center) + share * (mean - mean.detach()))


def unit(features: torch.Tensor) -> torch.Tensor:
    return TAU * features / features.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("s", [1.0, 0.9, 0.5, 0.01])
def test_the_rows_lie_between_the_class_means_and_their_nearest_etf(s, make, rng):
    head = make(shrinkage=s)
    account = account_of(head)
    for features, labels in stream(rng):
        logits = head(features, labels)
        W = shrunk_rows(head, s)
        mu = account.add(unit(features).numpy(), labels.numpy())
        np.testing.assert_allclose(head.weight, W, rtol=0, atol=1e-12)
        np.testing.assert_allclose(logits, unit(features).numpy() @ W.T - W @ mu, rtol=0, atol=1e-12)
        np.testing.assert_allclose(head.bias, -W @ account.center, rtol=0, atol=1e-12)


def test_before_any_batch_and_for_classes_never_seen_the_rows_are_the_etf(make, rng):
    head, etf = make(shrinkage=0.3), make()
    torch.testing.assert_close(head.weight, etf.weight, rtol=0, atol=1e-14)
    features, labels = torch.tensor(rng.standard_normal((8, D))), torch.arange(8) % (C - 1)
    head(features, labels)
    etf(features, labels)
    torch.testing.assert_close(head.weight[C - 1], etf.weight[C - 1], rtol=0, atol=1e-14)
    assert (head.weight - etf.weight)[: C - 1].norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("options", [{"shrinkage": 0.5}, {"classify_first": True}])
def test_the_options_leave_means_and_rotation_as_they_are(options, make, rng):
    other, plain = make(**options), make()
    for features, labels in stream(rng):
        other(features, labels)
        plain(features, labels)
        for name in ("U", "prox", "means.mean", "means.steps"):
            assert torch.equal(other.get_buffer(name), plain.get_buffer(name))


@pytest.mark.parametrize("s", [0.7, 0.2])
def test_the_gradient_through_shrunk_rows_is_that_of_central_differences(s, make, rng):
    head = make(shrinkage=s)
    for features, labels in stream(rng):
        before, leaf = copy.deepcopy(head), features.clone().requires_grad_()
        cross_entropy(head(leaf, labels), labels).backward()
        if before.means.steps == 0:
            continue  # the first proximal point follows the features, and is held constant by the gradient

        def loss(X: np.ndarray, before: NearestETFHead = before, labels: torch.Tensor = labels) -> float:
            return float(cross_entropy(copy.deepcopy(before)(torch.tensor(X), labels), labels))

        occurred, holds = before.means.occurred, torch.isin(torch.arange(C), labels)
        if bool((occurred | (holds if before.statistics == "paper" else ~holds)).all()):
            # of a class never seen, or new in this batch, a value of the batch stands for the past: held constant
            slope = oracles.central_differences(loss, features.numpy(), 1e-6)
            np.testing.assert_allclose(leaf.grad, slope, rtol=0, atol=1e-6 * (1 + np.abs(slope).max()))


def test_cutting_the_implicit_path_cuts_that_through_the_means_too(make, rng):
    features, labels = torch.tensor(rng.standard_normal((20, D))), torch.arange(20) % C
    head, leaf = make(shrinkage=0.4, implicit_gradient=False), features.clone().requires_grad_()
    center = account_of(head).add(unit(features).numpy(), labels.numpy())
    cross_entropy(head(leaf, labels), labels).backward()
    twin = features.clone().requires_grad_()
    cross_entropy(centred(head, unit(twin), center) @ head.weight.T, labels).backward()
    torch.testing.assert_close(leaf.grad, twin.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("s", [1.0, 0.5])
def test_classifying_first_uses_the_classifier_of_the_batches_before(s, make, rng):
    head = make(classify_first=True, shrinkage=s)
    account = account_of(head)
    for features, labels in stream(rng):
        W, leaf, twin = head.weight, features.clone().requires_grad_(), features.clone().requires_grad_()
        logits = head(leaf, labels)
        f = unit(features).numpy()
        share = len(f) / (len(f) + PRIOR) if head.statistics == "running" else 1
        center = share * f.mean(axis=0) + (1 - share) * account.center  # without a look at the labels
        account.add(f, labels.numpy())
        expected = centred(head, unit(twin), center) @ W.T
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
        cross_entropy(logits, labels).backward()
        cross_entropy(expected, labels).backward()
        torch.testing.assert_close(leaf.grad, twin.grad, rtol=0, atol=1e-12)
        # what is kept for evaluation is the updated classifier
        np.testing.assert_allclose(head.weight, shrunk_rows(head, s), rtol=0, atol=1e-12)
        np.testing.assert_allclose(head.bias, -head.weight.numpy() @ account.center, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"shrinkage": 0.5}, {"classify_first": True, "shrinkage": 0.7}, {"evaluation_shrinkage": 0.1}]
)
def test_a_batch_that_turns_out_bad_gets_the_last_good_classifier(options, make, rng):
    head = make(**options)
    features, labels = torch.tensor(rng.standard_normal((20, D))), torch.arange(20) % C
    head(features, labels)
    before = copy.deepcopy(head)
    with blind():
        logits = head(features, torch.full_like(labels, C))
    torch.testing.assert_close(logits, unit(features) @ before.weight.T + before.bias, rtol=0, atol=1e-12)
    assert torch.equal(head.weight, before.weight)
    assert torch.equal(head.bias, before.bias)
    with pytest.raises(InputError, match="could not be used"):
        head.eval()


def test_saved_state_and_the_exported_layer_give_the_shrunk_classifier(make, rng):
    head = make(shrinkage=0.5)
    batches = stream(rng)
    for features, labels in batches:
        head(features, labels)
    fresh = make(shrinkage=0.5)
    fresh.load_state_dict(head.state_dict())
    expected = head.eval()(batches[0][0])
    assert torch.equal(fresh.eval()(batches[0][0]), expected)
    torch.testing.assert_close(head.linear()(head.normalize(batches[0][0])), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduced", [False, True])
def test_shrunk_rows_turn_with_the_features_and_keep_the_lengths_of_the_frame(reduced, make, rng):
    """Also for a frame whose columns have several lengths."""
    lengths = torch.linspace(0.5, 1.5, C, dtype=torch.float64)
    frame = torch.tensor(oracles.reduced_simplex(C) if reduced else oracles.simplex(C)) * lengths
    turn = torch.tensor(np.linalg.qr(rng.standard_normal((D, D)))[0])
    head, turned = (make(frame=frame, shrinkage=0.6) for _ in range(2))
    turned.U.copy_(turn @ turned.U)  # where a first batch leaves a choice, it is the one nearest to this U
    expected = np.sqrt(C) * frame.norm(dim=0) / frame.norm()
    for features, labels in stream(rng):
        logits, same = head(features, labels), turned(features @ turn.T, labels)
        torch.testing.assert_close(same, logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(turned.weight, head.weight @ turn.T, rtol=0, atol=1e-9)
        torch.testing.assert_close(head.weight.norm(dim=1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("s", "later"), [(1.0, 0.01), (0.5, 0.01), (0.5, 1.0)])
def test_evaluation_may_shrink_otherwise_than_training(s, later, first, make, rng):
    head = make(shrinkage=s, evaluation_shrinkage=later, classify_first=first)
    twin = make(shrinkage=s, classify_first=first)
    account = account_of(head)
    for features, labels in stream(rng):
        torch.testing.assert_close(head(features, labels), twin(features, labels), rtol=0, atol=1e-12)
        W = shrunk_rows(head, later)
        account.add(unit(features).numpy(), labels.numpy())
        bias = -W @ account.center
        np.testing.assert_allclose(head.weight, W, rtol=0, atol=1e-12)
        np.testing.assert_allclose(head.bias, bias, rtol=0, atol=1e-12)
        np.testing.assert_allclose(head.eval()(features), unit(features).numpy() @ W.T + bias, rtol=0, atol=1e-12)
        head.train()


@pytest.mark.parametrize("name", ["shrinkage", "evaluation_shrinkage"])
@pytest.mark.parametrize("s", [0, -0.5, 1.01, float("nan"), "1", True])
def test_a_shrinkage_outside_its_range_is_refused(s, name):
    with pytest.raises(InputError, match=f"^{name} must"):
        NearestETFHead(D, C, **{name: s})


@pytest.mark.parametrize("reads", ["weight", "solution", "from_linear", "add_classes"])
def test_what_is_read_under_autocast_is_what_is_read_outside(reads, rng):
    torch.manual_seed(0)
    features, labels = torch.tensor(rng.standard_normal((40, D)) + 3, dtype=torch.float32), torch.arange(40) % C
    layer = torch.nn.Linear(D, C)

    def read() -> torch.Tensor:
        if reads == "from_linear":
            return NearestETFHead.from_linear(layer).U
        head = NearestETFHead(D, C, evaluation_shrinkage=0.01 if reads == "weight" else None)
        head(features, labels)
        if reads == "solution":
            return torch.tensor(head.solution().problem.H)
        if reads == "add_classes":
            head.add_classes(1)
        return head.eval().weight

    plain = read()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(read(), plain, rtol=0, atol=1e-5)
