"""Validation of what a nearest-ETF problem is given by, as tensors (..., d, C)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from etfopt._arrays import room_hint
from etfopt._scalars import as_integer, proximal_weight
from etfopt._torch import require_finite, require_floats, visible, working_dtype
from etfopt.errors import InputError


def require_matrix(X: Tensor, name: str) -> None:
    """Check that X is a matrix, or a batch of them, with rows and columns."""
    require_floats(X, name, None)
    if X.dim() < 2 or 0 in X.shape[-2:]:
        raise InputError(f"{name} has shape {tuple(X.shape)}; it must be (..., d, C) with d, C >= 1")


def require_batches(**given: Tensor | None) -> None:
    """Check that batches fit: sizes in front of the two axes of a matrix, or the one of weights, are equal, or 1."""
    batches = [
        (name, tuple(X.shape), X.shape[: -1 if name == "weights" else -2])
        for name, X in given.items()
        if X is not None and X.dim() > (1 if name == "weights" else 2)
    ]
    for (name, shape, batch), (other, other_shape, other_batch) in combinations(batches, 2):
        if any(m != n and 1 not in (m, n) for m, n in zip(batch[::-1], other_batch[::-1], strict=False)):
            raise InputError(
                f"{name} has shape {shape} and {other} {other_shape}: the batches do not fit. Sizes in front of those "
                "of one problem must be equal, or 1"
            )


def require_classes(H: Tensor, name: str = "H") -> None:
    """Check that H is a matrix, or a batch of them, with a column for each of two classes at the least."""
    require_matrix(H, name)
    if H.shape[-1] < 2:
        raise InputError(f"{name} has shape {tuple(H.shape)}; it needs a column for each of C >= 2 classes")


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
    return proximal_weight(delta, shape, has_prox=prox is not None)


def usable_weights(H: Tensor, weights: Tensor | None, *, may_vanish: bool = False) -> Tensor | None:
    """Check weights of the classes, (..., C); return them in the dtype in which H is computed.

    Masks and counts are weights too. `may_vanish` allows an item all of whose weights are 0.
    """
    if weights is None:
        return None
    if isinstance(weights, Tensor) and not (weights.is_floating_point() or weights.is_complex()):
        weights = weights.to(working_dtype(H))
    w = require_floats(weights, "weights", None).to(working_dtype(H))
    if w.dim() == 0 or w.shape[-1] != H.shape[-1]:
        raise InputError(f"weights has shape {tuple(w.shape)}; it must be (..., {H.shape[-1]}), one number a class")
    require_finite(w, "weights")
    if visible(w) and w.numel():
        if float(w.detach().min()) < 0:
            first = tuple((w < 0).nonzero()[0].tolist())
            raise InputError(f"weights holds a negative value at {first}: {float(w[first])}; pass 0 to mask a class")
        if not (may_vanish or bool((w.detach().amax(dim=-1) > 0).all())):
            raise InputError("weights holds an item that is zero for every class; give one of its classes a weight")
    return w.to(H.device)


def masked(H: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return H and weights with zeros in columns of weight 0 that hold NaN or infinity, which get no gradient.

    Other columns of weight 0 stay, since the derivative in their weight needs them.
    """
    zero = weights.detach() == 0
    if visible(zero) and not zero.any():
        return H, weights
    unread = zero & ~H.detach().isfinite().all(dim=-2)
    return H.masked_fill(unread.unsqueeze(-2), 0), weights.masked_fill(unread, 0)


def usable_hold(
    H: Tensor, frame: Tensor | None, hold: Sequence[int] | Tensor | None, hold_at: Tensor | None
) -> tuple[int, ...]:
    """Check held classes and where they are held, but for values; return the classes."""
    d, C = H.shape[-2:]
    shape = (d, C if frame is None else frame.shape[0])
    if hold is None:
        if hold_at is not None:
            raise InputError("hold_at is given without hold", "hold_at", hold_at, "name the classes to hold")
        return ()
    classes = _held_classes(hold, C)
    if hold_at is None:
        remedy = f"pass U_0 of shape {shape}, such as the U of an earlier call"
        raise InputError(f"hold names {len(classes)} classes, and hold_at is missing", "hold_at", None, remedy)
    require_matrix(hold_at, "hold_at")
    if tuple(hold_at.shape[-2:]) != shape:
        raise InputError(f"hold_at has shape {tuple(hold_at.shape)}; it must end in {shape}", "hold_at", hold_at)
    require_finite(hold_at, "hold_at")
    for X, name in ((hold_at, "hold_at"), (frame, "frame")):
        if X is not None and X.requires_grad:
            raise InputError(f"{name} requires a gradient, and with hold it is a constant; pass {name}.detach()")
    return classes


def _held_classes(hold: Sequence[int] | Tensor, C: int) -> tuple[int, ...]:
    """Return `hold` as different classes below C, or raise `InputError`."""
    if isinstance(hold, Tensor):
        if hold.dim() != 1 or hold.is_floating_point() or hold.dtype == torch.bool:
            got = f"got {hold.dtype} of shape {tuple(hold.shape)}"
            raise InputError(f"hold must be a 1-D tensor of class indices; {got}: of a mask pass mask.nonzero()[:, 0]")
        hold = hold.tolist()
    elif isinstance(hold, (str, bytes)) or not hasattr(hold, "__iter__"):
        raise InputError(f"hold must be a sequence of class indices; got {hold!r}", "hold", hold, "pass e.g. range(10)")
    classes = tuple(as_integer(c, "hold", at_least=0) for c in hold)
    if not classes:
        raise InputError("hold names no class", "hold", hold, "leave out hold and hold_at")
    if max(classes) >= C:
        raise InputError(f"hold names class {max(classes)}, and H has the classes 0 to {C - 1}", "hold", hold)
    if len(set(classes)) < len(classes):
        raise InputError("hold names a class twice", "hold", hold, "name each class once")
    return classes
