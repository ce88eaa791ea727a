"""The state: added to in place, of any scale, and no larger than it must be."""

from collections.abc import Callable

import pytest
import torch
from torchmetrics import Metric

from etfopt._memory import Allocations
from etfopt.errors import InputError
from etfopt.metrics import CATALOG, MEASURES, NeuralCollapse, _moments, _pairs, _precise
from tests.tools.metric_cases import (
    SIZES,
    batches,
    builders,
    draw,
    expected_results,
    measures,
    results,
    simplex,
)


def test_an_update_writes_to_the_rows_of_its_classes_alone() -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    metric = NeuralCollapse(**SIZES)
    metric.update(features, labels, weight, bias)
    at, before = metric.totals.data_ptr(), metric.totals.clone()
    own = labels == 3
    metric.update(features[own], labels[own], weight, bias)
    assert metric.totals.data_ptr() == at
    layout = _moments.Layout(5, 8, scatter=True)
    old, new = layout.unpack(before), layout.unpack(metric.totals)
    for name in ("counts", "shifts", "sums", "squares"):
        changed = (getattr(old, name) != getattr(new, name)).view(5, -1).any(dim=1)
        assert changed.tolist() == [False] * 3 + [name != "shifts", False], name


def test_an_update_takes_no_memory_that_grows_with_the_classes() -> None:
    C, d = 20_000, 16
    metric = NeuralCollapse(num_classes=C, dim=d, measures=["cdnv"])
    features, labels = torch.randn(500, d, generator=torch.Generator().manual_seed(0)), torch.arange(500) * 7
    with Allocations(torch.device("cpu")) as taken:
        metric.update(features, labels)
    assert taken.peak < 8 * C * d / 4


def test_computing_takes_the_class_means_once_and_a_few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairs, "TILE", 64)
    monkeypatch.setattr(_precise, "CHUNK", 2**12)
    monkeypatch.setattr(_moments, "TILE", 2**12)
    C, d = 8_000, 24
    metric = NeuralCollapse(num_classes=C, dim=d, measures=[*CATALOG][:-2], pairs=500)
    metric.update(*draw(C, d, C + 500, dtype=torch.float64))
    with Allocations(torch.device("cpu")) as taken:
        metric.compute()
    assert taken.peak < 2 * 8 * C * d


def test_a_reset_metric_begins_anew_and_holds_nothing_twice() -> None:
    metric = NeuralCollapse(num_classes=50, dim=8)
    metric.update(*draw(50, 8, 200))
    metric.reset()
    assert not metric.totals.any()
    assert metric.weight.isnan().all()
    assert sum(x.untyped_storage().nbytes() for x in metric._defaults.values()) == 8 * len(metric._defaults)
    metric.update(*draw(50, 8, 200))
    twin = NeuralCollapse(num_classes=50, dim=8)
    twin.update(*draw(50, 8, 200))
    assert results(metric) == pytest.approx(results(twin), nan_ok=True)


@builders
@pytest.mark.parametrize("outside", [(False, True), (True, False), (True, True)])
def test_inference_mode_may_begin_and_end_between_batches(
    build: Callable[..., Metric], outside: tuple[bool, bool]
) -> None:
    """Validation in Lightning resets and updates in inference mode, whose tensors refuse to be written to elsewhere."""
    metric = build(5, 8)
    metric.update(*draw(5, 8, 20, seed=1))
    with torch.inference_mode():
        metric.reset()
    for batch, plain in zip(batches(draw(5, 8, 100), [40, 60]), outside, strict=True):
        with torch.inference_mode(not plain):
            metric.update(*batch)
    assert results(metric) == expected_results(build)


@pytest.mark.parametrize("first", [0.0, 1e-250, 1e-3, 1e50])
@pytest.mark.parametrize("then", [1e-250, 1e-3, 1e50])
def test_batches_of_any_scale_follow_each_other(first: float, then: float) -> None:
    features, labels, weight, _ = draw(4, 6, 60, dtype=torch.float64)
    bias = torch.zeros(4, dtype=torch.float64)
    scale = torch.tensor([[first]] * 30 + [[then]] * 30, dtype=torch.float64)
    data = (features * scale, labels, weight, bias)
    found = measures(data, [30, 30])
    unit = max(first, then)
    expected = measures((data[0] / unit, labels, weight, bias))
    for key in MEASURES:
        if key not in ("accuracy", "nc4"):
            assert found[key] == pytest.approx(expected[key], rel=1e-9, nan_ok=True), key


# --- the margin ------------------------------------------------------------------------------------------------------


def test_the_margin_of_a_simplex_and_its_gap() -> None:
    vertices, labels = simplex(6, 9), torch.arange(6).repeat(2)
    metric = NeuralCollapse(num_classes=6, dim=9)
    metric.update(7 * vertices[labels] + 1, labels, 0.1 * vertices)
    for of in ("means", "weights"):
        margin = metric.margin(of)
        assert margin.rho == pytest.approx(6 / 5, rel=1e-12)
        assert abs(margin.gap) < 1e-12


def test_the_margin_of_more_classes_than_dimensions_is_closed_and_one_of_a_hull() -> None:
    features, labels, weight, _ = draw(40, 6, 300, dtype=torch.float64)
    metric = NeuralCollapse(num_classes=41, dim=6, measures=["unc3"])
    metric.update(features, labels, torch.cat([weight, weight[:1] + 1]))
    for of, count in (("means", 40), ("weights", 41)):
        margin = metric.margin(of)
        assert len(margin.distances) == count
        assert 0 <= margin.gap < 1e-8
        assert 0 < margin.rho < 1


def test_where_there_is_no_margin_the_metric_says_so() -> None:
    metric = NeuralCollapse(**SIZES)
    with pytest.raises(InputError, match="the margin of the means needs at least two classes"):
        metric.margin()
    metric.update(torch.ones(4, 8), torch.arange(4))  # equal means
    for of in ("means", "weights"):
        with pytest.raises(InputError, match=f"the margin of the {of} needs at least two classes"):
            metric.margin(of)
    with pytest.raises(InputError, match="of is 'rows'; choose 'means' or 'weights'"):
        metric.margin("rows")
