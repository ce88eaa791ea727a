"""What is done to a split: subsets, imbalance, label noise."""

import pytest
import torch

from etfopt.errors import InputError
from etfopt.experiments.config import DataConfig
from etfopt.experiments.data import load_images
from etfopt.experiments.data.images import Labelled
from etfopt.experiments.data.selection import class_shares, for_testing, selected


def samples(counts: list[int]) -> Labelled:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Labelled(torch.arange(len(labels)), labels)


def test_a_subset_has_as_many_of_each_class_and_smaller_ones_are_parts_of_it() -> None:
    data = samples([20, 30, 40])
    small, large = (selected(data, 3, DataConfig(subset=n)) for n in (5, 20))
    assert torch.bincount(small.labels).tolist() == [5, 5, 5]
    assert torch.bincount(large.labels).tolist() == [20, 20, 20]
    assert set(small.pixels.tolist()) < set(large.pixels.tolist())
    assert torch.equal(data.labels[large.pixels], large.labels)
    other = selected(data, 3, DataConfig(subset=5, seed=1))
    assert set(other.pixels.tolist()) != set(small.pixels.tolist())
    with pytest.raises(InputError, match=r"data.subset = 25: class 0 of 'digits' has 20 for training"):
        selected(data, 3, DataConfig(subset=25))


def test_a_subset_for_the_test_is_drawn_alike_and_leaves_training_alone() -> None:
    data, config = samples([20, 30, 40]), DataConfig(test_subset=5)
    assert torch.equal(selected(data, 3, config).pixels, data.pixels)
    small = for_testing(data, 3, config)
    assert torch.bincount(small.labels).tolist() == [5, 5, 5]
    assert torch.equal(small.pixels, selected(data, 3, DataConfig(subset=5)).pixels)
    assert for_testing(data, 3, DataConfig(subset=5)) is data
    assert len(load_images(DataConfig(test_subset=7)).test) == 70
    with pytest.raises(InputError, match=r"data.test_subset = 25: class 0 of 'digits' has 20 for the test"):
        for_testing(data, 3, DataConfig(test_subset=25))


def test_classes_become_rare_as_asked_and_none_vanishes() -> None:
    exponential = selected(samples([1000] * 5), 5, DataConfig(imbalance="exp", imbalance_factor=0.01))
    assert torch.bincount(exponential.labels).tolist() == [1000, 316, 100, 31, 10]
    step = selected(samples([100] * 5), 5, DataConfig(imbalance="step", imbalance_factor=0.1))
    assert torch.bincount(step.labels).tolist() == [100, 100, 100, 10, 10]
    few = selected(samples([3] * 4), 4, DataConfig(imbalance="exp", imbalance_factor=0.01))
    assert torch.bincount(few.labels).tolist() == [3, 1, 1, 1]
    torch.testing.assert_close(class_shares(3, "exp", 0.25), torch.tensor([1, 0.5, 0.25], dtype=torch.float64))


def test_label_noise_replaces_exactly_its_share_by_other_classes_uniformly() -> None:
    data = samples([2000] * 4)
    noisy = selected(data, 4, DataConfig(label_noise=0.3))
    wrong = noisy.labels != data.labels
    assert int(wrong.sum()) == 2400
    pairs = torch.zeros(4, 4).index_put((data.labels[wrong], noisy.labels[wrong]), torch.ones(2400), accumulate=True)
    off = pairs[~torch.eye(4, dtype=torch.bool)]
    assert off.min() > 150  # 200 each are expected, with a deviation of 14
    assert off.max() < 250
    assert torch.equal(noisy.labels, selected(data, 4, DataConfig(label_noise=0.3)).labels)
