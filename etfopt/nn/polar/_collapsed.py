r"""The polar factor and its derivative near collapse, by products and no decomposition.

All singular values agree there, but for that of the direction that the simplex does not see. With that direction v,
its eigenvalue :math:`\theta` of A'A and the mean :math:`\sigma` of the others,

.. math:: A'A/\sigma = I + E - (1 - \theta/\sigma)vv', \quad Ev = 0, \qquad
   B^{-1} = T = \sigma^{-1/2}(I + N + \alpha vv'), \quad I + N = (I + E)^{-1/2}, \quad (1 + \alpha)^2 = \sigma/\theta.

E is small, so N is a few terms of a series. The derivative at G is :math:`(G - U\Lambda)T` with
:math:`\Lambda = \tfrac12(K + K') + \Delta` and, since :math:`B\Lambda + \Lambda B = BK + K'B` for K = U'G,

.. math:: T\Delta + \Delta T = \tfrac12(JT - TJ), \qquad J = K - K',

in which v is split off and the rest is solved by iteration, for N is small. How many terms either takes is known
beforehand: what they leave out is bounded by the norm of :math:`E^2`, which is one of them. Proof, and what the bounds
are worth: ``theory/near_collapse.py``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._torch import full_precision
from etfopt.nn.polar._factors import RowMap, unchanged
from etfopt.nn.polar._gram import gram

BINOMIAL = (1.0, -1 / 2, 3 / 8, -5 / 16, 35 / 128, -63 / 256, 231 / 1024, -429 / 2048)
"""Of x^k in (1 + x)^(-1/2). They alternate and fall, so what is left out is less than its first term over 1 - |x|."""

MOST_TERMS = 3
"""A term is two powers of E and a step of the iteration; each costs a product forwards and one backwards."""

STEPS = 6
"""Of the power iteration for v, each of which leaves the largest |E| of the error, over 1 - theta/sigma."""


class Collapsed(NamedTuple):
    """U, T, N, v (0 where no direction stands apart), alpha, and how many terms it took."""

    U: Tensor
    T: Tensor
    N: Tensor
    v: Tensor
    alpha: float
    terms: int

    def derivative(self, G: Tensor, then: RowMap = unchanged) -> Tensor:
        """Apply the derivative to G, and a map after it, without a graph for the next derivative."""
        U, T, N, v, alpha, terms = self
        with full_precision(G):
            K = U.mT @ G
            J = K - K.mT
            j = J @ v
            Nj = N @ j
            # the row of v: ((2 + alpha) I + N) y = x
            x = (alpha * j - Nj) / 2
            y = x / (2 + alpha)
            for _ in range(terms):
                y = (x - N @ y) / (2 + alpha)
            # the rest, which is half + half', by M <- half + half' - (NM + MN)/2
            first = half = torch.addmm(torch.outer(Nj, v), N, J, beta=0.25, alpha=-0.25)
            for _ in range(terms - 1):
                half = torch.addmm(first, N, half + half.mT, alpha=-0.5)
            half = torch.add(half, K, alpha=0.5).addr_(v, y)
            return torch.addmm(G, U, half + half.mT, alpha=-1) @ then(T)


def near_collapse(A: Tensor, square: Tensor, trace: float, apart: bool) -> Collapsed | None:
    """Return what products find of one matrix A, (d, r), or None where the series would be long.

    Given are A'A and its trace, and whether a direction near that of equal entries has a singular value of its own.
    """
    r, rounding = A.shape[1], A.shape[1] * torch.finfo(A.dtype).eps
    entries = square.reshape(-1)
    # what the sum of squares of the eigenvalues tells of |E|^2, which is at most sqrt(r) |E^2|
    spread = float(entries @ entries) * (r - 1) / trace**2 - 1
    if _terms(max(spread, 0) * (r - 1) / math.sqrt(r), rounding) is None:
        return None
    v, theta, sigma = _apart(A, square, trace) if apart else (A.new_zeros(r), trace / r, trace / r)
    if not sigma <= min(r, 100) ** 2 * theta:  # a fainter one would spread its rounding by way of T
        return None
    E = torch.addr(square, v, v, beta=1 / sigma, alpha=1 - theta / sigma)
    E.diagonal().sub_(1)
    E2 = gram(E)
    terms, alpha = _terms(float(torch.linalg.vector_norm(E2)), rounding), math.sqrt(sigma / theta) - 1
    # Ev is what A'A keeps between v and the rest, and T multiplies it by 1 + alpha
    if terms is None or (1 + alpha) * float(torch.linalg.vector_norm(E @ v)) > 2 * rounding:
        return None
    N = _series(E, E2, terms)
    T = torch.addr(N, v, v, alpha=alpha)
    T.diagonal().add_(1)
    T.div_(math.sqrt(sigma))
    return Collapsed(A @ T, T, N, v, alpha, terms)


def _terms(size: float, rounding: float) -> int | None:
    """Return how many terms leave out less than rounding, given |E^2|, which bounds the square of every |E|."""
    e = math.sqrt(size)
    for n in range(1, MOST_TERMS + 1):
        of_series = abs(BINOMIAL[2 * n + 1]) * e ** (2 * n - 1) * size
        of_steps = (e / 2) ** (n + 1) / 4
        if max(2 * of_series, of_steps / 4) <= rounding * (1 - e):
            return n
    return None


def _series(E: Tensor, E2: Tensor, terms: int) -> Tensor:
    """Return (I + E)^(-1/2) - I to the power 2 terms."""
    N = None
    for k in range(2 * terms - 1, 0, -2):
        pair = torch.add(BINOMIAL[k] * E, E2, alpha=BINOMIAL[k + 1])
        N = pair if N is None else torch.addmm(pair, E2, N)
    assert N is not None
    return N


def _apart(A: Tensor, square: Tensor, trace: float) -> tuple[Tensor, float, float]:
    """Return v, theta and sigma, from a v of equal entries."""
    r = A.shape[1]
    v = A.new_full((r,), r**-0.5)
    for _ in range(STEPS):
        v = torch.addmv(v, square, v, alpha=(1 - r) / trace)
    v = v / torch.linalg.vector_norm(v)
    lengths = A @ v
    theta = float(lengths @ lengths)  # of A, for in A'A a faint one is lost
    return v, theta, (trace - theta) / (r - 1)
