"""Measures over pairs of classes: tiles and close pairs do not matter, samples of pairs state their error."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from etfopt.errors import InputError
from etfopt.metrics import NeuralCollapse, PairMeasures, _pairs
from tests.tools.metric_cases import draw


def metric_of(features: Tensor, labels: Tensor, C: int, **options: object) -> NeuralCollapse:
    metric = NeuralCollapse(num_classes=C, dim=features.shape[1], **{"measures": ["cdnv", "gnc2"], **options})
    metric.update(features, labels)
    return metric


@pytest.mark.parametrize("tile", [1, 7, 16, 40])
def test_tiles_do_not_matter_and_are_reported(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, _, _ = draw(40, 6, 200)
    expected = metric_of(features, labels, 40).pairwise()
    monkeypatch.setattr(_pairs, "TILE", tile)
    calls: list[tuple[int, int]] = []
    metric = metric_of(features, labels, 40, progress=lambda done, total: calls.append((done, total)))
    found = metric.compute()
    assert float(found["cdnv"]) == pytest.approx(expected.cdnv, rel=1e-13)
    assert float(found["gnc2"]) == pytest.approx(expected.gnc2, rel=1e-13)
    tiles = math.ceil(40 / tile)
    total = tiles * (tiles + 1) // 2
    assert calls == [(i, total) for i in range(1, total + 1)]
    assert expected.pairs == 40 * 39 // 2
    assert (expected.cdnv_error, expected.gnc2_error) == (0, 0)


@pytest.mark.parametrize("distance", [1e-2, 1e-5, 1e-8])
def test_means_that_are_close_lose_no_digits(distance: float) -> None:
    """The squared distance from norms and products would be rounding alone at 1e-8."""
    g = torch.Generator().manual_seed(0)
    near = torch.randn(12, 5, generator=g, dtype=torch.float64)
    means = torch.cat([near[:6], near[:6] + distance * near[6:]])
    half = distance * torch.randn(12, 5, generator=g, dtype=torch.float64)
    features, labels = torch.cat([means + half, means - half]), torch.arange(12).repeat(2)
    found = metric_of(features, labels, 12).pairwise()
    variances = half.square().sum(dim=1)
    h = means - means.mean(dim=0)
    unit = h / h.norm(dim=1, keepdim=True)
    pairs = list(itertools.combinations(range(12), 2))
    cdnv = [float((variances[i] + variances[j]) / (2 * (means[i] - means[j]).square().sum())) for i, j in pairs]
    logs = torch.tensor([-float((unit[i] - unit[j]).norm().log()) for i, j in pairs], dtype=torch.float64)
    assert found.cdnv == pytest.approx(sum(cdnv) / len(pairs), rel=1e-15 / distance + 1e-12)
    assert found.gnc2 == pytest.approx(float(logs.std(correction=0)), rel=1e-15 / distance + 1e-12)


def test_the_value_of_every_pair_on_request() -> None:
    features, labels, _, _ = draw(9, 5, 80, dtype=torch.float64)
    keep = labels != 4
    metric = metric_of(features[keep], labels[keep], 9)
    first, second = torch.triu_indices(9, 9, offset=1)
    values = metric.cdnv_of(first, second)
    means, variances = metric.feature_means(), metric.class_variances()
    expected = (variances[first] + variances[second]) / (2 * (means[first] - means[second]).square().sum(dim=1))
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=0, equal_nan=True)
    assert values.isnan().sum() == 8
    assert float(values.nanmean()) == pytest.approx(metric.pairwise().cdnv, rel=1e-13)
    assert metric.cdnv_of(torch.tensor([2]), torch.tensor([2])).isnan().all()
    assert metric.cdnv_of(first[:0], second[:0]).shape == (0,)
    for wrong, message in (
        (torch.tensor([0, 9]), r"second holds 9 at position 1; it must lie in \[0, 9\)"),
        (torch.tensor([[0, 1]]), r"second must be a vector of class indices.*int64 \(1, 2\)"),
        (torch.tensor([0.0, 1.0]), "second must be a vector .*float32"),
        ([0, 1], "second must be a vector .*got list"),
        (torch.tensor([0]), "first has 2 classes and second 1"),
    ):
        with pytest.raises(InputError, match=message):
            metric.cdnv_of(torch.tensor([0, 1]), wrong)


def test_a_sample_of_the_pairs_states_its_error() -> None:
    features, labels, _, _ = draw(60, 6, 400, noise=1.0)
    metric = metric_of(features, labels, 60)
    whole = metric.pairwise()
    samples = [metric.pairwise(pairs=400, seed=seed) for seed in range(60)]
    for name in ("cdnv", "gnc2"):
        exact = getattr(whole, name)
        scores = torch.tensor([(getattr(s, name) - exact) / getattr(s, f"{name}_error") for s in samples])
        assert abs(scores.mean()) < 0.6, name  # the estimate is not off by more than chance
        assert 0.7 < scores.std() < 1.4, name  # and the error is that of the estimates
    assert samples[0] == metric.pairwise(pairs=400, seed=0)
    assert samples[0].pairs == 400
    compute = NeuralCollapse(num_classes=60, dim=6, measures=["cdnv"], pairs=400)
    compute.update(features, labels)
    assert float(compute.compute()["cdnv"]) == pytest.approx(samples[0].cdnv, rel=1e-13)


def test_a_sample_draws_every_pair_with_the_same_chance() -> None:
    first, second = _pairs.drawn_pairs(5, 40_000, seed=1)
    counts = torch.bincount(5 * torch.minimum(first, second) + torch.maximum(first, second), minlength=25).view(5, 5)
    drawn = counts[*torch.triu_indices(5, 5, offset=1)]
    assert drawn.sum() == 40_000  # no class is paired with itself
    assert (drawn - 4000).abs().max() < 5 * 60  # 60 is a standard deviation


def test_as_many_pairs_as_there_are_need_no_sample() -> None:
    metric = metric_of(*draw(6, 4, 30)[:2], 6)
    assert metric.pairwise(pairs=15) == metric.pairwise()
    assert metric.pairwise(pairs=14).cdnv_error > 0


def test_without_two_classes_there_is_no_pair() -> None:
    nothing = NeuralCollapse(num_classes=3, dim=2, measures=["cdnv", "gnc2"])
    one = metric_of(torch.ones(4, 2), torch.full((4,), 1), 3)
    for metric in (nothing, one):
        for found in (metric.pairwise(), metric.pairwise(pairs=5)):
            assert found.pairs == 0
            assert math.isnan(found.cdnv + found.gnc2)
        assert metric.cdnv_of(torch.tensor([0]), torch.tensor([1])).isnan().all()


def test_means_that_rounding_alone_tells_apart_have_no_measure() -> None:
    g = torch.Generator().manual_seed(0)
    half = torch.randn(50, 4, generator=g, dtype=torch.float64)
    twins = torch.cat([0.1 + half, 0.1 - half])
    metric = metric_of(torch.cat([twins, twins.flip(0), half + 3]), torch.arange(3).repeat_interleave(100)[:250], 3)
    assert math.isnan(metric.pairwise().cdnv)
    assert metric.cdnv_of(torch.tensor([0, 0]), torch.tensor([1, 2])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("options", [{"pairs": 0}, {"pairs": 2.5}, {"pairs": 10, "seed": -1}])
def test_a_bad_number_of_pairs_is_refused(options: dict) -> None:
    with pytest.raises(InputError, match="must be"):
        metric_of(torch.eye(3), torch.arange(3), 3).pairwise(**options)


def test_the_result_is_a_tuple_with_names() -> None:
    assert PairMeasures._fields == ("pairs", "cdnv", "cdnv_error", "gnc2", "gnc2_error", "log_inverse_distance")
