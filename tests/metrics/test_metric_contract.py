"""What a metric promises: batches, ranks, copies and casts do not matter."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor

from etfopt.metrics import MEASURES, CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import (
    SIZES,
    as_floats,
    batches,
    builders,
    collapse_reference,
    draw,
    expected_results,
    margin_reference,
    mismatch_reference,
    nan_keys,
    rank_reference,
    results,
    same,
    states,
)


@builders
def test_keys_dtype_and_shape_are_fixed(build: Callable[..., torchmetrics.Metric]) -> None:
    metric = build(5, 8)
    metric.update(*draw(5, 8, 100))
    value = metric.compute()
    if isinstance(value, dict):
        assert tuple(value) == metric.measures
    for v in value.values() if isinstance(value, dict) else [value]:
        assert v.dtype == torch.float64
        assert v.shape == ()


@builders
def test_before_the_first_sample_everything_is_nan(build: Callable[..., torchmetrics.Metric]) -> None:
    metric = build(5, 8)
    with pytest.warns(UserWarning, match="before the ``update``"):
        value = results(metric)
    assert nan_keys(value) == set(value)
    assert set(value) in ({""}, set(getattr(metric, "measures", ())))


@builders
def test_an_empty_batch_changes_nothing(build: Callable[..., torchmetrics.Metric]) -> None:
    features, labels, weight, _ = data = draw(5, 8, 100)
    metric = build(5, 8)
    before = states(metric)
    metric.update(features[:0], labels[:0], weight)
    assert all(same(value, before[key]) for key, value in metric.metric_state.items())
    assert nan_keys(results(metric)) == set(results(metric))
    metric.update(*data)
    before = states(metric)
    metric.update(features[:0], labels[:0], 2 * weight)
    assert all(same(value, before[key]) for key, value in metric.metric_state.items())
    assert results(metric) == expected_results(build, data)


@builders
def test_forward_accumulates_like_update_and_returns_the_batch_value(build: Callable[..., torchmetrics.Metric]) -> None:
    data = draw(5, 8, 100)
    metric = build(5, 8)
    for batch in batches(data, [40, 60]):
        features = batch[0].clone().requires_grad_()  # as in a training step
        value = as_floats(metric(features, batch[1], batch[2].clone().requires_grad_(), batch[3]))
        assert value == expected_results(build, batch)
    assert results(metric) == expected_results(build, data)


def test_forward_keeps_the_last_of_several_weights() -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    metric = NeuralCollapse(**SIZES)
    for factor in (2.0, -1.0, 1.0):
        metric(features, labels, factor * weight, factor * bias)
    assert torch.equal(metric.weight, weight.double())
    assert torch.equal(metric.bias, bias.double())


@builders
def test_states_are_copies(build: Callable[..., torchmetrics.Metric]) -> None:
    data = draw(5, 8, 100, dtype=torch.float64)
    metric, live = build(5, 8), tuple(tensor.clone() for tensor in data)
    metric.update(*live)
    for tensor in live:
        tensor.zero_()  # what an optimiser or a data loader may do
    assert results(metric) == expected_results(build, data)
    mean = torch.ones(8, dtype=torch.float64)
    streamed = CosineMargin(**SIZES, global_mean=mean)
    mean.zero_()
    assert streamed.global_mean.tolist() == [1.0] * 8


@builders
def test_merged_metrics_equal_one(build: Callable[..., torchmetrics.Metric]) -> None:
    data = draw(5, 8, 100)
    first, idle, second = metrics = build(5, 8), build(5, 8), build(5, 8)
    for metric, batch in zip(metrics, batches(data, [30, 0, 70]), strict=True):
        metric.update(*batch)
    idle.merge_state(build(5, 8))
    first.merge_state(idle)
    first.merge_state(second)
    idle.merge_state(first)
    for metric in (first, idle):
        assert results(metric) == expected_results(build, data)


def gather_with(peer: torchmetrics.Metric, peer_is_first: bool) -> Callable[..., list[Tensor]]:
    """Stand in for the collective call of two ranks: tensors of the same dtype and number of dimensions meet."""
    others = [torch.cat(s) if isinstance(s, list) else s for s in peer.metric_state.values()]
    queue: list[Tensor] = []

    def gather(mine: Tensor, group: object) -> list[Tensor]:
        assert group is None
        if not queue:
            queue.extend(others)
        theirs = queue.pop(0)
        assert mine.dtype == theirs.dtype
        assert mine.ndim == theirs.ndim
        return [theirs, mine] if peer_is_first else [mine, theirs]

    return gather


@builders
@pytest.mark.parametrize("sizes", [(50, 50), (100, 0)])
@pytest.mark.parametrize("this_rank", [0, 1])
def test_two_ranks_equal_one(build: Callable[..., torchmetrics.Metric], sizes: tuple[int, int], this_rank: int) -> None:
    data = draw(5, 8, 100)
    ranks = [build(5, 8, distributed_available_fn=lambda: True) for _ in sizes]
    for metric, batch in zip(ranks, batches(data, list(sizes)), strict=True):
        metric.update(*batch)
    metric, peer = ranks[this_rank], ranks[1 - this_rank]
    for name, rows in peer.metric_state.items():
        if isinstance(rows, list) and not rows:
            rows.append(peer.rows(name))
    metric.dist_sync_fn = gather_with(peer, peer_is_first=this_rank == 1)
    assert results(metric) == expected_results(build, data)
    if isinstance(metric, CosineMargin) and not metric.streaming:
        np.testing.assert_allclose(metric.sorted().numpy(), margin_reference(*data[:3]), rtol=0, atol=1e-12)
        assert len(torch.cat(metric.labels)) == sizes[this_rank]  # what was gathered is given back


@builders
def test_reset_pickle_clone_and_casts_of_the_model(build: Callable[..., torchmetrics.Metric]) -> None:
    data = draw(5, 8, 100)
    metric = build(5, 8)
    metric.update(*draw(5, 8, 50, seed=1))
    metric.reset()
    model = torch.nn.ModuleDict({"metric": metric, "layer": torch.nn.Linear(8, 5)})
    model.half()
    metric.update(*data)
    model.bfloat16()
    expected = expected_results(build, data)
    assert results(metric) == expected
    assert results(metric.clone()) == expected
    assert results(pickle.loads(pickle.dumps(metric))) == expected


@builders
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(build: Callable[..., torchmetrics.Metric], dtype: torch.dtype) -> None:
    data = draw(5, 8, 100, dtype=dtype)
    exact = tuple(x.double() if x.is_floating_point() else x.to(torch.uint8) for x in data)
    metric = build(5, 8)
    metric.update(*data)
    assert results(metric) == expected_results(build, exact)


def test_all_metrics_live_in_one_collection() -> None:
    data = draw(5, 8, 100)
    metrics = torchmetrics.MetricCollection(
        [NeuralCollapse(**SIZES), CosineMargin(**SIZES), NearestMeanMismatch(**SIZES), NumericalRank(**SIZES)]
    )
    for batch in batches(data, [64, 36]):
        metrics.update(*batch)
    values = metrics.compute()
    assert set(values) == {*MEASURES, "CosineMargin", "NearestMeanMismatch", "NumericalRank"}
    assert float(values["nc1"]) == pytest.approx(collapse_reference(*data)["nc1"])
    assert float(values["CosineMargin"]) == pytest.approx(margin_reference(*data[:3]).mean())
    assert float(values["NearestMeanMismatch"]) == mismatch_reference(*data)
    assert float(values["NumericalRank"]) == pytest.approx(rank_reference(*data[:2]))


def test_a_missing_bias_is_zero() -> None:
    features, labels, weight, _ = draw(5, 8, 100)
    metric = NeuralCollapse(**SIZES)
    metric.update(features, labels, weight)
    expected = collapse_reference(features, labels, weight, None)
    assert {key: float(v) for key, v in metric.compute().items()} == pytest.approx(expected, rel=1e-9)
