"""Validation of what a nearest-ETF problem is given by, as tensors (..., d, C)."""

from __future__ import annotations

from torch import Tensor

from etfopt._arrays import room_hint
from etfopt._scalars import proximal_weight
from etfopt._torch import require_floats
from etfopt.errors import InputError


def require_matrix(X: Tensor, name: str) -> None:
    """Check that X is a matrix, or a batch of them, with rows and columns."""
    require_floats(X, name, None)
    if X.dim() < 2 or 0 in X.shape[-2:]:
        raise InputError(f"{name} has shape {tuple(X.shape)}; it must be (..., d, C) with d, C >= 1")


def require_batches(X: Tensor, Y: Tensor, name: str, other: str) -> None:
    """Check that two batches of matrices fit: sizes in front of the last two that are equal, or 1."""
    for m, n in zip(X.shape[-3::-1], Y.shape[-3::-1], strict=False):
        if m != n and 1 not in (m, n):
            raise InputError(
                f"{name} has shape {tuple(X.shape)} and {other} {tuple(Y.shape)}: the batches do not fit. Sizes in "
                "front of the last two must be equal, or 1"
            )


def require_frame(H: Tensor, frame: Tensor | None) -> None:
    """Check that a frame fits class means, which must have room for it."""
    d, C = H.shape[-2:]
    if frame is not None:
        require_floats(frame, "frame", ("r", C))
    r = C if frame is None else frame.shape[0]
    if d < r:
        hint = room_hint(d, C, simplex=frame is None, reduced=f"frame_tensor({C}, H, reduced=True)")
        raise InputError(
            f"H has shape {tuple(H.shape)}: d = {d} features are fewer than the r = {r} rows of the frame; {hint}. "
            "Columns of H are classes: if its rows are, pass H.mT"
        )


def usable_delta(H: Tensor, frame: Tensor | None, prox: Tensor | None, delta: float | None) -> float:
    """Check the proximal term; return delta."""
    shape = (H.shape[-2], H.shape[-1] if frame is None else frame.shape[0])
    if prox is not None:
        require_matrix(prox, "prox")
        if tuple(prox.shape[-2:]) != shape:
            raise InputError(f"prox has shape {tuple(prox.shape)}; it must end in {shape}", "prox", prox)
        require_batches(H, prox, "H", "prox")
    return proximal_weight(delta, shape, has_prox=prox is not None)
