"""What training does to heads: ignored labels, freezing, precision, checkpoints, averages, and batches nobody sees."""

import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from blind import blind
from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 - after the skip
from torch.nn.functional import cross_entropy  # noqa: E402 - after the skip
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402 - after the skip
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402 - after the skip

from etfopt.nn import (  # noqa: E402 - after the skip
    ClassMeans,
    FixedETFHead,
    LearnedHead,
    NearestETFHead,
    UnitFeatures,
)

HEADS = (LearnedHead, FixedETFHead, NearestETFHead)
STATEFUL = (FixedETFHead, NearestETFHead)
C, D = 4, 7
LABELS = torch.arange(24) % C


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def batch(rng: np.random.Generator, n: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(rng.standard_normal((n, D)) + 0.3, dtype=dtype)


def snapshot(module: nn.Module) -> dict:
    return copy.deepcopy(module.state_dict())


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- ignored labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, -1, 255])
@pytest.mark.parametrize("make", STATEFUL)
def test_ignored_samples_count_nowhere_and_get_their_logits(make, ignore_index, rng):
    with_them, without = (make(D, C, ignore_index=ignore_index).double() for _ in range(2))
    for _ in range(3):
        features, labels = batch(rng, dtype=torch.float64), LABELS.clone()
        labels[[1, 2, 3, 10, 23]] = ignore_index
        kept = labels != ignore_index
        logits, expected = with_them(features, labels), without(features[kept], labels[kept])
        torch.testing.assert_close(logits[kept], expected, rtol=0, atol=1e-12)
        assert logits.shape == (24, C)
        assert logits.isfinite().all()
    for name, value in without.state_dict().items():
        torch.testing.assert_close(with_them.state_dict()[name], value, rtol=0, atol=1e-12)


def test_ignored_samples_receive_the_gradient_of_their_logits_only(rng):
    head, features, labels = NearestETFHead(D, C), batch(rng).requires_grad_(), LABELS.clone()
    labels[5:9] = -100
    cross_entropy(head(features, labels), labels).backward()
    assert not features.grad[5:9].any()
    assert features.grad[:5].abs().amax(dim=1).all()


@pytest.mark.parametrize("make", STATEFUL)
def test_a_batch_of_ignored_samples_changes_nothing(make, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    before = snapshot(head)
    assert head(batch(rng), torch.full((24,), -100)).isfinite().all()
    assert same(head.state_dict(), before)


@pytest.mark.parametrize("ignored", [0, 3, None, True, 1.5])
@pytest.mark.parametrize("make", [*HEADS, lambda d, c, **options: ClassMeans(c, d, **options)])
def test_a_class_cannot_be_the_ignored_label(make, ignored):
    with pytest.raises(InputError, match=r"ignore_index must be an integer outside \[0, 4\)"):
        make(D, C, ignore_index=ignored)


# --- solving less often -------------------------------------------------------------------------------------------


def slope(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    leaf = features.clone().requires_grad_()
    cross_entropy(head(leaf, LABELS), LABELS).backward()
    return leaf.grad


@pytest.mark.parametrize(
    ("options", "solved"),
    [
        ({"freeze_after": 3}, [0, 1, 2]),
        ({"freeze_after": 0}, []),
        ({"solve_every": 3}, [0, 3, 6]),
        ({"solve_every": 2, "freeze_after": 3}, [0, 2]),
    ],
)
def test_u_moves_in_the_steps_that_solve_and_carries_a_gradient_there_only(options, solved, rng):
    head, direct = (NearestETFHead(D, C, implicit_gradient=g, **options).double() for g in (True, False))
    for step in range(8):
        features, before = batch(rng, dtype=torch.float64), head.U.clone()
        twin = copy.deepcopy(head)
        both, one = slope(head, features), slope(direct, features)
        assert torch.equal(head.U, before) == (step not in solved)
        assert torch.equal(both, one) == (step not in solved)
        assert int(head.means.steps) == step + 1
        torch.testing.assert_close(head.bias, -head.weight @ head.means.global_mean)
        # counted in the state: a copy goes on where it was
        assert torch.equal(slope(twin, features), both)


def test_a_frozen_head_resumes_frozen(rng):
    head, resumed = (NearestETFHead(D, C, freeze_after=2) for _ in range(2))
    for _ in range(3):
        head(batch(rng), LABELS)
    resumed.load_state_dict(head.state_dict())
    features = batch(rng)
    assert torch.equal(resumed(features, LABELS), head(features, LABELS))
    assert torch.equal(resumed.U, head.U)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_after": -1}, r"freeze_after must be an integer of at least 0; got -1"),
        ({"freeze_after": 1.5}, r"freeze_after must be an integer"),
        ({"solve_every": 0}, r"solve_every must be an integer of at least 1; got 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        NearestETFHead(D, C, **options)


# --- the certified solution, and the layer to deploy ----------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_solution_certifies_the_step_that_was_taken(steps, reduced, delta, rng):
    frame = torch.tensor(simplex_etf(C, reduced=True)) if reduced else None
    head = NearestETFHead(D, C, delta=delta, frame=frame).double()
    for _ in range(steps):
        head(batch(rng, dtype=torch.float64), LABELS)
    solution = head.solution()
    assert solution.converged
    np.testing.assert_allclose(solution.weight, head.weight, rtol=0, atol=1e-10)
    H = head.means.mean.numpy()
    np.testing.assert_allclose(solution.problem.H, H / np.linalg.norm(H), rtol=0, atol=1e-14)
    assert solution.problem.delta == delta
    if delta:
        np.testing.assert_allclose(solution.U, head.U, rtol=0, atol=1e-9)


def test_the_solution_between_solves_is_what_a_solve_would_find_now(rng):
    head, features = NearestETFHead(D, C, solve_every=5).double(), batch(rng, dtype=torch.float64)
    head(features, LABELS)
    head(features.flip(0), LABELS)
    solution = head.solution()
    assert solution.converged
    assert np.linalg.norm(solution.weight - head.weight.numpy()) > 0.1


def test_a_solution_in_half_or_single_precision_is_certified_in_double(rng):
    head = NearestETFHead(D, C)
    head(batch(rng), LABELS)
    assert head.solution().problem.dtype == np.float64
    assert head.solution().certificate.relative_gap < 1e-14


def test_a_head_that_has_seen_nothing_has_no_solution():
    with pytest.raises(InputError, match="the head has seen no batch"):
        NearestETFHead(D, C).solution()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", HEADS)
def test_the_exported_layer_on_normalised_features_gives_the_logits_of_evaluation(make, rng):
    head, features = make(D, C), batch(rng)
    head(features, LABELS)
    generator = torch.random.get_rng_state()
    layer = head.linear()
    assert torch.equal(torch.random.get_rng_state(), generator)
    expected = head.eval()(features)
    assert type(layer) is nn.Linear
    assert not any(p.requires_grad for p in layer.parameters())
    torch.testing.assert_close(layer(head.normalize(features)), expected, rtol=0, atol=1e-6)
    network = nn.Sequential(UnitFeatures(head.temperature), layer)
    traced = torch.jit.trace(network, features[:3])
    exported = torch.export.export(network, (features,), dynamic_shapes=[{0: torch.export.Dim.AUTO}]).module()
    for deployed in (network, traced, exported):
        torch.testing.assert_close(deployed(features[:8]), expected[:8], rtol=0, atol=1e-6)
    head.train()(batch(rng), LABELS)  # what was exported stays
    torch.testing.assert_close(network(features), expected, rtol=0, atol=1e-6)


# --- precision, checkpoints, averages -------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.to(torch.float16)])
@pytest.mark.parametrize("make", STATEFUL)
def test_the_state_stays_in_single_precision_or_better(make, lower, rng):
    head, features = make(D, C), batch(rng)
    head(features, LABELS)
    before = snapshot(head)
    assert same(lower(head).state_dict(), before)
    wide = lower(make(D, C).double())
    assert {b.dtype for b in wide.buffers() if b.is_floating_point()} == {torch.float32}
    assert head(features.half(), LABELS).dtype == torch.float16


def test_the_parameters_of_a_network_go_to_half_precision_all_the_same():
    head = LearnedHead(D, C).half()
    assert head.rows.dtype == torch.float16
    network = nn.Sequential(nn.Linear(3, D), NearestETFHead(D, C)).half()
    assert network[0].weight.dtype == torch.float16


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize(("d", "c"), [(D + 1, C), (D, C + 1)])
def test_a_checkpoint_of_another_size_is_refused_with_both_sizes_and_changes_nothing(make, d, c, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    before, name = snapshot(head), "rows" if make is LearnedHead else "U"
    shape = (c, d) if make is LearnedHead else (d, c)
    with pytest.raises(InputError, match=rf"{name} has shape \({shape[0]}, {shape[1]}\) and not .* strict=False"):
        head.load_state_dict(make(d, c).state_dict())
    assert same(head.state_dict(), before)
    with pytest.raises(InputError, match=rf"{make.__name__}\(dim={D}, num_classes={C}"):
        nn.Sequential(head).load_state_dict(nn.Sequential(make(d, c)).state_dict())


def test_a_checkpoint_of_another_frame_is_refused():
    reduced = NearestETFHead(D, C, frame=torch.tensor(simplex_etf(C, reduced=True)))
    with pytest.raises(InputError, match=r"U has shape \(7, 3\) and not \(7, 4\)"):
        NearestETFHead(D, C).load_state_dict(reduced.state_dict())


@pytest.mark.parametrize("make", STATEFUL)
def test_there_is_nothing_to_decay(make):
    assert not list(make(D, C).parameters())
    network = nn.Sequential(nn.Linear(3, D), make(D, C))
    assert len(list(network.parameters())) == 2


@pytest.mark.parametrize("make", HEADS)
def test_a_pickled_head_goes_on_where_it_was(make, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    twin, features = pickle.loads(pickle.dumps(head)), batch(rng)
    assert torch.equal(twin(features, LABELS), head(features, LABELS))
    assert same(twin.state_dict(), head.state_dict())


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("make", HEADS)
def test_an_averaged_model_evaluates_the_last_classifier_or_the_mean_one(make, use_buffers, rng):
    head = make(D, C)
    # PyTorch's averages need a parameter
    network = nn.Sequential(nn.Linear(D, D), head)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    weights, biases, features = [], [], batch(rng)
    for _ in range(3):
        head(batch(rng), LABELS)
        if make is LearnedHead:
            head.rows.data.add_(0.3 * torch.randn(C, D))
        average.update_parameters(network)
        weights.append(head.weight.clone())
        biases.append(head.bias.clone())
    logits = average.module[1].eval()(features)
    if make is LearnedHead:
        assert logits.isfinite().all()
        return
    shares = [0.25, 0.25, 0.5] if use_buffers else [0, 0, 1]
    weight, bias = (sum(s * x for s, x in zip(shares, values, strict=True)) for values in (weights, biases))
    torch.testing.assert_close(logits, nn.functional.linear(head.normalize(features), weight, bias), rtol=0, atol=1e-5)


# --- batches that nobody may look at --------------------------------------------------------------------------------


def spoiled(features: torch.Tensor, labels: torch.Tensor, kind: str) -> tuple:
    if kind == "NaN":
        return features.index_fill(0, torch.tensor([3]), torch.nan), labels
    return features, labels.index_fill(0, torch.tensor([3]), C if kind == "large" else -1)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("make", [*STATEFUL, lambda d, c: ClassMeans(c, d)])
def test_unseen_good_batches_give_what_seen_ones_give(make, steps, rng):
    seen, unseen = make(D, C).double(), make(D, C).double()
    for step in range(steps + 3):
        x, y = batch(rng, dtype=torch.float64), LABELS % (C - 1) if step < 2 else LABELS
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        first = seen(a, y)
        with blind():
            second = unseen(b, y)
            second.sum().backward()
        first.sum().backward()
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-10)
    for name, value in seen.state_dict().items():
        torch.testing.assert_close(unseen.state_dict()[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["NaN", "large", "negative"])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("make", [*STATEFUL, lambda d, c: ClassMeans(c, d)])
def test_an_unseen_bad_batch_changes_no_bit_and_is_reported_where_values_are_looked_at(make, steps, kind, rng):
    module = make(D, C)
    if kind != "NaN" and isinstance(module, ClassMeans):
        module = NearestETFHead(D, C)
    with blind():
        for _ in range(steps):
            module(batch(rng), LABELS)
        before = snapshot(module)
        for _ in range(2):
            logits = module(*spoiled(batch(rng), LABELS, kind))
            kept = {name: value.clone() for name, value in module.named_buffers() if name in before}
            assert same(kept, before)
            if steps == 0 and not isinstance(module, FixedETFHead):
                break  # the second would look, see below
    if not isinstance(module, ClassMeans):
        assert logits[[0, 1, 2, 4]].isfinite().all()
    with pytest.raises(InputError, match=r"of [12] batch\(es\) could not be used"):
        {0: module.eval, 1: module.state_dict, 3: getattr(module, "solution", module.train)}[steps]()
    assert same(module.eval().state_dict(), before)  # said once
    good = batch(rng)
    assert module.train()(good, LABELS).isfinite().all()


def test_a_bad_first_batch_is_reported_by_the_second_which_looks_in_any_case(rng):
    head, fresh, good = NearestETFHead(D, C), NearestETFHead(D, C), batch(rng)
    with blind():
        head(good * torch.nan, LABELS)
        with pytest.raises(InputError, match=r"of 1 batch\(es\) could not be used"):
            head(good, LABELS)
        head(good, LABELS)
        fresh(good, LABELS)
    assert same(head.state_dict(), fresh.state_dict())


def test_unseen_steps_are_counted_for_the_schedule(rng):
    seen, unseen = (NearestETFHead(D, C, freeze_after=4, solve_every=2) for _ in range(2))
    for _ in range(6):
        features = batch(rng)
        seen(features, LABELS)
        with blind():
            unseen(features, LABELS)
        torch.testing.assert_close(unseen.weight, seen.weight, rtol=0, atol=1e-5)
    other = NearestETFHead(D, C, freeze_after=4, solve_every=2)
    other.load_state_dict(unseen.state_dict())
    with blind():
        other(features, LABELS)
    assert torch.equal(other.U, unseen.U)


def test_an_unseen_batch_of_ignored_samples_changes_nothing_and_is_no_error(rng):
    head = NearestETFHead(D, C)
    head(batch(rng), LABELS)
    before = snapshot(head)
    with blind():
        assert head(batch(rng), torch.full((24,), -100)).isfinite().all()
        assert head(batch(rng, 0), LABELS[:0]).shape == (0, C)
    assert same(head.eval().state_dict(), before)


def test_a_reported_bad_batch_does_not_shift_the_schedule(rng):
    head, fresh = (NearestETFHead(D, C, solve_every=2) for _ in range(2))
    batches = [batch(rng) for _ in range(5)]
    for step, features in enumerate(batches):
        with blind():
            head(features, LABELS)
            fresh(features, LABELS)
            if step == 2:
                head(features * torch.nan, LABELS)
                with pytest.raises(InputError, match="could not be used"):
                    head.eval()
                head.train()
    assert same(head.state_dict(), fresh.state_dict())


class NoLook(TorchDispatchMode):
    """Fails where a value is brought to the host, which on a GPU waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "bincount"):
            raise AssertionError(f"{func} looks at a value")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("spoil", [1.0, torch.nan])
@pytest.mark.parametrize("make", STATEFUL)
def test_an_unseen_step_looks_at_no_value(make, spoil, rng):
    head, features = make(D, C), batch(rng)
    with blind():
        for _ in range(2):  # the first and the second look whether there was a first
            head(features, LABELS)
        leaf = (spoil * features).requires_grad_()
        with NoLook():
            head(leaf, LABELS).sum().backward()
    with pytest.raises(AssertionError, match="looks at a value"), NoLook():
        head.eval()
