r"""Held classes: vertices that stay, and the smaller problem of the same kind that is left.

## Statement

Let $O$ be a set of classes and $U_0 \in St(d, r)$. Let $Q_O$ (r x k) be an orthonormal basis of the span of
$\{f_c : c \in O\}$ and $Q_N$ one of its complement, $V = U_0Q_O$, and B (d x (d-k)) an orthonormal basis of the
complement of the range of V. With $f$ and A of `weights`, minimise f over the U in St(d, r) with $Uf_c = U_0f_c$ for
all $c \in O$.

(a) These U are exactly $U = VQ_O' + BU_sQ_N'$ with $U_s \in St(d-k, r-k)$, each from one $U_s = B'UQ_N$.

(b) For them $f(U) = c_0 - \langle A_s, U_s\rangle$ with a constant $c_0$ and

$$A_s = B'AQ_N = 2(B'H)D(Q_N'F)' + \delta\,B'U_{prox}Q_N .$$

This is the linear term of the problem with class means B'H, frame $Q_N'F$, weights w and proximal point
$B'U_{prox}Q_N$. Its frame has zero columns for the held classes. So the minimisers are $U_s$ = polar factor of $A_s$,
the excess objective is $\|A_s\|_* - \langle A_s, U_s\rangle$, and U is unique exactly when $A_s$ has rank r-k.

(c) Holding costs $\|A\|_* - \langle A, VQ_O'\rangle - \|A_s\|_* \ge 0$. It costs nothing if and only if some minimiser
of f has its held vertices at $U_0f_c$.

(d) A loss with $X_s = dL/dA_s$ has $dL/dA = BX_sQ_N'$, as V is constant. The cotangents of H and of w are zero for
held classes.

(e) Let F be the paper's frame M, and let the held classes be any k < C-1 of them. Then $Q_N$ contains the direction 1,
which no class sees: for $\delta = 0$, $U_s$ is never unique. With the reduced frame this direction is gone.

## Assumptions

k < r, and $Q_N'F \ne 0$: something is left to place. No class of O need have weight 0.

## Proof

*(a)* The condition $Uf_c = U_0f_c$ for $c \in O$ is $UQ_O = V$. Let U satisfy it and put $Y = UQ_N$. Then
$V'Y = Q_O'U'UQ_N = Q_O'Q_N = 0$, so Y lies in the range of B: $Y = BU_s$ with $U_s = B'Y$, and
$U_s'U_s = Y'Y = I$. So $U = UQ_OQ_O' + UQ_NQ_N' = VQ_O' + BU_sQ_N'$. Conversely such a U has $UQ_O = V$, and
$U'U = Q_OV'VQ_O' + Q_NU_s'B'BU_sQ_N' = Q_OQ_O' + Q_NQ_N' = I$, the cross terms being zero because V'B = 0.

*(b)* $\langle A, U\rangle = \langle A, VQ_O'\rangle + \langle B'AQ_N, U_s\rangle$; insert A. $Q_N'f_c = 0$ for
$c \in O$, by the choice of $Q_N$. The rest is `closed_form` for $A_s$.

*(c)* The least value of f without holding is $c - \|A\|_*$, with it $c - \langle A, VQ_O'\rangle - \|A_s\|_*$. The
latter is attained at a feasible U, so the difference is not negative, and zero if and only if that U is a minimiser.

*(d)* $dA_s = B'\,dA\,Q_N$, so $\langle X_s, dA_s\rangle = \langle BX_sQ_N', dA\rangle$. By `weights`, (d),
$dL/dh_c = 2w_cBX_sQ_N'f_c$ and $dL/dw_c = 2h_c'BX_sQ_N'f_c$, with $Q_N'f_c = 0$ for $c \in O$.

*(e)* Every column of M is orthogonal to 1, so 1 is orthogonal to the span of the held ones and lies in the range of
$Q_N$. With $z = Q_N'1 \ne 0$: $F'Q_Nz = M1 = 0$, so $A_sz = 0$ for $\delta = 0$, and (b) applies.

## In the code

- `etfopt._held.Held`: (a). `etfopt.problem.NearestETF.free`: (b). `etfopt.problem.NearestETF`: `hold`, `hold_at`.
- `etfopt.certificate.certify`: the gap of (b), and whether U holds what it must.
- `etfopt.adjoint.nearest_etf_vjp`: (d).
- `etfopt.growth.grow`: old classes are held in a frame that has places left.

## References

Derived here. Golub and Van Loan (2013), Matrix Computations, section 6.4, for the problem without a restriction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from etfopt import NearestETF, certify, simplex_etf, solve
from etfopt.adjoint import nearest_etf_vjp
from theory._linalg import EPS, nuclear
from theory.draws import Matrix, frame, polar, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather


def smaller(A: Matrix, V: Matrix, B: Matrix, Q_O: Matrix, Q_N: Matrix) -> tuple[Matrix, float]:
    """Return A_s and the least excess objective of holding."""
    A_s = B.T @ A @ Q_N
    return A_s, nuclear(A) - float(np.vdot(A, V @ Q_O.T)) - nuclear(A_s)


def _case(rng: np.random.Generator, *, square: bool = False) -> tuple[NearestETF, Matrix, Matrix, Matrix, Matrix]:
    """Draw a problem with held classes; also V, B, Q_O and Q_N by NumPy's and SciPy's own factorisations."""
    C = int(rng.integers(3, 8))
    F = simplex_etf(C) if square else frame(rng, C)
    rank = np.linalg.matrix_rank(F)
    while rank < 2:
        F = frame(rng, C)
        rank = np.linalg.matrix_rank(F)
    r = len(F)
    d, k = r + int(rng.choice([0, 1, 6])), int(rng.integers(1, rank))
    held, U0 = [int(c) for c in rng.permutation(C)[:k]], stiefel(rng, d, r)
    delta = 0.0 if square else float(rng.choice([0.0, 0.7, 20.0]))
    w = rng.uniform(0.2, 3, C)
    problem = NearestETF(rng.standard_normal((d, C)), stiefel(rng, d, r), delta, F, weights=w, hold=held, hold_at=U0)
    Q_O = scipy.linalg.orth(F[:, held])
    Q_N, V = scipy.linalg.null_space(Q_O.T), U0 @ Q_O
    return problem, V, scipy.linalg.null_space(V.T), Q_O, Q_N


def _points(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare points that hold with their form, and their objective with the smaller problem's."""
    problem, V, B, Q_O, Q_N = _case(rng)
    (d, s), A = (B.shape[1], Q_N.shape[1]), problem.linear_term
    A_s, cost = smaller(A, V, B, Q_O, Q_N)
    U_s = stiefel(rng, d, s)
    U = V @ Q_O.T + B @ U_s @ Q_N.T
    held = problem.held
    assert held is not None
    size = 1 + float(np.linalg.norm(A))
    yield Residual(float(np.linalg.norm(U.T @ U - np.eye(len(A.T)))), 100 * d * EPS, "on the manifold")
    moved = (U - held.U0) @ problem.F[:, list(held.classes)]
    yield Residual(float(np.linalg.norm(moved)), 100 * d * EPS, "held vertices")
    best = solve(problem)
    excess, gap = problem.objective(U) - best.objective, nuclear(A_s) - float(np.vdot(A_s, U_s))
    yield Residual(abs(excess - gap), 1e3 * d * EPS * size * problem.r, "excess objective")
    yield Residual(abs(certify(problem, U).gap - gap), 1e3 * d * EPS * size, "etfopt's gap")
    yield Residual(-gap, 1e3 * d * EPS * size, "a point below the minimum")
    there = (best.U - held.U0) @ problem.F[:, list(held.classes)]
    yield Residual(float(np.linalg.norm(there)), 100 * d * EPS, "etfopt's held vertices")
    total = (
        best.objective
        - solve(NearestETF(problem.H, problem.prox, problem.delta, problem.F, weights=problem.weights)).objective
    )
    yield Residual(abs(total - cost), 1e3 * d * EPS * size * problem.r, "cost of holding")
    yield Residual(-cost, 1e3 * d * EPS * size, "holding gains")


def _nothing(rng: np.random.Generator) -> Iterator[Residual]:
    """Hold where the minimiser is: no cost, and the same answer where it is unique."""
    problem, *_ = _case(rng)
    plain = NearestETF(problem.H, problem.prox, problem.delta, problem.F, weights=problem.weights)
    best = solve(plain)
    assert problem.held is not None
    H, F, w, hold = problem.H, problem.F, problem.weights, problem.held.classes
    found = solve(NearestETF(H, problem.prox, problem.delta, F, weights=w, hold=hold, hold_at=best.U))
    yield Residual(abs(found.objective - best.objective), 1e3 * EPS * (1 + best.objective), "cost at the minimiser")
    if best.certificate.unique and best.certificate.margin > 1e-3:
        off = float(np.linalg.norm(found.U - best.U))
        yield Residual(off, 1e-8, "the same minimiser")
    else:
        yield Residual(0.0, 1.0, "not unique")


def _derivative(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare etfopt's cotangents with differences of a slow projected polar factor."""
    problem, V, B, Q_O, Q_N = _case(rng)
    H, F, w, G = problem.H, problem.F, problem.weights, rng.standard_normal((problem.d, problem.r))
    assert w is not None and problem.prox is not None and problem.held is not None  # noqa: PT018
    s = np.linalg.svd(B.T @ problem.linear_term @ Q_N, compute_uv=False)[-1]
    if s < 0.1:
        yield Residual(0.0, 1.0, "too near a rank-deficient one")
        return
    dH, dw, dP = rng.standard_normal(H.shape), rng.standard_normal(len(w)), rng.standard_normal(problem.prox.shape)
    prox = problem.prox

    def loss(t: float) -> float:
        A = 2 * ((H + t * dH) * (w + t * dw)) @ F.T + problem.delta * (prox + t * dP)
        return float(np.vdot(G, V @ Q_O.T + B @ polar(B.T @ A @ Q_N) @ Q_N.T))

    found = nearest_etf_vjp(problem, solve(problem).U, G)
    assert found.prox is not None
    slope = float(np.vdot(found.H, dH) + found.weights @ dw + np.vdot(found.prox, dP))
    size = float(np.linalg.norm(G)) * (1 + problem.delta) * (1 + float(np.linalg.norm(H))) / min(1.0, s) ** 3
    yield Residual(abs(slope - (loss(1e-5) - loss(-1e-5)) / 2e-5), 1e-7 * size, "cotangents")
    here = list(problem.held.classes)
    yield Residual(float(np.abs(found.H[:, here]).max() + np.abs(found.weights[here]).max()), 0.0, "of held classes")


def _square(rng: np.random.Generator) -> Iterator[Residual]:
    """Hold in the paper's frame: a direction stays free, and the ETF is that of the reduced frame."""
    problem, V, B, Q_O, Q_N = _case(rng, square=True)
    A_s, _ = smaller(problem.linear_term, V, B, Q_O, Q_N)
    z = Q_N.T @ np.ones(problem.C)
    yield at_least(float(np.linalg.norm(z)), 0.99, "the direction 1 is left")
    yield Residual(float(np.linalg.norm(A_s @ z)), 1e-12, "no class sees it")
    found = solve(problem).certificate
    yield Residual(float(found.unique), 0.0, "U is not unique")


PARTS = (Part(_points, 2), Part(_nothing), Part(_derivative), Part(_square, 0.5))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any frame, any held classes and weights, d = r, with and without a proximal term."""
    return gather(rng, budget, PARTS)
