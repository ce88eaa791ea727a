"""The measures that need every sample, or the final means: values, both modes, and where data degenerate."""

import math

import numpy as np
import pytest
import torch

import etfopt.metrics.nearest_mean as nearest_mean_module
from etfopt.metrics import CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank
from tests.tools.metric_cases import SIZES, batches, draw, margin_reference, mismatch_reference, rank_reference, simplex


def rank(features: torch.Tensor, labels: torch.Tensor, C: int = 3, sizes: list[int] | None = None) -> float:
    d = features.shape[1]
    metric = NumericalRank(num_classes=C, dim=d)
    for f, y in zip(features.split(sizes or len(labels)), labels.split(sizes or len(labels)), strict=True):
        metric.update(f, y, torch.ones(C, d))
    return float(metric.compute())


def mismatch(data: tuple, means: torch.Tensor | None = None, sizes: list[int] | None = None) -> float:
    metric = NearestMeanMismatch(num_classes=len(data[2]), dim=data[2].shape[1], class_means=means)
    for batch in batches(data, sizes or [len(data[1])]):
        metric.update(*batch)
    return float(metric.compute())


@pytest.mark.parametrize(("C", "d", "n"), [(2, 1, 30), (4, 3, 60), (5, 5, 80), (5, 12, 200), (10, 64, 50)])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_and_mismatch_equal_their_references(C: int, d: int, n: int, seed: int, dtype: torch.dtype) -> None:
    data = draw(C, d, n, seed, noise=1.0, dtype=dtype)
    assert rank(*data[:2], C, [7, n - 7]) == pytest.approx(rank_reference(*data[:2]), rel=1e-12)
    assert mismatch(data, sizes=[7, n - 7]) == mismatch_reference(*data)


def test_the_references_are_not_trivial() -> None:
    data = draw(5, 12, 200, noise=1.0)
    assert 0.05 < mismatch_reference(*data) < 0.95
    assert 2 < rank_reference(*data[:2]) < 12


def test_a_second_pass_with_the_means_of_the_first_gives_the_stored_values() -> None:
    data = draw(5, 8, 300, noise=1.0)
    first = NeuralCollapse(**SIZES)
    for batch in batches(data, [100, 200]):
        first.update(*batch)
    margins = CosineMargin(**SIZES, global_mean=first.global_mean(), keep_margins=True)
    for batch in batches(data, [150, 150]):
        margins.update(*batch)
    assert mismatch(data, first.feature_means(), [150, 150]) == mismatch_reference(*data)
    expected = margin_reference(*data[:3])
    np.testing.assert_allclose(margins.sorted().numpy(), expected, rtol=0, atol=1e-12)
    assert float(margins.compute()) == pytest.approx(expected.mean(), abs=1e-12)


def test_the_means_of_the_first_pass_are_those_of_the_data() -> None:
    features, labels, weight, bias = draw(5, 8, 300)
    metric = NeuralCollapse(**SIZES)
    metric.update(features[labels != 3], labels[labels != 3], weight, bias)
    means = metric.feature_means()
    assert means[3].isnan().all()
    for c in (0, 1, 2, 4):
        torch.testing.assert_close(means[c], features[labels == c].double().mean(dim=0), rtol=0, atol=1e-13)
    mean = features[labels != 3].double().mean(dim=0)
    torch.testing.assert_close(metric.global_mean(), mean, rtol=0, atol=1e-13)
    assert not metric.class_means()[:, 3].any()
    torch.testing.assert_close(metric.class_means()[:, 0], means[0] - mean, rtol=0, atol=1e-13)


def test_before_the_first_sample_there_are_no_means() -> None:
    metric = NeuralCollapse(num_classes=3, dim=4)
    assert metric.feature_means().isnan().all()
    assert metric.global_mean().isnan().all()
    assert not metric.class_means().any()


# --- numerical rank ------------------------------------------------------------------------------------------------


def test_rows_are_condensed_and_the_rank_stays_exact() -> None:
    C, d, n = 3, 4, 1000
    features, labels, _, _ = draw(C, d, n, dtype=torch.float64)
    metric = NumericalRank(num_classes=C, dim=d)
    for f, y in zip(features.split(10), labels.split(10), strict=True):
        metric.update(f, y, torch.ones(C, d))
        assert len(metric.rows("labels")) <= 2 * C * d + 10
    assert float(metric.compute()) == pytest.approx(rank_reference(features, labels), rel=1e-13)


def test_ranks_that_condensed_apart_equal_one() -> None:
    C, d, n = 3, 4, 1000
    features, labels, _, _ = draw(C, d, n, dtype=torch.float64)
    ranks = [NumericalRank(num_classes=C, dim=d) for _ in range(2)]
    for metric, f, y in zip(ranks, features.split([300, 700]), labels.split([300, 700]), strict=True):
        metric.update(f, y, torch.ones(C, d))
    ranks[0].merge_state(ranks[1])
    assert float(ranks[0].compute()) == pytest.approx(rank_reference(features, labels), rel=1e-13)


def test_the_rank_is_accurate_where_a_gram_matrix_is_not() -> None:
    g = torch.Generator().manual_seed(0)
    # singular values 1 and 1e-9: the square of the smaller is below the rounding of the Gram matrix
    P, _ = torch.linalg.qr(torch.randn(40, 2, generator=g, dtype=torch.float64))
    Q, _ = torch.linalg.qr(torch.randn(6, 2, generator=g, dtype=torch.float64))
    X = P @ torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64)) @ Q.T
    assert rank(X, torch.zeros(40).long()) - 1 == pytest.approx(2e-9, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-90, 1e90])
def test_the_rank_does_not_depend_on_the_units(scale: float) -> None:
    features, labels, _, _ = draw(3, 5, 60, dtype=torch.float64)
    assert rank(scale * features, labels) == pytest.approx(rank(features, labels), rel=1e-12)


def test_the_rank_of_collapsed_features_and_of_one_sample_is_one() -> None:
    vertices = simplex(3, 5)
    labels = torch.arange(3).repeat(10)
    assert rank(2.0 * vertices[labels], labels) == pytest.approx(1, abs=1e-12)
    assert rank(torch.ones(1, 5), torch.tensor([2])) == pytest.approx(1, abs=1e-15)


def test_classes_that_did_not_occur_do_not_count_in_the_rank() -> None:
    assert rank(torch.eye(4), torch.tensor([0, 0, 0, 2])) == pytest.approx((3 + 1) / 2)


def test_a_class_of_zeros_has_no_rank() -> None:
    features = torch.ones(4, 3)
    features[2:] = 0
    assert math.isnan(rank(features, torch.tensor([0, 0, 1, 1])))


# --- nearest class mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("C", "d"), [(2, 1), (3, 2), (10, 32)])
def test_at_collapse_nothing_mismatches(C: int, d: int) -> None:
    vertices = simplex(C, d)
    labels = torch.arange(C).repeat(3)
    data = (vertices[labels] + 1, labels, vertices, -vertices.sum(dim=1))
    assert mismatch(data) == 0
    wrong = (data[0], labels, vertices.roll(1, dims=0), data[3].roll(1))
    assert mismatch(wrong) == 1


def test_a_class_that_did_not_occur_attracts_nobody() -> None:
    # class 1 would have its mean at the origin, next to every sample
    features, labels = torch.tensor([[0.1], [0.3], [-0.1], [-0.3]]) + 1.0, torch.tensor([0, 0, 2, 2])
    weight, bias = torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([-1.0, 0.0, 1.0])
    assert mismatch((features, labels, weight, bias)) == 0
    means = torch.tensor([[1.2], [math.nan], [0.8]])
    assert mismatch((features, labels, weight, bias), means) == 0


def test_the_first_of_several_equal_means_counts() -> None:
    means = torch.tensor([[1.0], [-1.0], [1.0]])
    features, labels = torch.tensor([[2.0], [0.5]]), torch.tensor([2, 2])
    always_first = (torch.zeros(3, 1), torch.tensor([1.0, 0.0, 0.0]))
    assert mismatch((features, labels, *always_first), means) == 0


def test_means_that_only_rounding_tells_apart_are_no_measure() -> None:
    labels = torch.tensor([0] * 7 + [1] * 100 + [2] * 893)
    features = torch.full((1000, 4), 0.1, dtype=torch.float64)
    weight, bias = draw(3, 4, 10)[2:]
    assert math.isnan(mismatch((features, labels, weight, bias)))
    assert math.isnan(mismatch((features, labels, weight, bias), torch.full((3, 4), 0.1)))


def test_one_class_alone_is_the_nearest() -> None:
    features, labels = torch.tensor([[1.0], [-3.0]]), torch.tensor([1, 1])
    weight = torch.tensor([[-1.0], [1.0]])
    assert mismatch((features, labels, weight, torch.zeros(2))) == 0.5


def test_the_mismatch_does_not_depend_on_an_offset_far_away_or_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, weight, bias = data = draw(5, 8, 101, noise=1.0, dtype=torch.float64)
    expected = mismatch(data)
    far = 1e6 * torch.ones(8, dtype=torch.float64)
    assert mismatch((features + far, labels, weight, bias.double() - weight @ far)) == pytest.approx(
        expected, abs=0.011
    )
    monkeypatch.setattr(nearest_mean_module, "CHUNK", 35)
    assert mismatch(data) == expected


def test_the_mismatch_uses_the_weight_of_each_batch() -> None:
    vertices, labels = simplex(3, 4), torch.arange(3)
    metric = NearestMeanMismatch(num_classes=3, dim=4)
    metric.update(vertices, labels, vertices)
    metric.update(vertices, labels, vertices.roll(1, dims=0))
    assert float(metric.compute()) == 0.5
