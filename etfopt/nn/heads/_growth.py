r"""Classes that come later or leave: columns of the state, and the rotation whose vertices move least.

Every simplex must move when its number of classes changes. With E the vertices of the classes that stay and F the new
frame's columns for them, the rotation that keeps them nearest maximises :math:`\langle E, UF\rangle`: the polar factor
of :math:`EF'`. From K1 to K2 > K1 classes the mean cosine between old and new place is
:math:`\sqrt{(K_1-1)K_2/(K_1(K_2-1))}`, the best that any simplex allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from etfopt._scalars import as_integer
from etfopt.errors import InputError
from etfopt.nn.heads._rotation import nearest_minimiser

NEW = -1
"""In place of the number of an old class: a class that was not there before."""


def added(num_classes: int, k: object) -> list[int]:
    """Return the old number of each class after k are added."""
    return [*range(num_classes), *[NEW] * as_integer(k, "k", at_least=1)]


def kept(num_classes: int, classes: Sequence[int] | Tensor) -> list[int]:
    """Return the old number of each class that is kept, or raise `InputError`."""
    given = classes.tolist() if isinstance(classes, Tensor) else classes
    if not isinstance(given, Iterable) or any(isinstance(c, bool) or not isinstance(c, Integral) for c in given):
        raise InputError(f"classes must be a sequence of integers, the classes to keep; got {classes!r}")
    index = [int(c) for c in given]
    wrong = [c for c in index if not 0 <= c < num_classes]
    if wrong or len(set(index)) < len(index) or len(index) < 2:
        raise InputError(
            f"classes = {index} must name two or more different classes in [0, {num_classes}), in their new order"
        )
    return index


def columns(X: Tensor, index: list[int], new: float = 0) -> Tensor:
    """Return the columns of an index along the last axis; those of new classes are filled."""
    old = torch.tensor(index, device=X.device)
    return torch.where(old >= 0, X.index_select(-1, old.clamp(min=0)), new)


@torch.no_grad()
def moved_least(vertices: Tensor, index: list[int], frame: Tensor) -> Tensor:
    """Return the rotation of a new frame (r, C) that keeps the vertices (d, K) of old classes nearest."""
    E, F = columns(vertices.double(), index), frame.double()  # columns of zeros ask nothing of new classes
    start = torch.eye(len(E), len(F), dtype=E.dtype, device=E.device)
    return nearest_minimiser(E @ F.mT, start).to(vertices.dtype)
