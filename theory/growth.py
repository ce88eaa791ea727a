r"""Growing a simplex: the best mean cosine between old vertices and their new places.

## Statement

Let $v_1, \dots, v_{K_1}$ be the unit vertices of a simplex equiangular tight frame in $R^d$, and $u_1, \dots, u_{K_2}$
those of one with $K_2 > K_1 \ge 2$ vertices. Then

$$\frac1{K_1}\sum_{i\le K_1} v_i'u_i \le \rho = \sqrt{\frac{(K_1-1)\,K_2}{K_1\,(K_2-1)}} < 1,$$

0.97333 for 10 to 20.

(a) If $d \ge K_2-1$ the bound is reached. Where it is, every single cosine $v_i'u_i$ equals $\rho$.

(b) It is reached by the minimiser of $\sum_{i\le K_1}\|v_i - u_i\|^2$, and by no other simplex.

(c) Let the new means $m_j$, j > K_1, have weight w > 0, and let u(w) minimise
$\sum_{i\le K_1}\|v_i - u_i\|^2 + w\sum_{j>K_1}\|m_j - u_j\|^2$. As w grows, the mean cosine of the old classes does not
grow and that of the new ones does not fall. As $w \to 0$ the former tends to $\rho$, and the latter to the largest
value that it can have there.

## Assumptions

$d \ge K_2-1$ for a simplex of $K_2$ vertices. (c): unit vectors $m_j$.

## Proof

Let V be the matrix of the $v_i$, T that of the first $K_1$ of the $u_j$, and $P = I - 11'/K_1$. V1 = 0, so
$\sum_i v_i'u_i = \langle V, T\rangle = \langle VP, T\rangle = \langle V, TP\rangle \le \|V\|\,\|TP\|$. The Gram
matrices are $V'V = \frac{K_1}{K_1-1}P$ and $T'T = \frac{K_2}{K_2-1}I - \frac1{K_2-1}11'$, so
$PT'TP = \frac{K_2}{K_2-1}P$. Their traces give $\|V\|^2 = K_1$ and $\|TP\|^2 = \frac{K_2(K_1-1)}{K_2-1}$, and dividing
$\|V\|\,\|TP\|$ by $K_1$ gives $\rho$. It is below 1 since $(K_1-1)K_2 < K_1(K_2-1)$.

*(a)* Equality in Cauchy-Schwarz means $TP = \rho V$, and any simplex can be rotated so that it holds: $TP$ and $\rho V$
have the same Gram matrix, so an orthogonal matrix takes one to the other. Then $u_i = \rho v_i + m$ with m the mean of
the $u_i$, i <= K_1. $m'TP = \frac1{K_1}1'T'TP = 0$, as $T'T1$ is a multiple of 1. So m is orthogonal to every
$v_i$, and $v_i'u_i = \rho\|v_i\|^2 = \rho$.

*(b)* $\|v_i - u_i\|^2 = 2 - 2v_i'u_i$: the sum is smallest where the mean cosine is largest.

*(c)* Let a(u) and b(u) be the sums of the cosines of old and new classes: u(w) maximises a + wb. For w < w' adding
$a(u) + wb(u) \ge a(u') + wb(u')$ and $a(u') + w'b(u') \ge a(u) + w'b(u)$ gives $(w'-w)(b(u') - b(u)) \ge 0$, and
then the first gives $a(u) \ge a(u')$. The simplices with $a = K_1\rho$ are a compact set, and there is one: its members
have $a + wb \ge K_1\rho - w(K_2-K_1)$, so $a(u(w)) \ge K_1\rho - 2w(K_2-K_1)$. So a limit of u(w) lies in the set;
and with u any member, $a(u(w)) + wb(u(w)) \ge a(u) + wb(u)$ and $a(u(w)) \le a(u)$ give $b(u(w)) \ge b(u)$.

## In the code

- `etfopt.growth.grow`: without a bound on the classes it solves (c); its default weight is 1e-3.

## References

ProNC, arXiv 2505.24254, grows a simplex by rotating a new one onto the old vertices alone. That its old cosines are the
largest possible, and that the new vertices can still be chosen, is derived here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from etfopt import nearest_etf, simplex_etf
from theory._linalg import EPS
from theory.draws import Matrix, polar, stiefel, unit_columns
from theory.registry import Evidence, Part, Residual, at_least, gather


def best_cosine(old: int, new: int) -> float:
    """Return rho for a simplex that grows from `old` to `new` vertices."""
    return math.sqrt((old - 1) * new / (old * (new - 1)))


def _sizes(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw K_1, K_2 and d, at the edge d = K_2 - 1 in half of all cases."""
    old = int(rng.integers(2, 9))
    new = old + int(rng.integers(1, 8))
    return old, new, new - 1 + int(rng.choice([0, 5]))


def _simplex(rng: np.random.Generator, d: int, K: int) -> Matrix:
    """Return the unit vertices of a random simplex."""
    return np.asarray(math.sqrt(K) * stiefel(rng, d, K - 1) @ simplex_etf(K, reduced=True))


def _bound(rng: np.random.Generator) -> Iterator[Residual]:
    """Try simplices at random and near the best; reach the bound; look at every single cosine there."""
    old, new, d = _sizes(rng)
    V, rho = _simplex(rng, d, old), best_cosine(old, new)
    F = math.sqrt(new) * simplex_etf(new, reduced=True)
    U = polar(V @ F[:, :old].T)
    cosines = np.sum(V * (U @ F)[:, :old], axis=0)
    yield Residual(float(np.abs(cosines - rho).max()), 100 * d * EPS, "every cosine at the best")
    for size in (1e-3, 0.1, 10.0):
        other = polar(U + size * rng.standard_normal(U.shape))
        mean = float(np.sum(V * (other @ F)[:, :old]) / old)
        yield Residual(mean - rho, 100 * d * EPS, f"a better simplex {size:g} away")
    yield at_least(1 - rho, 1e-4, "below one")


def _trade(rng: np.random.Generator) -> Iterator[Residual]:
    """Raise the weight of the new classes: their cosine rises, that of the old ones falls, from the bound on."""
    old, new, d = _sizes(rng)
    V = _simplex(rng, d, old)
    means = unit_columns(rng.standard_normal((d, new - old)))
    F = math.sqrt(new) * simplex_etf(new, reduced=True)
    rho, known = best_cosine(old, new), []
    for weight in (1e-8, 1e-3, 0.1, 1.0, 30.0):
        weights = np.repeat([1.0, weight], [old, new - old])
        E = nearest_etf(np.hstack([V, means]), frame=F, weights=weights).etf
        known.append((float(np.sum(V * E[:, :old]) / old), float(np.sum(means * E[:, old:]) / (new - old))))
    yield Residual(rho - known[0][0], 2e-8 * (new - old) / old + 1e-12, "the bound as the weight tends to zero")
    for (a, b), (later_a, later_b) in itertools.pairwise(known):
        yield Residual(later_a - a, 1e-12, "the old classes gain with the weight of the new")
        yield Residual(b - later_b, 1e-7, "the new classes lose with their weight")


def _example(rng: np.random.Generator) -> Iterator[Residual]:
    """Look at the numbers that the text gives."""
    del rng
    yield Residual(abs(best_cosine(10, 20) - 0.97333), 5e-6, "10 to 20")


PARTS = (Part(_bound), Part(_trade), Part(_example, 0.01))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: simplices at random and near the best, at d = K_2 - 1 too; weights of new classes."""
    return gather(rng, budget, PARTS)
