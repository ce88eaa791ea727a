"""The state of a head: its precision, checkpoints, pickles and averages."""

import pickle
from collections.abc import Iterator

import pytest

from etfopt import InputError, simplex_etf

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 - after the skip
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402 - after the skip

from etfopt.nn import (  # noqa: E402 - after the skip
    LearnedHead,
    NearestETFHead,
)
from head_cases import HEADS, LABELS, STATEFUL, C, D, batch, same, snapshot  # noqa: E402 - after the skip


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


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
