r"""The skew Sylvester equation :math:`B\Omega + \Omega B = R` by matrix products alone, given :math:`B^{-1}`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etfopt.nn.polar._products import poisoned, spectral_bound

__all__ = ["solve_skew"]

WIDEST = {torch.float32: 700.0, torch.float64: 7000.0}
"""Largest eigenvalue of N that is served: r^(1/4) times the root of the condition number of B."""


def solve_skew(B: Tensor, inverse: Tensor, R: Tensor) -> Tensor:
    r"""Return Omega for symmetric positive definite B and skew R, all (..., r, r); NaN where it is not accurate.

    Multiplied by :math:`B^{-1}` from both sides the equation has the same solution, and so has the mean of the two,
    :math:`N\Omega + \Omega N = R_N`, the first step of Newton's iteration for the sign of [[B, R], [0, -B]]:

    .. math:: N = \tfrac12(B/p + pB^{-1}), \quad R_N = \tfrac12(R/p + pB^{-1}RB^{-1}), \quad p^2 = \|B\|/\|B^{-1}\|,

    with eigenvalues in :math:`[1, \nu]`, :math:`\nu^2` about the condition number of B. Cayley's transform
    :math:`C = I - 2\sqrt\nu(N + \sqrt\nu I)^{-1}` turns it into :math:`\Omega = C\Omega C + R_C`, whose series
    :math:`\sum_k C^kR_CC^k` is summed by doubling. The inverse is found by Newton's iteration, scaled.

    Sources: Higham (2008), Functions of Matrices, chapters 2 and 5. Smith (1968), Matrix equation XA + BX = C.
    """
    eye = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device)
    B, inverse = (B + B.mT) / 2, (inverse + inverse.mT) / 2
    high, low = spectral_bound(B), spectral_bound(inverse)
    p, nu = (high / low).sqrt(), (high * low).sqrt()
    N = (B / p + p * inverse) / 2
    R_N = (R / p + p * (inverse @ R @ inverse)) / 2
    q = nu.sqrt()
    M = N + q * eye
    Y = _inverse(M, 2 / (1 + 2 * q + nu), eye)
    rounding = 30 * len(eye) * torch.finfo(B.dtype).eps
    # M has condition number q at most, with whose square, nu, the rounding of an inverse may grow
    grown = 1 + nu.detach().clamp(max=WIDEST[B.dtype]) / 300
    good = torch.linalg.matrix_norm((M @ Y - eye).detach(), keepdim=True) <= rounding * grown
    C = eye - 2 * q * Y
    Omega = 2 * q * (Y @ R_N @ Y)
    faintest = torch.finfo(B.dtype).eps ** 2
    for _ in range(_doublings(B.dtype)):
        Omega = Omega + C @ Omega @ C
        C = C @ C
        C = C * (C.abs() > faintest)  # else a processor spends its time on subnormal numbers
    # what is missing from the sum is C Omega C
    good = good & (torch.linalg.matrix_norm(C.detach(), keepdim=True).square() <= rounding)
    return poisoned((Omega - Omega.mT) / 2, good)


def _inverse(M: Tensor, guess: Tensor, eye: Tensor) -> Tensor:
    """Invert symmetric M with eigenvalues in [1 + q, q + q^2], from the multiple of I that is the best guess."""
    q = math.sqrt(WIDEST[M.dtype])
    error = (q - 1) / (q + 1)
    Y = guess * eye
    while error > torch.finfo(M.dtype).eps / 2:
        # residuals in [-e, e] become squares in [0, e^2], which the factor centres
        factor = 2 / (2 - error * error)
        Y = factor * (2 * Y - Y @ M @ Y)
        error = error * error / (2 - error * error)
    return Y


def _doublings(dtype: torch.dtype) -> int:
    """Return how often to double, for a rest below rounding."""
    q = math.sqrt(WIDEST[dtype])
    return math.ceil(math.log2(math.log(torch.finfo(dtype).eps) / (2 * math.log((q - 1) / (q + 1)))))
