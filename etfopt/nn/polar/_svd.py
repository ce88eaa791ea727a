"""The SVD route, which works for every matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt.nn.polar._factors import Decomposition, pseudo_inverse


def svd(A: Tensor, full_matrices: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return P, S and Q' of A = P S Q', also where LAPACK's divide and conquer does not converge.

    It fails on rare matrices with many equal singular values, and then not on the transpose in float64.
    """
    try:
        P, S, Qh = torch.linalg.svd(A, full_matrices=full_matrices)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type
        Q, S, Ph = torch.linalg.svd(A.mT.double(), full_matrices=full_matrices)
        P, S, Qh = Ph.mT.to(A), S.to(A), Q.mT.to(A)
    return P, S, Qh


def svd_factor(A: Tensor) -> Decomposition:
    """Factor matrices, (..., d, r), by an SVD and a step of refinement."""
    P, S, Qh = svd(A)
    Q = Qh.mT.contiguous()
    # LAPACK splits clustered singular values at tens of rounding units, and a null direction from them; left alone are
    # pairs of small ones, where rounding is all there is
    return Decomposition(turned(P @ Qh, A, Q, S, smallest=S[..., :1, None] / 2), Q, S)


def turned(U: Tensor, A: Tensor, Q: Tensor, S: Tensor, smallest: Tensor) -> Tensor:
    """Return U after one step of refinement, which leaves pairs of singular values of a smaller sum alone."""
    # U'A must be symmetric, and the turn U Omega makes it so to first order, with B Omega + Omega B = U'A - A'U
    K = U.mT @ A
    sums = S[..., :, None] + S[..., None, :]
    inverse = pseudo_inverse(torch.where(sums >= smallest, sums, torch.zeros_like(sums)))
    return U + U @ (Q @ ((Q.mT @ (K - K.mT) @ Q) * inverse) @ Q.mT)
