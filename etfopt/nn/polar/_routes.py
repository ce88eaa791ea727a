r"""The routes to the polar factor U of A = UB, each with what the derivative needs of B."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etfopt._torch import readable
from etfopt.nn.polar._factors import Decomposition, Products
from etfopt.nn.polar._gram import gram
from etfopt.nn.polar._products import factor_by_products, poisoned
from etfopt.nn.polar._svd import svd_factor


def find_factors(A: Tensor, method: str, look: bool) -> Decomposition | Products:
    """Factor each matrix A, (..., d, r), by a method; `look` says whether looking at values is free.

    Where it is, a route that cannot keep its promises hands over: products to the Gram matrix, and that to the SVD,
    which works for every matrix. Decompositions wait for a device in any case, so that one look beside them costs
    nothing. The products of "newton-schulz" do not wait: of a matrix that is not for them, U is NaN. In traces, where
    nobody may look, there are products and the SVD.
    """
    trial = method == "auto" and not look and readable(A)
    if method == "newton-schulz" or trial:
        U, inverse, B, good = factor_by_products(A)
        if not (look or trial):
            return Products(poisoned(U, good), inverse, B)
        if good.all():
            return Products(U, inverse, B)
    seen = look or (method == "gram" and readable(A))
    return decompose(A) if seen and method != "svd" else svd_factor(A)


def decompose(A: Tensor, square: Tensor | None = None) -> Decomposition:
    """Return what A'A tells of matrices whose values may be looked at, or else the SVD."""
    return _by_gram(A, gram(A) if square is None else square) or svd_factor(A)


def _by_gram(A: Tensor, square: Tensor) -> Decomposition | None:
    """Take U = A (A'A)^(-1/2) from an eigendecomposition, or None where squaring the condition number costs digits.

    Forming A'A leaves U orthonormal to u kappa^2 and U'A symmetric to u kappa |A|; the tests hold both to what the
    SVD promises. The smallest singular value may be faint, as that of the direction which the simplex does not see:
    its eigenvector q keeps its digits, and its column of UQ is Aq, less what lies in the range of the others.
    """
    r, u = A.shape[-1], torch.finfo(A.dtype).eps
    try:
        squares, Q = torch.linalg.eigh(square)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type: LAPACK did not converge
        return None
    S = squares.clamp_(min=0).sqrt_()
    kappa = _condition(S[..., min(1, r - 1) :])
    if not kappa <= min(2 * r, u**-0.25):
        return None
    q, rest = Q[..., :1], Q[..., 1:]
    inverse = (rest / S[..., None, 1:]) @ rest.mT
    U = A @ inverse
    if kappa > r**0.5:  # below, it is orthonormal to half of the promised 10 r u already
        U = _polished(U)
    p = _off_range(U, A @ q)
    s = torch.linalg.vector_norm(p, dim=-2)
    if not (s > r * u * S[..., -1:]).all():
        return None
    p = _off_range(U, p / s.unsqueeze(-1))  # of one that is almost rounding, the first step leaves a part
    p = p / torch.linalg.vector_norm(p, dim=-2, keepdim=True)
    S[..., :1] = s
    return Decomposition(U.add_(p @ q.mT), Q, S, inverse)


def _condition(S: Tensor) -> float:
    """Return the largest ratio of ascending singular values in a batch; NaN if it is empty or one of them is zero."""
    if S.dim() == 1:
        values = S.tolist()  # one look, where a ratio of two would be five operations
        return values[-1] / values[0] if values[0] > 0 else math.nan
    ratios = S[..., -1] / S[..., 0]
    return float(ratios.max()) if ratios.numel() else math.nan


def _off_range(U: Tensor, p: Tensor) -> Tensor:
    return p - U @ (U.mT @ p)


def _polished(U: Tensor) -> Tensor:
    """Return U after a Newton-Schulz step."""
    return 1.5 * U - U @ (0.5 * (U.mT @ U))
