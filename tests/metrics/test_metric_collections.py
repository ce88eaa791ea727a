"""Every metric works in a `MetricCollection`, whether the collection shares states or not."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from etfopt.errors import InputError
from etfopt.metrics import FEATURE_MEASURES, MEASURES, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import (
    BUILDERS,
    SIZES,
    Data,
    batches,
    draw,
    expected_results,
    nan_keys,
    results,
    with_ignored,
)

# twins have equal states, which the collection unites
NAMES = [*BUILDERS, *(f"twin {name}" for name in BUILDERS)]
PARTS = with_ignored(draw(5, 8, 100, dtype=torch.float64), -100, 5.0), [5, 20, 0, 100]


def build_of(name: str) -> Callable[..., Metric]:
    return BUILDERS[name.removeprefix("twin ")]


def collect(groups: bool) -> MetricCollection:
    return MetricCollection({name: build_of(name)(5, 8) for name in NAMES}, compute_groups=groups)


def expected(name: str) -> object:
    """The value of a metric alone, in one batch, without the ignored samples."""
    return expected_results(build_of(name), draw(5, 8, 100, dtype=torch.float64))


def parts() -> list[Data]:
    return list(batches(*PARTS))


def check(metrics: MetricCollection) -> None:
    metrics.compute()  # brings shared states up to date
    for name in NAMES:
        assert results(metrics[name]) == expected(name), name


def by_keyword(metrics: MetricCollection) -> None:
    for f, y, W, b in parts():
        metrics.update(features=f, labels=y, weight=W, bias=b)


def by_position(metrics: MetricCollection) -> None:
    for part in parts():
        metrics.update(*part)


def by_forward(metrics: MetricCollection) -> None:
    for part in parts():
        metrics(*part)


def by_both(metrics: MetricCollection) -> None:
    for i, part in enumerate(parts()):
        metrics(*part) if i % 2 else metrics.update(*part)


def behind_a_batch_of_ignored_samples(metrics: MetricCollection) -> None:
    features, labels, weight, bias = draw(5, 8, 20)
    metrics.update(features, torch.full_like(labels, -100), 2 * weight, bias)
    by_position(metrics)


def after_a_reset(metrics: MetricCollection) -> None:
    metrics.update(*draw(5, 8, 50, seed=1))
    metrics.compute()
    metrics.reset()
    by_position(metrics)


WAYS = [by_keyword, by_position, by_forward, by_both, behind_a_batch_of_ignored_samples, after_a_reset]
each_grouping = pytest.mark.parametrize("groups", [True, False])


@each_grouping
@pytest.mark.parametrize("add", WAYS, ids=lambda way: way.__name__)
def test_a_collection_gives_the_values_of_its_metrics(groups: bool, add: Callable[[MetricCollection], None]) -> None:
    metrics = collect(groups)
    add(metrics)
    check(metrics)


def test_a_collection_unites_equal_metrics_and_no_others() -> None:
    metrics = collect(True)
    by_position(metrics)
    assert sorted(map(sorted, metrics.compute_groups.values())) == sorted(
        sorted([name, f"twin {name}"]) for name in BUILDERS
    )


COPIES: dict[str, Callable[[MetricCollection], MetricCollection]] = {
    "clone": lambda metrics: metrics.clone(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda metrics: pickle.loads(pickle.dumps(metrics)),
}


@each_grouping
@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())
def test_a_copy_goes_on_from_where_it_was_made(groups: bool, duplicate: Callable[..., MetricCollection]) -> None:
    metrics, (first, second, *others) = collect(groups), parts()
    metrics.update(*first)
    metrics.update(*second)
    twin = duplicate(metrics)
    for batch in others:
        twin.update(*batch)
        metrics.update(*batch)
    check(twin)
    check(metrics)


@each_grouping
def test_a_state_dict_holds_the_states(groups: bool) -> None:
    metrics, fresh, (first, second, *others) = collect(groups), collect(groups), parts()
    metrics.persistent(True)
    fresh.persistent(True)
    metrics.update(*first)
    metrics.update(*second)
    fresh.load_state_dict(metrics.state_dict())
    for batch in others:
        fresh.update(*batch)
    check(fresh)


@each_grouping
def test_the_metrics_of_two_collections_merge(groups: bool) -> None:
    first, second = collect(groups), collect(groups)
    for metrics, half in ((first, parts()[:2]), (second, parts()[2:])):
        for batch in half:
            metrics.update(*batch)
    for name in NAMES:
        merged = first[name].clone()
        merged.merge_state(second[name])
        assert results(merged) == expected(name), name


@each_grouping
def test_a_collection_beside_metrics_of_predictions(groups: bool) -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    metrics = MetricCollection(
        [NeuralCollapse(**SIZES), NumericalRank(**SIZES), MulticlassAccuracy(5, average="micro")], compute_groups=groups
    )
    for f, y, W, b in batches((features, labels, weight, bias), [30, 70]):
        metrics.update(features=f, labels=y, weight=W, bias=b, preds=f @ W.T + b, target=y)
    values = metrics.compute()
    assert float(values["accuracy"]) == pytest.approx(float(values["MulticlassAccuracy"]))
    assert set(values) == {*MEASURES, "NumericalRank", "MulticlassAccuracy"}


@each_grouping
def test_a_collection_for_a_hidden_layer(groups: bool) -> None:
    metrics = MetricCollection([NeuralCollapse(**SIZES), NumericalRank(**SIZES)], compute_groups=groups, prefix="h/")
    for f, y, _, _ in batches(draw(5, 8, 100), [30, 70]):
        metrics.update(f, y)
    values = {key: float(value) for key, value in metrics.compute().items()}
    measured = {f"h/{key}" for key in (*FEATURE_MEASURES, "NumericalRank")}
    assert set(values) - nan_keys(values) == measured


@each_grouping
def test_a_batch_that_a_collection_refuses_changes_nothing(groups: bool) -> None:
    metrics, bad = collect(groups), parts()[-1]
    by_position(metrics)
    for way in (metrics.update, metrics.forward):
        with pytest.raises(InputError, match="labels holds 5"):
            way(bad[0], torch.full_like(bad[1], 5), *bad[2:])
    check(metrics)


def test_metrics_that_leave_out_other_labels_share_no_state():
    kinds = {str(label): NeuralCollapse(**SIZES, ignore_index=label) for label in (-100, -1)}
    both = MetricCollection(kinds)
    f, y, W, b = draw(SIZES["num_classes"], SIZES["dim"], 60, dtype=torch.float64)
    both.update(f[:30], y[:30], W, b)  # equal states, after which the collection unites metrics
    late = y[30:].clone()
    late[::2] = -1
    with pytest.raises(InputError, match="labels"):  # -1 is no class for the metric that leaves out -100
        both.update(f[30:], late, W, b)
