r"""The simplex equiangular tight frame: two coordinates for it, and why it is the best separated family.

## Statement

Let $P = I - 11'/C$, C >= 2. Two frames are used: $F = M = P/\sqrt{C-1}$ with r = C rows, and $F = Z/\sqrt{C-1}$ with
r = C-1 rows, Z the Helmert matrix, whose row k is $(1, \dots, 1, -k, 0, \dots, 0)/\sqrt{k(k+1)}$ with k ones.

(a) For both, $F1 = 0$ and $F'F = P/(C-1)$. So for every $U \in St(d, r)$ the columns of $\sqrt C\,UF$ have norm 1 and
pairwise cosine $-1/(C-1)$, and these are the rows of the classifier $W = \sqrt C\,(UF)'$.

(b) Let $x_1, \dots, x_C$ be unit vectors of $R^d$ and $\mu = \max_{i \ne j} x_i'x_j$. Then $\mu \ge -1/(C-1)$. If
$\mu \le -1/(C-1) + \varepsilon$, then $\|\sum_i x_i\|^2 \le C(C-1)\varepsilon$ and every cosine is at least
$-1/(C-1) + \varepsilon - C(C-1)\varepsilon/2$. So equality holds exactly when all cosines are equal to -1/(C-1). This
happens for some family if and only if $C \le d+1$; for $C \ge d+2$ even $\mu \ge 0$.

(c) Any two families that reach the bound differ by an orthogonal transformation of $R^d$. If C <= d it can be chosen
to be a rotation (determinant 1). If C = d+1 there are exactly two classes up to rotation, mirror images of each
other, and exchanging two vectors leads from one to the other: with labels attached, "unique up to rotation" is true
only in the sense of O(d).

(d) The families that reach the bound are exactly the $\sqrt C\,UF$: with the reduced frame for every d >= C-1, with
M for d >= C. So both frames search over the same set, all simplex equiangular tight frames, where both have room.

## Assumptions

C >= 2. In (a), d >= r. In (b) and (c), nothing but unit norm.

## Proof

*(a)* $P^2 = P$ and $P1 = 0$, so $M1 = 0$ and $M'M = P/(C-1)$. The rows of Z sum to k - k = 0; their squared norm is
$(k + k^2)/(k(k+1)) = 1$; for k < l, row l is constant on the first k+1 <= l places, where row k lives, so that their
product is a multiple of the sum of row k, zero. Hence Z stacked on $1'/\sqrt C$ is a square matrix with orthonormal
rows, so its columns are orthonormal too: $Z'Z + 11'/C = I$, that is, $Z'Z = P$. With $U'U = I$ the Gram matrix of
$\sqrt C\,UF$ is $C F'F = \frac{C}{C-1}P$: diagonal $\frac{C}{C-1}(1 - \frac1C) = 1$, elsewhere
$-\frac{C}{C-1}\frac1C = -\frac1{C-1}$.

*(b)* Let $\mu_0 = -1/(C-1)$ and $\mu = \mu_0 + \varepsilon'$. Then

$$0 \le \Bigl\|\sum_i x_i\Bigr\|^2 = C + \sum_{i\ne j} x_i'x_j
  = C + C(C-1)\mu - \sum_{i \ne j}(\mu - x_i'x_j) = C(C-1)\varepsilon' - \sum_{i \ne j}(\mu - x_i'x_j).$$

The terms of the last sum are not negative, so $\varepsilon' \ge 0$, which is the bound; and with
$\varepsilon' \le \varepsilon$, $\|\sum_i x_i\|^2 \le C(C-1)\varepsilon$, and each pair, which occurs twice in the sum,
has $\mu - x_i'x_j \le C(C-1)\varepsilon'/2$. So $x_i'x_j \ge \mu_0 + \varepsilon'(1 - C(C-1)/2)$, and, as
$C(C-1)/2 \ge 1$, this is at least the same with $\varepsilon$. For $\varepsilon = 0$ all cosines are $\mu_0$; the
converse is plain. Such a family has the Gram matrix $\frac{C}{C-1}P$ of rank C-1, so that d >= C-1; and (a) with the
reduced frame provides one for every d >= C-1.

Let $C \ge d+2$. The d+1 linear equations $\sum_i c_ix_i = 0$, $\sum_i c_i = 0$ in C unknowns have a solution
$c \ne 0$, which has entries of both signs. Let I be the set with $c_i > 0$, J that with $c_j < 0$, both not empty, and
$y = \sum_I c_ix_i = \sum_J(-c_j)x_j$. Then $0 \le \|y\|^2 = \sum_{i\in I, j\in J} c_i(-c_j)\,x_i'x_j$ with positive
weights, so that some cosine is not negative.

*(c)* Let X and Y be d x C with $X'X = Y'Y$ of rank C-1. Then $\|Xc\| = \|Yc\|$ for all c, so $Yc \mapsto Xc$ is well
defined, linear and an isometry from range Y to range X; extended by any isometry between the orthogonal complements,
it is an O in O(d) with X = OY. If C <= d, the complements have dimension d-C+1 >= 1, and changing the sign of one
vector there changes det O. If C = d+1, Y has full row rank, so O is the only one, and its determinant decides; as
O(d) has two components, there are two classes. Exchanging two columns keeps the Gram matrix, and is done by the
reflection in the hyperplane orthogonal to $y_i - y_j$: it exchanges these two, since their norms are equal, and fixes
every other $y_k$, since $y_k'(y_i - y_j) = 0$. Its determinant is -1.

*(d)* One inclusion is (a). Let X be d x C with $X'X = \frac{C}{C-1}P$. Then $\|X1\|^2 = 0$. Reduced frame: let
$U = \frac{C-1}{\sqrt C}XF'$. With $F'F = P/(C-1)$ and $FF' = ZZ'/(C-1) = I/(C-1)$,
$U'U = \frac{(C-1)^2}{C}FX'XF' = (C-1)FPF' = (C-1)^2(FF')^2 = I$ and
$\sqrt C\,UF = (C-1)XF'F = XP = X$. Frame M, d >= C: the range of X has dimension C-1 < d, so there is a unit vector w
orthogonal to it; let $U = \sqrt{(C-1)/C}\,X + w1'/\sqrt C$. Then $U'U = P + 11'/C = I$, and
$\sqrt C\,UM = \sqrt{C-1}\,XM = XP = X$.

## In the code

- `etfopt.frames.simplex.simplex_etf`: both frames.
- `etfopt.solution.Solution.weight`: rows of unit norm and cosine -1/(C-1).
- `etfopt.problem.NearestETF`: searching over U is searching over all simplex equiangular tight frames.

## References

Rankin (1955), The closest packing of spherical caps in n dimensions, has (b). Papyan, Han, Donoho (2020), Prevalence
of neural collapse, definition of the simplex equiangular tight frame. Horn and Johnson (2013), Matrix Analysis,
theorem 7.3.11, for (c).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.optimize

from etfopt import nearest_etf, simplex_etf
from theory.draws import Matrix, polar, stiefel, unit_columns
from theory.registry import Evidence, Part, Residual, gather

EPS = float(np.finfo(np.float64).eps)


def gram(C: int) -> Matrix:
    """Return the Gram matrix of C unit vectors with cosine -1/(C-1)."""
    return np.full((C, C), -1 / (C - 1)) + np.eye(C) * C / (C - 1)


def _rounding(d: int, r: int) -> float:
    """Bound what rounding does to a cosine: U (10 r u), the product with F, the cosine itself, the frame's entries."""
    return (10 * r + r * float(np.sqrt(r)) + d + 6) * EPS


def _frames(rng: np.random.Generator) -> Iterator[Residual]:
    """Both frames against their definitions, their rotations, and the classifier of a nearest frame."""
    C = int(rng.choice([2, 3, 4, 5, 9, 30]))
    M, Z = simplex_etf(C), simplex_etf(C, reduced=True)
    yield Residual(float(np.abs(M - (np.eye(C) - 1 / C) / np.sqrt(C - 1)).max()), 2 * EPS, "M")
    yield Residual(float(np.abs(Z - scipy.linalg.helmert(C) / np.sqrt(C - 1)).max()), 4 * EPS, "Helmert frame")
    for F in (M, Z):
        r = len(F)
        d = r + int(rng.choice([0, 1, 2 * r]))
        X = np.sqrt(C) * stiefel(rng, d, r) @ F
        yield Residual(float(np.abs(X.T @ X - gram(C)).max()), _rounding(d, r), f"cosines, r = {r}, C = {C}")
        yield Residual(float(np.abs(F.sum(axis=1)).max()), 2 * np.sqrt(C) * EPS, "F1")
        W = nearest_etf(rng.standard_normal((d, C)), frame=F).weight
        yield Residual(float(np.abs(W @ W.T - gram(C)).max()), _rounding(d, r), f"rows of W, r = {r}, C = {C}")


def _lower_bound(rng: np.random.Generator) -> Iterator[Residual]:
    """Random families and those near a simplex: no largest cosine below the bound, and stability near it."""
    C = int(rng.integers(2, 9))
    d = C - 1 + int(rng.integers(0, 4))
    simplex = stiefel(rng, d, C - 1) @ simplex_etf(C, reduced=True) * np.sqrt(C)
    X = unit_columns(simplex + 10.0 ** rng.uniform(-9, 1) * rng.standard_normal((d, C)))
    cosines = (X.T @ X)[~np.eye(C, dtype=bool)]
    excess, bound = float(cosines.max()) + 1 / (C - 1), -1 / (C - 1)
    rounding = (d + 4) * EPS
    yield Residual(-excess, rounding, "largest cosine below -1/(C-1)")
    slack = C * C * rounding
    yield Residual(float(np.sum(X.sum(axis=1) ** 2)) - C * (C - 1) * excess, slack, "squared norm of the sum")
    least = bound + excess - C * (C - 1) * excess / 2
    yield Residual(least - float(cosines.min()), slack, "smallest cosine below what stability allows")


def _crowded(rng: np.random.Generator) -> Iterator[Residual]:
    """More than d + 1 vectors: a largest cosine that is not negative, reached by the axes and their opposites."""
    d = int(rng.integers(1, 6))
    C = d + 2 + int(rng.integers(0, 3))
    axes = np.hstack([np.eye(d), -np.eye(d)])[:, : min(C, 2 * d)]
    X = np.hstack([axes, rng.standard_normal((d, C - axes.shape[1]))])
    X = unit_columns(X + 10.0 ** rng.uniform(-9, 1) * rng.standard_normal((d, C)))
    cosines = (X.T @ X)[~np.eye(C, dtype=bool)]
    yield Residual(-float(cosines.max()), (d + 4) * EPS, f"largest of {C} cosines in {d} dimensions")


def _minimiser(rng: np.random.Generator) -> Iterator[Residual]:
    """Spread vectors apart from a random start: they end in a simplex, and O(d) carries it to any other."""
    C = int(rng.integers(2, 7))
    d, beta = C - 1 + int(rng.integers(0, 3)), float(rng.uniform(1, 6))
    off = ~np.eye(C, dtype=bool)

    def energy(flat: Matrix) -> float:
        X = unit_columns(flat.reshape(d, C))
        return float(np.sum(np.exp(beta * X.T @ X) * off))

    def slope(flat: Matrix) -> Matrix:
        Y = flat.reshape(d, C)
        X = unit_columns(Y)
        G = 2 * beta * X @ (np.exp(beta * X.T @ X) * off)
        return np.asarray(((G - X * np.sum(X * G, axis=0)) / np.linalg.norm(Y, axis=0)).ravel())

    start = rng.standard_normal(d * C)
    end = scipy.optimize.minimize(energy, start, jac=slope, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    X = unit_columns(np.asarray(end.x).reshape(d, C))
    # for d = 1 (two classes) a start with both vectors on one side is critical: it cannot leave it
    if d == 1 and X[0, 0] * X[0, 1] > 0:
        X[0, 1] = -X[0, 1]
    largest = float((X.T @ X)[off].max())
    yield Residual(abs(largest + 1 / (C - 1)), 1e-5, f"largest cosine after spreading, C = {C}, d = {d}")
    other = np.sqrt(C) * stiefel(rng, d, C - 1) @ simplex_etf(C, reduced=True)
    yield Residual(float(np.linalg.norm(polar(X @ other.T) @ other - X)), 1e-4, "an orthogonal map to another simplex")


def _all_of_them(rng: np.random.Generator) -> Iterator[Residual]:
    """Any simplex is sqrt(C) U F for either frame; exchanging two of its vectors is a reflection where C = d + 1."""
    C = int(rng.integers(2, 9))
    d = C - 1 + int(rng.integers(0, 3))
    X = stiefel(rng, d, C - 1) * np.sqrt(C / (C - 1)) @ scipy.linalg.helmert(C)
    X = X[:, rng.permutation(C)]
    F, tolerance = simplex_etf(C, reduced=True), C * _rounding(d, C)
    U = (C - 1) / np.sqrt(C) * X @ F.T
    yield Residual(float(np.linalg.norm(U.T @ U - np.eye(C - 1))), tolerance, "U of the reduced frame")
    yield Residual(float(np.linalg.norm(np.sqrt(C) * U @ F - X)), tolerance, "simplex from the reduced frame")
    if d >= C:
        w = np.linalg.svd(X)[0][:, C - 1 : C]
        U = np.sqrt((C - 1) / C) * X + w / np.sqrt(C)
        yield Residual(float(np.linalg.norm(U.T @ U - np.eye(C))), tolerance, "U of the frame M")
        yield Residual(float(np.linalg.norm(np.sqrt(C) * U @ simplex_etf(C) - X)), tolerance, "simplex from M")
    else:
        swapped = X[:, [1, 0, *range(2, C)]]
        exchange = swapped @ X.T * (C - 1) / C
        yield Residual(float(np.linalg.norm(exchange.T @ exchange - np.eye(d))), tolerance, "exchanging two vectors")
        yield Residual(abs(float(np.linalg.det(exchange)) + 1), tolerance, "its determinant")


PARTS = (Part(_frames, 1), Part(_lower_bound, 3), Part(_crowded, 2), Part(_minimiser, 0.15), Part(_all_of_them, 2))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: better separated families, unstable ones, and simplices that a frame misses."""
    return gather(rng, budget, PARTS)
