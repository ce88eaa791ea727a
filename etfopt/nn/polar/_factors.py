r"""What the routes to the polar factor U of A = UB return, and the derivative at A that follows from it.

.. math:: dL/dA = U\,\Omega + (G - UK)B^{-1}, \qquad B\Omega + \Omega B = K - K', \quad K = U'G.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from etfopt._torch import full_precision
from etfopt.nn.polar._sylvester import solve_skew

RowMap: TypeAlias = Callable[[Tensor], Tensor]
"""X -> XF for some F, and so of a product of matrices what it makes of the last factor, which may be far smaller."""


def unchanged(X: Tensor) -> Tensor:
    """Return X: the `RowMap` of F = I."""
    return X


class Products(NamedTuple):
    """U, B^-1 and B, the latter two (..., r, r), from products of matrices alone."""

    U: Tensor
    inverse: Tensor
    B: Tensor

    def derivative(self, G: Tensor, then: RowMap = unchanged) -> Tensor:
        """Apply the derivative to G, and a map after it, without a graph for the next derivative."""
        with full_precision(G):
            K = self.U.mT @ G
            Omega, N = resolve(self.inverse, self.B, K - K.mT, G - self.U @ K)
            return then(self.U @ Omega + N)


class Decomposition(NamedTuple):
    """U, and Q (..., r, r) and S (..., r) of B = QSQ'; where it is of use, B^-1 without its first direction.

    The singular value of that direction may be faint. Rounding on what is divided by it stays in the direction.
    """

    U: Tensor
    Q: Tensor
    S: Tensor
    inverse: Tensor | None = None

    def derivative(self, G: Tensor, then: RowMap = unchanged) -> Tensor:
        r"""Apply the derivative to G, and a map after it, without a graph for the next derivative.

        In the eigenvectors of B it is :math:`XS^+ - PW` with X = GQ, P = UQ and :math:`W = KS^+ - \Omega`.
        """
        U, Q, S, inverse = self
        with full_precision(G):
            if inverse is None:
                S = _without_null(S)
                P, X, row = U @ Q, G @ Q, pseudo_inverse(S).unsqueeze(-2)
                return _less(X * row, P, _weights(P.mT @ X, row, pseudo_inverse(_sums(S)))) @ then(Q.mT)
            # with three products of the size of A in place of five; nothing is null here
            row = S.reciprocal().unsqueeze(-2)
            W = _weights(Q.mT @ (U.mT @ G) @ Q, row, _sums(S).reciprocal_())
            q = Q[..., :1]
            first = (G @ q) * row[..., :1] - U @ (Q @ W[..., :1])
            W[..., 0] = 0
            return _less(G @ then(inverse), U, then(Q @ W @ Q.mT)).add_(first @ then(q.mT))


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
    Q, S = X.to(R.dtype), _without_null(Y).to(R.dtype)
    Omega = Q @ ((Q.mT @ R @ Q) * pseudo_inverse(_sums(S))) @ Q.mT
    return Omega, (N @ Q) * pseudo_inverse(S)[..., None, :] @ Q.mT


def _weights(K: Tensor, row: Tensor, turn: Tensor) -> Tensor:
    """Return W for K = P'X, the inverses of the singular values and of their sums."""
    return K * row - (K - K.mT) * turn


def _sums(S: Tensor) -> Tensor:
    return S.unsqueeze(-1) + S.unsqueeze(-2)


def _without_null(S: Tensor) -> Tensor:
    """Return singular values with 0 for those that are null up to the rounding of the dtype they were found in."""
    null = S.shape[-1] * torch.finfo(S.dtype).eps * S.amax(dim=-1, keepdim=True) >= S
    return S.masked_fill(null, 0)


def _less(X: Tensor, P: Tensor, W: Tensor) -> Tensor:
    """Return X - PW, written over X."""
    return X.addmm_(P, W, alpha=-1) if X.dim() == 2 else X.sub_(P @ W)


def pseudo_inverse(x: Tensor) -> Tensor:
    """Return 1/x where x is positive, else 0."""
    return x.masked_fill(x <= 0, torch.inf).reciprocal()
