"""Class weights of the nearest head: which problem they pose, in training steps and in its certified solution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etfopt import InputError, simplex_etf
from tests.tools import oracles
from tests.tools.blind import blind

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt.nn import NearestETFHead
from tests.tools.head_cases import paper_nearest, same, snapshot

C, D = 4, 6
LABELS = torch.tensor([0] * 12 + [1] * 6 + [2] * 3 + [3])
WEIGHTS = [5.0, 1.0, 2.0, 0.5]


def batch(seed: int, n: int = len(LABELS)) -> torch.Tensor:
    return torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.4


def trained(steps: int = 3, labels: torch.Tensor = LABELS, make=NearestETFHead, **options: object) -> NearestETFHead:
    head = make(D, C, dtype=torch.float64, **options)
    for seed in range(steps):
        head(batch(seed, len(labels)), labels)
    return head


def posed(head: NearestETFHead, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H and weights by their definition, from class means that are not centred."""
    mu, w = head.means.mean.numpy(), w / w[w > 0].mean()
    H = np.where(w > 0, mu - (mu @ w / w.sum())[:, None], 0)
    return H / np.sqrt((w * (H**2).sum(axis=0)).sum()), w


@pytest.mark.parametrize(
    ("weights", "delta"),
    [*((w, delta) for w in (WEIGHTS, "counts") for delta in (0.0, 1e-3, 0.5)), ([3.0, 0.0, 1.0, 1.0], 1e-3)],
)
def test_a_step_solves_the_weighted_problem(weights, delta):
    head = trained(2, class_weights=weights, delta=delta)
    before = head.U.numpy().copy()
    head(batch(9), LABELS)
    w = head.means.samples.numpy() if weights == "counts" else np.array(weights)
    H, w = posed(head, w)
    F = simplex_etf(C, reduced=True)
    P, _, Qh = np.linalg.svd(2 * (H * w) @ F.T + delta * before, full_matrices=False)
    np.testing.assert_allclose(head.U, P @ Qh, rtol=0, atol=1e-11)
    solution = head.solution()
    assert solution.converged
    np.testing.assert_allclose(solution.problem.H, H, rtol=0, atol=1e-14)
    np.testing.assert_allclose(solution.problem.weights, w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(solution.U, head.U, rtol=0, atol=1e-9)
    assert (w * (H**2).sum(axis=0)).sum() == pytest.approx(1)


def test_the_first_step_has_no_proximal_term():
    head = trained(1, class_weights="counts", delta=10.0)
    H, w = posed(head, head.means.samples.numpy())
    P, _, Qh = np.linalg.svd(2 * (H * w) @ simplex_etf(C, reduced=True).T, full_matrices=False)
    np.testing.assert_allclose(head.U, P @ Qh, rtol=0, atol=1e-11)


@given(seed=st.integers(0, 10**6))
def test_u_is_the_best_rotation_and_shift(seed):
    rng = np.random.default_rng(seed)
    w = rng.exponential(size=C)
    head = trained(1, class_weights=w, delta=0.0)
    mu, F = head.means.mean.numpy(), simplex_etf(C, reduced=True)
    w = w / w.mean()
    size = np.linalg.norm((mu - (mu @ w / C)[:, None]) * np.sqrt(w))

    def misfit(U: np.ndarray) -> float:
        """With the best shift for this U."""
        rest = mu / size - U @ F
        return float((w * ((rest - (rest @ w / C)[:, None]) ** 2).sum(axis=0)).sum())

    best = misfit(head.U.numpy())
    for size_of_turn in (1e-2, 1.0):
        turn = np.linalg.qr(np.eye(D) + size_of_turn * rng.standard_normal((D, D)))[0]
        turn *= np.sign(np.diag(turn))
        assert misfit(turn @ head.U.numpy()) >= best - 1e-12


def test_equal_weights_are_no_weights():
    plain = trained()
    for weights in ([7.0] * C, torch.full((C,), 3)):
        head = trained(class_weights=weights)
        np.testing.assert_allclose(head.weight, plain.weight, rtol=0, atol=1e-12)
    balanced = torch.arange(20) % C
    counted, plain = trained(labels=balanced, class_weights="counts"), trained(labels=balanced)
    np.testing.assert_allclose(counted.weight, plain.weight, rtol=0, atol=1e-12)


def test_a_class_of_weight_zero_does_not_pull():
    heads = [NearestETFHead(D, C, dtype=torch.float64, class_weights=[1, 1, 1, 0]) for _ in range(2)]
    for seed in range(3):
        x, y = batch(seed), LABELS
        heads[0](x, y)
        x = torch.where((y == 3)[:, None], -5 * x.flip(0), x)
        heads[1](x, y)
    assert not torch.equal(heads[0].means.mean[:, 3], heads[1].means.mean[:, 3])
    torch.testing.assert_close(heads[0].U, heads[1].U, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", ["counts", WEIGHTS])
@pytest.mark.parametrize("missing", [0, 3])
def test_a_class_that_was_never_seen_does_not_pull(weights, missing):
    labels = torch.where(missing == LABELS, 1, LABELS)
    head = trained(labels=labels, class_weights=weights)
    assert head.solution().problem.weights[missing] == 0
    w = head.means.samples.numpy() if weights == "counts" else np.where(np.arange(C) == missing, 0, WEIGHTS)
    np.testing.assert_allclose(head.solution().problem.H, posed(head, w)[0], rtol=0, atol=1e-14)


def test_before_a_class_with_a_weight_comes_nothing_turns():
    head = NearestETFHead(D, C, dtype=torch.float64, class_weights=[0, 0, 1, 1])
    before = head.U.clone()
    assert head(batch(0, 8), torch.arange(8) % 2).isfinite().all()
    torch.testing.assert_close(head.U, before, rtol=0, atol=1e-12)
    head(batch(1), LABELS)
    assert not torch.allclose(head.U, before, atol=1e-2)


@pytest.mark.parametrize("weights", ["counts", WEIGHTS])
def test_the_gradient_is_that_of_central_differences(weights):
    head = trained(2, class_weights=weights)
    state, x = snapshot(head), batch(5)

    def loss(features: torch.Tensor) -> torch.Tensor:
        head.load_state_dict(state)
        return cross_entropy(head(features, LABELS), LABELS)

    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    wanted = oracles.central_differences(lambda X: float(loss(torch.tensor(X))), x.numpy(), 1e-6)
    # the centre that the bias takes has a gradient of its own, which is no derivative of its value
    head.load_state_dict(state)
    assert leaf.grad.isfinite().all()
    direct = trained(2, class_weights=weights, implicit_gradient=False)
    flat = x.clone().requires_grad_()
    cross_entropy(direct(flat, LABELS), LABELS).backward()
    assert float((leaf.grad - flat.grad).norm()) > 1e-3 * float(flat.grad.norm())
    np.testing.assert_allclose(leaf.grad, wanted, rtol=0, atol=1e-6)


def test_unseen_values_give_the_same_step_and_a_bad_batch_none():
    heads = [trained(2, class_weights="counts") for _ in range(2)]
    x = batch(7)
    heads[0](x, LABELS)
    with blind():
        heads[1](x, LABELS)
    for name, value in heads[0].state_dict().items():
        torch.testing.assert_close(heads[1].state_dict()[name], value, rtol=0, atol=1e-12)
    before = snapshot(heads[0])
    with blind():
        heads[0](x * torch.nan, LABELS)
    with pytest.raises(InputError, match="could not be used"):
        heads[0].state_dict()
    assert same(before, snapshot(heads[0]))


def test_weights_of_new_classes_are_the_mean_of_the_others():
    head = trained(class_weights=[4.0, 2.0, 2.0, 0.0])
    head.add_classes(1)
    assert head.class_weights.tolist() == pytest.approx([1.5, 0.75, 0.75, 0, 1])
    head.keep([4, 0])
    assert head.class_weights.tolist() == pytest.approx([1, 1.5])
    assert NearestETFHead(D, C, class_weights="counts").class_weights == "counts"


def test_a_new_class_weighs_what_those_weigh_that_were_kept():
    head = NearestETFHead(8, 5, class_weights=[10, 10, 1, 2, 3])
    head.keep([4, 2, 3])
    head.add_classes(1)
    weights = head.class_weights.tolist()
    assert weights == pytest.approx([weights[1] * w for w in (3, 1, 2, 2)])


@pytest.mark.parametrize("classes", [[3, 4], [0, 3]])
def test_classes_none_of_which_would_pull_are_not_kept(classes):
    head = NearestETFHead(8, 5, class_weights=[1, 1, 1, 0, 0], capacity=5)
    before, weights = snapshot(head), head.class_weights
    with pytest.raises(InputError, match="fewer than two of the classes have a class weight above 0"):
        head.keep(classes)
    assert same(before, snapshot(head))
    assert head.num_classes == 5
    assert head.class_weights is weights


REFUSED = [
    ({"class_weights": [1, 2]}, r"class_weights has shape \(2,\)"),
    ({"class_weights": [1, -1, 1, 1]}, "class_weights holds negative"),
    ({"class_weights": [1, np.nan, 1, 1]}, "class_weights"),
    ({"class_weights": [0, 0, 0, 0]}, "class_weights is zero"),
    ({"class_weights": [0, 3, 0, 0]}, "class_weights has one class above 0"),
    ({"class_weights": "samples"}, "class_weights = 'samples' is not known"),
    ({"class_weights": torch.tensor([1 + 1j] * C)}, "class_weights"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_weights_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        NearestETFHead(D, C, **options)


def test_the_rules_of_the_paper_count_no_samples():
    with pytest.raises(InputError, match="class_weights='counts' is for statistics='running'"):
        paper_nearest(D, C, class_weights="counts")
