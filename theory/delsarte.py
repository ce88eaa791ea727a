r"""Delsarte's bound: a polynomial proves that no C unit vectors in d dimensions have a small largest cosine.

## Statement

Let d >= 3 and let $G_k$ be the Gegenbauer polynomials of dimension d: $G_0 = 1$, $G_1 = t$,
$(k+d-2)\,G_{k+1} = (2k+d-2)\,t\,G_k - k\,G_{k-1}$. Let $h_k = \binom{d+k-1}{d-1} - \binom{d+k-3}{d-1}$ be the dimension
of the harmonic polynomials of degree k in d variables.

(a) For unit vectors $x_1, \dots, x_C$ of $R^d$ the matrix with entries $G_k(x_i'x_j)$ is positive semidefinite.

(b) Let $f = \sum_k c_k G_k$ with $c_0 > 0$, $c_k \ge 0$, and $f \le 0$ on $[-1, s]$. If no two of the vectors have a
cosine above s, then $C \le f(1)/c_0$. So if $f(1) < c_0 C$, any C unit vectors have a cosine above s.

(c) If (b) holds with equality, the cosines of different vectors are zeros of f, and
$\sum_{i,j} G_k(x_i'x_j) = 0$ for all k >= 1 with $c_k > 0$.

(d) Polynomials of degree 1, 2 and 3 give
$$C \le 1 - \frac1s, \qquad C \le \frac{2d(1-s)}{1-ds}, \qquad C \le \frac{d(1-s)(2+(d+1)s)}{1-ds^2}$$
for $s < 0$, for $s \in [-1/d, 1/d)$, and for $s \in [0, 1/\sqrt d)$. The first two are Rankin's bounds: the largest
cosine is at least -1/(C-1), and C <= 2d for s = 0. The third is reached by 16 vectors for d = 5, s = 1/5.

(e) The bound survives rounding. The coefficients of f are floating-point numbers or fractions, hence rational, and all
conditions of (b) are decided in exact arithmetic. If $f \le \varepsilon$ is all that holds on $[-1, s]$, then
$f - \varepsilon$ takes the place of f: only $c_0$ becomes smaller, by $\varepsilon$.

## Assumptions

Unit vectors; d >= 3. Nothing is assumed of how f was found.

## Proof

*(a)* Let $V_k$ be the space of harmonic homogeneous polynomials of degree k, restricted to the sphere, with the inner
product $\langle p, q\rangle = \int pq$ over the sphere, of total measure 1. Let $Z(x, \cdot) \in V_k$ represent the
evaluation at x: $p(x) = \langle p, Z(x, \cdot)\rangle$. Then $Z(x, y) = \langle Z(x,\cdot), Z(y,\cdot)\rangle$, so
$\sum_{i,j} a_ia_jZ(x_i, x_j) = \|\sum_i a_iZ(x_i, \cdot)\|^2 \ge 0$. It remains to see that $Z(x, y) = h_kG_k(x'y)$.

Rotations map $V_k$ to itself and keep the inner product, so $Z(Qx, Qy) = Z(x, y)$. Hence Z depends only on
$t = x'y$: write $Z(x, y) = g_k(t)$. For a fixed x, the polynomial $y \mapsto Z(x, y)$ is homogeneous of degree k and
does not change under rotations about x, so it is a polynomial in $x'y$ and $\|y\|^2$. On the sphere, $g_k$ is a
polynomial in t of degree at most k. Harmonic polynomials of different degrees are orthogonal: they are eigenfunctions
of the Laplace operator of the sphere with eigenvalues $-k(k+d-2)$, all different. Seen along x, the measure of the
sphere is proportional to $w(t)\,dt = (1-t^2)^{(d-3)/2}dt$. So $\int g_kg_l\,w\,dt = 0$ for $k \ne l$. No $g_k$ is
zero, since $g_k(1) = Z(x, x)$, whose mean over the sphere is the trace of the identity of $V_k$, $h_k$. Thus the
$g_0, g_1, \dots$ are the orthogonal polynomials of the weight w, which are unique up to factors. The $G_k$ are these
polynomials with $G_k(1) = 1$, by their three-term recurrence. Hence $g_k = h_kG_k$.

*(b)* By (a) with all weights 1, $\sum_{i,j}G_k(x_i'x_j) \ge 0$, and for k = 0 the sum is $C^2$. Hence
$$c_0C^2 \le \sum_{i,j}f(x_i'x_j) = C f(1) + \sum_{i\ne j}f(x_i'x_j) \le C f(1).$$

*(c)* Equality in both steps.

*(d)* $f = t - s$ has $c_0 = -s > 0$ and $f(1) = 1 - s$. $f = (t+1)(t-s)$ has, with $t^2 = \frac1d + \frac{d-1}dG_2$,
$c_0 = \frac1d - s$, $c_1 = 1-s$, $c_2 = \frac{d-1}d$ and $f(1) = 2(1-s)$. The third is $f = (t-s)(t+b)^2$ with
$b = \frac{1+s}{1+ds}$. By $t^3 = \frac3{d+2}t + \frac{d-1}{d+2}G_3$ its coefficients are
$$c_0 = \frac{2b-s}d - sb^2 = \frac{(1-ds^2)(2+(d+1)s)}{d(1+ds)^2}, \qquad c_1 = \frac3{d+2} + (b-s)^2 - s^2,$$
$c_2 = (2b-s)\frac{d-1}d$ and $c_3 = \frac{d-1}{d+2}$. They are not negative, since $s^2 < \frac1d \le \frac3{d+2}$
and $(2b-s)(1+ds) = 2+s-ds^2 > 0$. With $f(1) = (1-s)\frac{(2+(d+1)s)^2}{(1+ds)^2}$ the bound follows.

*(e)* (b) is applied to the rational polynomial itself, not to what it approximates.

## In the code

- `etfopt.frames._delsarte.delsarte_bound`: s and f, all conditions checked in fractions.
- `etfopt.frames._levenshtein.levenshtein`: polynomials that are not positive by their form, as in (d), of any degree.
- `etfopt.frames._linear_program.improved`: polynomials from a linear program, shifted as in (e).
- `etfopt.frames._nonpositive.proven_nonpositive`: $f \le 0$ on an interval, from integers.

## References

Delsarte, Goethals, Seidel (1977), Spherical codes and designs. Schoenberg (1942), Positive definite functions on
spheres, has (a). Levenshtein (1992), Designs as maximum codes in polynomial metric spaces. Rankin (1955), The closest
packing of spherical caps in n dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import comb

import numpy as np
import scipy.special

from etfopt.frames import orthoplex, simplex
from etfopt.frames._delsarte import delsarte_bound
from etfopt.frames._levenshtein import levenshtein
from etfopt.frames._nonpositive import proven_nonpositive
from theory.draws import Matrix, unit_columns
from theory.registry import Evidence, Part, Residual, gather

EPS = float(np.finfo(np.float64).eps)


def gegenbauer(d: int, k: int, t: Matrix) -> Matrix:
    """Return G_k at the points t."""
    before, now = np.zeros_like(t), np.ones_like(t)
    for i in range(k):
        before, now = now, ((2 * i + d - 2) * t * now - i * before) / (i + d - 2)
    return now


def harmonic_dimension(d: int, k: int) -> int:
    """Return the dimension of the harmonic polynomials of degree k in d variables."""
    return comb(d + k - 1, d - 1) - (comb(d + k - 3, d - 1) if k >= 2 else 0)


def most_vectors(d: int, s: float) -> float:
    """Return the bound of (d) on the number of vectors without a cosine above s; infinite where none applies."""
    bounds = [np.inf]
    if s < 0:
        bounds.append(1 - 1 / s)
    if -1 / d <= s < 1 / d:
        bounds.append(2 * d * (1 - s) / (1 - d * s))
    if 0 <= s < d**-0.5:
        bounds.append(d * (1 - s) * (2 + (d + 1) * s) / (1 - d * s * s))
    return min(bounds)


def half_cube() -> Matrix:
    """Return 16 vectors in R^5 with cosines 1/5 and -3/5."""
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=5)))
    return np.asarray(signs[signs.prod(axis=1) > 0].T / np.sqrt(5))


def roots_e8() -> Matrix:
    """Return the 240 roots of E8 with norm 1: cosines -1, -1/2, 0, 1/2."""
    signs = np.array(list(itertools.product([0.5, -0.5], repeat=8)))
    rows = [signs[signs.prod(axis=1) > 0]]
    for i, j in itertools.combinations(range(8), 2):
        for a, b in itertools.product([1.0, -1.0], repeat=2):
            rows.append((a * np.eye(8)[i] + b * np.eye(8)[j])[None])
    return np.asarray(np.vstack(rows).T / np.sqrt(2))


def icosahedron() -> Matrix:
    """Return 12 vectors in R^3 with largest cosine 1/sqrt 5."""
    golden = (1 + np.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    return unit_columns(np.array([np.roll(c, k) for c in corners for k in range(3)], dtype=float).T)


def _kernels(rng: np.random.Generator) -> Iterator[Residual]:
    """Positive semidefinite on spread, equal, opposite and clustered vectors; the addition theorem for d = 3."""
    d, k, C = int(rng.integers(3, 9)), int(rng.integers(0, 13)), int(rng.integers(2, 30))
    X = rng.standard_normal((d, C))
    X[:, : C // 3] = X[:, [-1]] + 10.0 ** rng.uniform(-8, 0) * X[:, : C // 3]
    X = unit_columns(np.hstack([X, -X[:, : C // 2]]))
    cosines = np.clip(X.T @ X, -1, 1)
    least = float(np.linalg.eigvalsh(gegenbauer(d, k, cosines))[0])
    yield Residual(-least, 60 * EPS * len(cosines) * (1 + k) ** 2, f"negative eigenvalue, d = {d}, k = {k}")
    nodes, weights = scipy.special.roots_jacobi(40, (d - 3) / 2, (d - 3) / 2)
    weights = weights / weights.sum()
    other = int(rng.integers(0, 13))
    product = float(weights @ (gegenbauer(d, k, nodes) * gegenbauer(d, other, nodes)))
    expected = 1 / harmonic_dimension(d, k) if k == other else 0.0
    yield Residual(abs(product - expected), 1e-12, "inner product of two Gegenbauer polynomials")
    x, y = unit_columns(rng.standard_normal((3, 2))).T
    legendre = float(scipy.special.eval_legendre(k, x @ y))
    yield Residual(abs(float(gegenbauer(3, k, np.array([x @ y]))[0]) - legendre), 1e-12, "Legendre for d = 3")


def _small_degrees(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the bounds of (d) with sizes of codes: never below, and reached by tight codes."""
    d = int(rng.integers(3, 9))
    tight = {"simplex": simplex(d + 1).vectors, "orthoplex": orthoplex(d, 2 * d).vectors, "half cube": half_cube()}
    for name, X in tight.items():
        size, dimension = X.shape[1], 5 if name == "half cube" else d
        s = float((X.T @ X - 2 * np.eye(size)).max())
        yield Residual(abs(most_vectors(dimension, round(s, 14)) - size) / size, 1e-9, f"{name} reaches the bound")
    C = int(rng.integers(2, 4 * d))
    X = unit_columns(rng.standard_normal((d, C)))
    s = float((X.T @ X - 2 * np.eye(C)).max())
    yield Residual(C - most_vectors(d, s), 1e-9 * C, f"{C} vectors in {d} dimensions, s = {s:.3f}")


def _moments(rng: np.random.Generator) -> Iterator[Residual]:
    """(c) for two tight codes: a polynomial of the bound vanishes at their cosines, and their moments vanish."""
    for code, degree in ((half_cube(), 3), (roots_e8(), 7), (icosahedron(), 5)):
        d, C = code.shape
        X = np.linalg.qr(rng.standard_normal((d, d)))[0] @ code
        cosines = np.clip(X.T @ X, -1, 1)
        for k in range(1, degree + 1):
            yield Residual(abs(float(gegenbauer(d, k, cosines).mean())), 1e-12, f"moment {k} of {C} vectors")
        f = levenshtein(d, C)[1]
        values = sum(float(c / f[0]) * gegenbauer(d, k, cosines) for k, c in enumerate(f))
        off = np.asarray(values)[~np.eye(C, dtype=bool)]
        yield Residual(float(np.abs(off).max()), 1e-7 * C, f"the polynomial at the cosines of {C} vectors")


def _bounds(rng: np.random.Generator) -> Iterator[Residual]:
    """Codes near tight ones and random ones: no largest cosine below etfopt's bound."""
    X = [half_cube, roots_e8, icosahedron][int(rng.integers(3))]()
    if rng.random() < 0.5:
        X = rng.standard_normal((int(rng.integers(3, 7)), int(rng.integers(14, 40))))
    X = unit_columns(X + 10.0 ** rng.uniform(-9, 0) * rng.standard_normal(X.shape))
    d, C = X.shape
    largest = float((X.T @ X - 2 * np.eye(C)).max())
    yield Residual(_bound(rng, d, C)[0] - largest, 8 * EPS, f"bound for {C} vectors in {d} dimensions")


def _bound(rng: np.random.Generator, d: int, C: int) -> tuple[float, Sequence[Fraction]]:
    """Return a bound with its polynomial: now and then from the linear program, which takes longer."""
    if d > 3 and rng.random() < 0.1:
        bound = delsarte_bound(d, C)
        return bound.value, bound.polynomial
    return levenshtein(d, C)


def _evidence(rng: np.random.Generator) -> Iterator[Residual]:
    """Try all conditions of (b) on the polynomial of a bound, evaluated in fractions by other code."""
    d = int(rng.integers(3, 9))
    C = 2 * d + int(rng.integers(1, 20))
    value, f = _bound(rng, d, C)
    s = Fraction(value)
    yield Residual(float(min(f) < 0), 0.0, "negative coefficient")
    yield Residual(float(sum(f) >= C * f[0]), 0.0, "f(1) is not below C c_0")
    points = [Fraction(-1), s, *(-1 + (1 + s) * Fraction(int(i), 2**20) for i in rng.integers(0, 2**20, 30))]
    yield Residual(float(max(_value(d, f, t) for t in points) / f[0]), 0.0, "f above zero")


def _exactness(rng: np.random.Generator) -> Iterator[Residual]:
    """Try a polynomial that is above zero by 1e-12 at one place: refused, and accepted once it is shifted down."""
    a, b = (Fraction(int(x), 10**6) for x in rng.integers(-900000, 900000, 2))
    square = [a * a * b * b, -2 * a * b * (a + b), (a + b) ** 2 + 2 * a * b, -2 * (a + b), Fraction(1)]
    for shift, expected in ((Fraction(1, 10**12), False), (-Fraction(1, 10**12), True)):
        f = [-c for c in square]
        f[0] += shift
        accepted = proven_nonpositive(f, Fraction(-1), Fraction(1))
        yield Residual(float(accepted != expected), 0.0, f"zeros at {a} and {b}, shifted by {float(shift)}")


PARTS = (
    Part(_kernels, 4),
    Part(_small_degrees, 4),
    Part(_moments, 0.2),
    Part(_bounds, 1),
    Part(_evidence, 1),
    Part(_exactness, 2),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: kernels that are not semidefinite, codes that beat a bound, polynomials above zero."""
    return gather(rng, budget, PARTS)


def _value(d: int, f: Sequence[Fraction], t: Fraction) -> Fraction:
    """Return sum_k f_k G_k(t) exactly."""
    total, before, now = Fraction(0), Fraction(0), Fraction(1)
    for k, c in enumerate(f):
        total += c * now
        before, now = now, ((2 * k + d - 2) * t * now - k * before) / (k + d - 2)
    return total
