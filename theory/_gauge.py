"""Cases for `theory.gauge`: class means split by the two frames, and the first-order bias in two ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from etfopt import NearestETF, certify
from theory._linalg import EPS, nuclear, values
from theory.draws import Matrix, frame, matrix, polar, spectrum, stiefel
from theory.registry import Residual, at_least

__all__ = ["Split", "bias", "bias_by_full_frame", "remainder", "slant", "uniqueness"]

KINDS = ("generic", "equal", "repeated", "clustered", "graded", "tiny", "huge")


@dataclass(frozen=True)
class Split:
    """Class means H, d x C with d >= C, centred of rank C-1, and what statement 3 calls Z, n and R."""

    H: Matrix

    @classmethod
    def draw(cls, rng: np.random.Generator, largest: int = 7) -> Split:
        """Draw means of 2 to `largest` classes with singular values of any kind, and a common shift."""
        C = int(rng.integers(2, largest + 1))
        d = C + int(rng.choice([0, 1, 4]))
        s = spectrum(rng, C - 1, str(rng.choice(KINDS)))
        s = np.maximum(s, 1e-5 * s[0])
        shift = s[0] * rng.standard_normal((d, 1))
        return cls(matrix(rng, d, s) @ helmert(C) + shift)

    @property
    def d(self) -> int:
        """Feature dimension."""
        return len(self.H)

    @property
    def C(self) -> int:
        """Number of classes."""
        return int(self.H.shape[1])

    @cached_property
    def Z(self) -> Matrix:
        """Helmert's matrix."""
        return helmert(self.C)

    @cached_property
    def n(self) -> Matrix:
        """The constant unit vector."""
        return np.full(self.C, self.C**-0.5)

    @cached_property
    def R(self) -> Matrix:
        """The reduced frame, by SciPy."""
        return np.asarray(self.Z / np.sqrt(self.C - 1))

    @cached_property
    def data(self) -> Matrix:
        """2HR', from means that are centred first: shifts cost no digits."""
        return np.asarray(2 * (self.H - self.H.mean(axis=1, keepdims=True)) @ self.R.T)

    @cached_property
    def s(self) -> float:
        """The smallest singular value of 2HR'."""
        return float(values(self.data)[-1])

    @cached_property
    def kappa(self) -> float:
        """The size of the means, shift included, over s."""
        return float(np.linalg.norm(self.H)) / self.s

    @cached_property
    def E0(self) -> Matrix:
        """The nearest ETF without a proximal term."""
        return np.asarray(polar(self.data) @ self.R)

    def U0(self, rng: np.random.Generator) -> Matrix:
        """Return a minimiser of the paper's problem without a proximal term."""
        V = polar(self.data)
        rest = np.linalg.svd(V)[0][:, self.C - 1 :]
        w = rest @ stiefel(rng, rest.shape[1], 1)
        return np.asarray(V @ self.Z + w @ self.n[None])

    def prox(self, rng: np.random.Generator) -> Matrix:
        """Return a proximal point: near a minimiser, anywhere on the manifold, or off it."""
        noise = rng.standard_normal((self.d, self.C))
        near = polar(self.U0(rng) + 10.0 ** rng.uniform(-6, 0) * noise)
        return (near, stiefel(rng, self.d, self.C), noise)[int(rng.integers(3))]


def helmert(C: int) -> Matrix:
    """Return Helmert's matrix."""
    return np.asarray(scipy.linalg.helmert(C), dtype=np.float64)


def bias(case: Split, P: Matrix) -> Matrix:
    """Return D[P_R], or for a proximal point of C columns D[PZ' - w_0 a_0']."""
    left, s, Qt = np.linalg.svd(case.data, full_matrices=False)
    V = left @ Qt
    X = P
    if P.shape[1] == case.C:
        a, rest = V.T @ P @ case.n, P @ case.n - V @ (V.T @ P @ case.n)
        X = P @ case.Z.T - np.outer(rest / np.linalg.norm(rest), a)
    K = V.T @ X
    rotation = Qt.T @ ((Qt @ (K - K.T) @ Qt.T) / (s[:, None] + s)) @ Qt
    return np.asarray(V @ rotation + (X - V @ K) @ (Qt.T / s) @ Qt)


def bias_by_full_frame(case: Split, P: Matrix) -> Matrix:
    """Return D(UM)[P] by the closed form in all C columns at the limit of U, with 1/0 read as 0."""
    V = polar(case.data)
    rest = P @ case.n - V @ (V.T @ P @ case.n)
    U = V @ case.Z + np.outer(rest / np.linalg.norm(rest), case.n)
    _, s, Qt = np.linalg.svd(case.data, full_matrices=False)
    Q, s = np.column_stack([(Qt @ case.Z).T, case.n]), np.append(s, 0.0)
    sums = s[:, None] + s
    inverse = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    single = np.divide(1, s, out=np.zeros_like(s), where=s > 0)
    K = U.T @ P
    dU = U @ Q @ ((Q.T @ (K - K.T) @ Q) * inverse) @ Q.T + (P - U @ K) @ (Q * single) @ Q.T
    return np.asarray(dU @ (case.Z.T @ case.R))


def slant(case: Split, P: Matrix) -> float:
    """Return |a_0|/c: how much more of Pn lies along V_0 than across."""
    V = polar(case.data)
    a = V.T @ P @ case.n
    return float(np.linalg.norm(a) / np.linalg.norm(P @ case.n - V @ a))


def remainder(case: Split, P: Matrix) -> float:
    """Return the factor of the squared relative delta in the bound on what the first order leaves."""
    if P.shape[1] < case.C:
        return 9.0
    return float(18 + 2 * np.sqrt(2) * (1 + 2 * slant(case, P)))


def uniqueness(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare two minimisers of a problem of any rank and frame with what the certificate and statement 1 say."""
    C = int(rng.integers(2, 7))
    F = frame(rng, C)
    r = len(F)
    d = r + int(rng.choice([0, 1, 5]))
    A = matrix(rng, d, spectrum(rng, r, str(rng.choice(["generic", "deficient", "equal"]))))
    H = A @ np.linalg.pinv(F.T)
    P, s, Qt = np.linalg.svd(H @ F.T)
    rank = int(np.sum(s > 1e-12))
    signs = np.where(np.arange(r) < rank, 1, -1)
    one, two = P[:, :r] @ Qt, P[:, :r] * signs @ Qt
    unique = rank == r
    etf_unique = rank == np.linalg.matrix_rank(F)
    found = certify(NearestETF(H, frame=F), two)
    yield Residual(abs(found.gap), 100 * r * EPS * (1 + nuclear(A)), "gap of the other minimiser")
    yield Residual(float(found.unique != unique), 0.5, "unique, by the certificate")
    yield Residual(float(found.etf_unique != etf_unique), 0.5, "etf_unique, by the certificate")
    apart = float(np.linalg.norm((one - two) @ F))
    if etf_unique:
        yield Residual(apart, 1e-12, "two minimisers, one ETF")
    else:
        yield at_least(apart, 2 * values(F)[np.linalg.matrix_rank(F) - 1] * (1 - 1e-9), "two ETFs")
    if not unique:
        yield at_least(float(np.linalg.norm(one - two)), 2 - 1e-9, "two minimisers")
