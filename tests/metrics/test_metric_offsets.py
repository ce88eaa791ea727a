"""The measures are right however far the features lie from the origin, in whichever order and parts they come."""

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor

from etfopt.metrics import MEASURES, CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import (
    SIZES,
    Data,
    as_floats,
    batches,
    builders,
    collapse_reference,
    draw,
    exact_collapse,
    margin_reference,
    measures,
    mismatch_reference,
    rank_reference,
    simplex,
)

SHIFTED = sorted(
    {*MEASURES} - {"accuracy", "nc4", "vci"}
)  # do not depend on an offset; the reference of vci is another


def far(offset: float, C: int = 5, d: int = 8, n: int = 120, noise: float = 1e-3) -> tuple[Data, Tensor]:
    """Data in float64 at an offset of many sizes, and that offset: the difference is exact."""
    features, labels, weight, bias = draw(C, d, n, noise=noise, dtype=torch.float64)
    shift = offset * torch.linspace(-1, 1, d, dtype=torch.float64)
    return (features + shift, labels, weight, bias.double()), shift


@pytest.mark.parametrize("offset", [0.0, 1e5, 1e6, 1e8])
@pytest.mark.parametrize("size", [1, 7, 120])
def test_an_offset_costs_no_digits(offset: float, size: int) -> None:
    data, shift = far(offset)
    sizes = [size] * (120 // size) + [120 % size] * (120 % size > 0)
    values = measures(data, sizes)
    expected = collapse_reference(data[0] - shift, *data[1:])
    assert [values[key] for key in SHIFTED] == pytest.approx([expected[key] for key in SHIFTED], rel=1e-9)
    exact = exact_collapse(data[0] - shift, data[1])
    assert {key: values[key] for key in exact} == pytest.approx(exact, rel=1e-8, abs=0)


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_near_collapse_nc1_and_vci_are_right_relative_to_their_size(noise: float) -> None:
    data, _ = far(1e4, C=3, d=6, n=60, noise=noise)
    values, exact = measures(data, [7] * 8 + [4]), exact_collapse(data[0], data[1])
    assert exact["vci"] < noise**2 * 10
    assert {key: values[key] for key in exact} == pytest.approx(exact, rel=1e-8, abs=0)


def test_classes_at_very_different_offsets() -> None:
    (features, labels, weight, bias), _ = far(0.0, C=4, d=6, n=80)
    features = features + (10.0 ** torch.arange(2, 10, 2, dtype=torch.float64))[labels][:, None]
    values = measures((features, labels, weight, bias), [9] * 8 + [8])
    assert values["nc1"] == pytest.approx(exact_collapse(features, labels)["nc1"], rel=1e-6, abs=0)


ORDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one class after the other": lambda features, labels: labels.argsort(stable=True),  # noqa: ARG005 - one signature
    "the last class late": lambda features, labels: (labels == labels.max()).long().argsort(stable=True),  # noqa: ARG005
    "drifting batches": lambda features, labels: features[:, 0].argsort(),  # noqa: ARG005 - as above
    "backwards": lambda features, labels: torch.arange(len(labels)).flip(0),  # noqa: ARG005 - as above
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("offset", [1e2, 1e8])
def test_the_order_of_the_samples_does_not_matter(order: Callable[[Tensor, Tensor], Tensor], offset: float) -> None:
    data, _ = far(offset)
    index = order(data[0], data[1])
    values = measures((data[0][index], data[1][index], *data[2:]), [10] * 12)
    assert values == pytest.approx(measures(data), rel=1e-8)


def test_a_first_sample_far_from_all_others_costs_their_class_means_no_digits() -> None:
    (features, labels, weight, bias), _ = far(0.0)
    features[0], labels[0] = 1e8, 0
    later = (features[1:], labels[1:], weight, bias)
    metric, others = NeuralCollapse(**SIZES), NeuralCollapse(**SIZES)
    for batch in batches((features, labels, weight, bias), [1] * 120):
        metric.update(*batch)
    others.update(*later)
    expected = others.feature_means()
    torch.testing.assert_close(metric.feature_means()[1:], expected[1:], rtol=1e-14, atol=1e-14)
    own = [[Fraction(x) for x in f] for f, y in zip(features.tolist(), labels, strict=True) if y == 0]
    exact = [float(sum(column) / len(own)) for column in zip(*own, strict=True)]
    np.testing.assert_allclose(metric.feature_means()[0].numpy(), exact, rtol=1e-15)


@pytest.mark.parametrize("cut", [1, 5, 60, 119])
def test_metrics_merged_far_from_the_origin_equal_one(cut: int) -> None:
    data, shift = far(1e8)
    index = data[1].argsort()  # the parts have different first samples, and different classes
    data = (data[0][index], data[1][index], *data[2:])
    parts = [NeuralCollapse(**SIZES) for _ in range(2)]
    for metric, batch in zip(parts, batches(data, [cut, 120 - cut]), strict=True):
        metric.update(*batch)
    forward = NeuralCollapse(**SIZES)
    for batch in batches(data, [cut, 120 - cut]):
        forward(*batch)
    parts[0].merge_state(parts[1])
    expected = collapse_reference(data[0] - shift, *data[1:])
    for metric in (parts[0], forward):
        values = metric.compute()
        assert [float(values[key]) for key in SHIFTED] == pytest.approx([expected[k] for k in SHIFTED], rel=1e-9)


def test_many_batches_do_not_wear_the_mean_out() -> None:
    data, shift = far(1e8, n=20)
    metric = NeuralCollapse(**SIZES)
    for _ in range(300):
        for batch in batches(data, [3] * 6 + [2]):
            metric.update(*batch)
    once = collapse_reference(data[0] - shift, *data[1:])
    assert float(metric.compute()["nc1"]) == pytest.approx(once["nc1"], rel=1e-10, abs=0)


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_float32_features_are_measured_as_they_were_rounded(offset: float) -> None:
    data, _ = far(offset, noise=1e-2)
    rounded = data[0].float()
    values, exact = measures((rounded, *data[1:]), [32, 32, 56]), exact_collapse(rounded, data[1])
    assert {key: values[key] for key in exact} == pytest.approx(exact, rel=1e-9, abs=0)


def test_nc4_keeps_its_digits_where_the_bias_undoes_the_offset() -> None:
    (features, labels, weight, _), shift = far(1e8, n=50)
    bias = -weight @ shift
    value = measures((features, labels, weight, bias), [20, 30])["nc4"]
    columns = list(zip(*([Fraction(x) for x in f] for f in features.tolist()), strict=True))
    mean = [sum(column) / 50 for column in columns]
    rows = zip(weight.tolist(), bias.tolist(), strict=True)
    entries = [float(sum(Fraction(w) * m for w, m in zip(row, mean, strict=True)) + Fraction(b)) for row, b in rows]
    assert value < 1e2  # eight digits of the terms have gone
    assert value == pytest.approx(math.hypot(*entries), rel=1e-14, abs=0)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
def test_the_distance_to_the_nearest_etf_keeps_its_digits_near_it(distance: float) -> None:
    C, d = 4, 6
    weight = simplex(C, d) + distance * draw(C, d, 10, dtype=torch.float64)[2]
    labels = torch.arange(C)
    value = measures((weight, labels, weight, torch.zeros(C)))["etf_distance_weights"]
    with mpmath.workdps(60):
        W = mpmath.matrix(weight.tolist())
        M = (mpmath.eye(C) - mpmath.ones(C, C) / C) / mpmath.sqrt(C - 1)
        s = mpmath.svd_r(M * W, compute_uv=False)
        exact = float(1 - sum(s) ** 2 / sum(x**2 for x in W))
    assert exact < 20 * distance**2
    assert value == pytest.approx(exact, rel=1e-14 / distance, abs=0)


def test_class_means_that_differ_by_rounding_alone_have_no_direction() -> None:
    g = torch.Generator().manual_seed(0)
    half = torch.randn(50, 4, generator=g, dtype=torch.float64)
    for offset in (0.0, 0.1, 1e6):
        features = torch.cat([offset + half, offset - half]).repeat(3, 1)
        labels = torch.arange(3).repeat_interleave(100)
        order = torch.randperm(300, generator=g)
        values = measures((features[order], labels[order], *draw(3, 4, 10)[2:]), [7] * 42 + [6])
        assert math.isnan(values["nc1"]), offset
        assert values["vci"] == 1


# --- the other metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1e5, 1e8])
def test_margins_and_mismatch_far_from_the_origin_are_those_near_it(offset: float) -> None:
    data, shift = far(offset, noise=0.7)
    features, labels, weight, bias = data
    near = features - shift
    margin, mismatch = CosineMargin(**SIZES), NearestMeanMismatch(**SIZES)
    weight_far = weight + shift  # the rows of W are centred, too
    for f, y in zip(features.split(11), labels.split(11), strict=True):
        margin.update(f, y, weight_far)
        mismatch.update(f, y, torch.zeros(5, 8), bias)
    expected = margin_reference(near, labels, weight_far - shift)
    np.testing.assert_allclose(margin.sorted().numpy(), expected, rtol=0, atol=1e-12)
    assert float(mismatch.compute()) == mismatch_reference(near, labels, torch.zeros(5, 8), bias)
    first = NeuralCollapse(**SIZES)
    first.update(*data)
    given = NearestMeanMismatch(**SIZES, class_means=first.feature_means())
    given.update(features, labels, torch.zeros(5, 8), bias)
    assert float(given.compute()) == float(mismatch.compute())


def test_margins_and_mismatch_of_close_classes_far_from_the_origin_are_no_nan() -> None:
    features, labels, weight, bias = draw(5, 8, 1000, noise=0.3, dtype=torch.float64)
    features = 1e-3 * features
    shift = torch.full((8,), 1e8, dtype=torch.float64)
    data = (features + shift, labels, weight, bias)
    near = data[0] - shift  # the input's own rounding
    margin, mismatch = CosineMargin(**SIZES), NearestMeanMismatch(**SIZES)
    for metric in (margin, mismatch):
        metric.update(data[0], labels, weight, bias)
    assert float(margin.compute()) == pytest.approx(margin_reference(near, labels, weight).mean(), abs=1e-9)
    assert not math.isnan(mismatch.compute())


@pytest.mark.parametrize("scale", [2.0**-700, 2.0**300])
@builders
def test_squares_neither_underflow_nor_overflow(build: Callable[..., torchmetrics.Metric], scale: float) -> None:
    features, labels, weight, bias = draw(5, 8, 60, dtype=torch.float64)
    plain, scaled = build(5, 8), build(5, 8)
    if hasattr(plain, "global_mean_digest"):
        scaled = CosineMargin(**SIZES, global_mean=scale * plain.global_mean, keep_margins=plain.keep_margins)
    if hasattr(plain, "class_means_digest"):
        scaled = NearestMeanMismatch(**SIZES, class_means=scale * plain.class_means)
    for part in (slice(0, 20), slice(20, 60)):
        plain.update(features[part], labels[part], weight, bias)
        scaled.update(scale * features[part], labels[part], weight, scale * bias)
    values, expected = scaled.compute(), plain.compute()
    if "nc4" in (values if isinstance(values, dict) else {}):
        values["nc4"] = values["nc4"] / scale
    assert as_floats(values) == pytest.approx(as_floats(expected), rel=1e-12)


def test_the_rank_of_features_far_from_the_origin_is_that_of_their_reference() -> None:
    data, _ = far(1e8)
    metric = NumericalRank(**SIZES)
    for f, y in zip(data[0].split(7), data[1].split(7), strict=True):
        metric.update(f, y, data[2])
    assert float(metric.compute()) == pytest.approx(rank_reference(*data[:2]), rel=1e-12)
