"""Adversarial cases: matrices by their spectrum, shapes at the edges, points near and far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etfopt import NearestETF, random_stiefel, simplex_etf

__all__ = ["SPECTRA", "Matrix", "frame", "matrix", "polar", "problem", "spectrum", "stiefel", "unit_columns"]

Matrix = NDArray[np.float64]
SPECTRA = ("generic", "equal", "repeated", "clustered", "graded", "tiny", "huge", "deficient")


def spectrum(rng: np.random.Generator, r: int, kind: str | None = None) -> Matrix:
    """Return r singular values, descending: of a kind of `SPECTRA`, or of one drawn."""
    kind = kind or str(rng.choice(SPECTRA))
    generic = np.sort(rng.uniform(0.1, 1, r))[::-1]
    s = {
        "generic": generic,
        "equal": np.ones(r),
        "repeated": np.sort(rng.choice([1.0, 0.5, 0.2], r))[::-1],
        "clustered": 1 + 1e-9 * generic,
        "graded": np.geomspace(1, 10.0 ** -rng.uniform(1, 8), r),
        "tiny": 1e-100 * generic,
        "huge": 1e100 * generic,
        "deficient": np.where(np.arange(r) < int(rng.integers(r)), generic, 0.0),
    }
    return np.asarray(s[kind])


def stiefel(rng: np.random.Generator, d: int, r: int) -> Matrix:
    """Return a uniform point of St(d, r)."""
    return np.asarray(random_stiefel(d, r, rng=rng))


def matrix(rng: np.random.Generator, d: int, s: Matrix) -> Matrix:
    """Return a d x r matrix with singular values s and uniform singular vectors."""
    return np.asarray(stiefel(rng, d, len(s)) * s @ stiefel(rng, len(s), len(s)).T)


def unit_columns(X: Matrix) -> Matrix:
    """Return X with every column divided by its norm."""
    return np.asarray(X / np.linalg.norm(X, axis=0))


def polar(A: Matrix) -> Matrix:
    """Return the polar factor of A by NumPy's SVD: slow, plain, and no code of etfopt."""
    P, _, Qt = np.linalg.svd(A, full_matrices=False)
    return np.asarray(P @ Qt)


def frame(rng: np.random.Generator, C: int) -> Matrix:
    """Return the paper's frame (C x C), the reduced one (C-1 x C), or any other of rank r <= C, unit Frobenius norm."""
    kind = rng.integers(3)
    if kind < 2:
        return np.asarray(simplex_etf(C, reduced=bool(kind)))
    F = matrix(rng, C, spectrum(rng, int(rng.integers(1, C + 1)), "generic")).T
    return np.asarray(F / np.linalg.norm(F))


def problem(rng: np.random.Generator, kind: str | None = None, prox: str | None = None) -> NearestETF:
    """Return a problem with 2 to 7 classes whose data term 2HF' has a spectrum of a kind of `SPECTRA`.

    `prox` is "none", "near" (beside the minimiser), "far" or "off" (not on the manifold); one is drawn if not given.
    d is r, r + 1 or much larger. The scale of delta goes with that of the data.
    """
    C = int(rng.integers(2, 8))
    F = frame(rng, C)
    r = len(F)
    d = int(rng.choice([r, r + 1, 3 * r + 5]))
    X = matrix(rng, d, spectrum(rng, r, kind))
    H = X @ np.linalg.pinv(F.T) / 2
    proximity = prox or str(rng.choice(["none", "near", "far", "off"]))
    if proximity == "none":
        return NearestETF(H, frame=F)
    noise = rng.standard_normal((d, r))
    near = polar(polar(X) + 10.0 ** rng.uniform(-8, -1) * noise)
    point = {"near": near, "far": stiefel(rng, d, r), "off": noise}[proximity]
    delta = float(np.linalg.norm(X, 2) * 10.0 ** rng.uniform(-6, 1)) or 1.0
    return NearestETF(H, prox=point, delta=delta, frame=F)
