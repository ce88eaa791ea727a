"""What the tests of the heads share: sizes, batches, and the comparison of states."""

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from etfopt.nn import ClassMeans, FixedETFHead, LearnedHead, NearestETFHead

HEADS = (LearnedHead, FixedETFHead, NearestETFHead)
STATEFUL = (FixedETFHead, NearestETFHead)
C, D = 4, 7
LABELS = torch.arange(24) % C


def class_means(dim: int, num_classes: int, **options: object) -> ClassMeans:
    """Class means by the order of the heads, for tests that take both."""
    return ClassMeans(num_classes=num_classes, dim=dim, **options)


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
