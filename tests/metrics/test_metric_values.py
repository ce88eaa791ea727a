"""The measures of neural collapse have the right values, near collapse and where data degenerate."""

import math

import numpy as np
import pytest
import torch

import etfopt.metrics.margin as margin_module
from etfopt.frames import simplex_etf
from etfopt.geometry import random_stiefel
from etfopt.metrics import MEASURES, CosineMargin
from tests.tools.metric_cases import (
    ETF_DISTANCES,
    SIZES,
    batches,
    collapse_reference,
    draw,
    margin_reference,
    measures,
    nan_keys,
    nearest_etf_reference,
    simplex,
    without_nan,
)


@pytest.mark.parametrize(("C", "d", "n"), [(2, 1, 30), (2, 5, 40), (4, 3, 60), (5, 5, 80), (5, 12, 200), (10, 64, 50)])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measures_equal_the_two_pass_reference(C: int, d: int, n: int, seed: int, dtype: torch.dtype) -> None:
    data = draw(C, d, n, seed, dtype=dtype)
    assert measures(data, [7, n - 7]) == pytest.approx(collapse_reference(*data), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("C", "d", "n"), [(2, 1, 30), (4, 3, 60), (5, 12, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_margins_equal_the_two_pass_reference(C: int, d: int, n: int, dtype: torch.dtype) -> None:
    data = draw(C, d, n, dtype=dtype)
    metric = CosineMargin(num_classes=C, dim=d)
    for batch in batches(data, [7, n - 7]):
        metric.update(*batch)
    expected = margin_reference(*data[:3])
    np.testing.assert_allclose(metric.sorted().numpy(), expected, rtol=0, atol=1e-12)
    assert float(metric.compute()) == pytest.approx(expected.mean(), abs=1e-12)


def test_streamed_margin_uses_the_given_mean() -> None:
    data = draw(5, 8, 100)
    for mean in (data[0].double().mean(dim=0), torch.randn(8, generator=torch.Generator().manual_seed(1))):
        metric = CosineMargin(**SIZES, global_mean=mean)
        for batch in batches(data, [60, 40]):
            metric.update(*batch)
        assert float(metric.compute()) == pytest.approx(margin_reference(*data[:3], mean=mean).mean(), abs=1e-12)


def test_margins_do_not_depend_on_the_chunks_they_are_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = CosineMargin(**SIZES)
    metric.update(*draw(5, 8, 101))
    whole = metric.sorted()
    monkeypatch.setattr(margin_module, "CHUNK", 35)
    torch.testing.assert_close(metric.sorted(), whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("C", "d"), [(2, 1), (3, 2), (4, 4), (10, 32)])
@pytest.mark.parametrize("seed", range(4))
def test_at_collapse_all_measures_vanish_and_the_margin_is_largest(C: int, d: int, seed: int) -> None:
    vertices, offset = simplex(C, d, seed), torch.ones(d, dtype=torch.float64)
    labels = torch.arange(C).repeat(6)
    data = (3 * vertices[labels] + offset, labels, 0.5 * vertices, -0.5 * vertices @ offset)
    values = measures(data)
    assert values.pop("accuracy") == 1
    for key, value in values.items():
        assert 0 <= value < 1e-12, key
    metric = CosineMargin(num_classes=C, dim=d)
    metric.update(*data)
    np.testing.assert_allclose(metric.sorted().numpy(), C / (C - 1), rtol=1e-12)
    assert float(metric.compute()) == pytest.approx(C / (C - 1), rel=1e-12)


@pytest.mark.parametrize(("C", "d"), [(3, 2), (5, 9)])
def test_no_etf_is_closer_than_the_etf_distance(C: int, d: int) -> None:
    data = draw(C, d, 50, dtype=torch.float64)
    W = data[2].T.numpy() / np.linalg.norm(data[2].numpy())
    distance = measures(data)["etf_distance_weights"]
    _, etf = nearest_etf_reference(W)
    assert distance == pytest.approx(np.sum((W - np.sum(W * etf) * etf) ** 2), rel=1e-10)
    np.testing.assert_allclose(etf.T @ etf, simplex_etf(C) / math.sqrt(C - 1), rtol=0, atol=1e-12)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 10.0):
        for _ in range(20):
            turn = np.linalg.qr(np.eye(d) + size * rng.standard_normal((d, d)))[0]
            other = turn * np.sign(np.diag(turn)) @ etf
            assert np.sum((W - np.sum(W * other) * other) ** 2) >= distance - 1e-12


# --- symmetries ----------------------------------------------------------------------------------------------------


def test_batches_and_order_do_not_matter() -> None:
    data = draw(5, 8, 100)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    shuffled = (data[0][order], data[1][order], data[2], data[3])
    expected = measures(data)
    for sizes in ([100], [1] * 100, [0, 33, 0, 67], [99, 1]):
        assert measures(shuffled, sizes) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_rotation_of_space_and_permutation_of_classes_change_nothing() -> None:
    features, labels, weight, bias = data = draw(5, 8, 100, dtype=torch.float64)
    Q = torch.from_numpy(random_stiefel(8, 8, np.random.default_rng(0)))
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = measures(data)
    assert measures((features @ Q, labels, weight @ Q, bias)) == pytest.approx(expected, rel=1e-9)
    assert measures((features, order.argsort()[labels], weight[order], bias[order])) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-60, 1e-3, 1e60])
def test_geometry_does_not_depend_on_the_units(scale: float) -> None:
    features, labels, weight, bias = data = draw(5, 8, 100, dtype=torch.float64)
    expected, values = measures(data), measures((scale * features, labels, weight / scale, bias))
    assert values == pytest.approx(expected, rel=1e-9)
    values = measures((features, labels, scale * weight, scale * bias))
    assert values.pop("nc4") == pytest.approx(scale * expected.pop("nc4"))
    assert values == pytest.approx(expected, rel=1e-9)


def test_squares_of_a_tiny_weight_may_underflow() -> None:
    features, labels, weight, bias = data = draw(5, 8, 100, dtype=torch.float64)
    values, expected = measures((features, labels, 1e-200 * weight, 1e-200 * bias)), measures(data)
    for key in set(MEASURES) - {"nc4"}:
        assert values[key] == pytest.approx(expected[key], rel=1e-9), key


# --- degenerate data -----------------------------------------------------------------------------------------------


def test_a_missing_class_is_a_zero_column_of_H() -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    keep = labels != 2
    data = (features[keep], labels[keep], weight, bias)
    values, expected = measures(data), collapse_reference(*data)
    assert nan_keys(values) == {"etf_distance_between"}  # the nearest ETF of H is not unique
    assert without_nan(values) == pytest.approx({key: expected[key] for key in without_nan(values)}, rel=1e-9)


def test_a_missing_class_is_not_taken_for_collapse() -> None:
    vertices = simplex(4, 6)
    labels = torch.tensor([0, 1, 2] * 5)
    values = measures((vertices[labels], labels, vertices, torch.zeros(4, dtype=torch.float64)))
    assert values["vci"] == pytest.approx(1 - 2 / 3)
    assert min(values["nc2_means"], values["nc3"], values["etf_distance_means"]) > 0.1
    assert max(values["nc1"], values["equinorm_means"], values["etf_distance_weights"]) < 1e-12


@pytest.mark.parametrize("C", [5, 9])
def test_without_room_for_a_simplex_only_the_distances_are_undefined(C: int) -> None:
    data = draw(C, 3, 90)
    values = measures(data)
    assert nan_keys(values) == ETF_DISTANCES
    expected = {key: value for key, value in collapse_reference(*data).items() if key not in ETF_DISTANCES}
    assert without_nan(values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("only_class", [False, True])
def test_equal_class_means_leave_the_direction_of_H_undefined(only_class: bool) -> None:
    labels = torch.zeros(1000).long() if only_class else torch.tensor([0] * 7 + [1] * 100 + [2] * 893)
    _, _, weight, bias = draw(3, 4, 10)
    features = torch.full(
        (1000, 4), 0.1, dtype=torch.float64
    )  # 0.1 is no binary fraction: the means differ by rounding
    values = measures((features, labels, weight, bias), [1] * 1000)
    equinorm = {"equinorm_means", "equinorm_difference"}
    assert nan_keys(values) == {"nc1", "nc2_means", "nc3", "etf_distance_means", "etf_distance_between"} | equinorm
    assert values["vci"] == 1
    metric = CosineMargin(num_classes=3, dim=4)
    metric.update(features, labels, weight)
    assert metric.sorted().isnan().all()


def test_zero_features_and_a_single_sample_are_no_error() -> None:
    _, _, weight, bias = draw(3, 4, 10)
    for features in (torch.zeros(1, 4), torch.ones(1, 4)):
        values = measures((features, torch.tensor([1]), weight, bias))
        assert math.isnan(values["nc1"])
        assert not math.isnan(values["nc2"] + values["nc4"])


def test_zero_weight_leaves_its_direction_undefined() -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    data = (features, labels, torch.zeros_like(weight), bias)
    values = measures(data)
    directions = {"nc2", "nc3", "equinorm_weights", "equinorm_difference"}
    assert nan_keys(values) == directions | {"etf_distance_weights", "etf_distance_between"}
    assert values["nc4"] == pytest.approx(float(bias.norm()))
    metric = CosineMargin(**SIZES)
    metric.update(*data)
    assert math.isnan(metric.compute())


def test_equal_rows_of_the_weight_are_at_distance_one_from_every_etf() -> None:
    features, labels, weight, bias = draw(5, 8, 100)
    values = measures((features, labels, weight[:1].repeat(5, 1), bias))
    assert values["etf_distance_weights"] == pytest.approx(1)
    assert nan_keys(values) == {"etf_distance_between"}


def test_weight_orthogonal_to_the_means_leaves_nc3_undefined() -> None:
    turn = torch.from_numpy(random_stiefel(8, 8, np.random.default_rng(1)))
    labels = torch.arange(3).repeat(9)
    data = (
        simplex(3, 4)[labels] @ turn[:4],
        labels,
        simplex(3, 4, seed=1) @ turn[4:],
        torch.zeros(3, dtype=torch.float64),
    )
    assert nan_keys(measures(data)) == {"nc3"}


def test_margin_of_a_feature_at_the_global_mean_is_nan_and_sorted_last() -> None:
    vertices = simplex(3, 4)
    metric = CosineMargin(num_classes=3, dim=4)
    metric.update(torch.cat([vertices, torch.zeros(1, 4)]) + 0.1, torch.tensor([0, 1, 2, 0]), vertices)
    margins = metric.sorted()
    assert margins.isnan().tolist() == [False, False, False, True]
    torch.testing.assert_close(margins[:3], torch.full((3,), 1.5, dtype=torch.float64))
