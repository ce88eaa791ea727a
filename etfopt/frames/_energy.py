r"""A smooth upper bound on the largest cosine, :math:`\frac1\beta \log \sum_{i<j} e^{\beta x_i'x_j}`, and its gradient.

The C x C matrix of cosines is computed in tiles of at most `TILE` entries, each used once, so memory is O(C d).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from etfopt._arrays import Array, Float64Array

__all__ = ["energy", "largest_cosine", "unit_rows"]

TILE = 2**22
"""Entries of a tile: 32 MB in float64."""

SMALLEST = -70.0
"""Logarithm of the smallest term of a sum, relative to the largest."""


def unit_rows(Y: Float64Array) -> Float64Array:
    """Return the rows with norm 1."""
    rows: Float64Array = Y / np.linalg.norm(Y, axis=1, keepdims=True)
    return rows


def largest_cosine(X: Array) -> float:
    """Return the largest inner product of two different rows."""
    return float(max(K.max() for _, _, K in _tiles(X)))


def energy(
    flat: Float64Array, shape: tuple[int, int], beta: float, dtype: type[np.floating[Any]] = np.float64
) -> tuple[float, Float64Array]:
    """Return the bound for the rows of a matrix, scaled to norm 1, and its gradient with respect to the matrix.

    Products are computed in `dtype`. A tile with a larger maximum than the tiles before rescales their sums.
    """
    Y = flat.reshape(shape)
    norms = np.linalg.norm(Y, axis=1, keepdims=True)
    X = (Y / norms).astype(dtype)
    G, total, top = np.zeros_like(X), 0.0, -np.inf
    for start, stop, K in _tiles(X):
        if (highest := float(K.max())) > top:
            shrink = np.exp(beta * (top - highest))
            G, total, top = G * dtype(shrink), total * shrink, highest
        weights = _weights(K, beta, top)
        total += float(weights.sum(dtype=np.float64))
        G[start:stop] += weights @ X[start:]
        G[start:] += weights.T @ X[start:stop]
    G /= dtype(total)
    G -= X * np.sum(X * G, axis=1, keepdims=True)
    return top + float(np.log(total)) / beta, (G / norms).astype(np.float64).ravel()


def _weights(K: Array, beta: float, top: float) -> Array:
    """Turn cosines into exp(beta (cosine - top)), in place; zero where a pair is not counted or counted already."""
    K -= K.dtype.type(top)
    K *= K.dtype.type(beta)
    np.maximum(K, SMALLEST, out=K)  # subnormal numbers are slow
    np.exp(K, out=K)
    square = K[:, : len(K)]
    square[:] = np.triu(square, 1)
    return K


def _tiles(X: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield start, stop and the inner products of rows start...stop with rows start...C; those of equal rows are -1."""
    C, start = len(X), 0
    while start < C - 1:
        stop = min(C, start + max(1, TILE // (C - start)))
        K = X[start:stop] @ X[start:].T
        np.fill_diagonal(K, -1.0)
        yield start, stop, K
        start = stop
