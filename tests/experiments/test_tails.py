"""Imbalanced classes: which classes are head and tail, their measures, and runs that use the numbers of samples."""

import math

import numpy as np
import pytest
import torch

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.networks.heads import build_head
from etfopt.experiments.settings import TrainConfig
from etfopt.experiments.studies._comparisons import COMPARED, comparisons
from etfopt.experiments.studies._markdown import markdown
from etfopt.experiments.studies._numbers import QUANTITIES, TAILS, Collected, Spread
from etfopt.experiments.studies.plan_file import parse_study
from etfopt.experiments.studies.report import Report
from etfopt.experiments.training.tails import TailMeasures, groups, is_imbalanced
from etfopt.experiments.training.train import _build, train
from etfopt.frames import seli
from etfopt.frames.reduced import reduced_simplex
from etfopt.nn import ETFDistance, NearestETFHead
from tests.tools.runs import small

COUNTS = [40, 5, 9, 20, 7]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (COUNTS, ([0], [3, 2, 4], [1])),
        ([1, 2, 3], ([2], [1], [0])),
        ([9, 1, 9, 1, 9, 1, 9], ([0, 2], [4, 6, 1], [3, 5])),  # equally frequent: the lower label first
        (list(range(10, 0, -1)), ([0, 1, 2], [3, 4, 5, 6], [7, 8, 9])),
    ],
)
def test_head_and_tail_are_the_thirds_of_most_and_fewest_samples(counts, expected):
    assert tuple(group.tolist() for group in groups(torch.tensor(counts))) == expected


@pytest.mark.parametrize(
    ("counts", "imbalanced"),
    [(COUNTS, True), ([10, 5, 5], True), ([10, 6, 6], False), ([100, 1], False), ([7] * 9, False), ([9, 4, 0], False)],
)
def test_classes_are_imbalanced_from_a_ratio_of_two(counts, imbalanced):
    assert is_imbalanced(torch.tensor(counts)) is imbalanced


def measured(features, labels, weight, bias, dim: int) -> dict[str, float]:
    """In two batches."""
    measures = TailMeasures(torch.tensor(COUNTS), dim)
    for part in (slice(0, 11), slice(11, None)):
        measures.update(features[part], labels[part], weight, bias)
    values = {name: float(value) for name, value in measures.compute().items()}
    measures.reset()
    measures.update(features, labels, weight, bias)
    assert {name: float(value) for name, value in measures.compute().items()} == pytest.approx(values, rel=1e-9)
    return values


def test_accuracies_of_groups_are_means_over_their_classes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(5), torch.randint(5, (35,), generator=generator)])
    features, weight, bias = (torch.randn(shape, generator=generator) for shape in ((40, 3), (5, 3), (5,)))
    features += weight[labels]
    predicted = (features @ weight.T + bias).argmax(dim=1)
    by_class = [(predicted == labels)[labels == c].float().mean().item() for c in range(5)]
    found = measured(features, labels, weight, bias, 3)
    expected = {"head": by_class[0], "middle": (by_class[3] + by_class[2] + by_class[4]) / 3, "tail": by_class[1]}
    assert found == pytest.approx({f"accuracy_{name}": value for name, value in expected.items()}, abs=1e-6)
    assert len({round(value, 6) for value in expected.values()}) == 3  # the groups differ, so mixing them up shows
    assert "distance_to_seli" not in found  # d < C - 1


@pytest.mark.parametrize("geometry", ["seli", "simplex"])
def test_distances_are_zero_at_their_geometry_of_any_size_and_place(geometry: str):
    F = seli(COUNTS).F_H.F if geometry == "seli" else reduced_simplex(5)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 4)))[0]
    features = torch.from_numpy((3 * rotation @ F + np.arange(7)[:, None]).T)
    found = measured(features.repeat(4, 1), torch.arange(5).repeat(4), torch.zeros(5, 7), torch.zeros(5), 7)
    other = "simplex" if geometry == "seli" else "seli"
    assert found[f"distance_to_{geometry}"] < 1e-25
    assert found[f"distance_to_{other}"] > 0.01


# --- runs ----------------------------------------------------------------------------------------------------------

TAIL = {"data__imbalance": "exp", "data__imbalance_factor": 0.1}


def test_a_run_on_a_long_tail_knows_its_counts_and_a_balanced_one_has_no_tail(digits, tmp_path):
    config = small(1, **TAIL, head__frame="seli", head__class_weights="counts", loss__name="logit-adjustment")
    record = train(config, tmp_path / "tail").history[-1]
    names = {f"{split}_{name.partition('_')[2]}" for split in ("train", "test") for name in TAILS}
    assert names <= record.keys()
    assert all(0 <= record[name] <= 1 for name in names)
    thirds = [record[f"test_accuracy_{name}"] for name in ("head", "middle", "tail")]
    # the classes of the test split have 35 to 37 samples
    assert record["test_accuracy"] == pytest.approx(np.dot(thirds, [0.3, 0.4, 0.3]), abs=0.01)
    assert not names & train(small(1), tmp_path / "flat", images=digits).history[-1].keys()


@pytest.mark.parametrize("name", ["fixed", "nearest"])
def test_the_frame_seli_is_that_of_the_training_splits_counts(name: str):
    config = small(head__name=name, head__frame="seli")
    counts = torch.tensor([50, 9, 30, 4])
    head = build_head(config.head, 6, 4, 0, counts)
    np.testing.assert_allclose(head.frame.numpy(), seli(counts.tolist()).F_H.F, atol=1e-6)
    assert head.classifier_frame is not None
    with pytest.raises(InputError, match="counts"):
        build_head(config.head, 6, 4, 0)
    assert build_head(small().head, 6, 4, 0, counts).frame.shape == (3, 4)  # no other frame takes them


# --- the distance as a loss ----------------------------------------------------------------------------------------


def step_loss(weight: float, head: str, images) -> tuple[float, torch.Tensor]:
    """The loss of a first training step, and the distance of the class means that it saw."""
    model = _build(small(head__name=head, loss__distance_weight=weight), images)
    batch = images.train[0:200]
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_hook(lambda *args: seen.append(args[-1].detach()))
    loss = model.training_step(list(batch), 0)
    return float(loss.detach()), ETFDistance(relative=True).from_features(model.head.normalize(seen[-1]), batch[1])


@pytest.mark.parametrize("head", ["torch.nn:Linear", "nearest"])
def test_the_distance_is_added_with_its_weight(head: str, digits):
    plain, distance = step_loss(0.0, head, digits)
    assert 0.01 < float(distance) <= 1
    assert step_loss(2.5, head, digits)[0] == pytest.approx(plain + 2.5 * float(distance), rel=1e-5)


def test_training_with_the_distance_reduces_it_at_any_size_of_the_features(digits, tmp_path):
    linear = {"head__name": "torch.nn:Linear", "training__batch_size": 128}
    found = {
        weight: train(small(3, **linear, loss__distance_weight=weight), tmp_path / str(weight), images=digits).history[
            -1
        ]
        for weight in (0.0, 1.0)
    }
    assert found[1.0]["train_etf_distance_means"] < 0.5 * found[0.0]["train_etf_distance_means"]
    assert found[1.0]["train_accuracy"] > 0.8
    # the recorded loss is cross-entropy alone
    assert found[1.0]["train_loss"] < math.log(10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss.distance_weight": -1.0}, r"loss\.distance_weight must be finite and at least 0; got -1"),
        ({"loss.distance_weight": 0.5, "backbone.dim": 8, "head.name": "learned"}, r"backbone\.dim to at least 9"),
        ({"head.frame": "seli", "backbone.dim": 8}, "dim = 8 is smaller than the r = 9 rows"),
        ({"head.frame": "seli", "head.name": "learned"}, "head.frame = 'seli' is for heads with a frame"),
    ],
)
def test_what_does_not_fit_is_refused_before_data_are_read(settings, message):
    with pytest.raises(InputError, match=message):
        TrainConfig().with_settings(settings)


# --- reports -------------------------------------------------------------------------------------------------------


def test_the_report_has_a_table_of_head_and_tail_where_runs_have_them():
    plan = {"title": "T", "question": "Q", "seeds": [0, 1, 2], "grid": {"data.subset": [5, 6]}}
    study = parse_study({**plan, "variants": [{"name": "a"}, {"name": "b", "head.name": "fixed"}]}, "s")
    found = {}
    for v in study.variants:
        keys = [*QUANTITIES, *(TAILS if "6" in v.cell else ())]
        found[v.name] = {seed: dict.fromkeys(keys, 0.5 + 0.01 * seed * (v.head == "b")) for seed in study.seeds}
    pairs = comparisons(study, found, [])
    tails = [pair for pair in pairs if pair.quantity not in COMPARED]
    assert [(pair.variant, pair.quantity) for pair in tails] == [
        ("b, data.subset=6", f"test_accuracy_{name}") for name in ("head", "middle", "tail")
    ]
    spreads = {
        name: {key: Spread.of([row[key] for row in rows.values()]) for key in rows[0]} for name, rows in found.items()
    }
    epochs = dict.fromkeys(found, (1, 2))
    text = markdown(Report(Collected(study, {name: [] for name in found}), epochs, found, spreads, pairs, [], []), {})
    assert "## Head, middle and tail classes" in text
    assert "| b, data.subset=6 | 51.00 % (50.00 % to 52.00 %) |" in text
    assert "| a, data.subset=6 | test top-1, tail classes | 3 | +1.00 |" in text
    flat = {name: row for name, row in spreads.items() if "5" in name}
    assert "## Head" not in markdown(
        Report(Collected(study, {}), epochs, {n: found[n] for n in flat}, flat, [], [], []), {}
    )


def test_the_counts_of_a_long_tail_are_those_of_its_selection():
    images = load_images(small(**TAIL).data)
    counts = torch.bincount(images.train.labels)
    assert is_imbalanced(counts)
    assert [group.tolist() for group in groups(counts)] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]
    head = build_head(small(head__frame="seli").head, 12, 10, 0, counts)
    assert isinstance(head, NearestETFHead)
