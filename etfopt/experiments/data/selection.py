"""What can be done to a split: fewer images, imbalanced classes, wrong labels. All drawn from one seed.

Only labels are looked at, so that images that are left out need not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from etfopt.errors import InputError
from etfopt.experiments.data.images import Labelled

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = [
    "Selection",
    "class_shares",
    "for_testing",
    "for_validation",
    "held_out",
    "ranks_in_class",
    "selected",
]


@dataclass(frozen=True)
class Selection:
    """Which samples of a split are kept, and what they are called.

    Attributes
    ----------
    indices : Tensor, shape (m,), int64
        Indices of the samples kept, rising.
    labels : Tensor, shape (m,), int64
        Theirs, label noise included.
    """

    indices: Tensor
    labels: Tensor

    def of(self, samples: Labelled) -> Labelled:
        """Return what is kept of a split in memory; nothing is copied where all is."""
        everything = len(self.indices) == len(samples.labels)
        return Labelled(samples.pixels if everything else samples.pixels[self.indices], self.labels)


def selected(labels: Tensor, num_classes: int, config: DataConfig) -> Selection:
    """Return a training split after `subset`, `validation`, `imbalance` and `label_noise` of a configuration.

    What is kept of a class depends on the seed and the class alone, and fewer images are part of more: subsets of 10
    and of 20 images a class, or two imbalance factors, are nested.
    """
    generator = torch.Generator().manual_seed(config.seed)
    ranks = ranks_in_class(labels, num_classes, generator)
    counts = _without_validation(_at_hand(labels, num_classes, config), config)
    shares = class_shares(num_classes, config.imbalance, config.imbalance_factor)
    counts = (counts * shares + 1e-9).floor().long().clamp(min=1)
    indices = (ranks < counts[labels]).nonzero().flatten()
    return Selection(indices, _noisy(labels[indices], num_classes, config.label_noise, generator))


def for_validation(labels: Tensor, num_classes: int, config: DataConfig) -> Selection:
    """Return the samples of a training split that `validation` of a configuration holds out, with their true labels.

    Of what `subset` keeps of a class they are the last, in the order in which `selected` takes the first.
    """
    ranks = ranks_in_class(labels, num_classes, torch.Generator().manual_seed(config.seed))
    counts = _at_hand(labels, num_classes, config)
    first = _without_validation(counts, config)
    indices = ((first[labels] <= ranks) & (ranks < counts[labels])).nonzero().flatten()
    return Selection(indices, labels[indices])


def for_testing(labels: Tensor, num_classes: int, config: DataConfig) -> Selection:
    """Return a test split after `test_subset`, drawn as a subset of the training split is."""
    size = config.test_subset
    if size is None:
        return Selection(torch.arange(len(labels)), labels)
    ranks = ranks_in_class(labels, num_classes, torch.Generator().manual_seed(config.seed))
    counts = torch.bincount(labels, minlength=num_classes)
    counts = _fewer(counts, size, f"data.test_subset = {size}", config.name, "the test")
    indices = (ranks < counts[labels]).nonzero().flatten()
    return Selection(indices, labels[indices])


def _at_hand(labels: Tensor, num_classes: int, config: DataConfig) -> Tensor:
    """Return how many samples of each class `subset` leaves."""
    counts = torch.bincount(labels, minlength=num_classes)
    if config.subset is None:
        return counts
    return _fewer(counts, config.subset, f"data.subset = {config.subset}", config.name, "training")


def _without_validation(counts: Tensor, config: DataConfig) -> Tensor:
    """Return how many of these samples of each class are left for training."""
    if config.validation is None:
        return counts
    small = int(counts.argmin())
    if counts[small] < 2:
        raise InputError(
            f"data.validation = {config.validation:g}: class {small} of {config.name!r} has {int(counts[small])} for "
            "training; a validation split needs two of every class, one for each side"
        )
    return counts - _share_of(counts, config.validation)


def _share_of(counts: Tensor, share: float) -> Tensor:
    """Return a share of each class, rounded: at least one sample, never all."""
    return torch.minimum((counts * share).round().long().clamp(min=1), counts - 1)


def _fewer(counts: Tensor, size: int, setting: str, name: str, purpose: str) -> Tensor:
    small = int(counts.argmin())
    if counts[small] < size:
        raise InputError(f"{setting}: class {small} of {name!r} has {int(counts[small])} for {purpose}")
    return counts.clamp(max=size)


def class_shares(C: int, kind: str, factor: float) -> Tensor:
    """Return the share of its images that each class keeps.

    "exp" is ``factor**(c/(C-1))`` for class c; "step" is 1 for the first half and `factor` for the C // 2 last.
    """
    c = torch.arange(C, dtype=torch.float64)
    if kind == "exp":
        return factor ** (c / (C - 1))
    if kind == "step":
        return torch.where(c < C - C // 2, 1.0, factor)
    return torch.ones_like(c)


def held_out(labels: Tensor, num_classes: int, share: float, seed: int) -> Tensor:
    """Return which samples a stratified split holds out: of every class the share, at least one, never all."""
    ranks = ranks_in_class(labels, num_classes, torch.Generator().manual_seed(seed))
    counts = torch.bincount(labels, minlength=num_classes)
    return ranks < _share_of(counts, share)[labels]


def ranks_in_class(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return for each sample its place in a random order of its class."""
    ranks = torch.empty_like(labels)
    for c in range(num_classes):
        members = (labels == c).nonzero().flatten()
        ranks[members[torch.randperm(len(members), generator=generator)]] = torch.arange(len(members))
    return ranks


def _noisy(labels: Tensor, num_classes: int, share: float, generator: torch.Generator) -> Tensor:
    """Replace the share of labels, rounded to a whole number of them, by another class, uniformly (symmetric noise)."""
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    shift = torch.randint(1, num_classes, (len(wrong),), generator=generator)
    noisy = labels.clone()
    noisy[wrong] = (labels[wrong] + shift) % num_classes
    return noisy
