"""Problems with class weights and held classes, drawn to be hostile, and what sixty digits say of them."""

import numpy as np

from etfopt import NearestETF, simplex_etf
from tests.tools import oracles
from tests.tools.oracles import mp
from tests.tools.strategies import orthonormal

Matrix = np.ndarray

WEIGHTS = ("equal", "counts", "graded", "masked", "one class", "huge and tiny")
MEANS = ("generic", "centred", "rank one", "few", "zero", "unequal columns")
FRAMES = ("simplex", "reduced", "free", "graded")


def weights_of(kind: str, C: int, rng: np.random.Generator) -> Matrix:
    """Return weights of C classes: graded ones span sixteen orders of magnitude."""
    masked = np.where(rng.random(C) < 0.5, 0.0, rng.uniform(0.1, 2, C))
    return {
        "equal": np.full(C, rng.uniform(0.1, 10)),
        "counts": rng.integers(1, 1000, C).astype(float),
        "graded": np.geomspace(1, 1e-16, C)[rng.permutation(C)],
        "masked": masked if masked.any() else np.eye(C)[0],
        "one class": np.eye(C)[rng.integers(C)],
        "huge and tiny": 10.0 ** rng.choice([-300, 300], C),
    }[kind]


def means_of(kind: str, d: int, C: int, rng: np.random.Generator) -> Matrix:
    H = rng.standard_normal((d, C))
    return {
        "generic": H,
        "centred": H - H.mean(axis=1, keepdims=True),
        "rank one": H[:, :1] * rng.standard_normal(C),
        "few": H * (np.arange(C) < 2),
        "zero": np.zeros((d, C)),
        "unequal columns": H * 10.0 ** rng.uniform(-8, 8, C),
    }[kind]


def frame_of(kind: str, C: int, rng: np.random.Generator) -> Matrix | None:
    r = int(rng.integers(1, C + 2))
    F = rng.standard_normal((r, C))
    sizes = np.geomspace(1, 1e-3, r)[:, None]
    return {"simplex": None, "reduced": simplex_etf(C, reduced=True), "free": F, "graded": sizes * F}[kind]


def drawn(
    rng: np.random.Generator,
    *,
    hold: bool = False,
    weights: tuple[str, ...] = WEIGHTS,
    means: tuple[str, ...] = MEANS,
    frames: tuple[str, ...] = FRAMES,
    dtypes: tuple[type, ...] = (np.float32, np.float64, np.float64),
) -> NearestETF:
    """Return a problem with weights, of any rank, d = r in a third of all cases; `hold` holds some of its classes."""
    C, kind = int(rng.integers(3 if hold else 2, 8)), str(rng.choice(frames))
    F = frame_of(kind, C, rng)
    r = C if F is None else len(F)
    d = r + int(rng.choice([0, 1, 2 * C]))
    dtype = dtypes[rng.integers(len(dtypes))]
    H, w = means_of(str(rng.choice(means)), d, C, rng), weights_of(str(rng.choice(weights)), C, rng)
    H = np.where(w > 0, H, np.nan) if rng.random() < 0.5 else H
    options: dict = {"prox": orthonormal(d, r, rng), "delta": 10.0 ** rng.uniform(-6, 3)} if rng.random() < 0.5 else {}
    spanned = r - (kind == "simplex")  # what vertices can span
    if hold and spanned > 1:
        k = int(rng.integers(1, min(spanned, C)))
        options |= {"hold": rng.permutation(C)[:k], "hold_at": orthonormal(d, r, rng)}
    return NearestETF(H.astype(dtype), frame=F, weights=w, **options)


class Sixty:
    """A problem in sixty digits, by the definition and by projections: no basis of a complement of V is formed."""

    def __init__(self, problem: NearestETF) -> None:
        self.problem = problem
        self.H, self.F = oracles.exact(problem.H), oracles.exact(problem.F)
        w = np.ones(problem.C) if problem.weights is None else problem.weights
        self.D = mp.diag([mp.mpf(float(x)) for x in w])
        self.A = 2 * self.H * self.D * self.F.T
        size = 2 * mp.mnorm(self.H * self.D, "F") * mp.mnorm(self.F, "F")
        if problem.prox is not None:
            prox = oracles.exact(problem.delta) * oracles.exact(problem.prox)
            self.A, size = self.A + prox, size + mp.mnorm(prox, "F")
        self.kept, self.free, self.onto = self._splitting()
        self.U_free, _, s = oracles.exact_polar(self.onto * self.A * self.free)
        self.U = self.kept + self.U_free * self.free.T
        self.condition = float(size / s[0])
        self.least = float(s[0])

    def _splitting(self) -> tuple:
        """Return V Q_held', Q_free and the projection off V."""
        held, r, d = self.problem.held, self.problem.r, self.problem.d
        if held is None:
            return mp.zeros(d, r), mp.eye(r), mp.eye(d)
        columns = self.F[:, held.classes[0]]
        for c in held.classes[1:]:
            columns = _beside(columns, self.F[:, c])
        Q, _ = mp.qr(columns, mode="full")
        k = len(held.classes)
        V = oracles.exact(held.U0) * Q[:, :k]
        return V * Q[:, :k].T, Q[:, k:], mp.eye(d) - V * (V.T * V) ** -1 * V.T

    def steepest(self, G: Matrix) -> tuple[Matrix, Matrix, float]:
        """Return how large a cotangent of the size of G can make each column of dL/dH, each dL/dw_c, and dL/dU_prox."""
        p, slope = self.problem, np.linalg.norm(G) / self.least
        f = np.linalg.norm(p.F.astype(np.float64), axis=0)
        w = np.ones(p.C) if p.weights is None else p.weights
        with np.errstate(over="ignore"):
            return 2 * slope * w * f, 2 * slope * np.linalg.norm(p.H.astype(np.float64), axis=0) * f, p.delta * slope

    def cotangents(self, G: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Return dL/dH, dL/dw and dL/dU_prox of a loss with dL/dU = G."""
        A, X = self.onto * self.A * self.free, self.onto * oracles.exact(G) * self.free
        dA = oracles.exact_polar_derivative(A, X) * self.free.T
        dAF = dA * self.F
        dw = [2 * sum(self.H[i, c] * dAF[i, c] for i in range(self.problem.d)) for c in range(self.problem.C)]
        return (
            oracles.rounded(2 * dAF * self.D),
            np.array([float(x) for x in dw]),
            oracles.rounded(oracles.exact(self.problem.delta) * dA),
        )


def _beside(X, Y):
    Z = mp.matrix(X.rows, X.cols + 1)
    Z[:, : X.cols], Z[:, X.cols] = X, Y
    return Z
