"""Batches: every sample once an epoch, in an order that seed and epoch decide; augmentation alike."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etfopt.experiments.data import EpochBatches, batches
from etfopt.experiments.data.augment import augmented
from etfopt.experiments.data.images import Labelled, Split

KINDS = ("shuffled", "stratified")


def of_epoch(sampler: EpochBatches, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


sizes = st.lists(st.integers(1, 12), min_size=2, max_size=6)


@given(counts=sizes, size=st.integers(2, 20), seed=st.integers(0, 9), kind=st.sampled_from(KINDS))
def test_no_sample_is_left_out_or_alone_or_taken_twice(counts, size, seed, kind):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    sampler = EpochBatches(labels, size, seed, kind)
    for epoch in (0, 3):
        found = of_epoch(sampler, epoch)
        assert len(sampler) == len(found)
        assert sorted(chain(*found)) == list(range(len(labels)))
        assert all(len(batch) == size for batch in found[:-1])
        assert 2 <= len(found[-1]) <= size + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_is_a_function_of_seed_and_epoch(kind: str):
    labels = torch.arange(5).repeat(20)
    first = EpochBatches(labels, 16, 3, kind)
    orders = [of_epoch(first, epoch) for epoch in range(4)]
    resumed = EpochBatches(labels, 16, 3, kind)
    torch.manual_seed(17)  # of no importance
    assert of_epoch(resumed, 3) == orders[3]
    assert of_epoch(first, 1) == orders[1]
    assert orders[0] != orders[1] != orders[2]
    assert of_epoch(EpochBatches(labels, 16, 4, kind), 0) != orders[0]


def test_the_shuffled_order_is_that_of_torchs_sampler():
    """The recorded class means in `etfopt.bench` and the demonstration were made with it."""
    labels = torch.zeros(50, dtype=torch.int64)
    reference = torch.utils.data.RandomSampler(labels, generator=torch.Generator().manual_seed(5))
    ours = EpochBatches(labels, 50, 5)
    for epoch in range(3):
        assert of_epoch(ours, epoch) == [list(reference)]


def test_stratified_batches_of_equal_classes_have_equal_shares():
    labels = torch.arange(10).repeat(30)[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    for batch in EpochBatches(labels, 20, 1, "stratified"):
        assert torch.bincount(labels[batch], minlength=10).tolist() == [2] * 10
    shuffled = [torch.bincount(labels[batch], minlength=10).tolist() for batch in EpochBatches(labels, 20, 1)]
    assert any(row != [2] * 10 for row in shuffled)


def test_stratified_batches_of_unequal_classes_are_nearly_proportional():
    counts = torch.tensor([500, 200, 50, 5])
    labels = torch.arange(4).repeat_interleave(counts)
    firsts = set()
    for epoch in range(5):
        sampler = EpochBatches(labels, 151, 0, "stratified")
        for number, batch in enumerate(of_epoch(sampler, epoch)):
            found = torch.bincount(labels[batch], minlength=4)
            assert ((found - counts * len(batch) / 755).abs() <= 2).all()
            if not number:
                firsts.add(tuple(sorted(set(batch) & set(range(750, 755)))))
    assert len(firsts) > 1  # not always with the same samples
    lone = torch.tensor([0] * 100 + [1])
    sampler = EpochBatches(lone, 20, 0, "stratified")
    places = {next(i for i, batch in enumerate(of_epoch(sampler, epoch)) if 100 in batch) for epoch in range(12)}
    assert len(places) > 2  # a rare class falls on any batch


def test_without_a_seed_the_order_is_that_of_the_data():
    data = Split(Labelled(torch.arange(12), torch.arange(12) % 3))
    loader = batches(data, 5)
    assert [images.tolist() for images, _ in loader] == [list(range(5)), list(range(5, 10)), [10, 11]]
    assert len(loader) == 3


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 3, 10, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["flip-crop", "affine-crop"])
def test_augmentation_is_a_function_of_its_key(images: torch.Tensor, kind: str):
    first = augmented(images, kind, 1, 2, 3, 0)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(augmented(images, kind, 1, 2, 3, 0), first)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn from the global generator
    assert first.shape == images.shape
    for key in ((2, 2, 3, 0), (1, 3, 3, 0), (1, 2, 4, 0), (1, 2, 3, 1)):
        assert not torch.equal(augmented(images, kind, *key), first)
    assert augmented(images, "none", 0) is images


def test_every_crop_is_a_shifted_image_mirrored_or_not(images: torch.Tensor):
    padded, seen = torch.nn.functional.pad(images, [4] * 4), set()
    crops = {(y, x): padded[:, :, y : y + 10, x : x + 12] for y in range(9) for x in range(9)}
    both = {(*at, mirrored): crop.flip(3) if mirrored else crop for at, crop in crops.items() for mirrored in (0, 1)}
    for key in range(20):
        for i, found in enumerate(augmented(images, "flip-crop", key)):
            (match,) = [at for at, crop in both.items() if torch.equal(found, crop[i])]
            seen.add(match)
    assert [set(values) for values in zip(*seen, strict=True)] == [set(range(9)), set(range(9)), {0, 1}]


def test_affine_maps_stay_within_their_bounds():
    # coordinates as the image: where each pixel comes from can be read off
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing="ij")
    image = torch.stack([x, y]).repeat(64, 1, 1, 1)
    found = augmented(image, "affine-crop", 5)
    center = found[:, :, 16, 16]
    assert 0.1 < center.abs().max() <= 0.2 + 1e-2
    right = found[:, :, 16, 20] - center  # the image of the vector (0.25, 0)
    down = found[:, :, 20, 16] - center
    torch.testing.assert_close(down, torch.stack([-right[:, 1], right[:, 0]], dim=1), atol=1e-4, rtol=0)  # a similarity
    lengths, angles = right.norm(dim=1) / 0.25, torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    assert 0.9 - 1e-2 < lengths.min() < lengths.max() < 1.1 + 1e-2
    assert 8 < angles.abs().max() < 15 + 0.5
