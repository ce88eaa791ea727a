"""Sums and products in float64 that keep their digits where large terms cancel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Products held at once by `residual`: 32 MiB.
CHUNK = 2**22
# Veltkamp's constant: it cuts the 53 bits of a float64 into two halves whose products are exact.
CUT = 2.0**27 + 1


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and e with s + e = a + b exactly, s the rounded sum (Knuth)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def centred(X: Tensor) -> Tensor:
    """Return the rows of X minus their mean. A common offset costs no digits: the second mean mends the first."""
    near = X - X.mean(dim=0)
    return near - near.mean(dim=0)


def norm(X: Tensor) -> Tensor:
    """Norms of the last axis, shape (..., 1). Squares of tiny entries do not underflow."""
    largest = X.abs().amax(dim=-1, keepdim=True)
    norms: Tensor = largest * torch.linalg.vector_norm(X / largest.where(largest > 0, 1.0), dim=-1, keepdim=True)
    return norms


def largest_entry(X: Tensor) -> Tensor:
    """Return the largest absolute value of X, without a copy of it; NaN where one is NaN."""
    least, largest = torch.aminmax(X)
    return torch.maximum(-least, largest)


def row_norms(X: Tensor) -> Tensor:
    """Return the norms of the rows over a number that they share, shape (n,): squares stay in range."""
    size = largest_entry(X)
    size = size.where(size > 0, 1.0)
    pieces = torch.split(X, max(1, CHUNK // X.shape[1]))
    return torch.cat([torch.linalg.vector_norm(x / size, dim=1) for x in pieces])


def deviation(x: Tensor) -> Tensor:
    """Return the standard deviation of numbers, with the divisor n - 1; NaN for one, without a warning."""
    return ((x - x.mean()).square().sum() / (len(x) - 1)).sqrt()


def frobenius(X: Tensor) -> Tensor:
    """Return ||X||_F. Squares of tiny entries do not underflow."""
    norms: Tensor = torch.linalg.vector_norm(row_norms(X)) * largest_entry(X)
    return norms


def tall_r(C: int, rows_of: Callable[[slice], Tensor]) -> Tensor:
    """Return the triangular factor R of a QR decomposition of a matrix of C rows, given tile by tile.

    The factors of two tiles, one upon the other, have the same R as the tiles. So the matrix is never held at once.
    """
    R = rows_of(slice(0, 0))
    step = max(1024, 2 * R.shape[1])
    for start in range(0, C, step):
        tile = rows_of(slice(start, min(C, start + step)))
        R = torch.linalg.qr(torch.cat([R, tile]), mode="r").R
    return R


def power_of_two_above(x: Tensor) -> Tensor:
    """Return the power of two in (x, 2x], and 0 for x = 0."""
    exponent = torch.frexp(x).exponent
    return torch.ldexp(torch.ones_like(x), exponent) * (x > 0)


def residual(W: Tensor, mean: Tensor, rest: Tensor, b: Tensor) -> Tensor:
    """Return W (mean + rest) + b as if computed in twice the precision (Ogita, Rump, Oishi 2005), shape (C,)."""
    rows = max(1, CHUNK // W.shape[1])
    pieces = zip(torch.split(W, rows), torch.split(b, rows), strict=True)
    return torch.cat([_residual(w, mean, rest, c) for w, c in pieces])


def _residual(W: Tensor, mean: Tensor, rest: Tensor, b: Tensor) -> Tensor:
    product = W * mean
    (W_high, W_low), (m_high, m_low) = _halves(W), _halves(mean)
    lost = ((W_high * m_high - product) + W_high * m_low + W_low * m_high) + W_low * m_low
    small = (lost + W * rest).sum(dim=1)
    terms = torch.cat([product, b[:, None]], dim=1)
    while (k := terms.shape[1]) > 1:
        terms, error = two_sum(terms[:, : k // 2], terms[:, k // 2 : k // 2 * 2]) if k % 2 == 0 else _odd(terms)
        small = small + error.sum(dim=1)
    return terms[:, 0] + small


def _odd(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Add the last of an odd number of columns to the first."""
    first, error = two_sum(terms[:, :1], terms[:, -1:])
    return torch.cat([first, terms[:, 1:-1]], dim=1), error


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    large = CUT * x
    high = large - (large - x)
    return high, x - high
