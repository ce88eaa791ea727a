r"""More vectors than a simplex holds: orthogonal simplices are optimal up to 2d of them, and the polygon in the plane.

## Statement

Let $x_1, \dots, x_C$ be unit vectors of $R^d$, $C \ge d+2$, $\mu = \max_{i \ne j} x_i'x_j$, and let $\rho$ be their
one-vs-rest margin, $\rho = \min_k \mathrm{dist}(x_k, \mathrm{conv}\{x_j : j \ne k\})$.

(a) $\mu \ge 0$. If $\mu = 0$, then $C \le 2d$; and for C = 2d the vectors are $\pm e_1, \dots, \pm e_d$ for an
orthonormal basis: the orthoplex. So $\mu > 0$ for every C > 2d.

(b) Let $d + 2 \le C \le 2d$, k = C - d, and $n_1 + \dots + n_k = C$, $n_i \ge 2$. Simplices of $n_i$ vectors in
orthogonal subspaces of dimension $n_i - 1$ fill $R^d$ and have $\mu = 0$: no family is better.

(c) Among the frames of (b), $\sum_{i,j}(x_i'x_j)^2 = \sum_i n_i^2/(n_i-1)$ is smallest if and only if the sizes differ
by at most 1. This is the choice of the code.

(d) $\rho \le 1$ for every family with $C \ge d+2$, and $\rho = 1$ for the frames of (b).

(e) For d = 2 and $C \ge 2$, $\mu \ge \cos(2\pi/C)$. The corners of the regular polygon reach it.

## Assumptions

Unit norms; $C \ge d+2$ in (a) to (d).

## Proof

*Lemma.* Let $x_i'x_j \le 0$ for all $i \ne j$. Join i and j if $x_i'x_j < 0$. Then the connected components lie in
orthogonal subspaces, and a component of n vectors has rank n or n-1. In the second case all coefficients of its linear
dependency have the same strict sign, so that $n \ge 2$.

Components are orthogonal by definition. Let $\sum c_ix_i = 0$ in a component, $c \ne 0$, I where $c_i > 0$ and J where
$c_j < 0$. With $y = \sum_I c_ix_i = \sum_J |c_j|x_j$, $\|y\|^2 = \sum_{I, J} c_i|c_j|\,x_i'x_j \le 0$, so y = 0. Say I
is not empty. For every k outside I, $0 = x_k'y = \sum_I c_i\,x_k'x_i$ is a sum of terms that are not positive, so all
$x_k'x_i = 0$: no edge leaves I, and I is the whole component. So every dependency has entries of one strict sign. Two
independent ones would have a combination with a zero entry; there is one at most.

*(a)* If all cosines were negative, all vectors would form one component, of rank $C-1 \ge d+1$. So $\mu \ge 0$. If
$\mu = 0$, let m be the number of components with a dependency. By the lemma the rank is C - m, so $m \ge C - d$, and
each has two vectors or more, so $2(C-d) \le 2m \le C$, that is, $C \le 2d$. For C = 2d both are equalities: d
components of two vectors each with $x_i = -x_j$, in orthogonal lines.

*(b)* The dimensions add up to $\sum(n_i - 1) = C - k = d$. Cosines are $-1/(n_i-1) < 0$ within a simplex
(`theory/simplex.py`) and 0 between two. There are $k \ge 2$ simplices, so $\mu = 0$, the bound of (a).

*(c)* A simplex of n vectors has n squared cosines of 1 and n(n-1) of $1/(n-1)^2$: in all $n + n/(n-1) = n^2/(n-1)$. As
$n^2/(n-1) = n + 1 + 1/(n-1)$, the sum is $C + k + \sum 1/(n_i - 1)$. The function 1/(n-1) is strictly convex, so moving
one vector from a larger to a smaller simplex, where sizes differ by 2 or more, lowers the sum.

*(d)* By Radon's theorem some d+2 of the vectors split into I and J whose convex hulls share a point
$z = \sum_I a_ix_i$, $a \ge 0$, $\sum a_i = 1$. Then $\sum_I a_i\|x_i - z\|^2 = 1 - \|z\|^2 \le 1$, so that
$\|x_k - z\| \le 1$ for some k in I, and z lies in the hull of J, without $x_k$. In (b), let y be in the hull of the
other vectors. Then $x_k'y \le 0$, so $\|x_k - y\|^2 \ge 1 + \|y\|^2 \ge 1$; y = 0 is the mean of another simplex.

*(e)* In the order of their angles the C gaps between neighbours add up to $2\pi$, so one is at most
$2\pi/C \le \pi$, and the cosine falls on $[0, \pi]$. For the polygon all gaps are $2\pi/C$.

## In the code

- `etfopt.frames.orthoplex.orthoplex`: (b) with the sizes of (c). `etfopt.frames.polygon.polygon`: (e).
- `etfopt.frames.best.best_frame`: which of them is best. `etfopt.frames.FrameCertificate`: `proven` by (a), (e).

## References

Rankin (1955), The closest packing of spherical caps in n dimensions, has (a) for C > 2d and C = d+2. Jiang, Zhou, Wang,
Qu, Mixon, You and Zhu (2024), Generalized neural collapse for a large number of classes, arXiv 2310.05351, have $\rho$.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from etfopt.frames import orthoplex, polygon
from theory.draws import Matrix, stiefel, unit_columns
from theory.registry import Evidence, Part, Residual, at_least, gather

EPS = float(np.finfo(np.float64).eps)


def potential(sizes: Matrix) -> float:
    """Return the sum of squared cosines of orthogonal simplices of these sizes."""
    return float(np.sum(sizes**2 / (sizes - 1)))


def largest_cosine(X: Matrix) -> float:
    """Return the largest cosine between two of the unit columns."""
    return float((X.T @ X)[~np.eye(X.shape[1], dtype=bool)].max())


def _sizes(rng: np.random.Generator, C: int, k: int) -> Matrix:
    """Return k sizes of at least 2 with the sum C."""
    return np.asarray(2.0 + rng.multinomial(C - 2 * k, rng.dirichlet(np.ones(k))), dtype=np.float64)


def _regime(rng: np.random.Generator) -> Iterator[Residual]:
    """Orthogonal simplices: dimension, cosines, and sums of squares against other sizes."""
    d = int(rng.integers(2, 30))
    C = int(rng.integers(d + 2, 2 * d + 1))
    X = orthoplex(d, C).vectors
    yield Residual(largest_cosine(X), 4 * EPS, f"largest of {C} cosines in {d} dimensions")
    yield Residual(float(np.abs(np.sum(X**2, axis=0) - 1).max()), 8 * EPS, "unit norms")
    yield at_least(float(np.linalg.svd(X, compute_uv=False)[-1]), 1 - 1e-12, "smallest singular value: d dimensions")
    squares = float(np.sum((X.T @ X) ** 2))
    yield Residual(squares - potential(_sizes(rng, C, C - d)), 1e-12 * C, "squared cosines above those of other sizes")
    n, more = divmod(C, C - d)
    balanced = np.array([n + 1.0] * more + [float(n)] * (C - d - more))
    yield Residual(abs(squares - potential(balanced)), 1e-12 * C, "squared cosines of balanced sizes")


def _crowded(rng: np.random.Generator) -> Iterator[Residual]:
    """Families near orthogonal simplices and far from them: no largest cosine below 0, none of 0 beyond 2d."""
    d = int(rng.integers(2, 9))
    C = int(rng.integers(d + 2, 2 * d + 1))
    noise = 10.0 ** rng.uniform(-9, 1)
    X = unit_columns(stiefel(rng, d, d) @ orthoplex(d, C).vectors + noise * rng.standard_normal((d, C)))
    yield Residual(-largest_cosine(X), (d + 4) * EPS, f"largest of {C} cosines in {d} dimensions")
    full = np.hstack([np.eye(d), -np.eye(d), rng.standard_normal((d, 1))])
    full = unit_columns(full + noise * rng.standard_normal(full.shape))
    yield at_least(largest_cosine(full), 1e-12, f"largest of {2 * d + 1} cosines in {d} dimensions")


def _rank(rng: np.random.Generator) -> Iterator[Residual]:
    """Families without positive cosines, from Laplacians of graphs: their rank is C minus the dependent components."""
    blocks, dependent = [], 0
    for _ in range(int(rng.integers(1, 5))):
        n = int(rng.integers(1, 6))
        weights = np.triu(rng.uniform(0.2, 1, (n, n)), 1) * (rng.random((n, n)) < 0.5)
        weights += np.eye(n, k=1) * (weights == 0)  # a path keeps it connected
        laplacian = np.diag((weights + weights.T).sum(axis=0)) - weights - weights.T
        is_dependent = n > 1 and bool(rng.random() < 0.5)
        blocks.append(laplacian if is_dependent else laplacian + np.diag(rng.uniform(0.2, 1, n)))
        dependent += is_dependent
    gram = scipy.linalg.block_diag(*blocks)
    values = np.linalg.eigvalsh(gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram))))
    C = len(values)
    yield Residual(float(values[dependent - 1]) if dependent else 0.0, 1e-13, "eigenvalue of a dependency")
    if dependent < C:
        yield at_least(float(values[dependent]), 1e-3, f"eigenvalue {C - dependent} of {C}")
    yield Residual(float(2 * dependent - C), 0.0, "more dependent components than pairs of vectors")


def _margin(rng: np.random.Generator) -> Iterator[Residual]:
    """Radon's point is within distance 1 of some vector; no point of the hull is nearer in orthogonal simplices."""
    d = int(rng.integers(2, 8))
    X = unit_columns(rng.standard_normal((d, d + 2)))
    c = np.linalg.svd(np.vstack([X, np.ones(d + 2)]))[2][-1]
    a = np.maximum(c, 0) / np.maximum(c, 0).sum()
    z, other = X @ a, X @ (np.maximum(-c, 0) / np.maximum(-c, 0).sum())
    yield Residual(float(np.linalg.norm(z - other)), 1e-9, "the hulls share a point")
    nearest = float(np.linalg.norm(X[:, a > 0] - z[:, None], axis=0).min())
    yield Residual(nearest - 1, 1e-9, "distance to the hull of the others")
    Y = orthoplex(d, int(rng.integers(d + 2, 2 * d + 1))).vectors
    k = int(rng.integers(Y.shape[1]))
    others = np.delete(Y, k, axis=1)
    points = others @ rng.dirichlet(np.full(others.shape[1], 0.2), 50).T
    yield at_least(float(np.linalg.norm(points - Y[:, [k]], axis=0).min()), 1 - 1e-12, "distance in simplices")
    apart = others[:, np.abs(others.T @ Y[:, k]) < 1e-12]  # the other simplices, whose mean is 0
    yield Residual(float(np.linalg.norm(apart.mean(axis=1))), 1e-14, "0 lies in the hull")


def _plane(rng: np.random.Generator) -> Iterator[Residual]:
    """Families in the plane near the polygon and far from it."""
    C = int(rng.integers(3, 30))
    X = polygon(C).vectors
    bound = float(np.cos(2 * np.pi / C))
    yield Residual(abs(largest_cosine(X) - bound), 4 * EPS, f"largest cosine of the {C}-gon")
    Y = unit_columns(X + 10.0 ** rng.uniform(-9, 1) * rng.standard_normal((2, C)))
    yield Residual(bound - largest_cosine(Y), 4 * EPS, f"largest of {C} cosines in the plane")


PARTS = (Part(_regime, 2), Part(_crowded, 3), Part(_rank), Part(_margin), Part(_plane))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: better separated families, other sizes, larger margins, ranks of obtuse families."""
    return gather(rng, budget, PARTS)
