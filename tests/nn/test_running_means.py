"""The running class means against a plain loop: counters, memory, centres, gradients and soft targets."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from etfopt import InputError
from etfopt.nn import ClassMeans, FixedETFHead, NearestETFHead
from etfopt.nn.class_means import share
from tests.tools import oracles
from tests.tools.blind import blind
from tests.tools.head_cases import (
    FIXED,
    MEANS,
    NEAREST,
    STATEFUL,
    class_means,
    class_of,
    paper_fixed,
    paper_means,
    paper_nearest,
    same,
    snapshot,
)
from tests.tools.running import RunningAccount

# batches of one class are among the cases of the rules of the paper's release
pytestmark = pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")

C, D = 5, 4
IGNORED = -100
MEMORIES = (64.0, 3.0, 0.5, math.inf)
batches = st.lists(st.lists(st.sampled_from([*range(C), IGNORED]), max_size=9), min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)


def features(rng: np.random.Generator, n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(rng.standard_normal((n, D)) + 2.0, dtype=dtype)


def indices(labels: object) -> torch.Tensor:
    return torch.tensor(np.asarray(labels), dtype=torch.int64)


def means_of(memory: float = 64.0) -> ClassMeans:
    return ClassMeans(num_classes=C, dim=D, memory=memory).double()


def probabilities(rng: np.random.Generator, n: int, absent: int | None = None) -> torch.Tensor:
    p = rng.random((n, C)) ** 3
    if absent is not None:
        p[:, absent] = 0
    return torch.tensor(p / p.sum(axis=1, keepdims=True))


# --- the rule ---------------------------------------------------------------------------------------------------


@given(batches, st.sampled_from(MEMORIES), seeds)
def test_every_batch_is_that_of_the_plain_loop(lengths, memory, seed):
    rng, means, account = np.random.default_rng(seed), means_of(memory), RunningAccount(D, C, memory)
    for labels in lengths:
        x, y = features(rng, len(labels)), np.array(labels, dtype=int)
        kept, before = y != IGNORED, snapshot(means)
        update = means.updated(x, indices(y))
        assert same(means.state_dict(), before)  # looked at, not taken
        returned = means(x, indices(y))
        if kept.any():
            center = account.add(x.numpy()[kept], y[kept])
            np.testing.assert_allclose(update.center, center, rtol=0, atol=1e-12)
        else:
            assert update is None
            assert same(means.state_dict(), before)
        np.testing.assert_allclose(means.mean, account.mean, rtol=0, atol=1e-12)
        np.testing.assert_allclose(means.samples, account.samples, rtol=0, atol=0)
        np.testing.assert_allclose(returned, account.centred, rtol=0, atol=1e-12)
        np.testing.assert_allclose(means.centred(), account.centred, rtol=0, atol=1e-12)
        np.testing.assert_allclose(means.center(), account.center, rtol=0, atol=1e-12)
        assert means.occurred.tolist() == (account.samples > 0).tolist()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.sampled_from(MEMORIES), seeds)
def test_probabilities_are_those_of_the_plain_loop(sizes, memory, seed):
    rng, means, account = np.random.default_rng(seed), means_of(memory), RunningAccount(D, C, memory)
    for step, n in enumerate(sizes):
        x, p = features(rng, n), probabilities(rng, n, absent=2 if step < 2 else None)
        center = account.add(x.numpy(), p.numpy()) if n else None
        update = means.updated(x, p)
        assert (update is None) == (n == 0)
        if update is not None:
            np.testing.assert_allclose(update.center, center, rtol=0, atol=1e-11)
        means(x, p)
        np.testing.assert_allclose(means.mean, account.mean, rtol=0, atol=1e-11)
        np.testing.assert_allclose(means.samples, account.samples, rtol=0, atol=1e-12)
    assert means.samples[2] == 0 or len(sizes) > 2


@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(0, 1000), st.sampled_from([0.5, 64.0, 1e4]))
def test_a_past_forgotten_in_parts_is_forgotten_as_at_once(parts, past, memory):
    """Both factors multiply. Of their minimum, taken part by part, the product is no more than either at once."""
    N, total = torch.tensor(float(past)).double(), torch.tensor(float(sum(parts))).double()

    def kept(memory: float) -> torch.Tensor:
        found, n = torch.ones((), dtype=torch.float64), N
        for part in map(float, parts):
            found, n = found * (1 - share(n, torch.tensor(part).double(), memory)), n + part
        return found

    torch.testing.assert_close(kept(math.inf), 1 - share(N, total, math.inf), rtol=1e-9, atol=1e-15)
    if past:
        long = torch.tensor(1e9).double()  # where the memory alone decides
        product = math.prod(float(1 - share(long, torch.tensor(float(n)).double(), memory)) for n in parts)
        assert product == pytest.approx(math.exp(-sum(parts) / memory), rel=1e-9, abs=1e-14)
    both = torch.minimum(kept(math.inf), (-total / memory).exp().where(N > 0, 0))
    assert kept(memory) <= both * (1 + 1e-9) + 1e-15
    torch.testing.assert_close(1 - share(N, total, memory), both, rtol=1e-9, atol=1e-15)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([math.inf, 64.0]), seeds)
def test_equal_samples_in_small_batches_and_in_one_give_the_same_means(cuts, memory, seed):
    """Of one value a class, as after collapse: what counts then is how much of the past is left."""
    rng = np.random.default_rng(seed)
    first, value = features(rng, 3 * C), features(rng, C)
    y = indices(rng.permutation(np.repeat(np.arange(C), len(cuts) * 3)))
    whole, split = means_of(memory), means_of(memory)
    for means in (whole, split):
        means(first, indices(np.arange(3 * C) % C))
    whole(value[y], y)
    for part in y.chunk(len(cuts)):
        split(value[part], part)
    torch.testing.assert_close(split.samples, whole.samples)
    # from 3 samples a class on, the quadratic factor is the smaller one as long as (3 + n)/2 stays below the memory
    torch.testing.assert_close(split.mean, whole.mean, rtol=0, atol=1e-12)


def test_weights_keep_their_digits_where_they_are_small():
    n, N = torch.tensor(1.0), torch.tensor(1e7)
    assert float(share(N, n, math.inf)) == pytest.approx(2e-7, rel=1e-6)
    assert float(share(N, n, 1e8)) == pytest.approx(2e-7, rel=1e-6)
    assert float(share(N, n, 1e6)) == pytest.approx(1e-6, rel=1e-6)
    assert float(share(N, torch.tensor(0.0), 64.0)) == 0
    assert [float(share(torch.tensor(0.0), torch.tensor(x), 64.0)) for x in (0.0, 0.2, 3.0)] == [0, 1, 1]


@pytest.mark.parametrize("tiny", [1e-10, 1e-25, 1e-30])
def test_tiny_probabilities_of_a_class_give_finite_means(tiny, rng):
    """As the soft labels of a teacher: in float32 their squares are 0."""
    means, p = ClassMeans(num_classes=C, dim=D), torch.eye(C)[torch.arange(8) % 4]
    p[:, 4] = tiny
    first, second = (features(rng, 8, torch.float32) for _ in range(2))
    means(first, p)
    torch.testing.assert_close(means.mean[:, 4], first.mean(dim=0), rtol=1e-5, atol=1e-6)
    means(second, p)
    torch.testing.assert_close(means.mean[:, 4], (first + 3 * second).mean(dim=0) / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_absent_class_keeps_its_column_to_the_bit_and_a_never_seen_one_is_centred_at_zero(dtype, rng):
    means = ClassMeans(num_classes=C, dim=D, dtype=dtype)
    means(features(rng, 12, dtype), torch.arange(12) % 4)
    before = means.mean[:, 3].clone()
    for _ in range(20):
        H = means(features(rng, 6, dtype), torch.arange(6) % 3)
        assert torch.equal(means.mean[:, 3], before)
        assert torch.equal(H[:, 4], torch.zeros(D, dtype=dtype))
        assert not means.mean[:, 4].any()
    torch.testing.assert_close(H[:, :4].sum(dim=1), torch.zeros(D, dtype=dtype), rtol=0, atol=1e-5)


@given(batches, seeds)
def test_the_order_within_a_batch_does_not_matter(lengths, seed):
    rng, (first, second) = np.random.default_rng(seed), (means_of(), means_of())
    for labels in lengths:
        x, y, order = features(rng, len(labels)), indices(labels), indices(rng.permutation(len(labels)))
        torch.testing.assert_close(first(x, y), second(x[order], y[order]), rtol=0, atol=1e-12)


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_only_the_part_of_the_batch_carries_a_gradient_and_it_is_that_of_differences(soft, rng):
    means = means_of(3.0)
    means(features(rng, 12), torch.arange(12) % 4)
    G, g = torch.tensor(rng.standard_normal((D, C))), torch.tensor(rng.standard_normal(D))
    for n in (7, 1, 4):
        x, y = features(rng, n), probabilities(rng, n, absent=4) if soft else indices(rng.integers(0, 4, n))

        def value(X: np.ndarray, y: torch.Tensor = y, means: ClassMeans = means) -> float:
            update = means.updated(torch.tensor(X), y)
            return float((update.mean * G).sum() + update.center @ g)

        leaf = x.clone().requires_grad_()
        update = means.updated(leaf, y)
        ((update.mean * G).sum() + update.center @ g).backward()
        np.testing.assert_allclose(leaf.grad, oracles.central_differences(value, x.numpy(), 1e-6), rtol=0, atol=1e-8)
        means(x, y)
        assert not any(buffer.requires_grad for buffer in means.buffers())


def test_an_absent_class_and_an_ignored_sample_receive_no_gradient(rng):
    means, leaf = means_of(), features(rng, 6).requires_grad_()
    (means(leaf, indices([0, 1, IGNORED, 0, 1, 2])).square().sum()).backward()
    assert not leaf.grad[2].any()
    assert leaf.grad[[0, 1, 3, 4, 5]].abs().amax(dim=1).all()


@pytest.mark.parametrize("statistics", ["running", "paper"])
def test_a_training_step_of_the_head_has_the_gradient_of_differences(statistics, rng):
    head = NearestETFHead(D + 1, C, statistics=statistics, delta=0.1, temperature=3.0).double()
    for n in (20, 6, 1):
        x, y = torch.tensor(rng.standard_normal((n, D + 1)) + 1), torch.arange(n) % C
        before, leaf = copy.deepcopy(head), x.clone().requires_grad_()
        cross_entropy(head(leaf, y), y).backward()
        if n == 20:
            continue  # the classes are new: their own values stand for the past, and are held constant

        def loss(X: np.ndarray, before: NearestETFHead = before, y: torch.Tensor = y) -> float:
            return float(cross_entropy(copy.deepcopy(before)(torch.tensor(X), y), y))

        slope = oracles.central_differences(loss, x.numpy(), 1e-6)
        np.testing.assert_allclose(leaf.grad, slope, rtol=0, atol=1e-6 * (1 + np.abs(slope).max()))


# --- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_one_hot_rows_are_class_indices(make, dtype, rng):
    first = make(D + 2, C).double()
    second = copy.deepcopy(first)
    for n in (9, 1, 4):
        x, y = torch.tensor(rng.standard_normal((n, D + 2))), indices(rng.integers(0, C, n))
        torch.testing.assert_close(first(x, y), second(x, torch.eye(C)[y].to(dtype)), rtol=0, atol=1e-11)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=1e-11)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_tokens_are_the_rows_that_they_flatten_to(make, soft, rng):
    flat, shaped = make(D + 2, C).double(), make(D + 2, C).double()
    for lead in ((3, 4), (2, 1, 5), (6,), (1, 1)):
        x, n = torch.tensor(rng.standard_normal((*lead, D + 2))), math.prod(lead)
        y = probabilities(rng, n).reshape(*lead, C) if soft else indices(rng.integers(0, C, lead))
        expected = flat(x.reshape(n, D + 2), y.reshape(n, C) if soft else y.reshape(n))
        found = shaped(x, y)
        assert torch.equal(found, expected if make in MEANS else expected.reshape(*lead, C))
        if make not in MEANS:
            assert torch.equal(shaped.eval()(x), flat.eval()(x.reshape(n, D + 2)).reshape(*lead, C))
            shaped.train(), flat.train()
    assert same(shaped.state_dict(), flat.state_dict())


def test_a_feature_map_is_passed_with_its_channels_last(rng):
    head = NearestETFHead(D + 2, C).double()
    x, y = torch.tensor(rng.standard_normal((2, D + 2, 3, 3))), indices(rng.integers(0, C, (2, 3, 3)))
    assert head(x.movedim(1, -1), y).shape == (2, 3, 3, C)
    with pytest.raises(InputError, match=r"features has shape \(2, 6, 3, 3\).*features\.movedim\(1, -1\)"):
        head(x, y)


BAD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sums to 2": lambda p: p.index_fill(0, torch.tensor([3]), 2 / C),
    "sums to 0": lambda p: p.index_fill(0, torch.tensor([3]), 0.0),
    "sums to 0.95": lambda p: torch.cat([p[:3], 0.95 * p[3:4], p[4:]]),
    "negative": lambda p: torch.cat([p[:3], torch.tensor([[1.5, -0.5, 0.0, 0.0, 0.0]]).to(p), p[4:]]),
    "NaN": lambda p: p.index_fill(0, torch.tensor([3]), math.nan),
    "infinite": lambda p: p.index_fill(0, torch.tensor([3]), math.inf),
}


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_rows_that_are_no_probabilities_are_refused_and_change_no_bit(make, case, unseen, rng):
    module, x, p = make(D + 2, C), torch.tensor(rng.standard_normal((6, D + 2))).float(), probabilities(rng, 6)
    module(x, p)
    before = snapshot(module)
    if unseen:
        with blind():
            module(x, BAD[case](p))
        with pytest.raises(InputError, match=r"1 batch\(es\) could not be used"):
            module.eval()
    else:
        with pytest.raises(InputError, match=r"labels has .* row 3 is no probability.*pass softmax outputs or one-hot"):
            module(x, BAD[case](p))
    assert same(module.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_in_low_precision_are_taken_with_their_rounding(dtype, rng):
    p = torch.softmax(torch.tensor(rng.standard_normal((64, 1000))) * 3, dim=1).to(dtype)
    ClassMeans(num_classes=1000, dim=D)(features(rng, 64), p)


# --- evaluation -------------------------------------------------------------------------------------------------


def separable(rng: np.random.Generator, y: torch.Tensor) -> torch.Tensor:
    """Features of classes that lie apart, so that one sample turns U by no more than it moves the means."""
    n = len(y)
    return torch.tensor(4 * np.eye(D + 2)[y.numpy()] + 0.3 * rng.standard_normal((n, D + 2)) + 1)


@pytest.mark.parametrize("make", [NearestETFHead, FixedETFHead])
def test_a_last_batch_of_one_sample_moves_the_logits_of_evaluation_by_no_more_than_its_share(make, rng):
    tau, y = 3.0, torch.arange(40 * C) % C
    head = make(D + 2, C, temperature=tau).double()
    head(separable(rng, y), y)
    x = separable(rng, y)
    before = head.eval()(x)
    head.train()(-separable(rng, y[:1]), y[:1])  # as far off as can be
    moved = (head.eval()(x) - before).abs().max()
    a = 1 - min((40 / 41) ** 2, math.exp(-1 / 64))
    # the mean of a class moves by 2 tau a at most, and W and b with it in proportion
    assert 0 < moved < 2 * tau * a * tau
    off = make(D + 2, C, temperature=tau, statistics="paper").double()
    off(separable(rng, y), y)
    before = off.eval()(x)
    off.train()(-separable(rng, y[:1]), y[:1])
    assert (off.eval()(x) - before).abs().max() > 2 * tau * a * tau  # what the default does without


@pytest.mark.parametrize("cut", [1, 2, 30])
@pytest.mark.parametrize("make", [NearestETFHead, FixedETFHead])
def test_evaluation_does_not_depend_on_the_size_of_the_last_batch(make, cut, rng):
    y = torch.arange(200) % C
    x, z, spread = separable(rng, y), separable(rng, y), {}
    for statistics in ("running", "paper"):
        logits = []
        for last in (100, cut):
            head = make(D + 2, C, statistics=statistics, temperature=3.0).double()
            head(x[:-last], y[:-last])
            head(x[-last:], y[-last:])
            logits.append(head.eval()(z))
        spread[statistics] = float((logits[0] - logits[1]).abs().max())
    assert spread["running"] < 0.3
    assert cut == 30 or spread["paper"] > 0.5


@pytest.mark.parametrize("kind", NEAREST)
def test_averages_of_models_with_either_statistics_are_those_of_their_buffers(kind, rng):
    network = torch.nn.Sequential(torch.nn.Linear(D, D + 2), kind(D + 2, C))
    average = AveragedModel(network, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    kept = None
    for step in range(6):
        network[1](network[0](features(rng, 12, torch.float32)), torch.arange(12) % (3 if step < 3 else C))
        average.update_parameters(network)
        mean = network[1].means.mean.clone()
        kept = mean if kept is None else 0.5 * kept + 0.5 * mean
    head = average.module[1].eval()
    torch.testing.assert_close(head.means.mean, kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.weight @ head.weight.T, (C * torch.eye(C) - 1) / (C - 1), rtol=0, atol=1e-5)
    norm = 1 if head.statistics == "paper" else head.temperature
    torch.testing.assert_close(head.bias, -head.weight @ (norm * head.means.center()), rtol=0, atol=1e-5)
    assert head.means.occurred.all()


# --- states -----------------------------------------------------------------------------------------------------


FROM_PAPER = r"it is of statistics='paper' \(release 0\.1\): build the head with statistics='paper'"
FROM_RUNNING = r"it is of statistics='running': build the head with that"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("paper", "running"), [(paper_nearest, NearestETFHead), (paper_fixed, FixedETFHead)])
@pytest.mark.parametrize("frame", ["simplex", "reduced"])
def test_a_state_of_the_other_statistics_is_refused_by_name_with_the_remedy(paper, running, frame, strict, rng):
    heads = paper(D + 2, C, frame=frame), running(D + 2, C, frame=frame)
    for head, other, message in ((heads[1], heads[0], FROM_PAPER), (heads[0], heads[1], FROM_RUNNING)):
        other(torch.tensor(rng.standard_normal((9, D + 2))).float(), torch.arange(9) % C)
        before = snapshot(head)
        with pytest.raises(InputError, match=message):
            head.load_state_dict(other.state_dict(), strict=strict)
        with pytest.raises(InputError, match=rf"does not fit {class_of(paper).__name__}.*{message}"):
            torch.nn.Sequential(head).load_state_dict(torch.nn.Sequential(other).state_dict(), strict=strict)
        assert same(head.state_dict(), before)


def test_a_state_of_release_0_1_is_refused_by_a_head_with_running_statistics():
    fixed = {"U": torch.eye(D + 2, C), "bias": torch.zeros(C)}
    nearest = fixed | {"prox": torch.eye(D + 2, C), "means.mean": torch.zeros(D + 2, C), "means.steps": torch.tensor(3)}
    nearest |= {"means.global_mean": torch.zeros(D + 2), "means.seen": torch.ones(C, dtype=torch.bool)}
    for make, state in ((FixedETFHead, fixed), (NearestETFHead, nearest)):
        with pytest.raises(InputError, match=FROM_PAPER):
            make(D + 2, C).load_state_dict(state)
        make(D + 2, C, statistics="paper").load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "other", "message"),
    [
        (class_means, paper_means, r"it is of PaperClassMeans, with global_mean, seen: load it into that"),
        (paper_means, class_means, r"it is of ClassMeans, with samples: load it into that"),
    ],
)
def test_class_means_refuse_the_state_of_the_others(make, other, message):
    for strict in (False, True):
        with pytest.raises(InputError, match=message):
            make(D, C).load_state_dict(other(D, C).state_dict(), strict=strict)


# --- the fixed head ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
def test_the_fixed_head_centres_by_a_running_mean_of_all_features(labelled, rng):
    head, mean, N, memory = FixedETFHead(D + 2, C).double(), np.zeros(D + 2), 0, 64 * C
    for n in (7, 1, 300, 12, 0, 1):
        x, y = torch.tensor(rng.standard_normal((n, D + 2)) + 1), indices(rng.integers(0, C, n))
        kept = np.ones(n, dtype=bool)
        if labelled and n > 2:
            y[2], kept[2] = IGNORED, False
        logits = head(x, y if labelled else None)
        f = x.numpy() / np.linalg.norm(x, axis=1, keepdims=True)
        if k := kept.sum():
            left = min((N / (N + k)) ** 2, math.exp(-k / memory))
            mean, N = left * mean + (1 - left) * f[kept].mean(axis=0), N + k
        np.testing.assert_allclose(head.global_mean, mean, rtol=0, atol=1e-13)
        assert head.samples == N
        np.testing.assert_allclose(logits, head.temperature * (f - mean) @ head.weight.numpy().T, rtol=0, atol=1e-12)


def test_the_rotation_of_the_fixed_head_is_the_draw_of_seed_zero_and_takes_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    first, second = FixedETFHead(D + 2, C), FixedETFHead(D + 2, C)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.U, second.U)
    drawn = FixedETFHead(D + 2, C, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.U, drawn.U)
    assert (first.U - torch.eye(D + 2, C - 1)).norm() > 0.1  # not along the axes
    assert not torch.equal(first.U, FixedETFHead(D + 2, C, generator=torch.Generator().manual_seed(1)).U)
    assert torch.equal(paper_fixed(D + 2, C).U, torch.eye(D + 2, C))


@pytest.mark.parametrize("make", FIXED)
def test_both_fixed_heads_have_the_rows_of_the_simplex(make):
    head = make(D + 2, C)
    torch.testing.assert_close(head.weight @ head.weight.T, (C * torch.eye(C) - 1) / (C - 1), rtol=0, atol=1e-6)


def test_a_state_of_running_statistics_does_not_depend_on_the_temperature(rng):
    x, y = torch.tensor(rng.standard_normal((40, D + 2))), indices(np.arange(40) % C)
    for kind in (NearestETFHead, FixedETFHead):
        heads = [kind(D + 2, C, temperature=tau).double() for tau in (3.0, 8.0)]
        for head in heads:
            head(x, y)
        other = kind(D + 2, C, temperature=8.0).double()
        other.load_state_dict(heads[0].state_dict())
        torch.testing.assert_close(other.eval()(x), heads[1].eval()(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", NEAREST)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_batch_that_is_classified_first_is_classified_without_its_labels(kind, n, rng):
    head = kind(D + 2, C, classify_first=True).double()
    head(torch.tensor(rng.standard_normal((40, D + 2))), indices(np.arange(40) % C))
    x = torch.tensor(rng.standard_normal((n, D + 2)))
    logits = [copy.deepcopy(head)(x, indices(rng.integers(0, C, n))) for _ in range(3)]
    for other in logits[1:]:  # sums by class add up in another order
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-12)


def test_a_block_that_counts_nothing_leaves_a_backward_pass_as_it_was(rng):
    head = NearestETFHead(D + 2, C).double()
    x = torch.tensor(rng.standard_normal((9, D + 2)), requires_grad=True)
    with head.uncounted():
        loss = head(x, indices(np.arange(9) % C)).square().sum()
    loss.backward()
    assert x.grad.abs().max() > 0
