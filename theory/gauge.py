r"""Which part of U the data determine, and what the proximal term does to the ETF.

## Statement

Let $A = 2HF' + \delta P$, $P = U_{prox}$. For the simplex let $n = 1/\sqrt C$ (the constant unit vector), Z the Helmert
matrix ($ZZ' = I_{C-1}$, Zn = 0), $R = Z/\sqrt{C-1}$ the reduced frame, so that $M = Z'R$.

1. *Uniqueness.* U is unique if and only if rank A = r; the ETF UF is unique if and only if F' vanishes on the null
   space of A. Without a proximal term the latter says rank(HF') = rank F. So for F = M and $\delta = 0$ the minimiser U
   is never unique, and UM is unique if and only if rank(HM) = C-1.
2. *The gauge.* For F = M, $A1 = \delta P1$: along 1, A holds nothing of the data.
3. *Two frames.* Let d >= C. $U \mapsto UZ'$ maps St(d, C) onto St(d, C-1), the fibre over V being all unit vectors $w =
   Un$ orthogonal to V, and $UM = (UZ')R$. For $\delta = 0$ it maps minimisers of the paper's problem onto those of the
   reduced one: same value, same set of nearest ETFs; the singular values of 2HM are those of 2HR' and 0. For $\delta >
   0$ and a minimiser U, with V = UZ', w = Un, a = V'Pn, B = U'A,
   $$2HR' + \delta PZ' = V\,(ZBZ') + \delta\,wa':$$
   V is a polar factor of $2HR' + \delta(PZ' - wa')$, while the reduced problem with prox PZ' asks for one of $2HR' +
   \delta PZ'$. If Pn is orthogonal to the latter, both have the same nearest ETF; in particular if P solves the problem
   with $\delta = 0$, when the ETF does not depend on $\delta$ at all. In general they differ: for C = 2, $2HR' = he_1$,
   $P = [e_2, e_1]$ in the coordinates (Z', n) their angles to $e_1$ are $\arctan(2\delta/h)$ and $\arctan(\delta/h)$.
4. *Limit.* Let rank(HM) = C-1, $s$ the smallest singular value of 2HR', and $E_0$ the ETF for $\delta = 0$. For all
   $\delta \ge 0$, every P and every minimiser, $\|UM - E_0\|_F \le 2\sqrt2\,\delta\|P\|_F/(\sqrt{C-1}\,s)$; and for the
   reduced problem with any prox $P_R$, $\|VR - E_0\|_F \le 2\,\delta\|P_R\|_F/(\sqrt{C-1}\,s)$.
5. *Bias.* Let D be the derivative of the polar factor at 2HR', $V_0$ that factor, $a_0 = V_0'Pn$, $c = \|(I -
   V_0V_0')Pn\| > 0$ and $w_0 = (I - V_0V_0')Pn/c$. Then, for $\sqrt2\,\delta\|P\|_F \le s/2$,
   $$UM = E_0 + \delta\,D[PZ' - w_0a_0']\,R + \Delta R, \qquad
     \|\Delta\|_F \le \Bigl(18 + 2\sqrt2\,(1 + 2\|a_0\|/c)\Bigr)\Bigl(\frac{\delta\|P\|_F}{s}\Bigr)^2,$$
   and for the reduced problem $VR = E_0 + \delta\,D[P_R]\,R + \Delta R$, $\|\Delta\|_F \le 9\,(\delta\|P_R\|_F/s)^2$.
   The first is also what the derivative of the polar factor at 2HM gives along P if it is taken at $U_0 = V_0Z +
   w_0n'$, the limit of U, with 1/0 read as 0: $D(UM)[\delta P]$.
6. *Conditioning.* For F = M, P on the manifold and any minimiser $U_0$ for $\delta = 0$, $\delta\,(1 - \|P -
   U_0\|_2^2/2) \le s_C(A) \le \delta$: the condition number of A grows like $1/\delta$, and so does the derivative of
   U. That of the ETF does not. Where $s_C(A) > 0$,
   $$\|D(UM)(H)\| \le \frac{2}{(C-1)\,\lambda_{min}\bigl(ZBZ' - \delta\,aa'/(w'Pn)\bigr)}
     \le \frac{2}{(C-1)\,\bigl(s - \delta(\sqrt2\,\|P\|_F + \|a\|^2/(w'Pn))\bigr)}$$
   (the last where its bracket is positive), with equality in the first for d > C. Turning w by an angle $\theta$ within
   the complement of V raises the objective by $\delta\,(w'Pn)(1 - \cos\theta)$ and leaves the ETF: a solver that stops
   at a gap g leaves U wrong by up to about $(2g/\delta)^{1/2}$ there.

## Assumptions

d >= r, and d >= C wherever F = M. P any d x C matrix, $P_R$ any d x (C-1) matrix, but where said. Exact arithmetic.

## Proof

**1.** Let $A = P_1S_1Q_1'$ with $S_1 > 0$, and $P_2, Q_2$ orthonormal bases of the complement of its range and of its
null space. Minimising is maximising $\langle A, U\rangle = \sum_i s_i\,p_i'Uq_i \le \sum_i s_i$, with equality exactly
if $Uq_i = p_i$ for all i (unit vectors with inner product 1). So the minimisers are $U = P_1Q_1' + P_2WQ_2'$ with any W
with orthonormal columns (d - rank A >= r - rank A rows); all have $U'A = Q_1S_1Q_1' = B$ and UB = A. If $Q_2$ is not
empty, W and -W give two; their ETFs differ by $2P_2WQ_2'F$, which is zero exactly if $Q_2'F = 0$, and then no W enters
the ETF. For $\delta = 0$, F'v = 0 implies Av = 0, so null F' is contained in null(HF'), and equality is equality of
ranks. M1 = 0.

**2.** $A1 = 2HM1 + \delta P1$.

**3.** UZ' has orthonormal columns because Z has orthonormal rows, and is orthogonal to w = Un because Zn = 0.
Conversely any V and a unit w orthogonal to it, which exists as d >= C, make $U = VZ + wn'$ a point with UZ' = V. $UM =
UZ'R$, so the objectives agree for $\delta = 0$. $2HM = (2HR')Z$. By 1 any minimiser has A = UB, B symmetric positive
semidefinite, hence $AZ' = (VZ + wn')BZ' = V(ZBZ') + w\,(ZBn)'$ and $ZBn = ZU'An = \delta V'Pn = \delta a$: the
identity, in which $ZBZ' \succeq 0$. Writing $A_R = 2HR' + \delta PZ'$, the paper's problem maximises $\langle A,
U\rangle = \langle A_R, V\rangle + \delta\langle Pn, w\rangle \le \|A_R\|_* + \delta\|Pn\|$. If Pn is orthogonal to a
maximiser V of the first term, this V and w along Pn reach the bound. If P minimises for $\delta = 0$, PZ' is a polar
factor $V_0$ of 2HR' and Pn is orthogonal to it; $2HR' + \delta V_0 = V_0(B_0 + \delta I)$. In the example V =
$(\cos\theta, \sin\theta)$ has the value $h\cos\theta + \delta\sin\theta$ for the reduced problem; for the paper's the
best w adds $\delta\,\|(I-VV')e_1\| = \delta|\sin\theta|$.

**4.** For the reduced problem this is bound 2 of `theory/conditioning.py`, with $\|XR\|_F = \|X\|_F/\sqrt{C-1}$ as $RR'
= I/(C-1)$. By 3 the same bound holds for the paper's with $\|PZ' - wa'\|_F \le \|PZ'\|_F + \|Pn\| \le \sqrt2\|P\|_F$ in
place of $\|P_R\|_F$.

**5.** *Second derivatives.* Let A(t) = A + tX have full rank, A = UB along it; write $Y = \dot U$, $\Omega = U'Y$
(skew), s for the smallest singular value, norms without index for Frobenius norms. By `theory/conditioning.py`, $\|Y\|
\le \|X\|/s$, so $\|\Omega\|_2 \le \|\Omega\|/\sqrt2 \le \|X\|/(\sqrt2s)$ (the singular values of a skew matrix are
paired). In a basis of eigenvectors of B, with K = U'X, $\dot b_{ij} = k_{ij} - \omega_{ij}s_j = (k_{ij}s_i +
k_{ji}s_j)/(s_i+s_j)$ lies between $k_{ij}$ and $k_{ji}$, so $\|\dot B\| \le \sqrt2\|X\|$. Differentiate $X = YB + U\dot
B$ and $U'U = I$ once more: $0 = \ddot UB + 2Y\dot B + U\ddot B$, and $U'\ddot U = -Y'Y + \Theta$ with $\Theta$ skew.
Multiply by U' and subtract the transpose: $\Theta B + B\Theta = Y'YB - BY'Y - 2(\Omega\dot B + \dot B\Omega)$, so

$$\|\Theta\| \le \|Y'Y\| + \frac{2\cdot2\,\|\Omega\|_2\|\dot B\|}{2s} \le 3\,\frac{\|X\|^2}{s^2}, \qquad
  \|(I-UU')\ddot U\| = 2\,\|(I-UU')Y\dot BB^{-1}\| \le 2\sqrt2\,\frac{\|X\|^2}{s^2},$$

because the first term of $\theta_{ij}$ has the factor $(s_j-s_i)/(s_i+s_j)$. As $Y'Y$ is symmetric and orthogonal to
$\Theta$, $\|\ddot U\| \le (1 + 9 + 8)^{1/2}\|X\|^2/s^2$. For $\|X\|_2 \le s/2$ all A(t) have smallest value at least
s/2, and Taylor's theorem leaves at most $\frac12\cdot\sqrt{18}\cdot4\,\|X\|^2/s^2 < 9\,\|X\|^2/s^2$ beyond U + D[X].
*Reduced problem:* $X = \delta P_R$. *Paper's problem:* by 3, V is the polar factor of 2HR' + X with $X = \delta(PZ' -
wa')$, $\|X\| \le \sqrt2\,\delta\|P\|$, which leaves $18\,(\delta\|P\|/s)^2$. It remains to replace wa' by $w_0a_0'$.
Put $t = \|V - V_0\| \le 2\sqrt2\,\delta\|P\|/s$. Then $\|a - a_0\| \le t\|Pn\|$. The w of a minimiser is the normalised
$(I-VV')Pn$ (any unit vector orthogonal to V if that is zero), $\|x/\|x\| - y/\|y\|\| \le 2\|x-y\|/\|y\|$, and $\|VV' -
V_0V_0'\|_2 = \|(I - V_0V_0')V\|_2 \le t$ (Golub and Van Loan, section 2.5.3), so that $\|w - w_0\| \le 2t\|Pn\|/c$;
where $(I-VV')Pn = 0$ this holds since then $c \le t\|Pn\|$. With $\|D\| \le 1/s$ the replacement costs at most
$\frac\delta s(\|w-w_0\|\|a_0\| + \|a-a_0\|) \le \frac\delta s\,t\,\|P\|(1 + 2\|a_0\|/c)$. *The full frame:* in the
basis (Z', n) of the right singular vectors, at $U_0$, the closed form has along $V_0$ the same rotation, and along
$w_0$ the entries $(w_0'PZ' - (V_0'Pn)')_j/(0 + s_j)$: those of $D[PZ' - w_0a_0']$. The column n is killed by M.

**6.** $\|An\| = \delta\|Pn\| = \delta$ bounds $s_C$ above; below it is 4 of `theory/conditioning.py` with $s_C(2HM) =
0$. By 3 of that file the norm is at most (for d > C: is) $2\lambda_{max}(MB^{-1}M)$, and $MB^{-1}M = R'(ZB^{-1}Z')R$
with $RR' = I/(C-1)$. In the basis (Z', n), B has the blocks ZBZ', $\delta a$, and $n'Bn = n'U'An = \delta\,w'Pn$, so
$ZB^{-1}Z'$ is the inverse of the Schur complement in the statement. Its smallest eigenvalue is at least $s_{C-1}(2HR' +
X) - \delta\|a\|^2/(w'Pn)$, and $\|X\|_2 \le \sqrt2\,\delta\|P\|$. Last, $\langle Pn, \tilde w\rangle = (w'Pn)\,w'\tilde
w$ for unit $\tilde w$ orthogonal to V, as w is along $(I-VV')Pn$; and $w'Pn \le 1$.

## In the code

- `etfopt.certificate.Certificate`: `unique` and `etf_unique` are the two notions of 1.
- `etfopt._rounding.frame_ignores`: the condition of 1.
- `etfopt.adjoint.nearest_etf_vjp`: by 6 the gradient of a loss of the ETF does not grow with 1/delta.
- `etfopt.frames.simplex.simplex_etf`: the two frames of 3.

## References

Markou, Ajanthan, Gould (2024), arXiv 2411.01248, add the proximal term for uniqueness. Golub and Van Loan (2013),
Matrix Computations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etfopt import NearestETF, certify, simplex_etf, solve
from etfopt.adjoint import nearest_etf_jvp
from theory._gauge import Split, bias, bias_by_full_frame, remainder, slant, uniqueness
from theory._linalg import EPS, spectral, values
from theory.draws import polar, stiefel
from theory.registry import Evidence, Part, Residual, gather


def _frames(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare both frames without a proximal term: values at any point, optimal values, nearest ETFs."""
    case = Split.draw(rng)
    H, C, d = case.H, case.C, case.d
    paper, reduced = NearestETF(H), NearestETF(H, frame=case.R)
    size = max(float(np.linalg.norm(H)), 1e-300)
    U = stiefel(rng, d, C)
    V = U @ case.Z.T
    tolerance = 50 * C * EPS
    spread = np.linalg.norm(H - U @ paper.F) - np.linalg.norm(H - V @ case.R)
    yield Residual(abs(float(spread)) / (size + 1), tolerance, "objective at a point")
    yield Residual(float(np.linalg.norm(U @ paper.F - V @ case.R)), tolerance, "ETF at a point")
    ends = solve(paper), solve(reduced)
    s, t = values(paper.linear_term), values(reduced.linear_term)
    yield Residual(float(np.abs(s[:-1] - t).max() + s[-1]) / size, tolerance, "singular values")
    yield Residual(abs(ends[0].certificate.gap - ends[1].certificate.gap) / size, tolerance, "optimal value")
    off = float(np.linalg.norm(ends[0].etf - ends[1].etf))
    yield Residual(off * t[-1] / size, tolerance, "nearest ETF")
    mapped = certify(reduced, polar(ends[0].U @ case.Z.T))
    yield Residual(mapped.gap / size, tolerance, "the image of a minimiser")
    W = np.linalg.svd(ends[1].U)[0][:, C - 1 :] @ stiefel(rng, d - C + 1, 1)
    whole = ends[1].U @ case.Z + W @ case.n[None]
    yield Residual(certify(paper, whole).gap / size, tolerance, "the lift of a minimiser")


def _identities(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 2 and 3 with a proximal term at the minimiser that etfopt finds; equal and unequal ETFs of the two frames."""
    case = Split.draw(rng)
    P, delta = case.prox(rng), 10.0 ** rng.uniform(-4, 1) * case.s
    problem = NearestETF(case.H, P, delta)
    A, U = problem.linear_term, solve(problem).U
    size, tolerance = float(np.linalg.norm(A)), 100 * case.C * EPS
    yield Residual(float(np.linalg.norm(A.sum(axis=1) - delta * P.sum(axis=1))) / size, tolerance, "A1 = delta P1")
    V, w = U @ case.Z.T, U @ case.n
    turn = delta * np.outer(w, V.T @ P @ case.n)
    AR = 2 * case.H @ case.R.T + delta * P @ case.Z.T
    B = case.Z @ (U.T @ A) @ case.Z.T
    yield Residual(float(np.linalg.norm(AR - V @ B - turn)) / size, tolerance, "A_R = V ZBZ' + delta wa'")
    nearest = polar(AR - turn)
    smallest = values(AR - turn)[-1]
    yield Residual(float(np.linalg.norm(nearest - V)) * smallest / size, tolerance, "V as a polar factor")
    VR = polar(AR)
    beside = P - np.outer(VR @ (VR.T @ P @ case.n), case.n)
    same = solve(NearestETF(case.H, beside, delta)).etf
    yield Residual(float(np.linalg.norm(same - VR @ case.R)) * values(AR)[-1] / size, tolerance, "Pn orthogonal to V")
    still = NearestETF(case.H, case.U0(rng), delta)
    yield Residual(float(np.linalg.norm(solve(still).etf - case.E0)), 20 * case.C * EPS * case.kappa, "no bias")
    h, k = rng.uniform(0.1, 1, 2)
    H, Q = np.outer([h / 2, 0], simplex_etf(2, reduced=True)), np.array([[0, 1], [1, 0.0]])
    F = simplex_etf(2, reduced=True)
    P = np.asarray(Q @ np.vstack([F, [np.sqrt(0.5)] * 2]))
    one, two = solve(NearestETF(H, P, k)).etf @ F.T, solve(NearestETF(H, P @ F.T, k, F)).etf @ F.T
    yield Residual(abs(float(one[1, 0] / one[0, 0]) - 2 * k / h), 1e-13 * (1 + k / h) ** 2, "C = 2, paper's frame")
    yield Residual(abs(float(two[1, 0] / two[0, 0]) - k / h), 1e-13 * (1 + k / h) ** 2, "C = 2, reduced frame")


def _limit(rng: np.random.Generator) -> Iterator[Residual]:
    """Measure how far delta moves the ETF: the bound of 4 for any delta, and the first order of 5 for small ones."""
    case = Split.draw(rng)
    P = case.prox(rng)
    size, lost = float(np.linalg.norm(P)), 1 + slant(case, P)
    for ratio in 10.0 ** rng.uniform([-5, -2], [-1, 2]):
        delta = ratio * case.s / size
        rounding = 50 * case.C * EPS * (case.kappa + ratio * lost)
        small = np.sqrt(2) * ratio <= 0.5
        for Q, problem, factor in (
            (P, NearestETF(case.H, P, delta), 2 * np.sqrt(2)),
            (P @ case.Z.T, NearestETF(case.H, P @ case.Z.T, delta, case.R), 2.0),
        ):
            reduced = problem.r < case.C
            moved = (solve(problem).etf - case.E0) * np.sqrt(case.C - 1)
            relative = delta * float(np.linalg.norm(Q)) / case.s
            what = "reduced" if reduced else "paper's"
            yield Residual(float(np.linalg.norm(moved)), factor * relative + rounding, f"bound, {what} frame")
            if small:
                first = delta * bias(case, Q) @ case.R * np.sqrt(case.C - 1)
                allowed = remainder(case, Q) * relative**2 + rounding
                yield Residual(float(np.linalg.norm(moved - first)), allowed, f"first order, {what} frame")
    full, split = bias_by_full_frame(case, P), bias(case, P) @ case.R
    scale = float(np.linalg.norm(P)) / case.s
    yield Residual(float(np.linalg.norm(full - split)) / scale, 200 * case.C * EPS * case.kappa * lost, "D(UM)[P]")


def _condition(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the Jacobian of the ETF with 6, from faint to heavy proximal terms; bound the gauge direction of A."""
    case = Split.draw(rng, largest=4)
    U0 = case.U0(rng)
    P = polar(np.asarray(U0 + 10.0 ** rng.uniform(-4, -0.5) * rng.standard_normal(U0.shape)))
    delta = case.s * 10.0 ** rng.uniform(-7, 0)
    problem = NearestETF(case.H, P, delta)
    A, U = problem.linear_term, solve(problem).U
    s, top = values(A)[-1], spectral(A)
    near = 1 - spectral(P - U0) ** 2 / 2
    rounding = 20 * case.C * EPS * top
    yield Residual(s - delta, rounding, "s_C(A) above delta")
    yield Residual(delta * near - s, rounding, "s_C(A) below its bound")
    V, w = U @ case.Z.T, U @ case.n
    a, weight = V.T @ P @ case.n, float(w @ P @ case.n)
    schur = case.Z @ (U.T @ A) @ case.Z.T - delta * np.outer(a, a) / weight
    constant = 2 / ((case.C - 1) * float(np.linalg.eigvalsh(schur)[0]))
    basis = np.eye(case.H.size).reshape(-1, *case.H.shape)
    norm = float(np.linalg.norm([nearest_etf_jvp(problem, U, dH).ravel() for dH in basis], 2))
    tolerance = 200 * case.C * EPS * top * constant * (1 + 1 / weight)
    miss = norm / constant - 1
    yield Residual(abs(miss) if case.d > case.C else miss, tolerance, "norm of the derivative of the ETF")
    left = case.s - delta * (np.sqrt(2 * case.C) + float(a @ a) / weight)
    if left > 0:
        yield Residual(norm * (case.C - 1) * left / 2 - 1, tolerance, "its bound for faint delta")
    if case.d > case.C:
        normal = np.linalg.svd(U)[0][:, case.C]
        wrong = U + np.outer((np.cos(0.3) - 1) * w + np.sin(0.3) * normal, case.n)
        turned = certify(problem, wrong).gap - delta * weight * (1 - np.cos(0.3))
        yield Residual(abs(turned), 10 * rounding, "objective of a turn in the gauge")


PARTS = (Part(uniqueness, 4), Part(_frames, 2), Part(_identities, 2), Part(_limit, 3), Part(_condition))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: both frames, any rank and prox, delta from faint to heavy, whole Jacobians."""
    return gather(rng, budget, PARTS)
