"""Problems for the search over the promises: recipes that can be mutated, and the problems they describe."""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from scipy.linalg import hadamard, helmert

from etfopt import simplex_etf
from tests.tools import digits
from tests.tools.strategies import retract

Matrix = np.ndarray

WIDEST = {np.float64: 300.0, np.float32: 36.0}
"""Powers of ten of the scales that are drawn."""

FRAMES = ("simplex", "reduced", "free", "tight", "graded")
FACTORS = ("random", "permutation", "hadamard", "helmert", "identity")
SPECTRA = ("equal", "clustered", "graded", "one small", "half small", "one large", "generic", "deficient")
PROXES = ("none", "near", "far", "opposite", "off the manifold")
THRESHOLDS = (1, 2, 4, 10, 24, 48, 90, 99, 100, 1e3, 8e3, 1e4, 1e5, 3e5, 1e7)
"""Condition numbers near which a route hands over."""


@dataclass(frozen=True)
class Recipe:
    """What a problem is made from; sizes are powers of ten."""

    dtype: type
    frame: str
    C: int
    rows: int  # of a free frame
    extra: int  # d - r
    factors: str
    spectrum: str
    kappa: float  # of A
    cluster: float  # width of what is clustered
    prox: str
    weight: float  # |delta U_prox| over |A|
    prox_size: float
    cancels: bool  # whether H is chosen so that A keeps its spectrum
    scale: float  # of H
    frame_size: float  # of a free frame
    mean: float  # common to all columns, over |H|; below -20 there is none
    cotangent: float
    seed: int
    nudge: int
    weights: float = 0.0  # how many powers of ten the weights of the classes span; 0: none are given


def drawn(rng: np.random.Generator, dtype: type) -> Recipe:
    """Draw a recipe."""
    widest, precise = WIDEST[dtype], 16.0 if dtype == np.float64 else 8.0
    C = int(rng.integers(2, 7))
    quiet = rng.random() < 0.4
    return Recipe(
        dtype=dtype,
        frame=str(rng.choice(FRAMES)),
        C=C,
        rows=int(rng.choice([1, 2, max(1, C - 1), C, C + 1])),
        extra=int(rng.choice([0, 0, 1, 2, 5])),
        factors=str(rng.choice(FACTORS, p=[0.6, 0.1, 0.1, 0.1, 0.1])),
        spectrum=str(rng.choice(SPECTRA)),
        kappa=_condition(rng, precise),
        cluster=float(rng.uniform(-precise - 1, -1)),
        prox=str(rng.choice(PROXES)),
        weight=float(rng.uniform(-precise - 1, precise)) if rng.random() < 0.7 else float(rng.choice([-3, 0])),
        prox_size=0.0 if quiet else float(rng.uniform(-widest, widest) / 3),
        cancels=bool(rng.random() < 0.5),
        scale=0.0 if quiet else _power(rng, widest),
        frame_size=0.0 if quiet else float(rng.uniform(-1, 1)) * min(100.0, widest / 2),
        mean=float(rng.uniform(-3, precise / 2)) if rng.random() < 0.15 else -99.0,
        cotangent=0.0 if quiet else float(rng.uniform(-widest, widest) / 3),
        seed=int(rng.integers(2**31)),
        nudge=0,
        weights=0.0 if rng.random() < 0.75 else float(rng.uniform(0, widest)),
    )


def _condition(rng: np.random.Generator, precise: float) -> float:
    if rng.random() < 0.4:
        return float(np.log10(rng.choice(THRESHOLDS)) + rng.normal(0, 0.02))
    return float(rng.uniform(0, precise - 2) if rng.random() < 0.7 else 10 ** rng.uniform(-precise, 0))


def _power(rng: np.random.Generator, widest: float) -> float:
    return float(rng.choice([0, -4, 4, -widest, widest, 1.02 * widest, rng.uniform(-widest, widest)]))


def mutated(recipe: Recipe, rng: np.random.Generator) -> Recipe:
    """Change one to three things of a recipe: numbers by a step, the rest by a new draw."""
    other, changes = drawn(rng, recipe.dtype), {}
    for field in rng.choice(fields(recipe), size=int(rng.integers(1, 4)), replace=False):
        old, new = getattr(recipe, field.name), getattr(other, field.name)
        step = isinstance(old, float) and rng.random() < 0.7
        changes[field.name] = old + rng.normal(0, 0.1 * 10 ** rng.uniform(-2, 1)) if step else new
    if rng.random() < 0.4:
        changes["nudge"] = int(rng.integers(1, 2**31))
    return replace(recipe, **changes)


@dataclass(frozen=True)
class Case:
    """A problem and a cotangent in floats, in the dtype; with what ninety digits say of it."""

    H: Matrix
    prox: Matrix | None
    delta: float
    F: Matrix | None  # None is the paper's frame
    G: Matrix
    weights: Matrix | None = None

    @property
    def C(self) -> int:
        return self.H.shape[1]

    @property
    def r(self) -> int:
        return self.C if self.F is None else len(self.F)

    @property
    def n(self) -> int:
        """What a promise counts: classes, or rows of the frame if they are more."""
        return max(self.C, self.r)

    @property
    def u(self) -> float:
        return float(np.finfo(self.H.dtype).eps)

    @cached_property
    def ignores_the_mean(self) -> bool:
        """Whether the frame does not see a mean common to all columns: its rows sum to rounding."""
        if self.F is None:
            return True
        F = _unit(self.F)
        return bool(np.linalg.norm(F.sum(axis=1)) <= self.C * np.finfo(self.F.dtype).eps * np.linalg.norm(F))

    @cached_property
    def frame(self) -> Matrix:
        """The frame in decimals, as `etfopt` takes it: M without rounding; rows that sum to rounding sum to zero."""
        if self.F is None:
            return digits.simplex(self.C)
        F = digits.exact(self.F)
        return F - F.sum(axis=1)[:, None] / self.C if self.ignores_the_mean else F

    @cached_property
    def A(self) -> Matrix:
        """The linear term in decimals."""
        A = 2 * self.weighted @ self.frame.T
        return A if self.prox is None else A + digits.exact(self.delta) * digits.exact(self.prox)

    @property
    def weighted(self) -> Matrix:
        """HD in decimals."""
        H = digits.exact(self.H)
        return H if self.weights is None else H * digits.exact(self.weights)

    @cached_property
    def svd(self) -> digits.SVD:
        return digits.svd(self.A)

    def cancellation(self, centred: bool) -> float:
        r"""How much larger the summands of A are than A, in spectral norms: rounding them is the error of the data."""
        H = self.weighted
        # the rounding of a product with a weight is not common to all columns, as that of a mean is
        centred = centred and self.ignores_the_mean and self.weights is None
        H = H - H.sum(axis=1)[:, None] / self.C if centred else H
        total = 2 * _spectral(H) * _spectral(self.frame)
        if self.prox is not None:
            total += digits.exact(self.delta) * _spectral(digits.exact(self.prox))
        return float(total / self.svd.s[0])


def _spectral(X: Matrix) -> Matrix:
    """The spectral norm in decimals, to the digits of a float."""
    largest = max(abs(x) for x in X.ravel())
    return largest * digits.exact(np.linalg.norm(digits.floats(X / largest), 2)) if largest else largest


def _unit(X: Matrix) -> Matrix:
    """X over its largest entry, in float64."""
    X = X.astype(np.float64)
    return X / np.abs(X).max()


def orthogonal(kind: str, d: int, r: int, rng: np.random.Generator) -> Matrix:
    """Return d x r with orthonormal columns: random, or of a structure whose entries are exact or repeat."""
    if kind == "permutation":
        return np.eye(d)[:, rng.permutation(d)[:r]] * rng.choice([-1, 1], r)
    if kind == "hadamard" and d in (1, 2, 4, 8):
        return hadamard(d)[:, :r] / np.sqrt(d)
    if kind == "helmert":
        return helmert(d, full=True).T[:, :r]
    if kind == "identity":
        return np.eye(d, r)
    return np.linalg.qr(rng.standard_normal((d, r)))[0]


def singular_values(recipe: Recipe, r: int, rng: np.random.Generator) -> Matrix:
    """Return r singular values, the largest about 1."""
    small, half = _ten(-recipe.kappa), r // 2
    return {
        "equal": np.ones(r),
        "clustered": 1 + _ten(recipe.cluster) * rng.standard_normal(r),
        "graded": np.geomspace(1, small, r),
        "one small": np.append(np.ones(r - 1), small),
        "half small": np.repeat([1, small], [r - half, half]) * (1 + _ten(recipe.cluster) * rng.standard_normal(r)),
        "one large": np.append(1, np.full(r - 1, small)),
        "generic": rng.uniform(0.3, 1, r),
        "deficient": np.append(np.ones(r - half), np.zeros(half)),
    }[recipe.spectrum]


def _frame(recipe: Recipe, rng: np.random.Generator) -> Matrix | None:
    C, size = recipe.C, _ten(recipe.frame_size)
    if recipe.frame == "simplex":
        return None
    if recipe.frame == "reduced":
        return simplex_etf(C, reduced=True)
    if recipe.frame == "free":
        return size * rng.standard_normal((recipe.rows, C))
    rows = min(recipe.rows, C)
    values = np.ones(rows) if recipe.frame == "tight" else np.geomspace(1, 1e-2, rows)
    Q = orthogonal(recipe.factors, C, rows, rng).T
    return size * values[:, None] * Q


def built(recipe: Recipe) -> Case | None:
    """Return the problem that a recipe describes, or None where it is out of the range of its dtype."""
    with np.errstate(all="ignore"):
        case = _described(recipe)
    given = [X for X in (case.H, case.prox, case.F, case.G) if X is not None]
    if not all(np.isfinite(X).all() and X.any() for X in given) or not 0 <= case.delta < np.inf:
        return None
    with digits.working():
        return case if case.svd.s[0] > 0 else None


def _described(recipe: Recipe) -> Case:
    rng, dtype = np.random.default_rng(recipe.seed), recipe.dtype
    F = _frame(recipe, rng)
    wide = simplex_etf(recipe.C) if F is None else F
    r = len(wide)
    d = r + recipe.extra
    P, Q = orthogonal(recipe.factors, d, r, rng), orthogonal(recipe.factors, r, r, rng)
    target, start = P * singular_values(recipe, r, rng) @ Q.T, _prox(recipe, P @ Q.T, rng)
    kept = target if start is None or not recipe.cancels else target - _ten(recipe.weight) * start
    inverse = np.linalg.pinv(_unit(wide).T)
    H = _ten(recipe.scale) * (kept @ inverse / 2)
    if recipe.mean > -20:
        H = H + _ten(recipe.mean) * np.abs(H).max() * rng.standard_normal((d, 1))
    prox = None if start is None else (_ten(recipe.prox_size) * start).astype(dtype)
    delta = _ten(recipe.scale + recipe.weight - recipe.prox_size) * np.abs(wide).max()
    G = (_ten(recipe.cotangent) * rng.standard_normal((d, r))).astype(dtype)
    if recipe.nudge:
        steps = np.random.default_rng(recipe.nudge).integers(-3, 4, H.shape)
        H = H * (1 + np.finfo(dtype).eps * steps)
    F = None if F is None else F.astype(dtype)
    weights = None
    if recipe.weights:  # they undo sizes of the columns: the linear term keeps its spectrum
        weights = _ten(recipe.weights * rng.uniform(-0.5, 0.5, recipe.C))
        H = H / weights
    return Case(H.astype(dtype), prox, 0.0 if prox is None else float(delta), F, G, weights)


def _prox(recipe: Recipe, polar: Matrix, rng: np.random.Generator) -> Matrix | None:
    """A proximal point of about norm 1 a column."""
    d, r = polar.shape
    return {
        "none": None,
        "near": retract(polar + 1e-3 * rng.standard_normal((d, r))),
        "far": orthogonal(recipe.factors, d, r, rng),
        "opposite": -polar,
        "off the manifold": rng.standard_normal((d, r)) / np.sqrt(d),
    }[recipe.prox]


def _ten(exponent: float) -> np.float64:
    """Return a power of ten, infinite or zero where it is out of range."""
    return np.float64(10) ** exponent
