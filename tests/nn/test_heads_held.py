"""Classes whose vertices stay: what is equal to the bit, where new classes go, and what a state says of it."""

import contextlib
import copy
import pickle

import numpy as np
import pytest

from etfopt import InputError, certify, frames
from tests.tools import oracles
from tests.tools.blind import blind

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.head_cases import paper_nearest, same, snapshot

D, K = 12, 9
CENTRES = torch.randn(K, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def batch(classes: list[int], seed: int = 0, n: int = 40) -> tuple:
    labels = torch.tensor(classes)[torch.arange(n) % len(classes)]
    noise = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return CENTRES[labels] + 0.3 * noise, labels


def trained(C: int = 4, steps: int = 3, make=NearestETFHead, **options: object):
    head = make(D, C, **({"capacity": K, "dtype": torch.float64} | options))
    for seed in range(steps):
        head(*batch(list(range(C)), seed))
    return head


def grown(**options: object):
    head = trained(**options)
    before = head.weight.clone()
    head.add_classes(3, hold=True)
    return head, before


FRAMES = [
    {},
    {"frame": "orthoplex", "capacity": 20},
    {"statistics": "running", "class_weights": "counts"},
    {"delta": 0.0},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", FRAMES)
def test_old_rows_stay_to_the_bit_while_new_classes_are_trained(options, dtype):
    head, before = grown(dtype=dtype, **options)
    assert head.held == (0, 1, 2, 3)
    assert torch.equal(head.weight[:4], before)
    moved = head.weight[4:].clone()
    for seed in range(20):  # an awkward batch among them: one sample, of one class
        logits = head(*batch([4, 5, 6] if seed % 3 else [5], seed, 40 if seed % 3 else 1))
        assert logits.shape[1] == 7
        assert torch.equal(head.weight[:4], before)
    assert (head.weight[4:] - moved).abs().max() > 0.1
    unit = 50 * torch.finfo(dtype).eps
    W = np.sqrt(head.places) * (head.U @ head.frame).mT[:7] / head.frame.norm()
    torch.testing.assert_close(head.weight, W, rtol=0, atol=unit)  # held by U too, not by the copy of the rows alone
    torch.testing.assert_close(head.U.mT @ head.U, torch.eye(head.U.shape[1], dtype=dtype), rtol=0, atol=unit)


@pytest.mark.parametrize("options", FRAMES)
def test_new_classes_take_the_nearest_places_that_are_left(options):
    head, _ = grown(**options)
    prox = head.U.numpy().copy()
    head(*batch([4, 5, 6]))
    solution = head.solution()
    assert solution.converged
    assert set(solution.problem.held.classes) <= {0, 1, 2, 3}
    np.testing.assert_allclose(solution.problem.prox, prox, rtol=0, atol=1e-13)
    np.testing.assert_allclose(solution.etf, (head.U @ head.frame)[:, :7], rtol=0, atol=1e-9)
    assert certify(solution.problem, head.U.numpy()).relative_gap < 1e-12
    H, F = torch.tensor(solution.problem.H), head.frame[:, :7]
    new = torch.nn.functional.cosine_similarity(H[:, 4:], (head.U @ F)[:, 4:], dim=0).mean()
    free = torch.nn.functional.cosine_similarity(H[:, 4:], torch.tensor(prox) @ F[:, 4:], dim=0).mean()
    assert new > 0.3 > free


def test_many_steps_do_not_let_held_vertices_drift():
    head, before = grown(dtype=torch.float32)
    for seed in range(300):
        head(*batch([4, 5, 6], seed, 10))
    W = np.sqrt(K) * (head.U @ head.frame).mT[:4] / head.frame.norm()
    torch.testing.assert_close(W, before, rtol=0, atol=2e-6)


def test_classes_that_arrive_in_turn_keep_every_row_from_their_last_day():
    head = NearestETFHead(D, 2, capacity=K)
    temperature, rows = head.temperature, torch.zeros(0, D)
    for task in range(4):
        if task:
            head.add_classes(2, hold=True)
        for seed in range(3):
            logits = head(*batch([2 * task, 2 * task + 1], seed))
        assert logits.shape[1] == head.num_classes == 2 * task + 2
        assert torch.equal(head.weight[: 2 * task], rows)
        assert head.temperature == temperature
        rows = head.weight.clone()
    x, y = batch(list(range(8)), 7)
    assert (head.eval()(x).argmax(dim=1) == y).float().mean() > 0.8


def test_accumulated_batches_and_a_compiled_evaluation_are_as_any_others():
    head, before = grown(dtype=torch.float32)
    net = torch.nn.Linear(D, D)
    for seed in range(3):
        for x, y in zip(*(part.split(17) for part in batch([4, 5, 6], seed)), strict=True):  # the last one has 6
            cross_entropy(head(net(x.float()), y), y).backward()
        assert net.weight.grad.isfinite().all()
    head.eval()
    x = batch([0, 5])[0].float()
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(head, backend="eager", fullgraph=True)(x), head(x), rtol=0, atol=1e-6)
    exported = torch.export.export(head, (x,)).module()
    torch.testing.assert_close(exported(x), head(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(head.linear()(head.normalize(x)), head(x), rtol=0, atol=1e-6)
    assert torch.equal(head.weight[:4], before)


def test_the_gradient_is_that_of_central_differences():
    head, _ = grown()
    head(*batch([4, 5, 6]))  # the center is held constant for classes that are new in a batch
    state, (x, y) = snapshot(head), batch([0, 4, 5, 6], n=12)

    def loss(features: torch.Tensor) -> torch.Tensor:
        head.load_state_dict(state)
        return cross_entropy(head(features, y), y)

    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    wanted = oracles.central_differences(lambda X: float(loss(torch.tensor(X))), x.numpy(), 1e-6)
    np.testing.assert_allclose(leaf.grad, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", FRAMES)
def test_without_a_look_at_values_the_step_is_the_same(options):
    heads = [grown(**options)[0] for _ in range(2)]
    heads[0](*batch([4, 5, 6]))
    with blind():
        heads[1](*batch([4, 5, 6]))
    for name, value in heads[0].state_dict().items():
        torch.testing.assert_close(heads[1].state_dict()[name], value, rtol=0, atol=1e-12)


OPTIONS = [
    *({"method": method} for method in ("svd", "gram", "newton-schulz")),
    {"method": "newton-schulz", "class_weights": "counts"},
    {"classify_first": True},
    {"implicit_gradient": False},
    {"solve_every": 2},
    {"freeze_after": 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_of_the_head_holds_too(options):
    head, before = grown(dtype=torch.float32, **options)
    for seed in range(4):
        x, y = batch([0, 4, 5, 6], seed)
        leaf = x.float().requires_grad_()
        cross_entropy(head(leaf, y), y).backward()
        assert leaf.grad.isfinite().all()
        assert torch.equal(head.weight[:4], before)
    W = np.sqrt(K) * (head.U @ head.frame).mT[:4] / head.frame.norm()
    torch.testing.assert_close(W, before, rtol=0, atol=1e-5)


def test_shrunk_rows_follow_the_means_and_the_vertices_below_them_are_held():
    head, _ = grown(shrinkage=0.5)
    vertices = (head.U @ head.frame)[:, :4].clone()
    head(*batch([0, 4, 5, 6]))
    torch.testing.assert_close((head.U @ head.frame)[:, :4], vertices, rtol=0, atol=1e-12)


def test_an_average_of_the_model_holds_what_the_model_holds():
    head, before = grown(dtype=torch.float32)
    average = torch.optim.swa_utils.AveragedModel(head, use_buffers=True)
    for seed in range(5):
        head(*batch([4, 5, 6], seed))
        average.update_parameters(head)
    mean = average.module.eval()
    assert mean.held == (0, 1, 2, 3)
    torch.testing.assert_close(mean.weight[:4], before, rtol=0, atol=1e-6)
    gram = (K * torch.eye(7) - 1) / (K - 1)
    torch.testing.assert_close(mean.weight @ mean.weight.mT, gram, rtol=0, atol=0.05)


def test_held_vertices_that_depend_on_each_other_are_held():
    """Opposite ones, of which either one decides on the other."""
    for unseen in (contextlib.nullcontext, blind):
        head = trained(C=8, capacity=24)  # the orthoplex: vertices come in pairs
        opposite = int((head.weight @ head.weight[0]).argmin())
        head.hold([0, opposite, 3])
        rows = head.weight.clone()
        with unseen():
            head(*batch(list(range(8)), 5))
        W = np.sqrt(24) * (head.U @ head.frame).mT[:8] / head.frame.norm()
        torch.testing.assert_close(W[[0, opposite, 3]], rows[[0, opposite, 3]], rtol=0, atol=1e-12)
        assert not torch.allclose(head.weight, rows, atol=1e-3)
        assert head.solution().converged


# --- hold and release -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [NearestETFHead, paper_nearest])
def test_any_classes_may_be_held_and_released(make):
    head = trained(6, make=make, capacity=None)
    head.hold([5, 2])
    rows = head.weight.clone()
    head(*batch(list(range(6)), 5))
    head.hold(torch.tensor([0]))
    assert head.held == (0, 2, 5)
    assert torch.equal(head.weight[[2, 5]], rows[[2, 5]])
    assert not torch.allclose(head.weight[[0, 1]], rows[[0, 1]], atol=1e-3)
    first = head.weight[0].clone()
    head(*batch(list(range(6)), 6))
    assert torch.equal(head.weight[[0, 2, 5]], torch.stack([first, rows[2], rows[5]]))
    head.release([2])
    assert head.held == (0, 5)
    for seed in range(4):
        head(*batch([2, 1], seed))
    assert not torch.allclose(head.weight[2], rows[2], atol=1e-3)
    head.release()
    assert head.held == ()
    assert not {"held_rows", "held_at"} & head.state_dict().keys()
    head.release()


@pytest.mark.parametrize("hold", [None, [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("make", [NearestETFHead, paper_nearest])
def test_where_held_vertices_determine_all_others_nothing_turns(make, hold):
    head = trained(6, make=make, capacity=None)
    head.hold(hold)
    rows, U = head.weight.clone(), head.U.clone()
    x, y = batch(list(range(6)), 5)
    leaf = x.requires_grad_()
    cross_entropy(head(leaf, y), y).backward()
    assert leaf.grad.isfinite().all()
    assert torch.equal(head.weight, rows)
    assert torch.equal(head.U, U)
    with pytest.raises(InputError, match=r"the held vertices determine all others.*release"):
        head.solution()


def test_before_the_first_batch_the_canonical_vertices_can_be_held():
    head = NearestETFHead(D, 5)
    rows = head.weight.clone()
    head.hold([1])
    head(*batch(list(range(5))))
    assert torch.equal(head.weight[1], rows[1])
    assert head.solution().converged


def test_classes_that_are_kept_stay_held():
    head, before = grown()
    head(*batch([4, 5, 6]))
    rows = head.weight.clone()
    head.keep([6, 2, 0])
    assert head.held == (1, 2)
    assert torch.equal(head.weight, rows[[6, 2, 0]])
    head(*batch([0, 0, 1]))
    assert torch.equal(head.weight[1:], before[[2, 0]])
    head.keep([0, 1])
    head.release()
    head.add_classes(2)
    assert head.num_classes == 4
    gram = head.weight @ head.weight.mT  # no vertex was given twice
    torch.testing.assert_close(gram, (K * torch.eye(4).double() - 1) / (K - 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_within_the_capacity_coming_and_going_changes_no_bit(make):
    head = trained(make=make)
    before, weight = snapshot(head), head.weight.clone()
    temperature = head.temperature
    head.add_classes(3)
    assert torch.equal(head.weight[:4], weight)
    head.keep(range(4))
    assert same(before, snapshot(head))
    head.add_classes(K - 4)
    assert head.weight.shape == (K, D)
    assert head.temperature == temperature
    head.add_classes(2)  # beyond it all vertices move, as little as possible
    cosine = (head.weight[:4] * weight).sum(dim=1).mean()
    assert 0.98 < float(cosine) < 1 - 1e-4
    assert head.capacity == head.num_classes == K + 2
    assert head.weight.shape == (K + 2, D)


# --- state ----------------------------------------------------------------------------------------------------------


def test_a_state_says_who_is_held():
    head, before = grown()
    head(*batch([4, 5, 6]))
    fresh = NearestETFHead(D, 7, capacity=K, dtype=torch.float64)
    empty = snapshot(fresh)
    twins = [fresh, copy.deepcopy(head), pickle.loads(pickle.dumps(head))]
    fresh.load_state_dict(snapshot(head))
    meta = NearestETFHead(D, 7, capacity=K, dtype=torch.float64, device="meta")
    meta.load_state_dict(snapshot(head), assign=True)
    x, y = batch([4, 5, 6], 9)
    wanted = head(x, y)
    for twin in (*twins, meta):
        assert twin.held == (0, 1, 2, 3)
        assert torch.equal(twin(x, y), wanted)
        assert torch.equal(twin.weight[:4], before)
    head.load_state_dict(empty)
    assert head.held == ()
    assert same(head.state_dict(), empty)
    fresh.reset_parameters()
    assert same(fresh.state_dict(), empty)


@pytest.mark.parametrize(
    ("entry", "message"), [("held_at", "holds held_rows alone"), ("held_rows", "holds held_at alone")]
)
def test_a_state_that_holds_by_halves_is_refused(entry, message):
    head, _ = grown()
    state, fresh = snapshot(head), NearestETFHead(D, 7, capacity=K, dtype=torch.float64)
    before = snapshot(fresh)
    with pytest.raises(InputError, match=message):
        fresh.load_state_dict({name: value for name, value in state.items() if name != entry})
    with pytest.raises(InputError, match=rf"{entry} has shape \(2, 2\)"):
        fresh.load_state_dict(state | {entry: torch.zeros(2, 2)})
    assert same(before, snapshot(fresh))


def test_entry_by_entry_a_state_is_the_same():
    head, _ = grown()
    fresh = NearestETFHead(D, 7, capacity=K, dtype=torch.float64)
    for name, value in snapshot(head).items():
        fresh.load_state_dict({name: value}, strict=False)
    assert fresh.held == head.held
    assert same(fresh.state_dict(), head.state_dict())


def test_in_another_precision_held_rows_are_held():
    head, before = grown(dtype=torch.float32)
    head.double()
    assert torch.equal(head.weight[:4].float(), before)
    head(*batch([4, 5, 6]))
    assert torch.equal(head.weight[:4].float(), before)
    assert head.solution().converged
    low = NearestETFHead(D, 7, capacity=K)
    low.load_state_dict({name: value.bfloat16() for name, value in head.state_dict().items()})
    assert low.held == (0, 1, 2, 3)
    rows = low.weight.clone()
    torch.testing.assert_close(rows[:4], before, rtol=0, atol=0.01)
    torch.testing.assert_close(rows @ rows.mT, ((K * torch.eye(7) - 1) / (K - 1)), rtol=0, atol=0.01)
    low(*batch([4, 5, 6]))
    assert torch.equal(low.weight[:4], rows[:4])


# --- what has no meaning ----------------------------------------------------------------------------------------------


PAIR = {"frame": frames.seli([3, 2, 1]), "capacity": None}
REFUSED = {
    "no capacity": (lambda: trained(4, capacity=None), lambda h: h.add_classes(1, hold=True), "needs a capacity of at"),
    "a full one": (
        lambda: trained(4, capacity=5),
        lambda h: h.add_classes(2, hold=True),
        "at least 6 classes, and it is 5",
    ),
    "a fixed head": (lambda: FixedETFHead(D, 4), lambda h: h.add_classes(1, hold=True), "needs a capacity"),
    "rows that are learned": (lambda: LearnedHead(D, 4), lambda h: h.add_classes(1, hold=True), "LearnedHead has none"),
    "a pair": (lambda: trained(3, **PAIR), lambda h: h.hold(), "hold is for heads with one frame"),
    "no class": (lambda: trained(4), lambda h: h.hold([]), "must name one or more"),
    "an absent class": (lambda: trained(4), lambda h: h.hold([4]), r"in \[0, 4\)"),
    "no classes": (
        lambda: trained(4),
        lambda h: h.hold("01"),
        "classes must be a sequence of integers, the classes to",
    ),
    "an absent class to release": (lambda: trained(4), lambda h: h.release([4]), r"in \[0, 4\)"),
    "to grow": (lambda: held_head(None), lambda h: h.add_classes(1), r"1 classes are held.*call release\(\) first"),
    "to shrink": (lambda: held_head(None), lambda h: h.keep([0, 1]), r"1 classes are held"),
    "beyond the capacity": (lambda: held_head(5), lambda h: h.add_classes(2), r"1 classes are held"),
}


def held_head(capacity: int | None) -> NearestETFHead:
    head = trained(4, capacity=capacity)
    head.hold([2])
    return head


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_held_is_refused_before_anything_changes(case):
    make, change, message = REFUSED[case]
    head = make()
    before, C = snapshot(head), head.num_classes
    with pytest.raises(InputError, match=message):
        change(head)
    assert head.num_classes == C
    assert same(before, snapshot(head))


def test_a_fixed_head_with_places_keeps_its_rows():
    head = trained(make=FixedETFHead)
    before = head.weight.clone()
    head.add_classes(3, hold=True)
    head(*batch([4, 5, 6]))
    assert torch.equal(head.weight[:4], before)
