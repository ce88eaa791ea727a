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

DEPENDENT = 1e-4
"""A column that lies so close to what others span, relative to its length, depends on them."""


def added(num_classes: int, k: object) -> list[int]:
    """Return the old number of each class after k are added."""
    return [*range(num_classes), *[NEW] * as_integer(k, "k", at_least=1)]


def kept(num_classes: int, classes: Sequence[int] | Tensor) -> list[int]:
    """Return the old number of each class that is kept, or raise `InputError`."""
    return named(num_classes, classes, "the classes to keep", 2, ", in their new order")


def named(num_classes: int, classes: Sequence[int] | Tensor, what: str, least: int = 1, order: str = "") -> list[int]:
    """Return different present classes as a list, or raise `InputError`."""
    given = classes.tolist() if isinstance(classes, Tensor) else classes
    if not isinstance(given, Iterable) or any(isinstance(c, bool) or not isinstance(c, Integral) for c in given):
        raise InputError(f"classes must be a sequence of integers, {what}; got {classes!r}")
    index = [int(c) for c in given]
    wrong = [c for c in index if not 0 <= c < num_classes]
    if wrong or len(set(index)) < len(index) or len(index) < least:
        some = "one or more" if least == 1 else "two or more"
        raise InputError(f"classes = {index} must name {some} different classes in [0, {num_classes}){order}")
    return index


def columns(X: Tensor, index: list[int], new: float = 0) -> Tensor:
    """Return the columns of an index along the last axis; those of new classes are filled."""
    old = torch.tensor(index, device=X.device)
    return torch.where(old >= 0, X.index_select(-1, old.clamp(min=0)), new)


def places_of(index: list[int], K: int) -> list[int]:
    """Return which of K places each class of an index takes, then the free ones: new classes take the next free."""
    taken = {place for place in index if place != NEW}
    free = iter(place for place in range(K) if place not in taken)
    return [place if place != NEW else next(free) for place in index] + list(free)


@torch.no_grad()
def moved_least(vertices: Tensor, index: list[int], frame: Tensor) -> Tensor:
    """Return the rotation of a new frame (r, C) that keeps the vertices (d, K) of old classes nearest."""
    E, F = columns(vertices.double(), index), frame.double()  # columns of zeros ask nothing of new classes
    start = torch.eye(len(E), len(F), dtype=E.dtype, device=E.device)
    return nearest_minimiser(E @ F.mT, start).to(vertices.dtype)


@torch.no_grad()
def independent(frame: Tensor, classes: Sequence[int]) -> list[int]:
    """Return the first of some classes whose columns of a frame (r, C) are a basis of what they all span."""
    F = frame.detach().to("cpu", torch.float64)
    basis, found = F.new_zeros(F.shape), list[int]()
    for c in classes:
        rest = F[:, c]
        for _ in range(2):  # twice is enough
            known = basis[:, : len(found)]
            rest = rest - known @ (known.mT @ rest)
        size = torch.linalg.vector_norm(rest)
        if len(found) < len(F) and size > DEPENDENT * torch.linalg.vector_norm(F[:, c]):
            basis[:, len(found)] = rest / size
            found.append(c)
    return found
