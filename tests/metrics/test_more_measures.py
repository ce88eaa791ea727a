"""The measures for vocabularies, imbalance and other frames equal their definitions, or are NaN where they lack one."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from etfopt.errors import InputError
from etfopt.frames import Frame, best_frame, orthogonal, orthoplex, polygon, seli, simplex
from etfopt.metrics import CATALOG, FEATURE_MEASURES, MEASURES, NCCAgreement, NearestMeanMismatch, NeuralCollapse
from tests.tools.measure_references import more_reference
from tests.tools.metric_cases import SIZES, batches, collapse_reference, draw, nan_keys
from tests.tools.metric_cases import simplex as vertices_of

MORE = [key for key in CATALOG if key not in MEASURES]


def measure(features: Tensor, labels: Tensor, weight: Tensor | None, C: int, **options: object) -> dict[str, float]:
    metric = NeuralCollapse(num_classes=C, dim=features.shape[1], **{"measures": "all", **options})
    cut = len(labels) // 3
    for rows in (slice(0, cut), slice(cut, None)):
        metric.update(features[rows], labels[rows], weight)
    return {key: float(x) for key, x in metric.compute().items()}


def drawn_case(seed: int) -> tuple[Tensor, Tensor, Tensor, str]:
    """Missing classes, classes of one sample, more classes than dimensions, more dimensions than samples, collapse."""
    g = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=g))

    kind = ["plain", "missing", "single", "many classes", "few samples", "collapsed", "one class"][seed % 7]
    d, C = number(2, 9), number(2, 9)
    if kind == "many classes":
        C, d = number(6, 30), number(2, 5)
    n = number(C, 6 * C) if kind != "few samples" else number(2, d + 1)
    labels = torch.randint(C, (n,), generator=g)
    if kind == "single":
        labels = torch.arange(C).repeat(2)[: C + number(0, C)]
    if kind == "missing":
        labels[labels == number(0, C)] = 0
    if kind == "one class":
        labels[:] = 0
    means = torch.randn(C, d, generator=g, dtype=torch.float64)
    noise = 0.0 if kind == "collapsed" else 10.0 ** -number(0, 3)
    features = means[labels] + noise * torch.randn(len(labels), d, generator=g, dtype=torch.float64) + 3.0
    return features, labels, torch.randn(C, d, generator=g, dtype=torch.float64), kind


@pytest.mark.parametrize("block", range(10))
def test_300_drawn_cases_equal_the_definitions_or_are_nan_with_them(block: int) -> None:
    for seed in range(30 * block, 30 * block + 30):
        features, labels, weight, kind = drawn_case(seed)
        C, d = weight.shape
        frame = best_frame(d, C) if 2 * d >= C else None
        shares = None if seed % 2 else np.linspace(0, 1, C)
        found = measure(features, labels, weight, C, **({"frame": frame, "frame_weights": shares} if frame else {}))
        expected = more_reference(features, labels, weight, frame, shares)
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), (
            f"case {seed}: {kind}"
        )
        assert set(found) - set(expected) == set(MEASURES)


def test_the_drawn_cases_have_values_and_lack_them() -> None:
    values = [more_reference(*drawn_case(seed)[:3]) for seed in range(70)]
    for key in values[0]:
        assert 35 < sum(not math.isnan(v[key]) for v in values) <= 70, key
    assert sum(math.isnan(v["cdnv"]) for v in values) > 0
    assert sum(math.isnan(v["effective_rank_within"]) for v in values) > 0


@pytest.mark.parametrize(("C", "d"), [(3, 2), (5, 9), (10, 32)])
def test_at_collapse_each_measure_has_the_value_of_the_catalog(C: int, d: int) -> None:
    vertices, labels = vertices_of(C, d), torch.arange(C).repeat(5)
    found = measure(3 * vertices[labels] + 1, labels, 0.5 * vertices, C, frame="reduced")
    found.pop("nc4")  # without a bias the logits of the global mean are not zero
    accuracy = found.pop("accuracy")
    assert nan_keys(found) == {"effective_rank_within"}
    assert accuracy >= 1 / C
    for key, value in found.items():
        expected = CATALOG[key].at_collapse
        if expected is not None:
            assert value == pytest.approx(expected, abs=1e-7 if key == "gnc2" else 1e-12), key
    assert found["effective_rank_between"] == pytest.approx(C - 1, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_offset_changes_no_measure_that_says_so(offset: float, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and offset > 1e4:
        offset = 1e3
    C, d = 6, 9
    features, labels, weight, _ = draw(C, d, 200, noise=0.3, dtype=torch.float64)
    moved = (features + offset * torch.linspace(-1, 1, d, dtype=torch.float64)).to(dtype)
    near = moved.double() - offset * torch.linspace(-1, 1, d, dtype=torch.float64)  # the rounding of the input stays
    found, expected = (measure(f, labels, weight, C, frame="simplex") for f in (moved, near))
    for key in (key for key in found if not CATALOG[key].offset):
        assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=0), key


def test_the_measure_says_whether_it_needs_a_classifier() -> None:
    features, labels, weight, _ = draw(5, 8, 100)
    assert nan_keys(measure(features, labels, None, 5, frame="simplex")) == {
        key for key, m in CATALOG.items() if m.classifier
    }
    assert not nan_keys(measure(features, labels, weight, 5, frame="simplex"))
    assert {key for key in FEATURE_MEASURES if CATALOG[key].classifier} == set()


@pytest.mark.parametrize("key", [key for key in CATALOG if not CATALOG[key].frame])
def test_one_measure_alone_is_that_of_all(key: str) -> None:
    features, labels, weight, _ = draw(5, 8, 100)
    alone = measure(features, labels, weight, 5, measures=[key])
    assert list(alone) == [key]
    assert alone[key] == pytest.approx(measure(features, labels, weight, 5)[key], rel=1e-12)


def test_the_state_holds_what_the_measures_need_and_no_more() -> None:
    def entries(*keys: str) -> int:
        metric = NeuralCollapse(num_classes=100, dim=50, measures=keys)
        return sum(x.numel() for x in metric.metric_state.values())

    assert entries("cdnv", "gnc2", "effective_rank_between") == 2 * 100 * 50 + 2 * 100 + 1 + 1  # and the ignored label
    assert entries("nc1") == entries("cdnv") + 50**2
    assert entries("accuracy") == entries("cdnv") + 1
    assert entries("unc3") == entries("cdnv") + 100 * 50 + 100


def test_the_distance_to_the_simplex_frame_is_that_to_the_simplex() -> None:
    features, _, weight, _ = draw(5, 8, 100)
    labels = torch.arange(100) % 5  # for balanced classes the two means agree
    for frame in ("simplex", "reduced", simplex(5), simplex(5).F):
        found = measure(features, labels, weight, 5, frame=frame)
        for which in ("means", "weights"):
            assert found[f"frame_distance_{which}"] == pytest.approx(found[f"etf_distance_{which}"], rel=1e-10)


@pytest.mark.parametrize("weights", [None, [40, 10, 5, 5], [1.0, 0.0, 2.0, 3.0]])
def test_imbalanced_classes_at_their_collapse_are_at_no_distance_from_seli(weights: list[float] | None) -> None:
    counts = [40, 10, 5, 5]
    F_H, F_W = seli(counts)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q[:, :3]
    columns, rows = ((turn @ torch.tensor(F.F)).T for F in (F_H, F_W))
    found = measure(3 * columns[labels] + 7, labels, 2 * rows, 4, frame=seli(counts), frame_weights=weights)
    assert max(found["frame_distance_means"], found["frame_distance_weights"]) < 1e-28
    simplices = measure(3 * columns[labels] + 7, labels, 2 * rows, 4, frame="reduced", frame_weights=weights)
    assert min(simplices["frame_distance_means"], simplices["frame_distance_weights"]) > 1e-3


@pytest.mark.parametrize(
    "frame", [orthogonal(4), orthoplex(3, 5), simplex(4), polygon(6)], ids=lambda frame: frame.name
)
def test_means_at_the_vertices_of_a_frame_are_at_no_distance_from_it(frame: Frame) -> None:
    """The orthogonal frame is not centred, and the metric does not know the origin of the features."""
    C, labels = frame.C, torch.arange(frame.C).repeat(3)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    vertices = (turn[:, : frame.r] @ torch.tensor(frame.F)).T
    labels = torch.cat([labels, labels[:2]])  # nor does imbalance matter
    found = measure(5 * vertices[labels] - 2, labels, 3 * vertices, C, frame=frame)
    assert max(found["frame_distance_means"], found["frame_distance_weights"]) < 1e-28
    keep = labels != 1
    assert measure(vertices[labels[keep]], labels[keep], None, C, frame=frame)["frame_distance_means"] < 1e-28


def test_self_duality_of_every_class() -> None:
    features, labels, weight, _ = draw(5, 8, 100)
    metric = NeuralCollapse(**SIZES, measures=["self_duality"])
    assert metric.self_duality().isnan().all()
    keep = labels != 2
    metric.update(features[keep], labels[keep], weight)
    found = metric.self_duality()
    h = metric.class_means().T
    expected = weight.double() / weight.double().norm(dim=1, keepdim=True) - h / h.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected.norm(dim=1), rtol=1e-12, atol=0, equal_nan=True)
    assert found.isnan().tolist() == [False, False, True, False, False]
    assert float(metric.compute()["self_duality"]) == pytest.approx(float(found.nanmean()))
    with pytest.raises(InputError, match=r"self_duality\(\) needs the classifier; build the metric with"):
        NeuralCollapse(**SIZES, measures=["cdnv"]).self_duality()


def test_variances_and_counts_of_every_class() -> None:
    features, labels, _, _ = draw(5, 8, 100, dtype=torch.float64)
    metric = NeuralCollapse(num_classes=6, dim=8, measures=["cdnv"])
    for f, y in zip(features.split(30), labels.split(30), strict=True):
        metric.update(f + 1e8, y)
    expected = [features[labels == c].var(dim=0, correction=0).sum() for c in range(5)]
    rounded = [(features + 1e8)[labels == c].sub(1e8).var(dim=0, correction=0).sum() for c in range(5)]
    assert metric.class_counts().tolist() == [*torch.bincount(labels).tolist(), 0]
    assert metric.class_variances()[:5].tolist() == pytest.approx([float(x) for x in rounded], rel=1e-12)
    assert [float(x) for x in rounded] == pytest.approx([float(x) for x in expected], rel=1e-6)
    assert metric.class_variances()[5].isnan()


def test_ncc_agreement_is_the_rest_of_the_mismatch() -> None:
    data = draw(5, 8, 300, noise=1.0)
    agreement, mismatch = NCCAgreement(**SIZES), NearestMeanMismatch(**SIZES)
    for metric in (agreement, mismatch):
        for batch in batches(data, [100, 200]):
            metric.update(*batch)
    assert float(agreement.compute()) == 1 - float(mismatch.compute())
    assert 0.3 < float(agreement.compute()) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["nc1", "nc9"]}, "measures holds 'nc9', which is no measure; choose from accuracy, nc1"),
        ({"measures": "nc1"}, r"measures is 'nc1'; pass a list of names"),
        ({"measures": []}, "measures is empty; name at least one"),
        ({"measures": ["frame_distance_means"]}, "which needs a frame; pass frame="),
        ({"frame_weights": [1.0] * 5}, "frame_weights is given without frame; pass the frame too"),
        ({"frame": "simplex", "frame_weights": [1.0, -1.0, 1.0, 1.0, 1.0]}, "frame_weights holds negative values"),
        ({"frame": np.eye(9, 5)}, "frame has 9 rows and dim is 8"),
        ({"frame": np.eye(4)}, r"frame has shape \(4, 4\); it needs C = 5 columns"),
        ({"pairs": 1}, "pairs must be"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NeuralCollapse(**SIZES, **options)


def test_a_frame_and_its_weights_may_be_tensors() -> None:
    data, weights = draw(5, 8, 100), torch.tensor([1, 2, 3, 4, 5])
    arrays, tensors = (
        measure(*data[:3], 5, frame=F, frame_weights=w)
        for F, w in ((simplex(5).F, weights.numpy()), (torch.tensor(simplex(5).F), weights))
    )
    assert arrays == tensors


def test_the_usual_measures_are_as_ever() -> None:
    data = draw(5, 8, 100)
    metric = NeuralCollapse(**SIZES, frame="simplex")
    metric.update(*data)
    found = {key: float(x) for key, x in metric.compute().items()}
    assert tuple(found) == (*MEASURES, "frame_distance_means", "frame_distance_weights")
    expected = collapse_reference(*data)
    assert {key: found[key] for key in MEASURES} == pytest.approx(expected, rel=1e-9)
