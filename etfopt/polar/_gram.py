r"""Polar factors by way of the Gram matrix: cheaper than an SVD, and as accurate where they do not raise.

With :math:`G = A'A = Q S^2 Q'` the polar factor is :math:`U = A\,G^{-1/2}`. Forming G squares the condition number
:math:`\kappa` of A, so :math:`G^{-1/2}` is off by about :math:`u\kappa^2`. U is then orthonormal to
:math:`u\kappa^2` and :math:`U'A` symmetric to :math:`u\kappa\|A\|`. A Newton-Schulz step in the long dimension
corrects the first cheaply; a step of refinement corrects both. Other matrices raise `Unsuitable` and go to the SVD.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from etfopt._arrays import Array, Float64Array
from etfopt.errors import EtfoptError
from etfopt.polar._products import FAR_OFF, feasibility, tall_product
from etfopt.polar._svd import refined_polar

RESOLVED = {np.dtype(np.float64): 8e3, np.dtype(np.float32): 1e3}
"""Condition number up to which one step of refinement corrects U. It squares the error: u kappa^2 in float64, where G
is formed, and u kappa in float32, where U is."""

LANCZOS_STEPS = 10
STEP_LIMIT = 30


class Unsuitable(EtfoptError):
    """A fast route cannot keep the promised accuracy on this matrix; the message says why."""


class GramSpectrum(NamedTuple):
    """Eigendecomposition A'A = Q diag(S^2) Q' in float64, S >= 0 non-decreasing: the right half of an SVD of A."""

    Q: Float64Array
    S: Float64Array


def gram_spectrum(G: Float64Array) -> GramSpectrum:
    """Eigendecompose G = A'A, or raise `Unsuitable` where LAPACK fails."""
    try:
        squares, Q = np.linalg.eigh(G)
    except np.linalg.LinAlgError as error:
        raise Unsuitable(f"LAPACK's syevd: {error}") from error
    if not feasibility(Q) <= FAR_OFF:
        raise Unsuitable("LAPACK's syevd: eigenvectors that are not orthonormal")
    return GramSpectrum(Q, np.sqrt(np.maximum(squares, 0)))


def gram_polar(A: Array, spectrum: GramSpectrum) -> Array:
    r"""Return the polar factor of A, (d, r), of moderate size, in its dtype, from the eigenvectors of A'A.

    Directions that A maps to zero, such as the one that the simplex does not see, go to an orthonormal basis of the
    complement of the range of A. A singular value that is neither zero nor resolved through A'A raises `Unsuitable`.
    """
    S = spectrum.S
    kept = S * RESOLVED[A.dtype] > S[-1]
    Q, inverse = spectrum.Q.astype(A.dtype), np.divide(1, S, out=np.zeros_like(S), where=kept).astype(A.dtype)
    benign = kept.any() and S[-1] <= symmetric_up_to(A) * S[kept][0]
    # the first costs a product less; the second keeps rounding in proportion to each singular value
    U = A @ ((Q * inverse) @ Q.T) if benign else (A @ Q * inverse) @ Q.T
    if not kept.all():
        null = Q[:, ~kept]
        _require_null(A, null, S)
        U = U + _complement(U, null.shape[1]) @ null.T
    return _newton_schulz_step(U) if benign else refined_polar(A, U, Q, np.where(kept, S, 0).astype(A.dtype))


def newton_schulz_polar(A: Array, G: Float64Array) -> tuple[Array, int]:
    r"""Return the polar factor of A, (d, r), and the number of iterations, by matrix products alone; G = A'A.

    The scaled Newton-Schulz iteration runs on r x r matrices that are polynomials in G, coupled so that
    :math:`R_k \to I` and :math:`V_k \to G^{-1/2}`,

    .. math:: q = \tfrac{\rho}{2}(3I - \rho^2 R_k), \quad V_{k+1} = V_k q, \quad R_{k+1} = q R_k q,
              \qquad \rho^2 = \frac{3}{1 + \ell + \ell^2},

    where the eigenvalues of :math:`R_k` lie in :math:`[\ell^2, 1]` (Chen and Chow, 2014). An ill-conditioned A raises
    `Unsuitable`.
    """
    r, unit = len(G), float(np.finfo(A.dtype).eps)
    low, high = _enclosure(G)
    identity = np.eye(r, dtype=A.dtype)
    V, R, lower = identity, (G / high).astype(A.dtype), float(np.sqrt(low / high))
    for k in range(1, STEP_LIMIT + 1):
        residual = float(np.linalg.norm(R - identity))
        if not residual < r:
            break
        last = residual < np.sqrt(unit)  # the step is quadratic: what it leaves is below rounding
        rho2, lower = (1.0, 1.0) if last else _scaled(lower)
        q = ((np.sqrt(rho2) / 2) * (3 * identity - rho2 * R)).astype(A.dtype)
        V = V @ q if k > 1 else q
        if last:
            condition = _norm_estimate(V)
            if condition > min(symmetric_up_to(A), unit**-0.25):
                raise Unsuitable(f"a condition number of {condition:.1e} is too much for products with A'A")
            return _newton_schulz_step(A @ (V / np.sqrt(high)).astype(A.dtype)), k
        R = q @ R @ q
    raise Unsuitable(f"no convergence in {k} steps: A is rank deficient, or nearly so")


def newton_schulz_steps(G: Float64Array, unit: float) -> int:
    """Predict how many steps `newton_schulz_polar` takes, from an estimate of the spectrum's ends."""
    low, high = _enclosure(G)
    lower, steps = float(np.sqrt(low / high)), 1
    while (1 - lower * lower) * np.sqrt(len(G)) > np.sqrt(unit) and steps < STEP_LIMIT:
        lower, steps = _scaled(lower)[1], steps + 1
    return steps


def _scaled(lower: float) -> tuple[float, float]:
    """Return rho^2, which makes the cubic as large at the lower end as at 1, and the lower end after the step."""
    rho2 = 3 / (1 + lower + lower * lower)
    return rho2, min(1.0, float(np.sqrt(rho2)) * lower * (3 - rho2 * lower * lower) / 2)


def _enclosure(G: Float64Array) -> tuple[float, float]:
    """Estimate the ends of the spectrum of G by a few Lanczos steps; the iteration checks its own result."""
    r = len(G)
    v = _probe(r)
    previous, beta = np.zeros(r), 0.0
    diagonal, off = [], []
    for _ in range(min(LANCZOS_STEPS, r)):
        w = G @ v - beta * previous
        diagonal.append(float(w @ v))
        w -= diagonal[-1] * v
        beta = float(np.linalg.norm(w))
        off.append(beta)
        if beta <= float(np.finfo(np.float64).eps) * r * diagonal[0]:
            break
        previous, v = v, w / beta
    theta, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1))
    # each end lies about as far beyond its Ritz value as that one's residual is large
    pads = off[-1] * np.abs(vectors[-1])
    low, high = float(theta[0] - pads[0]), float(theta[-1] + pads[-1])
    if not high > 0:
        raise Unsuitable("A is zero")
    return max(low, 1e-4 * high), 1.01 * high


def _norm_estimate(V: Array) -> float:
    """Estimate the spectral norm of a symmetric matrix by a few steps of the power method."""
    v = _probe(len(V)).astype(V.dtype)
    for _ in range(8):
        v = V @ v
        norm = float(np.linalg.norm(v))
        v /= norm
    return norm


def _probe(r: int) -> Float64Array:
    """Return a fixed vector of norm 1 that no structure of a matrix is likely to be orthogonal to."""
    v = np.cos(np.arange(1.0, r + 1))
    return np.asarray(v / np.linalg.norm(v))


def symmetric_up_to(A: Array) -> float:
    """Condition number up to which U'A is symmetric to the promised 15 r u |A| without refinement."""
    return float(2 * A.shape[1])


def _require_null(A: Array, null: Array, S: Float64Array) -> None:
    image = float(np.linalg.norm(A @ null))
    # what is mapped to zero wrongly costs twice its singular values of the objective
    if 2 * np.sqrt(null.shape[1]) * image > 4 * A.shape[1] * float(np.finfo(A.dtype).eps) * S[-1]:
        raise Unsuitable(f"a singular value of {image / S[-1]:.1e} |A| cannot be resolved through A'A")


def _complement(P: Array, k: int) -> Array:
    """Return k orthonormal columns orthogonal to the range of P, whose columns span it with unit singular values."""
    # in no special position, and with columns that are independent within what P leaves
    E = np.cos(np.outer(np.arange(1.0, len(P) + 1), np.arange(1.0, k + 1))).astype(P.dtype)
    for _ in range(2):  # once is not enough where P leaves little room
        E = E - P @ (P.T @ E)
        E = np.linalg.qr(E)[0] if k > 1 else E / np.linalg.norm(E)
    return np.asarray(E)


def _newton_schulz_step(U: Array) -> Array:
    return np.asarray(U @ (1.5 * np.eye(U.shape[1], dtype=U.dtype) - 0.5 * tall_product(U, U)))
