"""Nearest-ETF problems drawn by their spectrum: easy spectra check little.

The linear term A = 2HF' + delta U_prox decides everything, so its singular values are drawn first, then the singular
vectors, then H is solved for. Hypothesis draws the structure; a seeded generator fills in the vectors.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy.linalg import helmert

from etfopt import NearestETF, simplex_etf

REGULAR = ("generic", "repeated", "clustered", "tiny", "graded")
"""Kinds of spectra without zeros: the minimiser is unique."""

DEGENERATE = ("zero", "rank one", "deficient")
"""Kinds with zeros: A is the zero matrix, has one non-zero singular value, or lacks one."""

PROXES = ("none", "near", "far", "off the manifold")
FRAMES = ("simplex", "reduced")
DELTAS = (1e-3, 0.03, 0.5, 20.0, 1e7)
"""Proximal weights for data of order one; the last dominates, and clusters all singular values at itself."""

DTYPES = (np.float32, np.float64)


@dataclass(frozen=True)
class Draw:
    """A problem, and the generator to draw more from."""

    problem: NearestETF
    rng: np.random.Generator

    def cotangent(self) -> np.ndarray:
        """A cotangent of the ETF, pulled back to U; generic in the directions that the frame sees."""
        problem = self.problem
        return self.rng.standard_normal((problem.d, problem.C)) @ problem.F.T


def orthonormal(d: int, r: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((d, r)))[0]


def spectrum(kind: str, r: int, dtype: type, rng: np.random.Generator) -> np.ndarray:
    """Return r singular values of a kind, the largest about 1 unless all are zero."""
    if r == 1 and kind == "tiny":
        kind = "generic"
    worst = -4.0 if dtype == np.float32 else -10.0
    values = {
        "generic": rng.uniform(0.3, 1.0, r),
        "repeated": np.where(np.arange(r) < (r + 1) // 2, 1.0, 0.5) if rng.random() < 0.5 else np.ones(r),
        "clustered": 1.0 + 10.0 ** rng.uniform(-13, -3) * rng.standard_normal(r),
        "tiny": np.append(rng.uniform(0.3, 1.0, r - 1), 10.0 ** rng.uniform(worst, -2)),
        "graded": np.logspace(0, rng.uniform(worst, -1), r),
        "zero": np.zeros(r),
        "rank one": np.append(1.0, np.zeros(r - 1)) if r > 1 else np.zeros(1),
        "deficient": np.append(rng.uniform(0.3, 1.0, r - 1), 0.0),
    }[kind]
    return np.asarray(values)


def with_spectrum(d: int, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a d x len(values) matrix with these singular values and random singular vectors."""
    return orthonormal(d, len(values), rng) * values @ orthonormal(len(values), len(values), rng).T


def means_with(X: np.ndarray) -> np.ndarray:
    """Return centred H, (d, C), whose product 2HF' with the reduced simplex is X, (d, C-1); with M it is X Z."""
    C = X.shape[1] + 1
    return np.sqrt(C - 1) / 2 * X @ helmert(C)


@st.composite
def matrices(draw, dtypes=DTYPES, kinds=REGULAR + DEGENERATE, max_columns=8, limit=None):
    """Draw a matrix A, (d, r), d >= r, by its spectrum."""
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    r = draw(st.integers(1, max_columns))
    d = r + draw(st.sampled_from((0, 1, 2 * r + 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(exponents(dtype, limit))
    return (scale * with_spectrum(d, spectrum(kind, r, dtype, rng), rng)).astype(dtype)


def exponents(dtype: type, limit: int | None) -> st.SearchStrategy[int]:
    """Draw the power of ten of an overall scale: none, moderate, or near the ends of the dtype's range."""
    widest = 30 if dtype == np.float32 else 300
    limit = widest if limit is None else min(limit, widest)
    return st.sampled_from(sorted({0, -4, 4, -limit, limit}, key=abs)) if limit else st.just(0)


@st.composite
def draws(
    draw,
    *,
    dtypes=DTYPES,
    kinds=REGULAR + DEGENERATE,
    frames=FRAMES,
    proxes=PROXES,
    deltas=DELTAS,
    max_classes=8,
    limit=None,
):
    """Draw a problem of any kind, uniqueness not guaranteed. `limit` caps the power of ten of its scale."""
    dtype, kind = draw(st.sampled_from(dtypes)), draw(st.sampled_from(kinds))
    C, frame = draw(st.integers(2, max_classes)), draw(st.sampled_from(frames))
    r = C if frame == "simplex" else C - 1
    d = draw(st.sampled_from([d for d in (C - 1, C, C + 1, 3 * C + 5) if d >= r]))
    proximity, delta = draw(st.sampled_from(proxes)), draw(st.sampled_from(deltas))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(exponents(dtype, limit))
    X = with_spectrum(d, spectrum(kind, C - 1, dtype, rng), rng)
    prox = _prox(proximity, X, r, rng)
    if prox is not None and frame == "reduced" and delta < 1:
        X = X - delta * prox  # A keeps the drawn spectrum; a larger delta would cancel digits
    problem = NearestETF(
        (scale * means_with(X)).astype(dtype),
        prox=prox,
        delta=0.0 if prox is None else scale * delta,
        frame=simplex_etf(C, reduced=True) if frame == "reduced" else None,
    )
    return Draw(problem, rng)


def _prox(proximity: str, X: np.ndarray, r: int, rng: np.random.Generator) -> np.ndarray | None:
    if proximity == "none":
        return None
    d = len(X)
    if proximity == "far":
        return orthonormal(d, r, rng)
    if proximity == "off the manifold":
        return rng.standard_normal((d, r)) / np.sqrt(d)
    X = X @ helmert(r) if r > X.shape[1] else X
    P, _, Qt = np.linalg.svd(X, full_matrices=False)
    return retract(P @ Qt + 1e-3 * rng.standard_normal((d, r)))


def retract(Y: np.ndarray) -> np.ndarray:
    """Return the orthonormal factor of Y = QR with a positive diagonal of R, which lies near Y if Y'Y is near I."""
    Q, R = np.linalg.qr(Y)
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)


def regular_draws(frames=FRAMES, **options) -> st.SearchStrategy[Draw]:
    """Draw problems whose minimiser U is unique: full column rank, or a proximal term that gives it."""
    options = {"kinds": REGULAR, **options}
    proximal = draws(frames=frames, proxes=("near", "far"), **options)
    return proximal | draws(frames=("reduced",), proxes=("none",), **options) if "reduced" in frames else proximal
