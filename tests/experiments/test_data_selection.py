"""What is done to a split: subsets, imbalance, label noise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.data.images import Labelled
from etfopt.experiments.data.selection import class_shares, for_testing, selected
from etfopt.experiments.settings import DataConfig


def labels_of(counts: list[int]) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def chosen_sample_by_sample(labels: torch.Tensor, C: int, config: DataConfig) -> tuple[list[int], list[int]]:
    """Return what `selected` promises, as its plainest reading: a permutation a class, cut off, then the noise."""
    generator = torch.Generator().manual_seed(config.seed)
    kept: list[int] = []
    for c in range(C):
        members = [i for i, label in enumerate(labels.tolist()) if label == c]
        count = len(members) if config.subset is None else config.subset
        share = {
            "none": 1.0,
            "exp": config.imbalance_factor ** (c / (C - 1)),
            "step": 1.0 if c < C - C // 2 else config.imbalance_factor,
        }[config.imbalance]
        order = torch.randperm(len(members), generator=generator).tolist()
        kept += [members[k] for k in order[: max(1, int(count * share + 1e-9))]]
    kept.sort()
    noisy = [int(labels[i]) for i in kept]
    wrong = torch.randperm(len(kept), generator=generator)[: round(config.label_noise * len(kept))].tolist()
    for i, shift in zip(wrong, torch.randint(1, C, (len(wrong),), generator=generator).tolist(), strict=True):
        noisy[i] = (noisy[i] + shift) % C
    return kept, noisy


@given(
    labels=st.lists(st.integers(0, 3), max_size=60).map(lambda more: [*range(4), *range(4), *more]),
    subset=st.sampled_from([None, 1, 2]),
    imbalance=st.sampled_from([("none", 1.0), ("exp", 0.1), ("step", 0.5)]),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 5),
)
def test_what_is_kept_is_a_matter_of_labels_seed_and_settings_alone(labels, subset, imbalance, noise, seed):
    y = torch.tensor(labels)
    kind, factor = imbalance
    config = DataConfig(subset=subset, imbalance=kind, imbalance_factor=factor, label_noise=noise, seed=seed)
    found = selected(y, 4, config)
    assert (found.indices.tolist(), found.labels.tolist()) == chosen_sample_by_sample(y, 4, config)
    test = for_testing(y, 4, DataConfig(test_subset=subset, label_noise=noise, seed=seed))
    plain = DataConfig(subset=subset, seed=seed)
    assert (test.indices.tolist(), test.labels.tolist()) == chosen_sample_by_sample(y, 4, plain)


def test_of_images_in_memory_nothing_is_copied_where_nothing_is_left_out():
    data = Labelled(torch.arange(90), labels_of([20, 30, 40]))
    noisy = selected(data.labels, 3, DataConfig(label_noise=0.5)).of(data)
    assert noisy.pixels is data.pixels
    assert not torch.equal(noisy.labels, data.labels)
    assert for_testing(data.labels, 3, DataConfig()).of(data).pixels is data.pixels
    small = selected(data.labels, 3, DataConfig(subset=2))
    assert small.of(data).pixels.tolist() == small.indices.tolist()


def test_a_subset_has_as_many_of_each_class_and_smaller_ones_are_parts_of_it():
    data = labels_of([20, 30, 40])
    small, large = (selected(data, 3, DataConfig(subset=n)) for n in (5, 20))
    assert [torch.bincount(found.labels).tolist() for found in (small, large)] == [[5] * 3, [20] * 3]
    assert set(small.indices.tolist()) < set(large.indices.tolist())
    assert torch.equal(data[large.indices], large.labels)
    other = selected(data, 3, DataConfig(subset=5, seed=1))
    assert set(other.indices.tolist()) != set(small.indices.tolist())
    with pytest.raises(InputError, match=r"data.subset = 25: class 0 of 'digits' has 20 for training"):
        selected(data, 3, DataConfig(subset=25))


def test_a_subset_for_the_test_is_drawn_alike_and_leaves_training_alone():
    data, config = labels_of([20, 30, 40]), DataConfig(test_subset=5)
    assert torch.equal(selected(data, 3, config).labels, data)
    small = for_testing(data, 3, config)
    assert torch.bincount(small.labels).tolist() == [5, 5, 5]
    assert torch.equal(small.indices, selected(data, 3, DataConfig(subset=5)).indices)
    assert for_testing(data, 3, DataConfig(subset=5)).indices.tolist() == list(range(90))
    assert len(load_images(DataConfig(test_subset=7)).test) == 70
    with pytest.raises(InputError, match=r"data.test_subset = 25: class 0 of 'digits' has 20 for the test"):
        for_testing(data, 3, DataConfig(test_subset=25))


def test_classes_become_rare_as_asked_and_none_vanishes():
    for count, kind, factor, expected in (
        (1000, "exp", 0.01, [1000, 316, 100, 31, 10]),
        (100, "step", 0.1, [100, 100, 100, 10, 10]),
        (3, "exp", 0.01, [3, 1, 1, 1, 1]),
    ):
        rare = selected(labels_of([count] * 5), 5, DataConfig(imbalance=kind, imbalance_factor=factor))
        assert torch.bincount(rare.labels).tolist() == expected
    torch.testing.assert_close(class_shares(3, "exp", 0.25), torch.tensor([1, 0.5, 0.25], dtype=torch.float64))
