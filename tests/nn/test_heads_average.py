"""Averages of models (EMA, SWA): the classifier of the average is an ETF, and what cannot be made one is refused."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from etfopt import InputError, simplex_etf
from tests.tools.blind import blind, waits

torch = pytest.importorskip("torch")
from torch import nn
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
)

from etfopt.nn import NearestETFHead
from etfopt.nn.functional import polar_factor
from etfopt.nn.heads._rotation import is_rotation
from tests.tools.head_cases import HEADS, LABELS, NEAREST, STATEFUL, C, D, batch, same, snapshot

AVERAGES: dict[str, dict] = {
    "plain": {},
    "EMA": {"multi_avg_fn": get_ema_multi_avg_fn(0.99)},
    "SWA": {"multi_avg_fn": get_swa_multi_avg_fn()},
    "EMA, one by one": {"avg_fn": get_ema_avg_fn(0.9)},
    "SWA, one by one": {"avg_fn": get_swa_avg_fn()},
}
ETF = (C * torch.eye(C) - 1) / (C - 1)


class Network(nn.Sequential):
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self[1](self[0](x), y)


def averaged(rng: np.random.Generator, make: Callable[..., nn.Module] = NearestETFHead, steps: int = 30, **options):
    """Return a network whose head has moved, and its average over the steps."""
    network = Network(nn.Linear(D, D), make(D, C))
    average = AveragedModel(network, use_buffers=True, **(options or AVERAGES["EMA"]))
    for step in range(steps):
        features = batch(rng)
        features[LABELS == 0, step % D] += 3
        network(features, LABELS)
        average.update_parameters(network)
    return network, average


def polar(U: torch.Tensor) -> torch.Tensor:
    P, _, Qh = torch.linalg.svd(U.double(), full_matrices=False)
    return P @ Qh


def etf_rows(U: torch.Tensor) -> np.ndarray:
    """The rows of unit norm of the rotation nearest to U, in the simplex of so many rows."""
    frame = simplex_etf(C, reduced=U.shape[1] == C - 1)
    return np.sqrt(C) / np.linalg.norm(frame) * (polar(U).numpy() @ frame).T


@pytest.mark.parametrize("make", NEAREST)
@pytest.mark.parametrize("kind", AVERAGES)
def test_the_classifier_of_an_averaged_model_is_the_etf_of_the_nearest_rotation(kind, make, rng):
    _, average = averaged(rng, make, **AVERAGES[kind])
    head = average.module[1].eval()
    assert not is_rotation(head.U)  # the average itself is none
    torch.testing.assert_close(head.weight @ head.weight.T, ETF, rtol=0, atol=1e-6)
    W = etf_rows(head.U)
    np.testing.assert_allclose(head.weight, W, rtol=0, atol=1e-6)
    np.testing.assert_allclose(head.bias, -W @ (head.unit * head.means.center()).numpy(), rtol=0, atol=1e-5)
    x = batch(rng)
    logits = nn.functional.linear(head.normalize(average.module[0](x)), head.weight, head.bias)
    torch.testing.assert_close(average(x), logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.linear()(head.normalize(average.module[0](x))), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("make", HEADS)
def test_every_average_of_every_head_can_be_taken_and_used(make, kind, rng):
    network, average = averaged(rng, make, **AVERAGES[kind])
    assert average.eval()(batch(rng)).isfinite().all()
    assert not any(value.dtype in (torch.bool, torch.int64) for value in network.buffers())
    torch.testing.assert_close(average.module[1].weight.norm(dim=1), torch.ones(C), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", NEAREST)
def test_the_counters_of_an_average_are_averaged_and_not_cut(make, rng):
    _, average = averaged(rng, make, steps=10, **AVERAGES["SWA"])
    means = average.module[1].means
    assert float(means.steps) == pytest.approx(5.5)  # of 1, ..., 10
    assert means.count() == 6
    early = AveragedModel(Network(nn.Linear(D, D), make(D, C)), use_buffers=True, **AVERAGES["EMA"])
    fresh = Network(nn.Linear(D, D), make(D, C))
    early.update_parameters(fresh)  # of a model that has seen nothing
    fresh(batch(rng), LABELS)
    early.update_parameters(fresh)
    assert early.module[1].means.count() == 1
    assert early.module[1].solution().converged


def test_reading_an_average_does_not_change_it_and_the_next_average_is_followed(rng):
    network, average = averaged(rng)
    before = snapshot(average)
    first = average.eval()(batch(rng))
    assert same(average.state_dict(), before)
    for _ in range(50):
        network(batch(rng), LABELS)
        average.update_parameters(network)
    head = average.module[1]
    assert (average(batch(rng)) - first).abs().max() > 1e-3
    np.testing.assert_allclose(head.weight, etf_rows(head.U), rtol=0, atol=1e-6)


def test_a_rotation_that_nobody_averaged_is_used_to_the_bit(rng):
    head = NearestETFHead(D, C)
    for _ in range(5):
        head(batch(rng), LABELS)
        assert head.rotation() is head.U
    loaded = NearestETFHead(D, C)
    loaded.load_state_dict(head.state_dict())
    for twin in (loaded, copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert twin.eval().rotation() is twin.U


@pytest.mark.parametrize("through", ["data", "detach"])
def test_a_write_that_leaves_no_trace_is_seen_too(through, rng):
    """As the callback of Lightning writes before a validation, after eval()."""
    network, average = averaged(rng)
    network.eval()
    own, other = network[1], average.module[1]
    own(batch(rng))
    for mine, theirs in zip(own.buffers(), other.buffers(), strict=True):
        (mine.data if through == "data" else mine.detach()).copy_(theirs.data)
    torch.testing.assert_close(own.weight, other.weight, rtol=0, atol=0)
    torch.testing.assert_close(own.weight @ own.weight.T, ETF, rtol=0, atol=1e-6)


def test_a_copy_of_a_trained_head_knows_nothing_of_the_buffer_that_was_looked_at(rng):
    head = NearestETFHead(D, C)
    for _ in range(3):
        head(batch(rng), LABELS)
    with blind():
        head.eval()(batch(rng))
        twin = copy.deepcopy(head)
        while twin.U._version < head.U._version:
            twin.U.mul_(0.9)
        torch.testing.assert_close(twin.weight @ twin.weight.T, ETF, rtol=0, atol=1e-6)


def test_training_goes_on_from_an_average(rng):
    _, average = averaged(rng)
    head = NearestETFHead(D, C, freeze_after=1)
    head.load_state_dict(average.module[1].state_dict())
    logits = head(batch(rng), LABELS)  # frozen: the classifier is that of the average
    assert logits.isfinite().all()
    torch.testing.assert_close(head.weight, average.module[1].weight, rtol=0, atol=1e-6)
    average.train()(batch(rng), LABELS)
    assert average.module[1].rotation() is average.module[1].U


GARBAGE = {
    "zeros": lambda U: U.zero_(),
    "NaN": lambda U: U.fill_(torch.nan),
    "large": lambda U: U.mul_(1e30),
    "rank deficient": lambda U: U[:, 0].zero_(),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("make", STATEFUL)
def test_a_u_that_is_no_average_of_rotations_is_refused_and_gives_no_logits(make, kind, rng):
    head = make(D, C)
    head(batch(rng), LABELS)
    GARBAGE[kind](head.U)
    head.eval()
    for use in (lambda: head(batch(rng)), lambda: head.weight, lambda: head.bias, head.linear):
        with pytest.raises(InputError, match=r"U is not near any rotation.*reset_parameters\(\)"):
            use()


def test_on_a_device_a_look_comes_after_eval_and_after_a_write_and_none_in_between(rng):
    network, average = averaged(rng)
    expected, x = average.module[1].weight, batch(rng)
    head = average.module[1]
    with blind():
        head.train().eval()
        with waits() as first:
            torch.testing.assert_close(head.weight, expected, rtol=0, atol=1e-6)
        with waits() as later:
            head(x)
            head(x)
        average.update_parameters(network)
        with waits() as written:
            assert not torch.equal(head.weight, expected)
        with waits() as then:
            head(x)
    assert first
    assert written
    assert later == then == []


def test_on_a_device_a_write_without_a_trace_after_the_look_gives_nan(rng):
    network, average = averaged(rng)
    own = network[1]
    with blind():
        network.eval()(batch(rng))
        own.U.data.copy_(average.module[1].U)
        assert own(batch(rng)).isnan().all()
        network.eval()  # the remedy
        torch.testing.assert_close(own.weight @ own.weight.T, ETF, rtol=0, atol=1e-6)


def test_on_a_device_a_write_without_a_trace_between_eval_and_the_first_use_is_seen(rng):
    """As the callback of Lightning writes at the start of every validation."""
    network, average = averaged(rng)
    own = network[1]
    with blind():
        for _ in range(2):
            network.eval()
            kept = own.U.clone()
            own.U.data.copy_(average.module[1].U)
            torch.testing.assert_close(own.weight @ own.weight.T, ETF, rtol=0, atol=1e-6)
            own.U.data.copy_(kept)
            network.eval()(batch(rng))


def test_on_a_device_a_step_does_not_wait_for_buffers_that_every_step_writes_to(rng):
    """As DistributedDataParallel does, which broadcasts the buffers."""
    head = NearestETFHead(D, C, method="newton-schulz", delta=0.3)
    with blind():
        for _ in range(3):
            for value in head.buffers():
                value.copy_(value.clone())
            with waits() as noted:
                head(batch(rng), LABELS)
    assert noted == []


GRAPHS: dict[str, Callable] = {
    "trace": lambda module, x: torch.jit.trace(module, (x.flip(0),)),
    "export": lambda module, x: torch.export.export(module, (x.flip(0).contiguous(),)).module(),
    "compile": lambda module, _: torch.compile(module, backend="eager", fullgraph=True),
}


@pytest.mark.filterwarnings("ignore")  # compilers warn of what they meet on the way
@pytest.mark.parametrize("how", GRAPHS)
@pytest.mark.parametrize("make", STATEFUL)
def test_a_graph_of_an_average_is_right_after_eval(make, how, rng):
    torch.compiler.reset()
    network, average = averaged(rng, make)
    x, module = batch(rng), average.module.eval()
    expected = module(x)
    for evaluated in (module, network.eval()):
        torch.testing.assert_close(GRAPHS[how](evaluated, x)(x), evaluated(x), rtol=0, atol=1e-5)
    found = GRAPHS[how](copy.deepcopy(module), x)(x)  # a copy that nobody looked at: right, or refused
    assert found.isnan().all() or torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_head_that_is_overwritten_by_an_average_gives_nan_until_eval(rng):
    torch.compiler.reset()
    network, average = averaged(rng)
    x, compiled = batch(rng), torch.compile(network.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=1e-5)
    for mine, theirs in zip(network.buffers(), average.module.buffers(), strict=True):
        mine.data.copy_(theirs.data)
    assert compiled(x).isnan().all()
    network.eval()
    torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("d", [4, 16, 200])
@pytest.mark.parametrize("r", [3, 4, 100, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_solvers_find_counts_as_a_rotation_with_room(dtype, r, d, rng):
    d = max(d, r)
    for kappa in (1.0, 1e2, 1e6):
        P, _, Qh = np.linalg.svd(rng.standard_normal((d, r)), full_matrices=False)
        A = torch.tensor((P * np.geomspace(1, 1 / kappa, r)) @ Qh, dtype=dtype)
        U = polar_factor(A)
        off = (U.square().sum(dim=0) - 1).abs().sum()
        assert off <= 5 * r * torch.finfo(dtype).eps
        assert is_rotation(U)
        assert is_rotation(U.double().float())
        assert not is_rotation(U * (1 - 30 * torch.finfo(dtype).eps))


def moved(average: nn.Module) -> nn.Module:
    return average.to(torch.float32)


def loaded(average: nn.Module) -> nn.Module:
    fresh = AveragedModel(Network(nn.Linear(D, D), NearestETFHead(D, C)), use_buffers=True).eval()
    fresh.load_state_dict(average.state_dict())
    return fresh


@pytest.mark.parametrize("way", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a.module)), moved, loaded])
def test_a_graph_of_an_average_in_evaluation_is_right_after_a_copy_a_move_and_a_load(way, rng):
    _, average = averaged(rng)
    x = batch(rng, 5)
    expected = average.eval()(x)
    compiled = torch.compile(way(average), backend="eager")
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=1e-5)
    torch.compiler.reset()
