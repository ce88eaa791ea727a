r"""The frame of a head: from a name, a `Frame`, a matrix or a pair, for any number of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._torch import require_finite, require_floats
from etfopt.errors import InputError
from etfopt.frames import Frame, FrameCertificate, best_frame, made_frame, seli

AnyFrame: TypeAlias = Frame | Tensor | np.ndarray
"""One frame that a head may be given."""

BY_COUNTS = ("seli", "best")
"""Names of frames that depend on the numbers of samples."""

BLOCK = 1024
"""Rows of a Gram matrix that are formed at a time."""

ALIKE = 1e-3
"""Largest cosines of two codes from two searches differ by less."""


class HeadFrame(NamedTuple):
    """The frame of a head, with what is known about it."""

    means: Tensor | None  # (r, K), for the class means; None is the square simplex M
    rows: Tensor | None  # (r, K), for the classifier; None is the same frame
    name: str | None  # the name that gives it for other numbers of classes too
    known_as: str  # what the frame itself says that it is
    certificate: FrameCertificate | None
    cosine: float | None  # what the temperature depends on; None is that of a simplex
    given: bool  # as tensors, which keep their dtype


def head_frame(
    frame: AnyFrame | Sequence[AnyFrame] | str, dim: int, K: int, *, counts: ArrayLike | Tensor | None = None
) -> HeadFrame:
    """Return the frame of K classes that a head of `dim` features is given, or raise `InputError`."""
    name = frame if isinstance(frame, str) else None
    if counts is not None and name not in BY_COUNTS:
        raise InputError("counts is for frame='seli' or frame='best', and frame is another; leave it out", "counts")
    if name == "simplex":
        return HeadFrame(None, None, name, name, None, None, given=False)
    made: Any = frame if name is None else _named(name, dim, K, counts)
    pair = isinstance(made, (tuple, list))
    if pair and len(made) != 2:
        raise InputError(f"frame is a sequence of {len(made)}; pass a pair, of the class means and of the classifier")
    parts = [_matrix(part) for part in (made if pair else [made])]
    for F in parts:
        check_frame(F, K)
    if pair and len(parts[0]) != len(parts[1]):
        shapes = " and ".join(str(tuple(F.shape)) for F in parts)
        raise InputError(f"frame is a pair of shapes {shapes}; both must have as many rows")
    name = None if counts is not None else name  # counts are those of these classes only
    known_as, certificate, cosine = "", None, None
    if isinstance(made, Frame):
        known_as, certificate = made.name, made.certificate
        cosine = _of_temperature(made.largest_cosine, K, 1e-12) if is_even(parts[0]) else None
    else:
        cosine = cosine_of(*parts)
    given = isinstance(made[0] if pair else made, Tensor)
    return HeadFrame(parts[0], parts[1] if pair else None, name, known_as, certificate, cosine, given)


def _named(name: str, dim: int, K: int, counts: ArrayLike | Tensor | None) -> Any:
    if name == "seli" and counts is None:
        raise InputError("frame = 'seli' depends on the numbers of samples; pass counts=, one a class", "frame", name)
    if counts is None:
        return made_frame(name, K, dim)
    n = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
    if n.shape != (K,):
        raise InputError(f"counts has shape {n.shape}; it must be ({K},), one number a class", "counts", counts)
    return seli(n) if name == "seli" else best_frame(dim, K, counts=n)


def _matrix(frame: object) -> Tensor:
    """Return one frame as a tensor: one that is given keeps its dtype and device."""
    if isinstance(frame, Tensor):
        return frame
    F = np.array(frame)
    if F.dtype.kind not in "fiu":
        raise InputError(f"frame must be a matrix, a Frame, a pair of them or a name; got {type(frame).__name__}")
    return torch.from_numpy(F if F.dtype.kind == "f" and F.dtype.itemsize <= 8 else F.astype(np.float64))


def check_frame(frame: Tensor, K: int) -> None:
    """Raise `InputError` unless a tensor is a frame of K classes."""
    require_floats(frame, "frame", ("r", K))
    if frame.is_meta:
        return
    require_finite(frame, "frame")
    if not frame.any():
        raise InputError(f"frame of shape {tuple(frame.shape)} is zero; pass one with a non-zero entry")


def order_of(exact: Tensor, frame: Tensor) -> list[int] | None:
    """Return which column of an exact frame each column of a frame is, rounded; None if they are not the same ones."""
    if exact.is_meta or type(frame) is not Tensor or frame.is_meta or frame.shape != exact.shape:
        return None
    places: dict[bytes, list[int]] = {}
    for c, column in enumerate(_columns(exact.to(frame.dtype))):
        places.setdefault(column, []).append(c)
    found = [places[column].pop(0) if places.get(column) else None for column in _columns(frame)]
    order = [c for c in found if c is not None]
    return order if len(order) == len(found) else None


def _columns(frame: Tensor) -> list[bytes]:
    X = frame.detach().to("cpu", torch.float64).mT.numpy() + 0.0  # -0 is 0
    return [x.tobytes() for x in X]


def alike(frame: Tensor, cosine: float | None, exact: Tensor | None, known: float | None) -> bool:
    """Return whether two frames, with their largest cosines, may be the same one, computed in two ways."""
    if exact is None or exact.is_meta or not (is_even(frame) and is_even(exact)):
        return False
    simplex = -1 / (frame.shape[1] - 1)
    found, wanted = (simplex if mu is None else mu for mu in (cosine, known))
    return abs(found - wanted) <= ALIKE


def cosine_of(means: Tensor, rows: Tensor | None = None) -> float | None:
    r"""Return the largest cosine :math:`\mu` between two vectors of a frame, for the temperature.

    None stands for the temperature of a simplex: the frame is one, it has no values (meta), or its vectors differ in
    length, so that the formula does not hold. Of a pair it is 1 less the least lead of the right class, at class means
    of norm 1 along the vectors of the first frame, by a classifier with rows of unit mean-square norm: that stands in
    the place of :math:`\mu`, see ``theory/temperature.py``.
    """
    if means.is_meta or (rows is not None and rows.is_meta):
        return None
    K, rounding = means.shape[1], _rounding(means)
    if rows is None and not is_even(means):
        return None
    F = means.detach().to("cpu", torch.float64)
    size = torch.linalg.vector_norm(F, dim=0)
    X = F / size.masked_fill(size == 0, 1)
    W = X if rows is None else rows.detach().to("cpu", torch.float64)
    W = W * (1 if rows is None else math.sqrt(K) / torch.linalg.matrix_norm(W))
    mu = 1 - min(_least_lead(X, W, start) for start in range(0, K, BLOCK))
    # a state that comes entry by entry may leave NaN in one of a pair for a while
    return _of_temperature(mu, K, rounding) if math.isfinite(mu) else None


def is_even(frame: Tensor) -> bool:
    """Return whether all vectors of a frame have one length."""
    size = torch.linalg.vector_norm(frame.detach().to("cpu", torch.float64), dim=0)
    return bool(size.max() <= size.min() * (1 + _rounding(frame)))


def _rounding(frame: Tensor) -> float:
    return 8 * torch.finfo(frame.dtype).eps + 1e-12


def _of_temperature(mu: float, K: int, rounding: float) -> float | None:
    """Return a largest cosine, or None for that of a simplex: the same formula, to all its digits."""
    return None if abs(mu + 1 / (K - 1)) <= rounding else mu


def _least_lead(X: Tensor, W: Tensor, start: int) -> float:
    logits = X[:, start : start + BLOCK].mT @ W
    rows = torch.arange(len(logits), device="cpu")  # whatever the default device
    own = (rows, rows + start)
    right = logits[own].clone()
    logits[own] = -math.inf
    return float((right - logits.amax(dim=1)).min())
