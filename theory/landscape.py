r"""The critical points of the objective on the Stiefel manifold, and where local solvers end.

## Statement

On St(d, r) the objective is $f(U) = -\langle A, U\rangle$ plus a constant. Let A have rank $\rho$, singular values $s_1
\ge \dots \ge s_r$.

1. *Critical points.* U is critical if and only if A = UG with G = U'A symmetric; equivalently, $U =
   \sum_i\varepsilon_ip_iq_i'$ for some singular value decomposition $A = \sum_{i=1}^r s_ip_iq_i'$ and signs
   $\varepsilon_i$ (+1 where $s_i = 0$). G has the eigenvalues $g_i = \varepsilon_is_i$, and the excess over the minimum
   is $2\sum_{\varepsilon_i = -1}s_i$.
2. *Hessian.* There $\langle X, \mathrm{Hess} f[X]\rangle = \mathrm{tr}\,XGX'$; its eigenvalues are $(g_i+g_j)/2$, i <
   j, and $g_j$, each d-r times.
3. *d > r.* The critical points with positive semidefinite Hessian are the global minimisers. At every other one the
   Hessian has an eigenvalue at most $-s_\rho < 0$, at least d-r times: a strict saddle. A may have any rank.
4. *d = r.* If det A = 0, both components of O(r) contain global minimisers, and every critical point with positive
   semidefinite Hessian is one. If det A is not 0, there are others, and they are exactly the points with a single
   negative sign, at an i with $s_i = s_r$. They are the minimisers over the component that lacks the global one, hence
   local minimisers, with excess $2s_r = -2\,\lambda_{min}(U'A)$. The smallest eigenvalue of their Hessian is
   $(s_{r-1}-s_r)/2$; they are strict if and only if $s_{r-1} > s_r$ (or r = 1). All critical points that are neither
   these nor global minimisers are strict saddles.
5. *In the data.* Such false minima exist exactly if d = r and $A = 2HF' + \delta U_{prox}$ is invertible. For the
   reduced frame, d = C-1 and $\delta = 0$: exactly if the centred means have rank C-1, and then half of all random
   starts are in the wrong component. For the paper's frame, d = C and $\delta = 0$: never, since A1 = 0; from almost
   every start the nearest ETF is reached, the invisible direction takes the reflection. With $\delta > 0$ and a prox on
   the manifold they exist if A is invertible, but have an excess of at most $2\delta$, and if rank(HM) = C-1 their ETF
   is within $4\delta/(\sqrt{C-1}\,s)$ of the minimiser's, s the smallest non-zero singular value of 2HM.
6. *Gradient flow.* In the canonical metric the flow is $\dot U = A - UA'U$. Write $A = P_1S_1Q_1'$ with $S_1 > 0$. Then
   $f(U(t)) \to \min f$ if and only if $I + W$ is invertible, $W = P_1'U(0)Q_1$; otherwise the excess is at least
   $2s_\rho$ for all t. The set of the other starts has measure zero if d > r or det A = 0; if d = r and det A is not 0,
   it has measure zero in the component of the minimiser, and is all of the other. In closed form $P_1'U(t)Q_1 = (I -
   Y)(I + Y)^{-1}$, $Y = e^{-tS_1}(I - W)(I + W)^{-1}e^{-tS_1}$.
7. *Gradient descent* $U \mapsto R_U(-\alpha\,\mathrm{grad} f(U))$ with the polar retraction: there is an $\alpha_0 > 0$
   such that for $0 < \alpha < \alpha_0$ and almost every start it converges to a minimiser of f over the component of
   the start; to a global one if d > r or det A = 0.

So a solver that converges to a point which satisfies the second-order conditions has solved the problem if d > r; if d
= r this is to be checked, and the sign of $\lambda_{min}(U'A)$ tells. Nothing is claimed here of the iterates of a
trust-region method.

## Assumptions

A is any real d x r matrix, d >= r >= 1. Gradient and Hessian are those of the Euclidean metric, in 6 the gradient is
that of the canonical one; critical points do not depend on the metric. Measure zero is meant for the uniform measure of
the component.

## Proof

**1.** The gradient is $-(A - U\,\mathrm{sym}(U'A))$. Where it vanishes, multiplying by U' shows G = U'A to be
symmetric, and A = UG; the converse is plain. Take an orthonormal eigenbasis $Gq_i = g_iq_i$, $\varepsilon_i$ the sign
of $g_i$ (+1 for 0) and $p_i = \varepsilon_iUq_i$, orthonormal. Then $Aq_i = g_iUq_i = \lvert g_i\rvert p_i$: a singular
value decomposition, and $U = \sum\varepsilon_ip_iq_i'$. Conversely such a U has $U'A = \sum\varepsilon_is_iq_iq_i'$ and
$UU'A = A$. Finally $\langle A, U\rangle = \mathrm{tr}\,G$, while the maximum of $\langle A, U\rangle$ is $\sum s_i$.

**2.** At a critical point the form is the second derivative of f along any curve with $\dot U = X$. Twice
differentiating U'U = I, $\mathrm{sym}(U'\ddot U) = -X'X$, so it is $-\langle UG, \ddot U\rangle =
-\mathrm{tr}\,G\,\mathrm{sym}(U'\ddot U) = \mathrm{tr}\,GX'X$. Tangents are $X = U\Omega + N$ with $\Omega$ skew and U'N
= 0. In the basis of the $q_i$, with $n_j = Nq_j$, $\mathrm{tr}\,GX'X = \sum_{i<j}(g_i+g_j)\,\omega_{ij}^2 +
\sum_jg_j\|n_j\|^2$ and $\|X\|^2 = 2\sum_{i<j}\omega_{ij}^2 + \sum_j\|n_j\|^2$.

**3.** If all $g_j \ge 0$, the excess is 0. Else some $g_j = -s_j < 0$ is an eigenvalue, d-r times, and $s_j \ge
s_\rho$.

**4.** Let the Hessian be positive semidefinite and the excess positive, $g_k = -s_k < 0$. Then $g_j \ge s_k > 0$ for
all other j, so that all $s_j > 0$, i.e. det A is not 0, $s_k = s_r$, and k is the only negative sign. Conversely at
such a point the eigenvalues are $(s_j - s_r)/2 \ge 0$ for the pairs with k, and the others are positive. If det A = 0,
replacing $p_r$ by $-p_r$ takes a global minimiser to one in the other component. If not, the global minimiser is unique
(`theory/gauge.py`); a minimiser over the other component, which is compact and open in O(r), has a positive
semidefinite Hessian, so it is one of these points; they all have the same value, and the determinant of that component,
so all are its minimisers. If $s_{r-1} > s_r$ (r > 1) the Hessian is positive definite. If $s_{r-1} = s_r$, turning
$(p_k, q_k)$ within the singular spaces of $s_r$ gives a continuum of them.

**5.** The reduced frame has $\mathrm{rank}(HF') = $ the rank of the centred means; both components of O(r) have measure
1/2. For the paper's frame $s_C(A) \le \|A1\|/\sqrt C = \delta\|U_{prox}1\|/\sqrt C = \delta$. The false minimum is
$U^* - 2p_Cq_C'$, so its ETF is off by $2\|Mq_C\|$; with $2HMq_C = s_Cp_C - \delta U_{prox}q_C$,
$\;(C-1)^{1/2}s\,\|Mq_C\| \le \|2HMq_C\| \le 2\delta$.

**6.** That -(A - UA'U) is the gradient in the canonical metric is (2.53) of Edelman, Arias and Smith (1998). U'U = I is
preserved, and the solution exists for all t, since the manifold is compact. Let $\dot T = A'UT$, T(0) = I; T stays
invertible (a linear equation), and X = UT has $\dot X = (A - UA'U)T + UA'UT = AT$, while $\dot T = A'X$. With $x =
P_1'XQ$, $y = Q_1'TQ$, where $Q = (Q_1, Q_2)$ is orthogonal, $\dot x = S_1y$ and $\dot y = S_1x$, so $x + y =
e^{tS_1}(x_0 + y_0)$, $y - x = e^{-tS_1}(y_0 - x_0)$. As $Q_2'A' = 0$, $Q_2'T = Q_2'$ is constant, so $Q'TQ$ is block
upper triangular with y on top and (0, I) below, and the first block column of $P_1'UQ = x\,(Q'TQ)^{-1}$ is
$x_1y_1^{-1}$, with $x_1, y_1 = \frac12\bigl(e^{tS_1}(I + W) \mp e^{-tS_1}(I - W)\bigr)$, the columns of $Q_1$. If I + W
is invertible, this is the closed form; $Y \to 0$, $P_1'UQ_1 \to I$, and $\langle A, U\rangle = \mathrm{tr}\,S_1P_1'UQ_1
\to \mathrm{tr}\,S_1$. If (I + W)v = 0 with v a unit vector, $\|Wv\| = \|v\|$, so $U(0)Q_1v = -P_1v$ (its component off
$P_1$ must vanish). Then $XQ_1v$ and $TQ_1v$ solve the same linear equations as $-P_1e^{-tS_1}v$ and $Q_1e^{-tS_1}v$,
and agree at t = 0. So $UQ_1u = -P_1u$ for u along $e^{-tS_1}v$: with $D = U - U^*$, $U^*$ any minimiser, $B =
(A'A)^{1/2}$, the excess $\frac12\mathrm{tr}\,BD'D$ is at least $\frac{s_\rho}2\|DQ_1\|^2 \ge \frac{s_\rho}2\cdot4$,
since $U^*Q_1 = P_1$ (the identity is (*) of `theory/conditioning.py` with $A_1 = A$, without the term of $B_2$:
$\langle A, U^* - U\rangle = \mathrm{tr}\,B(I - \mathrm{sym}(U^{*\prime}U))$). The function $\det(I + P_1'UQ_1)$ is
analytic, and is $2^\rho$ at a global minimiser. Zeros of an analytic function on a connected analytic manifold fill it
or have measure zero: the latter in each component that contains a minimiser, St(d, r) itself if d > r, both components
if det A = 0. If d = r and $\rho = r$, $P_1'UQ_1$ is orthogonal, in the other component with determinant -1: an
eigenvalue is -1.

**7.** $g_\alpha(U) = R_U(-\alpha\,\mathrm{grad} f(U))$ is smooth in $(\alpha, U)$ and $g_0$ is the identity, so that by
compactness its derivative is invertible everywhere for small $\alpha$. At a critical point $Dg_\alpha = I -
\alpha\,\mathrm{Hess} f$, which at a strict saddle has an eigenvalue above 1. By theorem 2 of Lee et al. (2019) (a $C^1$
map of a manifold to itself with invertible derivative everywhere: the starts from which it converges to fixed points
with an eigenvalue of modulus above 1 have measure zero), almost no start leads to a strict saddle. Every start leads to
a critical point: by compactness $f\circ R_U$ has a Hessian of norm at most some L near 0 for all U, so for $\alpha <
1/L$ a step lowers f by at least $\frac\alpha2\|\mathrm{grad} f\|^2$, has a length between constant multiples of
$\alpha\|\mathrm{grad} f\|$, and f is analytic on an analytic manifold: the iterates converge to one point, which is
critical (Absil, Mahony, Andrews 2005; on manifolds Schneider and Uschmajew 2015, section 2: a descent proportional to
gradient times step, and steps not shorter than a multiple of the gradient, for an analytic function). A step joins its
ends by a path, so the component is kept. The claim follows from 3 and 4.

## In the code

- `etfopt.certificate.Certificate`: `curvature` is lambda_min(sym(U'A)); with d = r and a small stationarity it tells
  false minima.
- `etfopt.solvers.trust_region.TrustRegion`: the first of its `restarts` is the start reflected into the other
  component.
- `etfopt.solvers.base.Termination`: a small gradient is what a solver says, not optimality.

## References

Absil, Mahony, Andrews (2005), SIAM J. Optim. 16. Edelman, Arias, Smith (1998), SIAM J. Matrix Anal. Appl. 20. Lee,
Panageas, Piliouras, Simchowitz, Jordan, Recht (2019), First-order methods almost always avoid strict saddle points,
Math. Program. 176. Schneider, Uschmajew (2015), SIAM J. Optim. 25. Umeyama (1991), for rotations: the minimiser over a
component.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etfopt import NearestETF, certify, nearest_etf, simplex_etf
from etfopt.solvers import TrustRegion
from theory._landscape import component, curve, descend, flow_block, hessian, integrate, signs, start_on_barrier
from theory._linalg import EPS, nuclear, spectral, values
from theory.draws import matrix, problem, spectrum, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather


def _critical(rng: np.random.Generator) -> Iterator[Residual]:
    """Take any sign pattern of any problem: gradient, excess, and the spectrum of the Hessian that etfopt gives."""
    case = problem(rng)
    A = case.linear_term
    (d, r), (left, s, Qt) = A.shape, np.linalg.svd(A, full_matrices=False)
    rank = int(np.sum(s > r * EPS * s[0])) if s[0] else 0
    epsilon = signs(rng, r, rank)
    U, g = (left * epsilon) @ Qt, epsilon * s
    found = certify(case, U)
    size = (s[0] or 1.0) + spectral(case.F) ** 2 + case.delta
    tolerance = 100 * r * EPS
    yield Residual(found.relative_stationarity, tolerance, "gradient")
    yield Residual(abs(found.gap - 2 * s[epsilon < 0].sum()) / (s[0] or 1), tolerance, "excess")
    yield Residual(abs(found.curvature - g.min()) / (s[0] or 1), tolerance, "curvature of the certificate")
    spectrum_found = np.linalg.eigvalsh(hessian(case, U))
    pairs = (g[:, None] + g)[np.triu_indices(r, 1)] / 2
    expected = np.sort(np.append(pairs, np.repeat(g, d - r)))
    if not expected.size:
        return
    yield Residual(float(np.abs(spectrum_found - expected).max()) / size, 20 * tolerance, "spectrum of the Hessian")
    lowest, excess = float(spectrum_found[0]), found.gap
    if s[0] < 1e-6 * size or (rank and s[rank - 1] < 1e-8 * size):
        return  # the quadratic terms, which cancel, leave no digits
    flipped = epsilon < 0
    if d > r and flipped.any():
        yield at_least(-lowest, s[rank - 1] * (1 - 1e-5), "a strict saddle, d > r")
    if d == r and flipped.any() and (flipped.sum() > 1 or s[flipped][0] > s[-1] * (1 + 1e-6) + 1e-7 * size):
        yield at_least(-lowest, 1e-8 * s[-1], "a strict saddle, d = r")
    yield Residual(-excess / size, tolerance, "excess below 0")


def _flow(rng: np.random.Generator) -> Iterator[Residual]:
    """Integrate the flow from any start and from the barrier, any rank; compare with the closed form and its limit."""
    r = int(rng.integers(1, 5))
    d, rank = r + int(rng.choice([0, 1, 3])), int(rng.integers(1, r + 1))
    s = np.where(np.arange(r) < rank, spectrum(rng, r, "generic"), 0.0)
    A = matrix(rng, d, s)
    left, s, Qt = np.linalg.svd(A, full_matrices=False)
    P, Q, s = left[:, :rank], Qt[:rank].T, s[:rank]
    U0 = stiefel(rng, d, r)
    W = P.T @ U0 @ Q
    time = rng.uniform(0.5, 2) / s[0]
    U = integrate(A, U0, time)
    gap = float(np.linalg.svd(np.eye(rank) + W)[1][-1])
    if gap > 1e-4:
        expected = flow_block(W, s, time)
        yield Residual(float(np.linalg.norm(P.T @ U @ Q - expected)), 1e-7, "the flow in closed form")
        late = 0.5 * np.log(1e8 / gap) / s[-1]
        excess = float(s @ (1 - np.diag(flow_block(W, s, late))))
        yield Residual(excess, 1e-6 * rank**2, "the limit of the flow")
    false = d == r == rank and np.linalg.det(W) < 0
    if false:
        yield Residual(gap, 1e-12, "the barrier fills the other component")
    elif rank < r or d > r or rank == 1:
        yield at_least(gap, 1e-12, "a random start off the barrier")
    barred = start_on_barrier(rng, P, Q)
    W = P.T @ barred @ Q
    yield Residual(float(np.linalg.svd(np.eye(rank) + W)[1][-1]), 1e-12, "I + W on the barrier")
    excess = nuclear(A) - float(np.vdot(A, integrate(A, barred, time)))
    yield at_least(excess, 2 * s[-1] * (1 - 1e-6), "excess from the barrier")


def _descent(rng: np.random.Generator) -> Iterator[Residual]:
    """Descend from a random start: d > r, d = r, and the paper's frame without a proximal term at d = C."""
    C = int(rng.integers(2, 5))
    d = C + int(rng.choice([0, 0, 1, 4]))
    F = simplex_etf(C, reduced=bool(rng.integers(2)))
    case = NearestETF(rng.standard_normal((d, C)) / d, frame=F)
    if len(F) < C and rng.integers(2):
        case = NearestETF(case.H[: C - 1], frame=F)
    A, start = case.linear_term, stiefel(rng, case.d, case.r)
    end = certify(case, descend(A, start))
    s = values(A)
    false = case.d == case.r and np.linalg.det(A) * np.linalg.det(start) < 0
    yield Residual(abs(end.gap - (2 * s[-1] if false else 0)) / s[0], 1e-7, "excess at the end of a descent")
    yield Residual(end.relative_stationarity, 1e-6, "stationarity at the end of a descent")


def _trust_region(rng: np.random.Generator) -> Iterator[Residual]:
    """Run the paper's solver at d = r from both components; its restart must repair the wrong one."""
    C = int(rng.integers(2, 5))
    H, F = rng.standard_normal((C - 1, C)), simplex_etf(C, reduced=True)
    start = stiefel(rng, C - 1, C - 1)
    s, wrong = values(2 * H @ F.T), np.linalg.det(H @ F.T) * np.linalg.det(start) < 0
    run = nearest_etf(H, frame=F, solver=TrustRegion(), initial_point=start, throw=False).certificate
    yield Residual(abs(run.gap - (2 * s[-1] if wrong else 0)) / s[0], 1e-9, "excess of a trust region")
    again = nearest_etf(H, frame=F, solver=TrustRegion(restarts=1), initial_point=start).certificate
    yield Residual(again.relative_gap, 1e-10, "excess after a reflected restart")


PARTS = (
    *(Part(_critical, 3), Part(curve, 3), Part(component, 2)),
    *(Part(_flow, 0.5), Part(_descent, 0.3), Part(_trust_region, 0.05)),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: Hessians at all kinds of critical points, flows and descents from random starts."""
    return gather(rng, budget, PARTS)
