r"""Class weights: the problem stays linear, and what a weight, a mask and a common shift do.

## Statement

Let $w_c \ge 0$ be weights, $D = diag(w)$, and

$$f(U) = \sum_c w_c\|h_c - Uf_c\|^2 + \tfrac\delta2\|U - U_0\|^2, \qquad A = 2HDF' + \delta U_0.$$

(a) On the manifold $f(U) = c - \langle A, U\rangle$ with
$c = \sum_c w_c(\|h_c\|^2 + \|f_c\|^2) + \frac\delta2(r + \|U_0\|^2)$. So all of `closed_form` holds with this A: the
minimisers are the polar factors of A, and $\min f = c - \|A\|_*$.

(b) A whole weight is a repeated class: with $w_c \in \{0, 1, 2, \dots\}$, f is the objective without weights of the
problem in which the columns $h_c$ and $f_c$ appear $w_c$ times.

(c) A class of weight 0 has no influence on A. Let $\delta = 0$, let F be the reduced simplex, and let k classes have
positive weights. If k = C-1 the minimiser is unique exactly when the k columns of H with positive weights are linearly
independent. If k <= C-2 the ETF is not unique: the vertices of the absent classes are free.

(d) Where A has full column rank, a loss with $X = dL/dA$ has

$$\frac{dL}{dH} = 2XFD, \qquad \frac{dL}{dw_c} = 2h_c'Xf_c, \qquad
  \sum_c w_c\frac{dL}{dw_c} = -\delta\,\langle X, U_0\rangle.$$

For $\delta = 0$ the last sum is 0: only the ratios of the weights count.

(e) The minimiser, as a function of H, is unchanged by every common shift $h_c \mapsto h_c + b$ if and only if
$Fw = 0$. For either simplex frame this says that all weights are equal. For any frame and weights, the problem with
the translation left free,
$\min_{U, b}\sum_c w_c\|h_c + b - Uf_c\|^2 + \frac\delta2\|U - U_0\|^2$, ignores a shift: it has
$A = 2H(D - ww'/s)F' + \delta U_0$, $s = \sum_c w_c$, and $b = U\bar f - \bar h$ with the weighted means.

## Assumptions

$w \ge 0$ and not zero. (d): A has full column rank, so that the minimiser is unique and differentiable near A.

## Proof

*(a)* $\|Uf_c\|^2 = f_c'U'Uf_c = \|f_c\|^2$ for each c. So
$\sum_c w_c\|h_c - Uf_c\|^2 = \sum_c w_c(\|h_c\|^2 + \|f_c\|^2) - 2\sum_c w_c h_c'Uf_c$, and
$\sum_c w_c h_c'Uf_c = tr(H'UFD) = \langle HDF', U\rangle$. The proximal term is as in `closed_form`.

*(b)* Both sums have the same terms.

*(c)* $HDF' = \sum_c w_ch_cf_c'$ has the k terms with $w_c > 0$ alone. Any C-1 columns of the reduced simplex are
linearly independent, since the only relation among all C is that their sum is zero. For k = C-1 write
$HDF' = H_+D_+F_+'$ with $F_+$ square and invertible: its rank is that of $H_+$, and `closed_form`, (c), says that U is
unique if and only if this is r = C-1. For k <= C-2 the rank is at most k < C-1 = rank F, and `closed_form`, (d), says
that UF is not unique.

*(d)* $dA = 2(dH\,D + H\,dD)F'$, so $dL = \langle X, dA\rangle = \langle 2XFD, dH\rangle + \sum_c 2h_c'Xf_c\,dw_c$. The
polar factor does not change when A is multiplied by t > 0, so $\langle X, A\rangle = 0$; and
$\langle X, A\rangle = \sum_c 2w_ch_c'Xf_c + \delta\langle X, U_0\rangle$.

*(e)* The shift changes A by $2b(Fw)'$: not at all if Fw = 0. If $Fw \ne 0$, shift by tb and let t grow. A/t tends to
$2b(Fw)'$, whose minimisers are, by `closed_form`, (c), the U with $UFw = \|Fw\|\,b/\|b\|$. Limits of minimisers are
minimisers for the limit of A/t, so UFw tends to this vector, and to its negative for t to minus infinity: the minimiser
is not the same for all shifts. The rows of either simplex frame span the vectors orthogonal to 1, and no others:
Fw = 0 if and only if w is a multiple of 1. With a free translation, the best b for U is the weighted mean of
$Uf_c - h_c$. Inserting it replaces $h_c$ and $f_c$ by $h_c - \bar h$ and $f_c - \bar f$, and
$(H - \bar h1')D(F - \bar f1')' = H(D - ww'/s)F'$. This is blind to shifts of H since $(D - ww'/s)1 = 0$ is symmetric.

## In the code

- `etfopt.problem.NearestETF`: `weights`. `etfopt._linear_term.frame_term`: $2HDF'$ at any scale.
- `etfopt.certificate.Certificate`: by (c) `etf_unique` is False where the vertex of an absent class is free.
- `etfopt._rounding.frame_ignores`: (c) and `closed_form`, (d): the ranks of A and F.
- `etfopt.adjoint.nearest_etf_vjp`: (d).

## References

Weighted orthogonal Procrustes problems with the weight on this side are linear as well; see Gower and Dijksterhuis
(2004), Procrustes Problems, chapter 8. The statements on masks, derivatives and shifts are derived here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etfopt import NearestETF, certify, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from theory._linalg import EPS, nuclear
from theory.draws import Matrix, frame, polar, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather


def linear_term(H: Matrix, w: Matrix, F: Matrix, prox: Matrix, delta: float) -> Matrix:
    """Return A = 2HDF' + delta U_0."""
    return np.asarray(2 * (H * w) @ F.T + delta * prox)


def constant(H: Matrix, w: Matrix, F: Matrix, prox: Matrix, delta: float) -> float:
    """Return c, the objective on the manifold but for its linear part."""
    data = float(w @ (np.sum(H**2, axis=0) + np.sum(F**2, axis=0)))
    return data + delta / 2 * (len(F) + float(np.sum(prox**2)))


def free_translation(H: Matrix, w: Matrix, F: Matrix) -> Matrix:
    """Return A of the problem in which a common shift of H is free, without a proximal term."""
    return np.asarray(2 * H @ (np.diag(w) - np.outer(w, w) / w.sum()) @ F.T)


def _value(U: NDArray[np.floating[Any]], H: Matrix, w: Matrix, F: Matrix, prox: Matrix, delta: float) -> float:
    """Return the objective by its definition, class by class."""
    data = sum(w[c] * float(np.sum((H[:, c] - U @ F[:, c]) ** 2)) for c in range(len(w)))
    return float(data + delta / 2 * np.sum((U - prox) ** 2))


def _case(rng: np.random.Generator) -> tuple[Matrix, Matrix, Matrix, Matrix, float]:
    """Draw H, weights with zeros among them and over some orders of magnitude, a frame, a proximal point and delta."""
    C = int(rng.integers(2, 7))
    F = frame(rng, C)
    d = len(F) + int(rng.choice([0, 1, 5]))
    w = 10.0 ** rng.uniform(-4, 2, C) * (rng.random(C) < 0.7)
    w[rng.integers(C)] += 1.0
    return rng.standard_normal((d, C)), w, F, rng.standard_normal((d, len(F))), float(rng.choice([0.0, 0.5, 30.0]))


def _linear(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the definition with the linear form at any point, and the optimal value with etfopt's minimiser."""
    H, w, F, prox, delta = case = _case(rng)
    d, r = prox.shape
    U, A, c = stiefel(rng, d, r), linear_term(*case), constant(*case)
    rounding = 4 * (10 * r + d + len(w)) * EPS * c
    yield Residual(abs(_value(U, *case) - (c - float(np.sum(A * U)))), rounding, "definition against linear form")
    problem = NearestETF(H, prox, delta, F, weights=w)
    yield Residual(abs(problem.objective(U) - _value(U, *case)), rounding, "etfopt's objective")
    yield Residual(float(np.linalg.norm(problem.linear_term - A)), rounding, "etfopt's linear term")
    best = solve(problem).U
    yield Residual(abs(_value(best, *case) - (c - nuclear(A))), rounding, "optimal value")
    near = polar(best + 10.0 ** rng.uniform(-4, 1) * rng.standard_normal((d, r)))
    yield Residual(c - nuclear(A) - _value(near, *case), rounding, "a lower value")


def _repeated(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare whole weights with repeated columns."""
    H, _, F, prox, delta = _case(rng)
    w = np.append(2, rng.integers(0, 4, H.shape[1] - 1))
    weighted = NearestETF(H, prox, delta, F, weights=w)
    repeated = NearestETF(np.repeat(H, w, axis=1), prox, delta, np.repeat(F, w, axis=1))
    size = float(np.linalg.norm(weighted.linear_term)) + float(np.linalg.norm(H)) + 1
    off = float(np.linalg.norm(weighted.linear_term - repeated.linear_term))
    yield Residual(off, 100 * EPS * size, "linear terms")
    U = stiefel(rng, *prox.shape)
    values = weighted.objective(U), repeated.objective(U)
    yield Residual(abs(values[0] - values[1]), 100 * EPS * values[0], "objectives")


def _masked(rng: np.random.Generator) -> Iterator[Residual]:
    """Count absent classes: one is determined by the others where they are independent, two are free."""
    C = int(rng.integers(3, 8))
    d = C + int(rng.choice([0, 3]))
    for absent in (1, 2):
        w = np.where(rng.permutation(C) < absent, 0.0, rng.uniform(0.2, 3, C))
        for dependent in (False, True):
            H = rng.standard_normal((d, C))
            if dependent:
                here = np.flatnonzero(w)
                H[:, here[0]] = H[:, here[1:]] @ rng.standard_normal(len(here) - 1)
            problem = NearestETF(H, reduced=True, weights=w)
            found = certify(problem, solve(problem).U)
            expected = absent == 1 and not dependent
            yield Residual(float(found.unique is not expected), 0.0, f"unique with {absent} absent, {dependent=}")
            yield Residual(float(found.etf_unique is not expected), 0.0, f"ETF with {absent} absent, {dependent=}")


def _derivative(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare etfopt's cotangents with differences of a slow polar factor, and with the sum rule."""
    H, w, F, prox, delta = _case(rng)
    w = np.where(w > 0, 0.5 + rng.random(len(w)), 0)
    A = linear_term(H, w, F, prox, delta)
    s = np.linalg.svd(A, compute_uv=False)
    if s[-1] < 0.1:
        yield Residual(0.0, 1.0, "too near a rank-deficient one")
        return
    G = rng.standard_normal(prox.shape)
    problem = NearestETF(H, prox, delta, F, weights=w)
    found = nearest_etf_vjp(problem, solve(problem).U, G)
    dw, dH = rng.standard_normal(len(w)) * (w > 0), rng.standard_normal(H.shape)

    def loss(t: float) -> float:
        return float(np.vdot(G, polar(linear_term(H + t * dH, w + t * dw, F, prox, delta))))

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    size = float(np.linalg.norm(G)) * (1 + float(np.linalg.norm(A)))
    tolerance = 1e-8 * size / min(1.0, s[-1]) ** 3
    yield Residual(abs(float(np.vdot(found.H, dH) + found.weights @ dw) - slope), tolerance, "cotangents")
    assert found.prox is not None
    total = float(w @ found.weights) + float(np.vdot(found.prox, prox))
    yield Residual(abs(total), 1e-12 * size / s[-1], "sum of the weights' cotangents")


def _shift(rng: np.random.Generator) -> Iterator[Residual]:
    """Shift all columns: equal weights ignore it, others do not; a free translation always does."""
    C = int(rng.integers(3, 7))
    d, F = C + int(rng.choice([0, 3])), np.asarray(simplex_etf(C, reduced=bool(rng.integers(2))), dtype=np.float64)
    H, b, w = rng.standard_normal((d, C)), rng.standard_normal((d, 1)), rng.uniform(0.2, 3, C)
    for weights, ignored in ((np.full(C, w[0]), True), (w, False)):
        change = linear_term(H + b, weights, F, np.zeros((d, len(F))), 0.0)
        change -= linear_term(H, weights, F, np.zeros((d, len(F))), 0.0)
        off = float(np.linalg.norm(change))
        expected = 2 * float(np.linalg.norm(b) * np.linalg.norm(F @ weights))
        yield Residual(abs(off - expected), 100 * C * EPS * (1 + float(np.linalg.norm(b))), "change of A")
        if not ignored:
            ends = [solve(NearestETF(t * b @ np.ones((1, C)), frame=F, weights=w)).U @ F @ w for t in (1, -1)]
            yield at_least(float(np.linalg.norm(ends[0] - ends[1])), 1.9 * float(np.linalg.norm(F @ w)), "turned")
    A = free_translation(H, w, F)
    yield Residual(float(np.linalg.norm(free_translation(H + b, w, F) - A)), 1e-12, "free translation")
    U, V = polar(A), stiefel(rng, d, len(F))

    def least(X: Matrix) -> float:
        apart = X @ F - H
        return float(w @ np.sum((apart - (apart @ w / w.sum())[:, None]) ** 2, axis=0))

    yield Residual(abs(least(V) - least(U) - float(np.vdot(A, U - V))), 1e-11 * least(V), "value of a free translation")
    yield Residual(least(U) - least(V), 1e-12, "a better point with a free translation")


PARTS = (Part(_linear, 2), Part(_repeated), Part(_masked), Part(_derivative, 2), Part(_shift))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any frame and proximal point, weights with zeros, rank deficiency, shifts."""
    return gather(rng, budget, PARTS)
