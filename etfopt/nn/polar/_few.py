r"""The polar factor and its derivative for few columns on the CPU, in NumPy and float64.

There the cost is that of calling: an operation of NumPy on some hundred numbers takes a third of the time that one of
PyTorch takes. With :math:`A'A = QS^2Q'` and P = UQ, the derivative at G is

.. math:: \bigl(XS^+ - P(KS^+ - \Omega)\bigr)Q', \quad X = GQ, \quad K = P'X, \quad
   \Omega_{ij} = (K_{ij} - K_{ji})/(s_i + s_j).

One singular value may be faint, as that of the direction which the simplex does not see: squaring A loses it, and not
the eigenvectors. Its column of P is then A times its eigenvector, less what lies in the range of the others.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from etfopt._arrays import Float64Array
from etfopt.nn.polar._factors import Decomposition
from etfopt.nn.polar._svd import svd_factor

FEW = 64
"""Columns from which PyTorch's own routines are faster."""

ORDINARY = (1e-6, 1e6)
"""Norms of matrices that need no scaling: squares and inverses stay in range, and keep their digits."""

RESOLVED = 8e3
"""Condition number that a Gram matrix in float64 resolves for a factor in float32."""

ROUGH = 1e6
"""Multiple of rounding below which a part of A q may be rounding too."""

IGNORED = partial(np.errstate, all="ignore")
"""What is not finite is looked for, and OpenBLAS raises flags for finite products now and then."""


class Few(NamedTuple):
    """U, and what the derivative needs of A = PSQ': arrays in float64."""

    U: Tensor
    Q: Float64Array  # (..., r, r)
    S: Float64Array  # (..., r), 0 for null directions
    P: Float64Array  # (..., d, r)

    def derivative(self, G: Tensor, frame: Tensor | None) -> Tensor:
        """Apply the derivative to G, and the adjoint of the linear term, without a graph for the next derivative."""
        _, Q, S, P = self
        row, sums = S[..., None, :], S[..., :, None] + S[..., None, :]
        if not S.all():
            row, sums = np.where(row > 0, row, np.inf), np.where(sums > 0, sums, np.inf)
        with IGNORED():
            X = double(G) @ Q
            K = P.mT @ X
            Omega = (K - K.mT) / sums
            K /= row
            K -= Omega
            X /= row
            X -= P @ K
            X = X @ (Q.mT @ _frame(frame, Q.shape[-1]))
        return _tensor(X, G.dtype)

    def as_tensors(self) -> Decomposition:
        """Return the same in PyTorch, for what NumPy cannot do."""
        return Decomposition(self.U, *(_tensor(X, self.U.dtype) for X in (self.Q, self.S)))


def few_factors(H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None) -> tuple[Float64Array, Few] | None:
    """Return the linear term and its factors; None if it is not finite or of unusual size."""
    with IGNORED():
        X = double(H) @ _frame(frame, H.shape[-1]).mT
        if prox is not None:
            X = X + weight * double(prox)
        found = factored(X, H.dtype)
    return None if found is None else (X, found)


def factored(X: Float64Array, dtype: torch.dtype) -> Few | None:
    """Factor matrices, (..., d, r), rounded to a dtype, where no floating-point error is raised."""
    r, wide, rounding = X.shape[-1], dtype == torch.float64, X.shape[-1] * torch.finfo(dtype).eps
    # infinite or NaN where a value is, of which eigenvalues may not tell
    if not np.vdot(X, X) <= ORDINARY[1] ** 2:
        return None
    try:
        squares, Q = np.linalg.eigh(X.mT @ X)
    except np.linalg.LinAlgError:  # it did not converge
        return None
    S = np.sqrt(np.maximum(squares, 0.0))
    largest, spread, condition = _ends(S)
    if not largest >= ORDINARY[0]:
        return None
    # what squaring loses of the others must be below the rounding of the dtype
    limit = 2.0 * r if wide else RESOLVED
    bad = S[..., -1] > limit * S[..., min(1, r - 1)] if spread > limit else None
    if condition > limit:
        S[..., 0] = 1
        P = X @ (Q / S[..., None, :])
        S[..., 0] = _faint(P, S[..., -1], rounding)
    else:
        P = X @ (Q / S[..., None, :])
    if wide and spread > r**0.5:
        P = 1.5 * P - P @ (0.5 * (P.mT @ P))
    U = _tensor(P @ Q.mT, dtype)
    if bad is not None:
        _replace(_tensor(X, dtype), bad, U, Q, S, P)
        S[rounding * S.max(axis=-1, keepdims=True) >= S] = 0
    return Few(U, Q, S, P)


def _ends(S: Float64Array) -> tuple[float, float, float]:
    """Return the least largest singular value, and the largest ratios of the largest to the second and to the first."""
    if S.ndim == 1:  # three numbers, where arrays of one would be six operations
        first, second, last = S.item(0), S.item(min(1, S.size - 1)), S.item(-1)
        return last, last / second if second else math.inf, last / first if first else math.inf
    if not S.size:
        return 0.0, 0.0, 0.0
    lasts = S[..., -1]
    return float(lasts.min()), float((lasts / S[..., min(1, S.shape[-1] - 1)]).max()), float((lasts / S[..., 0]).max())


def _faint(P: Float64Array, highest: Float64Array, rounding: float) -> Float64Array:
    """Make the first column of P, which is A q, orthonormal to the others; return its length, 0 if it is null.

    In place of a null one comes the coordinate direction that the others cover least, of whose square at least 1/d is
    left, so that the result does not depend on rounding.
    """
    p, rest = P[..., :1], P[..., 1:]
    length = _orthogonalised(p, rest)
    if (length > ROUGH * rounding * highest).all():
        return length
    # of one that is almost rounding, the first step leaves a part
    null = length <= rounding * highest
    least = np.square(rest).sum(axis=-1, keepdims=True).argmin(axis=-2, keepdims=True)
    p[...] = np.where(null[..., None, None], np.arange(p.shape[-2])[:, None] == least, p)
    _orthogonalised(p, rest)
    _orthogonalised(p, rest)
    return np.where(null, 0.0, length)


def _orthogonalised(p: Float64Array, rest: Float64Array) -> Float64Array:
    """Take from p what lies in the range of the others and make its length 1; return what the length was."""
    p -= rest @ (rest.mT @ p)
    length = np.sqrt(p.mT @ p)
    p /= length
    return np.asarray(length[..., 0, 0])


def _replace(A: Tensor, bad: Float64Array, U: Tensor, Q: Float64Array, S: Float64Array, P: Float64Array) -> None:
    """Put what the SVD finds where squares tell too little."""
    where = torch.from_numpy(np.asarray(bad))
    found = svd_factor(A[where] if A.dim() > 2 else A)
    parts = found.U, found.Q, found.S, found.U @ found.Q
    for whole, part in zip((U, torch.from_numpy(Q), torch.from_numpy(S), torch.from_numpy(P)), parts, strict=True):
        whole[where] = part.to(whole.dtype)


def double(X: Tensor) -> Float64Array:
    """Return the values of a tensor as an array."""
    found: Float64Array = X.detach().numpy().astype(np.float64, copy=False)
    return found


def _tensor(X: Float64Array, dtype: torch.dtype) -> Tensor:
    # PyTorch would wake threads for it, which on busy processors takes longer than all the rest
    return torch.from_numpy(X if dtype == torch.float64 else X.astype(np.float32))


def _frame(frame: Tensor | None, C: int) -> Float64Array:
    return _centring(C) if frame is None else double(frame)


@lru_cache
def _centring(C: int) -> Float64Array:
    """Return I - 11'/C: of few columns, a product with it is faster than a mean and a difference."""
    found = np.eye(C) - 1 / C
    found.flags.writeable = False
    return found
