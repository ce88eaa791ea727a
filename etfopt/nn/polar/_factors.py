r"""What the routes to the polar factor U of A = UB return, and the derivative at A that follows from it.

.. math:: dL/dA = U\,\Omega + (G - UK)B^{-1}, \qquad B\Omega + \Omega B = K - K', \quad K = U'G.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._torch import full_precision, visible
from etfopt.nn.polar._linear_term import RowMap, unchanged
from etfopt.nn.polar._sylvester import solve_skew

GATHER_FROM = 32
"""Columns from which fewer large products are worth a B^-1, for condition numbers up to twice the columns."""


class Products(NamedTuple):
    """U, B^-1 and B, the latter two (..., r, r), from products of matrices alone."""

    U: Tensor
    inverse: Tensor
    B: Tensor

    def derivative(self, G: Tensor, then: RowMap = unchanged) -> Tensor:
        """Apply the derivative to G, and a map after it, without a graph for the next derivative."""
        with full_precision(G):
            return then(_resolved(*self, G))


class Decomposition(NamedTuple):
    """U, and Q (..., r, r) and S (..., r) of B = QSQ'; B^-1 where its entries are small, and the condition number."""

    U: Tensor
    Q: Tensor
    S: Tensor
    inverse: Tensor | None = None
    kappa: float | None = None

    def derivative(self, G: Tensor, then: RowMap = unchanged) -> Tensor:
        r"""Apply the derivative to G, and a map after it, without a graph for the next derivative.

        As :math:`(G - U\Lambda)B^{-1}` with the symmetric :math:`\Lambda = K - \Omega B`, that is
        :math:`B\Lambda + \Lambda B = BK + K'B`.
        """
        U, Q, S, inverse, kappa = self
        with full_precision(G):
            r = S.shape[-1]
            if kappa is None:
                kappa = condition(S) if visible(S) else math.inf
            if not kappa * r * torch.finfo(S.dtype).eps < 1:  # a direction may be null
                return then(_resolved(U, Q, S, G))
            row, column = S if S.dim() == 1 else S.unsqueeze(-2), S.unsqueeze(-1)
            if r < GATHER_FROM or kappa > 2 * r:
                # rounding on a direction that is divided by a faint singular value stays in that direction
                P, X = U @ Q, G @ Q
                return _less(X, P, _multipliers(P.mT @ X, row, column)) @ then((Q / row).mT)
            if inverse is None:
                inverse = (Q / row) @ Q.mT
            # with three products of the size of A in place of five: B^-1 may be formed, its entries being small
            multipliers = _multipliers(Q.mT @ (U.mT @ G) @ Q, row, column)
            turn = Q @ multipliers.div_(row) @ Q.mT
            return then(_less(G @ inverse, U, turn))


def of_tensors(U: Tensor, X: Tensor, Y: Tensor) -> Decomposition | Products:
    """Return the result whose first three tensors these are: autograd keeps tensors, and not their class."""
    return Products(U, X, Y) if _are_matrices(X, Y) else Decomposition(U, X, Y)


def _are_matrices(X: Tensor, Y: Tensor) -> bool:
    """Whether X and Y are B^-1 and B; they are Q and S where Y is a vector."""
    return X.dim() == Y.dim()


def resolve(X: Tensor, Y: Tensor, R: Tensor, N: Tensor) -> tuple[Tensor, Tensor]:
    """Return Omega and N B^-1 with B Omega + Omega B = R, for a result's X and Y of B; null directions give zero."""
    if _are_matrices(X, Y):
        inverse, B = X.to(R.dtype), Y.to(R.dtype)
        return solve_skew(B, inverse, R), N @ inverse
    # of the precision that they were found in, though R and N be wider
    null = Y.shape[-1] * torch.finfo(Y.dtype).eps * Y.amax(dim=-1, keepdim=True) >= Y
    Q, S = X.to(R.dtype), Y.masked_fill(null, 0).to(R.dtype)
    sums = S[..., :, None] + S[..., None, :]
    Omega = Q @ ((Q.mT @ R @ Q) * pseudo_inverse(sums)) @ Q.mT
    return Omega, (N @ Q) * pseudo_inverse(S)[..., None, :] @ Q.mT


def _resolved(U: Tensor, X: Tensor, Y: Tensor, G: Tensor) -> Tensor:
    K = U.mT @ G
    Omega, N = resolve(X, Y, K - K.mT, G - U @ K)
    return U @ Omega + N


def _less(X: Tensor, P: Tensor, W: Tensor) -> Tensor:
    """Return X - PW, written over X."""
    return X.addmm_(P, W, alpha=-1) if X.dim() == 2 else X.sub_(P @ W)


def _multipliers(K: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return Lambda for K = U'X, both in the eigenvectors of B, whose eigenvalues are given as a row and a column."""
    K = K.mul_(column)
    return (K + K.mT).div_(row + column)


def condition(S: Tensor) -> float:
    """Return the largest ratio of singular values in a batch; NaN if it is empty or one of them is zero."""
    if S.dim() == 1:
        values = S.tolist()  # one look, where a maximum, a minimum and their ratio would be four operations
        return max(values) / min(values) if min(values) > 0 else math.nan
    ratios = S.amax(dim=-1) / S.amin(dim=-1)
    return float(ratios.max()) if ratios.numel() else math.nan


def pseudo_inverse(x: Tensor) -> Tensor:
    """Return 1/x where x is positive, else 0."""
    positive = x > 0
    return torch.where(positive, 1 / torch.where(positive, x, torch.ones_like(x)), torch.zeros_like(x))
