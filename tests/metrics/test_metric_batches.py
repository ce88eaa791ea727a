"""Which samples count, in whatever shape and parts they come: ignored labels, tokens, hidden layers, splits."""

import math
from collections.abc import Callable

import pytest
import torch
import torchmetrics
from torch import Tensor

from etfopt.errors import InputError
from etfopt.metrics import FEATURE_MEASURES, MEASURES, CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import (
    SIZES,
    Data,
    as_floats,
    batches,
    builders,
    collapse_reference,
    draw,
    expected_results,
    nan_keys,
    rank_reference,
    results,
    same,
    simplex,
    states,
    with_ignored,
)

Build = Callable[..., torchmetrics.Metric]


# --- ignored samples -----------------------------------------------------------------------------------------------


@builders
@pytest.mark.parametrize(
    ("label", "value", "options"),
    [(-100, 3.0, {}), (-100, math.nan, {}), (-1, math.inf, {"ignore_index": -1}), (255, 1e200, {"ignore_index": 255})],
)
def test_ignored_samples_count_nowhere(build: Build, label: int, value: float, options: dict[str, int]) -> None:
    data = draw(5, 8, 100, dtype=torch.float64)
    metric = build(5, 8, **options)
    for batch in batches(with_ignored(data, label, value), [40, 85]):
        metric.update(*batch)
    assert results(metric) == expected_results(build, data)


@builders
def test_a_batch_of_ignored_samples_alone_changes_nothing(build: Build) -> None:
    features, labels, weight, bias = data = draw(5, 8, 20)
    metric = build(5, 8)
    metric.update(*data)
    before = states(metric)
    metric.update(features, torch.full_like(labels, -100), 2 * weight, 2 * bias)
    assert all(same(value, before[key]) for key, value in metric.metric_state.items())
    assert nan_keys(as_floats(metric(features, torch.full_like(labels, -100), 2 * weight))) == set(results(metric))
    assert results(metric) == expected_results(build, data)


@builders
@pytest.mark.parametrize("label", [0, 4, True, -1.0, None, "-100", 2**63])
def test_an_ignored_label_is_checked_as_the_heads_check_it(build: Build, label: object) -> None:
    with pytest.raises(InputError, match=r"ignore_index must be an integer outside \[0, 5\)"):
        build(5, 8, ignore_index=label)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint64])
def test_the_ignored_label_255_of_every_dtype(dtype: torch.dtype) -> None:
    features, labels, weight, bias = with_ignored(draw(5, 8, 40), 255, 9.0)
    metric, expected = NeuralCollapse(**SIZES, ignore_index=255), draw(5, 8, 40)
    metric.update(features, labels.to(dtype), weight, bias)
    assert results(metric) == pytest.approx(collapse_reference(*expected), rel=1e-9)


def test_the_position_of_a_bad_value_is_that_of_the_given_features() -> None:
    features, labels = torch.zeros(2, 3, 8), torch.tensor([[-100, 0, 1], [-100, 2, 3]])
    features[0, 0], features[1, 2, 5] = math.nan, math.nan
    with pytest.raises(InputError, match=r"features holds 1 value.*the first at \(1, 2, 5\): nan"):
        NumericalRank(**SIZES).update(features, labels)
    with pytest.raises(InputError, match=r"labels holds 7 at position \(1, 2\); it must lie in \[0, 5\).*by -100"):
        NumericalRank(**SIZES).update(torch.zeros(2, 3, 8), torch.tensor([[-100, 0, 1], [-100, 2, 7]]))


# --- tokens --------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens": lambda x: x.reshape(4, 25, *x.shape[1:]),
    "pixels": lambda x: x.reshape(2, 5, 10, *x.shape[1:]),
    "maps": lambda x: x.reshape(10, 10, *x.shape[1:]).transpose(0, 1).contiguous().transpose(0, 1),
    "one sequence": lambda x: x[None],
}


@builders
@pytest.mark.parametrize("fold", SHAPES.values(), ids=SHAPES.keys())
def test_tokens_count_as_the_samples_they_are(build: Build, fold: Callable[[Tensor], Tensor]) -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    metric = build(5, 8)
    metric.update(fold(features), fold(labels), weight, bias)
    assert results(metric) == expected_results(build)


@builders
def test_padded_tokens_do_not_count(build: Build) -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    wide, marked = torch.full((10, 12, 8), math.nan), torch.full((10, 12), -100)
    wide[:, :10], marked[:, :10] = features.view(10, 10, 8), labels.view(10, 10)
    metric = build(5, 8)
    metric.update(wide, marked, weight, bias)
    assert results(metric) == expected_results(build)


@builders
def test_one_sample_without_an_axis_for_samples(build: Build) -> None:
    features, labels, weight, bias = draw(5, 8, 20)
    metric = build(5, 8)
    for f, y in zip(features, labels, strict=True):
        metric.update(f, y, weight, bias)
    assert results(metric) == expected_results(build, (features, labels, weight, bias))


@pytest.mark.parametrize(("cast", "remedy"), [(Tensor.long, "labels.argmax"), (Tensor.bool, "labels.long().argmax")])
def test_one_hot_tokens_are_refused_with_the_remedy(cast: Callable[[Tensor], Tensor], remedy: str) -> None:
    features, labels, _, _ = draw(5, 8, 20)
    one_hot = torch.eye(5)[labels.view(4, 5)]
    with pytest.raises(InputError) as caught:
        NumericalRank(**SIZES).update(features.view(4, 5, 8), cast(one_hot))
    assert f"They look one-hot: pass {remedy}(dim=2)" in str(caught.value)
    with pytest.raises(InputError, match=r"soft labels: pass labels\.argmax\(dim=2\)"):
        NumericalRank(**SIZES).update(features.view(4, 5, 8), 0.9 * one_hot + 0.02)


# --- hidden layers -------------------------------------------------------------------------------------------------


def test_features_alone_have_the_measures_that_need_no_classifier() -> None:
    data = draw(5, 8, 100)
    metric, whole, rank = NeuralCollapse(**SIZES), NeuralCollapse(**SIZES), NumericalRank(**SIZES)
    for features, labels, _, _ in batches(data, [30, 70]):
        metric.update(features, labels)
        rank.update(features, labels)
    whole.update(*data)
    found, expected = results(metric), results(whole)
    assert nan_keys(found) == set(MEASURES) - set(FEATURE_MEASURES)
    reference = collapse_reference(*data)
    for key in FEATURE_MEASURES:
        assert found[key] == pytest.approx(expected[key], rel=1e-12), key
        assert found[key] == pytest.approx(reference[key], rel=1e-9), key
    assert float(rank.compute()) == pytest.approx(rank_reference(*data[:2]))
    assert as_floats(metric(*data[:2])).keys() == found.keys()


def test_collapsed_features_alone_are_at_zero() -> None:
    labels = torch.arange(4).repeat(5)
    metric = NeuralCollapse(num_classes=4, dim=6)
    metric.update(3 * simplex(4, 6)[labels] + 7, labels)
    found = results(metric)
    assert max(found[key] for key in FEATURE_MEASURES) < 1e-12


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("split", ["batches", "merged"])
def test_a_batch_without_classifier_leaves_the_accuracy_unknown_and_no_more(first: bool, split: str) -> None:
    data = draw(5, 8, 100)
    metric, other = NeuralCollapse(**SIZES), NeuralCollapse(**SIZES)
    parts = metric, other if split == "merged" else metric
    for part, (f, y, W, b), bare in zip(parts, batches(data, [50, 50]), (first, not first), strict=True):
        part.update(f, y) if bare else part.update(f, y, W, b)
    if split == "merged":
        metric.merge_state(other)
    found, expected = results(metric), collapse_reference(*data)
    assert nan_keys(found) == {"accuracy"}
    del found["accuracy"], expected["accuracy"]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [CosineMargin, NearestMeanMismatch])
def test_what_measures_a_classifier_asks_for_it(kind: Build) -> None:
    features, labels, _, bias = draw(5, 8, 20)
    metric = kind(**SIZES)
    with pytest.raises(InputError, match=rf"weight is missing, and {kind.__name__} measures .*of shape \(5, 8\)"):
        metric.update(features, labels)
    with pytest.raises(InputError, match="bias is given without weight"):
        metric.update(features, labels, bias=bias)
    assert all(same(value, states(kind(**SIZES))[key]) for key, value in metric.metric_state.items())


# --- splits --------------------------------------------------------------------------------------------------------


def one_class_each(data: Data) -> list[Data]:
    features, labels, weight, bias = data
    return [(features[labels == c], labels[labels == c], weight, bias) for c in range(len(weight))]


def with_nothing_between(data: Data) -> list[Data]:
    nothing = data[0][:7] + 50, torch.full((7,), -100), -data[2], -data[3]
    empty = data[0].new_empty(0, 3, 8), data[1].new_empty(0, 3), -data[2], -data[3]
    return [nothing, empty, *(part for batch in batches(data, [60, 40]) for part in (batch, nothing, empty))]


SPLITS: dict[str, Callable[[Data], list[Data]]] = {
    "one sample": lambda data: list(batches(data, [1] * len(data[1]))),
    "one class": one_class_each,
    "ignored and empty": with_nothing_between,
    "ignored in every batch": lambda data: list(batches(with_ignored(data, -100, 1e3), [5] * 25)),
}
WAYS: dict[str, Callable[[torchmetrics.Metric, Data], object]] = {
    "update": lambda metric, batch: metric.update(*batch),
    "forward": lambda metric, batch: metric(*batch),
}


@builders
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("add", WAYS.values(), ids=WAYS.keys())
def test_splits_give_the_values_of_one_batch(
    build: Build,
    split: Callable[[Data], list[Data]],
    add: Callable[[torchmetrics.Metric, Data], object],
) -> None:
    features, labels, weight, bias = draw(5, 8, 100, dtype=torch.float64)
    data = (features + 1e4, labels, weight, bias - 1e4 * weight.sum(dim=1))
    metric = build(5, 8)
    for batch in split(data):
        add(metric, batch)
    whole = build(5, 8)
    whole.update(*data)
    assert results(metric) == pytest.approx(results(whole), rel=1e-8, abs=1e-11)
