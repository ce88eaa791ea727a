"""The state of a metric is float64 with the right values, however it is built, moved, loaded, merged or shared."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import etfopt.metrics._measures as measures_module
from etfopt.errors import InputError
from etfopt.metrics import CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.head_cases import default_dtype
from tests.tools.metric_cases import (
    BUILDERS,
    SIZES,
    batches,
    builders,
    by_position,
    draw,
    expected_results,
    nan_keys,
    results,
    same,
    states,
)

Build = Callable[..., torchmetrics.Metric]


def tensors(metric: torchmetrics.Metric) -> list[Tensor]:
    return [x for x in tree_leaves(metric.metric_state) if isinstance(x, Tensor)]


@builders
def test_a_default_dtype_of_bfloat16_changes_nothing(build: Build) -> None:
    data = draw(5, 8, 100)
    with default_dtype(torch.bfloat16):
        metric, twin = build(5, 8), build(5, 8)
        for batch in batches(data, [30, 70]):
            metric.update(*batch)
        found = results(metric)
    assert {x.dtype for x in tensors(metric)} <= {torch.float64, torch.int64}
    twin.update(*data)
    assert found == pytest.approx(results(twin), rel=1e-9, abs=1e-12)


CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to bfloat16": lambda module: module.to(torch.bfloat16),
    "to device and dtype": lambda module: module.to("cpu", torch.float16),
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "float": lambda module: module.float(),
    "type": lambda module: module.type(torch.float32),
    "to meta and back": lambda module: module.to("meta").to_empty(device="cpu"),
    "to_empty": lambda module: module.to_empty(device="cpu"),
}


@builders
@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS.keys())
def test_casts_and_moves_of_the_model_leave_values_and_dtypes(build: Build, cast: Callable[..., nn.Module]) -> None:
    metric = build(5, 8)
    model = nn.ModuleDict({"metric": metric, "layer": nn.Linear(8, 5)})
    first, second = batches(draw(5, 8, 100), [40, 60])
    cast(model)
    metric.update(*first)
    cast(model)
    metric.update(*second)
    cast(model)
    assert {x.dtype for x in tensors(metric)} <= {torch.float64, torch.int64}
    assert results(metric) == expected_results(build)
    metric.reset()
    metric.update(*first)
    metric.update(*second)
    assert results(metric) == expected_results(build)


@pytest.mark.parametrize("kind", [NeuralCollapse, CosineMargin, NearestMeanMismatch, NumericalRank])
def test_a_metric_built_on_the_meta_device_has_its_values(kind: Build) -> None:
    with torch.device("meta"):
        metric = kind(**SIZES)
    metric.to_empty(device="cpu")
    assert metric.device == torch.device("cpu")
    metric.update(*draw(5, 8, 100))
    assert results(metric) == expected_results(by_position(kind))
    assert not nan_keys(results(metric))


@builders
def test_tensors_on_the_meta_device_are_refused(build: Build) -> None:
    data = dict(zip(("features", "labels", "weight", "bias"), draw(5, 8, 20), strict=True))
    metric = build(5, 8)
    for name, tensor in data.items():
        with pytest.raises(InputError, match=f"{name} is on the meta device"):
            metric.update(**(data | {name: tensor.to("meta")}))
    with pytest.raises(InputError, match="global_mean is on the meta device"):
        CosineMargin(**SIZES, global_mean=torch.zeros(8, device="meta"))
    with pytest.raises(InputError, match=r"class_means .*is on the meta device"):
        NearestMeanMismatch(**SIZES, class_means=torch.zeros(5, 8, device="meta"))


@builders
def test_set_dtype_is_refused_but_for_float64(build: Build) -> None:
    metric = build(5, 8)
    metric.update(*draw(5, 8, 100))
    before = states(metric)
    for dtype in (torch.float32, torch.bfloat16, "torch.FloatTensor"):
        with pytest.raises(InputError, match=r"dst_type is .* keeps its state in float64"):
            metric.set_dtype(dtype)
    assert metric.set_dtype(torch.float64) is metric
    assert all(same(x, before[key]) for key, x in metric.metric_state.items())


# --- loading and merging -------------------------------------------------------------------------------------------


@builders
def test_a_state_dict_holds_the_state_and_replaces_a_value_computed_before(build: Build) -> None:
    metric, other = build(5, 8), build(5, 8)
    for m in (metric, other):
        m.persistent(mode=True)
    metric.update(*draw(5, 8, 100))
    other.update(*draw(5, 8, 100, seed=1))
    assert results(other) != expected_results(build)
    other.load_state_dict(metric.state_dict())
    assert results(other) == expected_results(build)
    fresh = build(5, 8)
    fresh.load_state_dict(metric.state_dict())
    assert results(fresh) == expected_results(build)  # and no warning that nothing has been seen


@builders
def test_a_state_of_another_dtype_or_shape_is_not_loaded(build: Build) -> None:
    metric = build(5, 8)
    metric.persistent(mode=True)
    metric.update(*draw(5, 8, 100))
    whole, before = metric.state_dict(), states(metric)
    rounded = {key: [t.bfloat16() for t in x] if isinstance(x, list) else x.bfloat16() for key, x in whole.items()}
    with pytest.raises(RuntimeError, match=r"has dtype torch.bfloat16"):
        metric.load_state_dict(rounded)
    if not any(isinstance(x, list) for x in whole.values()):
        with pytest.raises(RuntimeError, match="has shape"):
            metric.load_state_dict({key: x[None] for key, x in whole.items()})
    assert all(same(x, before[key]) for key, x in metric.metric_state.items())


@builders
def test_merging_replaces_a_value_computed_before(build: Build) -> None:
    first, second = build(5, 8), build(5, 8)
    for metric, batch in zip((first, second), batches(draw(5, 8, 100), [40, 60]), strict=True):
        metric.update(*batch)
        metric.compute()
    first.merge_state(second)
    assert results(first) == expected_results(build)
    idle = build(5, 8)
    idle.merge_state(first.metric_state)
    assert results(idle) == expected_results(build)


def test_metrics_that_were_built_with_other_arguments_are_not_merged() -> None:
    data = draw(5, 8, 20)
    mean, means = torch.zeros(8), torch.eye(5, 8)
    pairs = [
        (NeuralCollapse(**SIZES), NeuralCollapse(num_classes=6, dim=8)),
        (NumericalRank(**SIZES), NumericalRank(num_classes=7, dim=8)),
        (CosineMargin(**SIZES), CosineMargin(**SIZES, global_mean=mean)),
        (CosineMargin(**SIZES, global_mean=mean), CosineMargin(**SIZES, global_mean=mean + 1)),
        (NearestMeanMismatch(**SIZES, class_means=means), NearestMeanMismatch(**SIZES, class_means=means.flip(0))),
    ]
    for metric, other in pairs:
        metric.update(*data)
        before = states(metric)
        with pytest.raises(InputError, match=r"incoming_state does not fit|differs between the metrics"):
            metric.merge_state(other)
        assert all(same(x, before[key]) for key, x in metric.metric_state.items())


def test_given_means_may_differ_by_the_rounding_of_another_processor() -> None:
    mean = torch.linspace(1, 2, 8, dtype=torch.float64)
    metric, other = (CosineMargin(**SIZES, global_mean=mean), CosineMargin(**SIZES, global_mean=mean * (1 + 1e-15)))
    for m in (metric, other):
        m.update(*draw(5, 8, 20))
    metric.merge_state(other)
    assert float(metric.count) == 40


def test_a_collection_does_not_unite_metrics_of_means_that_are_close() -> None:
    """It shares the states of metrics whose states are close after the first batch, by 1e-5 of their size."""
    labels, weight = torch.tensor([0, 1]), torch.tensor([[0.0], [0.0]])
    near, other = (1e6 + torch.tensor([[0.0], [x]], dtype=torch.float64) for x in (1.0, 8.0))
    metrics = torchmetrics.MetricCollection(
        {
            "near": NearestMeanMismatch(num_classes=2, dim=1, class_means=near),
            "other": NearestMeanMismatch(num_classes=2, dim=1, class_means=other),
        }
    )
    for x in ([0.0, 0.1], [2.0, 3.0]):  # the first batch is nearest to class 0 by both
        metrics.update(1e6 + torch.tensor(x, dtype=torch.float64)[:, None], labels, weight)
    assert {key: float(x) for key, x in metrics.compute().items()} == {"near": 0.5, "other": 0.0}


def test_a_row_state_kept_on_the_cpu_takes_the_rows_of_every_batch() -> None:
    metric = NumericalRank(**SIZES, compute_on_cpu=True)
    for batch in batches(draw(5, 8, 100), [10] * 10):
        metric.update(*batch)
    assert results(metric) == expected_results(BUILDERS["rank"])


# --- size ----------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Note the number of entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        found = [x.untyped_storage().nbytes() // 8 for x in tree_leaves(made) if isinstance(x, Tensor)]
        self.entries = max(self.entries, *found, 0)
        return made


def test_nothing_is_as_large_as_the_classes_squared(monkeypatch: pytest.MonkeyPatch) -> None:
    C, d, n = 20_000, 6, 400
    monkeypatch.delattr(measures_module, "simplex_etf")  # of shape (C - 1, C)
    features, labels, weight, bias = draw(C, d, C + n)
    with Largest() as largest:
        metric = NeuralCollapse(num_classes=C, dim=d)
        metric.update(features[-n:], labels[-n:], weight, bias)
        metric(features[:n], labels[:n], weight, bias)
        found = results(metric)
    assert largest.entries <= max(2**22, 3 * C * (2 * d + 1))
    assert nan_keys(found) == {"etf_distance_means", "etf_distance_weights", "etf_distance_between"}


@pytest.mark.parametrize(("C", "d"), [(60, 3), (60, 29), (60, 30), (60, 58), (7, 40)])
def test_nc2_nc2_means_and_nc3_are_those_of_the_gram_matrices(C: int, d: int) -> None:
    features, labels, weight, bias = draw(C, d, 4 * C, dtype=torch.float64)
    metric = NeuralCollapse(num_classes=C, dim=d)
    metric.update(features, labels, weight, bias)
    found, H, M = results(metric), metric.class_means(), torch.eye(C, dtype=torch.float64) - 1 / C
    for key, gram in {"nc2": weight @ weight.T, "nc2_means": H.T @ H, "nc3": weight @ H}.items():
        assert found[key] == pytest.approx(float((gram / gram.norm() - M / M.norm()).norm()), rel=1e-13)
