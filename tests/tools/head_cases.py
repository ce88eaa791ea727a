"""What the tests of the heads share: sizes, batches, and the comparison of states."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from etfopt.nn import ClassMeans, FixedETFHead, LearnedHead, NearestETFHead, PaperClassMeans

C, D = 4, 7
LABELS = torch.arange(24) % C


def class_means(dim: int, num_classes: int, **options: object) -> ClassMeans:
    """Class means by the order of the heads, for tests that take both."""
    return ClassMeans(num_classes=num_classes, dim=dim, **options)


def paper_means(dim: int, num_classes: int, **options: object) -> PaperClassMeans:
    return PaperClassMeans(num_classes=num_classes, dim=dim, **options)


def paper_fixed(dim: int, num_classes: int, **options: object) -> FixedETFHead:
    return FixedETFHead(dim, num_classes, statistics="paper", **options)


def paper_nearest(dim: int, num_classes: int, **options: object) -> NearestETFHead:
    return NearestETFHead(dim, num_classes, statistics="paper", **options)


MEANS = (class_means, paper_means)
FIXED = (FixedETFHead, paper_fixed)
NEAREST = (NearestETFHead, paper_nearest)
STATEFUL = (*FIXED, *NEAREST)
HEADS = (LearnedHead, *STATEFUL)


def class_of(make: Callable[..., nn.Module]) -> type[nn.Module]:
    """The class that a maker of heads makes."""
    return {"paper_fixed": FixedETFHead, "paper_nearest": NearestETFHead}.get(make.__name__, make)


def batch(rng: np.random.Generator, n: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(rng.standard_normal((n, D)) + 0.3, dtype=dtype)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def snapshot(module: nn.Module) -> dict:
    return copy.deepcopy(module.state_dict())


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
