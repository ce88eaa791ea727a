r"""The routes to the polar factor U of A = UB, each with what the derivative needs of B."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etfopt._torch import readable
from etfopt.nn.polar._factors import GATHER_FROM, Decomposition, Products, condition, pseudo_inverse
from etfopt.nn.polar._gram import gram
from etfopt.nn.polar._products import factor_by_products, poisoned

RESOLVED = 8e3
"""Condition number that a Gram matrix in float64 resolves, for a factor in float32 or one that is refined."""

NARROW_FROM = 64
"""Columns from which float32 matrices are first tried in float32; below, float64 costs next to nothing."""


def find_factors(A: Tensor, method: str, look: bool) -> Decomposition | Products:
    """Factor each matrix A, (..., d, r), by a method; `look` says whether looking at values is free.

    Where it is, a route that cannot keep its promises hands over: products to the Gram matrix, and that to the SVD,
    which serves every matrix. Where it is not, the U of such a matrix is NaN. "auto" is then the SVD, which waits for
    a device in any case, so that one look before it costs nothing: whether products do as well.
    """
    afford = look or (method == "auto" and readable(A))
    if method == "newton-schulz" or (afford and not look):
        U, inverse, B, good = factor_by_products(A)
        if not afford:
            return Products(poisoned(U, good), inverse, B)
        if good.all():
            return Products(U, inverse, B)
    if look and method != "svd":
        return decompose(A)
    return _by_unseen_gram(A) if method == "gram" else _by_svd(A)


def squared(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return A in the precision in which `decompose` squares it first, and A'A."""
    work = A if A.shape[-1] >= NARROW_FROM else A.double()
    return work, gram(work)


def decompose(A: Tensor, of_A: tuple[Tensor, Tensor] | None = None) -> Decomposition:
    """Return what A'A tells of matrices whose values may be looked at, or else the SVD; `of_A` is `squared(A)`."""
    found = _by_gram(A, of_A or squared(A)) or _by_svd(A)
    return found if found.kappa is not None else found._replace(kappa=condition(found.S))


def _by_svd(A: Tensor) -> Decomposition:
    P, S, Qh = torch.linalg.svd(A, full_matrices=False)
    Q = Qh.mT.contiguous()
    # LAPACK splits clustered singular values at tens of rounding units, and a null direction from them; left alone are
    # pairs of small ones, where rounding is all there is
    return Decomposition(_turned(P @ Qh, A, Q, S, smallest=S[..., :1, None] / 2), Q, S)


def _turned(U: Tensor, A: Tensor, Q: Tensor, S: Tensor, smallest: Tensor) -> Tensor:
    """Return U after one step of refinement, which leaves pairs of singular values of a smaller sum alone."""
    # U'A must be symmetric, and the turn U Omega makes it so to first order, with B Omega + Omega B = U'A - A'U
    K = U.mT @ A
    sums = S[..., :, None] + S[..., None, :]
    inverse = pseudo_inverse(torch.where(sums >= smallest, sums, torch.zeros_like(sums)))
    return U + U @ (Q @ ((Q.mT @ (K - K.mT) @ Q) * inverse) @ Q.mT)


def _by_gram(A: Tensor, of_A: tuple[Tensor, Tensor]) -> Decomposition | None:
    """Take U = A (A'A)^(-1/2) from an eigendecomposition, or None where squaring the condition number costs digits.

    Forming A'A leaves U orthonormal to u kappa^2 and U'A symmetric to u kappa |A|; the tests hold both to what the
    SVD promises. Float32 matrices of worse condition, and those so small that it costs nothing, go through float64.
    """
    work, square = of_A
    if work.dtype == A.dtype:
        r, own = A.shape[-1], torch.finfo(A.dtype).eps
        found = _gram_factor(A, square, min(2 * r, own**-0.25), polish_from=r**0.5)
        if found or A.dtype == torch.float64:
            return found
        work = A.double()
        square = gram(work)
    found = _gram_factor(work, square, RESOLVED, polish_from=math.inf)
    if found is None:
        return None
    inverse = None if found.inverse is None else found.inverse.to(A.dtype)
    return Decomposition(found.U.to(A.dtype), found.Q.to(A.dtype), found.S.to(A.dtype), inverse, found.kappa)


def _gram_factor(A: Tensor, square: Tensor, limit: float, polish_from: float) -> Decomposition | None:
    try:
        squares, Q = torch.linalg.eigh(square)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type: LAPACK did not converge
        return None
    S = squares.sqrt_()  # NaN where rounding has made a square negative, which no limit passes
    kappa = condition(S)
    if not kappa <= limit:
        return None
    polish = kappa > polish_from  # below the root of r, U is orthonormal to half of the promised 10 r u already
    if polish and _one_faint(S):
        torch.linalg.vector_norm(A @ Q[:, 0], out=S[0])
        polish = False
    inverse = (Q / (S if S.dim() == 1 else S.unsqueeze(-2))) @ Q.mT
    U = A @ inverse
    if polish:
        U = _polished(U)
    r = A.shape[-1]
    return Decomposition(U, Q, S, inverse if r >= GATHER_FROM and kappa <= 2 * r else None, kappa)


def _one_faint(S: Tensor) -> bool:
    """Whether the smallest singular value is all that rounding in A'A touches, as with a faint proximal term.

    Rounding u |A|^2 in A'A is u |A|^2 / (s_i s_j) between two columns of UQ; what it adds to the length of one, by
    which s_i would be off, is gone where s_i is taken from A itself.
    """
    if S.dim() > 1:
        return False
    values: list[float] = S.tolist()
    return values[-1] * values[-1] <= min(len(values), 100) * values[0] * values[1]


def _by_unseen_gram(A: Tensor) -> Decomposition:
    """Do the same through float64 without a look at the condition number: refined, and NaN above `RESOLVED`."""
    wide = A.double()
    squares, Q = torch.linalg.eigh(wide.mT @ wide)
    S = squares.clamp(min=0).sqrt()
    good = S[..., -1:] <= RESOLVED * S[..., :1]
    U = _turned(_polished((wide @ Q / S[..., None, :]) @ Q.mT), wide, Q, S, smallest=torch.zeros_like(S[..., :1, None]))
    if A.dtype == torch.float64:
        # S and Q are off by u kappa^2; from B itself they are off by u kappa, which the derivative needs
        B = U.mT @ A
        S, Q = torch.linalg.eigh(torch.where(good[..., None], B + B.mT, torch.zeros_like(B)) / 2)
    return Decomposition(poisoned(U, good[..., None]).to(A.dtype), Q.to(A.dtype), S.to(A.dtype))


def _polished(U: Tensor) -> Tensor:
    """Return U after a Newton-Schulz step."""
    return 1.5 * U - U @ (0.5 * (U.mT @ U)) if U.dim() > 2 else torch.addmm(U, U, U.mT @ U, beta=1.5, alpha=-0.5)
