r"""The linear term of the problem as tensors, up to its size, and products with a frame; None is the simplex M = M'."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etfopt._torch import full_precision, widened
from etfopt.errors import InputError


def on_frame(X: Tensor, frame: Tensor | None, *, transpose: bool = False) -> Tensor:
    """Return X F, or X F'; None is the simplex M = M'.

    XM is X without the mean of its columns, over sqrt(C-1): no product is needed, and the mean costs no digits.

    Parameters
    ----------
    X : Tensor, shape (..., d, r), or (..., d, C) if `transpose`
    frame : Tensor, shape (r, C), or None
        None is ``etfopt.simplex_etf(C)``.
    transpose : bool
        Whether to multiply by F'.

    Returns
    -------
    Tensor, shape (..., d, C), or (..., d, r) if `transpose`, in the dtype of X

    Raises
    ------
    InputError
        If the shapes do not fit.

    Notes
    -----
    Both frames of the simplex: ``theory/simplex.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import frame_tensor, on_frame
    >>> X = torch.arange(6.0).reshape(2, 3)
    >>> torch.allclose(on_frame(X, None), X @ frame_tensor(3, X), atol=1e-6)
    True
    """
    if frame is None:
        if X.shape[-1] < 2:
            raise InputError(f"X has shape {tuple(X.shape)}; the simplex has C >= 2 columns")
        return centred(X) / math.sqrt(X.shape[-1] - 1)
    if frame.dim() != 2 or frame.shape[-1 if transpose else 0] != X.shape[-1]:
        side = "columns" if transpose else "rows"
        raise InputError(
            f"X has shape {tuple(X.shape)} and frame {tuple(frame.shape)}; frame must have {X.shape[-1]} {side}"
        )
    F = frame.to(X)
    return X @ (F.mT if transpose else F)


def lasting_product(X: Tensor, Y: Tensor) -> Tensor:
    """Return XY in the dtype of X, with all the digits of it in the derivatives that autograd takes as well."""
    if torch.is_grad_enabled() and (X.requires_grad or Y.requires_grad):
        wide, other = widened(X, Y)
        return (wide @ other).to(X.dtype)
    return X @ Y


def frame_factor(C: int, frame: Tensor | None) -> float:
    """Return the c of 2HF' = c HN with N the frame's transpose, or what centres the columns for the simplex."""
    return 2 / math.sqrt(C - 1) if frame is None else 2.0


def linear_term(H: Tensor, prox: Tensor | None, weight: Tensor | float, frame: Tensor | None) -> Tensor:
    """Return 2HF'/c + weight U_prox, with c = `frame_factor`: the linear term over c for weight = delta/c.

    With weights of the classes, H is HD: the simplex then centres the columns of HD, and not those of H.
    """
    X = centred(H) if frame is None else lasting_product(H, frame.to(H).mT)
    if prox is None:
        return X
    if isinstance(weight, float) and X.shape == prox.shape:
        return X.add_(prox, alpha=weight)
    return X + weight * prox


def scaled_linear_term(
    H: Tensor, prox: Tensor | None, delta: float, frame: Tensor | None, weights: Tensor | None = None
) -> Tensor:
    """Return 2HDF' + delta U_prox over a positive number for each matrix, a constant to autograd, of any finite sizes.

    With h, f and p the sizes of HD, F and the proximal point, it is (HD/h)(F/f)' + q U_prox/p over 1 + q, where
    q = delta p/(c h f), c = `frame_factor`, may be out of range itself.
    """
    f = None if frame is None else size_of(frame)
    HD, h_root = (H / size_of(H), None) if weights is None else _scaled_product(H, weights)
    F = frame if frame is None or f is None else frame / f
    if prox is None or not delta:
        return linear_term(HD, prox, delta, F)
    X, p = linear_term(HD, None, delta, F), size_of(prox)
    # by roots, of which any product of two is in range; infinite where H is zero
    wide = _wide(H)
    h_root = _largest(H).to(wide).sqrt() if h_root is None else h_root
    root = p.to(wide).sqrt() * math.sqrt(delta) / h_root
    q = (root if f is None else root / f.to(wide).sqrt()).square() / frame_factor(H.shape[-1], frame)
    return X * (1 / (1 + q)).to(X) + (prox / p) * (1 / (1 + 1 / q)).to(X)


def _scaled_product(H: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return HD over h, the largest w_c times the size of column c, and the root of h; none may be in range itself."""
    wide, w = _wide(H), weights.unsqueeze(-2)
    largest = H.detach().abs().amax(dim=-2, keepdim=True)
    size = torch.where(largest > 0, largest, torch.ones_like(largest))
    roots = largest.to(wide).sqrt() * w.detach().to(wide).abs().sqrt()
    h_root = roots.amax(dim=-1, keepdim=True)
    ratio = size.to(wide).sqrt() / torch.where(h_root > 0, h_root, torch.ones_like(h_root))
    # w_c size_c/h is at most 1; without its w_c it can be infinite, and 0 times that would be NaN
    shares = w.to(wide) * ratio.square().clamp(max=torch.finfo(wide).max)
    return (H / size) * shares.to(H.dtype), h_root


def _wide(X: Tensor) -> torch.dtype:
    """Return float64 where the device has it."""
    return X.dtype if X.device.type == "mps" else torch.float64


def size_of(X: Tensor) -> Tensor:
    """Largest entry of each matrix, (..., 1, 1), or 1 if it is zero; a constant to autograd."""
    size = _largest(X)
    return torch.where(size > 0, size, torch.ones_like(size))


def _largest(X: Tensor) -> Tensor:
    return X.detach().abs().amax(dim=(-2, -1), keepdim=True)


def linear_term_vjp(dA: Tensor, frame: Tensor | None) -> Tensor:
    """Pull a cotangent of `linear_term` back to H; for one frame a `RowMap`."""
    if frame is None:
        return centred(dA)
    with full_precision(dA):
        return lasting_product(dA, frame.to(dA))


def centred(X: Tensor) -> Tensor:
    """Return X without the mean of its columns."""
    return torch.sub(X, X.sum(dim=-1, keepdim=True), alpha=1 / X.shape[-1])  # a mean would be one operation more
