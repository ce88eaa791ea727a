r"""How far the minimiser and its ETF move when the class means move.

## Statement

Write $P = U_{prox}$, $A = 2HF' + \delta P$ with singular values $s_1 \ge \dots \ge s_r$ and U for a polar factor: a
point of St(d, r) with $A = UB$, $B = U'A$ symmetric positive semidefinite. All norms of maps are from Frobenius to
Frobenius norm.

1. *Locally.* If $s_r > 0$, then $\|DU(A)\| = 1/s_r$ for d > r, $2/(s_{r-1} + s_r)$ for d = r > 1, 0 for d = r = 1.
2. *Globally.* For any $A_1, A_2$, rank deficient or not, and any of their polar factors,
   $$\bigl(s_r(A_1) + s_r(A_2)\bigr)\,\|U_1 - U_2\|_F \le 2\,\|A_1 - A_2\|_F,$$
   with equality for $A_i = sU_i$, and for $A_1 = aU$, $A_2 = -bU$ (a, b >= 0). If d = r > 1 and $\det U_1 = \det U_2$,
   then $(s_{r-1} + s_r)(A_1) + (s_{r-1} + s_r)(A_2)$ may replace the bracket, and 4 the 2; equality for $B \pm K$, K
   skew in the plane of the two smallest values of B, while they remain the smallest.
3. *The ETF.* Let $H_1, H_2$ share F, P and $\delta$, and let $\beta > 0$ satisfy $B_1 + B_2 \succeq \beta FF'$. Then
   $\|U_1F - U_2F\|_F \le (4/\beta)\,\|H_1 - H_2\|_F$. Locally, for $s_r > 0$, $\|D(UF)(H)\| \le
   2\,\lambda_{max}(F'B^{-1}F)$, with equality for d > r; for orthogonal rows, $FF' = c^2I$, it is $2c^2\|DU(A)\|$ for
   every d. `theory/gauge.py` shows that a small singular value which F' kills is not felt.
4. *What delta buys.* With $A_0 = 2HF'$ and any polar factor $U_0$ of it,
   $$s_r(A) \ge s_r(A_0) + \delta\,\lambda_{min}(\mathrm{sym}(U_0'P)),$$
   which for P on the manifold is $s_r(A_0) + \delta\,(1 - \|P - U_0\|_2^2/2)$. At $P = U_0$ every singular value grows
   by exactly $\delta$. Beyond $\|P - U_0\|_2 = \sqrt2$ delta can do harm: $A_0 = sU_0$, $P = -U_0$, $\delta = s$ gives
   A = 0.
5. *Collapse is best.* Given $\|A\|_F$ (and d > 1), the constants of 1 are least, $\sqrt r/\|A\|_F$, exactly where all
   singular values are equal. For the simplex without a proximal term, and $\sigma_i$ the singular values of the centred
   means, $\|D(UF)\| = 1/(\sqrt{C-1}\,\sigma_{C-1})$ (d > C-1): for centred H of unit norm at least 1, and 1 only for an
   ETF.
6. *Rank loss.* At A of rank $\rho < r$ the polar factor has no limit: arbitrarily near there are matrices whose factors
   are 2 apart. The constant of 1 tends to infinity there, except for d = r, $\rho = r-1$, where it tends to
   $2/s_{r-1}$: the factor is then continuous from either side of det = 0 and jumps by a reflection.

## Assumptions

d >= r. F any r x C matrix, not zero; delta >= 0; P any d x r matrix unless said otherwise. Exact arithmetic.

## Proof

**1.** Near A of full rank $U = A(A'A)^{-1/2}$ is analytic. Differentiate A = UB and U'U = I along E, with K = U'E:
$U'dU = \Omega$ is skew, $E = dU\,B + U\,dB$ with dB symmetric. Multiplying by U' gives $K = \Omega B + dB$, so $K - K'
= \Omega B + B\Omega$; multiplying by $I - UU'$ gives $N = (I - UU')E = (I - UU')dU\,B$. In the basis Q of eigenvectors
of B, $\omega_{ij} = (k_{ij} - k_{ji})/(s_i + s_j)$ and $dU = U\Omega + NB^{-1}$, so with the columns $n_j = Nq_j$

$$\|dU\|^2 = \sum_{i<j} 2\,\frac{(k_{ij}-k_{ji})^2}{(s_i+s_j)^2} + \sum_j \frac{\|n_j\|^2}{s_j^2}, \qquad
  \|E\|^2 \ge \sum_{i<j} \frac{(k_{ij}-k_{ji})^2}{2} + \sum_j \|n_j\|^2 .$$

The ratio is at most the largest of $4/(s_i+s_j)^2$, i < j, and, if d > r, $1/s_j^2$. A skew K with the one pair (r-1,
r), or N with the one column r, attain them; and $1/s_r \ge 2/(s_{r-1}+s_r)$.

**2.** Put $X = U_1 - U_2$. Since $A_i = U_iB_i$ and $U_i'U_i = I$,

$$\langle X, A_1 - A_2\rangle = \mathrm{tr}\,(B_1 + B_2)\bigl(I - \mathrm{sym}(U_1'U_2)\bigr)
  = \tfrac12\,\mathrm{tr}\,(B_1 + B_2)\,X'X, \tag{*}$$

because $X'X = 2I - 2\,\mathrm{sym}(U_1'U_2)$ and $B_i$ is symmetric. As $B_1 + B_2 \succeq (s_r(A_1) + s_r(A_2))I$, the
right side is at least half that times $\|X\|^2$, the left at most $\|X\|\|A_1 - A_2\|$. In both equality cases $B_1 +
B_2$ is a multiple of I, and $A_1 - A_2$ one of X: $sX$, and $(a+b)U$ with X = 2U. If d = r and det U_1 = det U_2, then
$U_1'U_2$ is a rotation. Its eigenvalues other than $\pm1$ are conjugate pairs, those equal to -1 even in number, and so
the eigenvalues of $X'X$ other than 0 are even in multiplicity: $\nu_1 = \nu_2 \ge \nu_3 = \nu_4 \ge \dots$ With
$\lambda_1 \le \lambda_2 \le \dots$ those of $B_1 + B_2$, von Neumann's trace inequality gives
$\mathrm{tr}\,(B_1+B_2)X'X \ge \sum_i \lambda_i\nu_i \ge \frac12(\lambda_1 + \lambda_2)\sum_i\nu_i$ (each pair has
$\lambda_{2k-1} + \lambda_{2k} \ge \lambda_1 + \lambda_2$; for odd r the last $\nu$ is 0), and by Ky Fan's minimum
principle $\lambda_1 + \lambda_2$ is at least the sum of the same for $B_1$ and $B_2$. Insert in (*). For equality it is
enough to look at the plane, where $B = \mathrm{diag}(a, b)$, and $B \pm K$ with $K = k\,(e_1e_2' - e_2e_1')$ has the
sum of singular values $\sigma = ((a+b)^2 + 4k^2)^{1/2}$ and as polar factor the turn by an angle of sine $\pm
2k/\sigma$: $\|U_1 - U_2\| = 2\sqrt2\cdot 2k/\sigma$, $\|A_1 - A_2\| = 2\sqrt2\,k$, and $2\sigma\|U_1-U_2\| =
4\|A_1-A_2\|$.

**3.** Now $A_1 - A_2 = 2(H_1 - H_2)F'$, and the left side of (*) is $2\langle XF, H_1 - H_2\rangle$; the right side is
at least $\frac\beta2\,\mathrm{tr}\,X\,FF'X' = \frac\beta2\|XF\|^2$. Locally, B depends continuously on H, and $2B
\succeq \beta FF'$ holds if and only if $\frac\beta2\|B^{-1/2}FF'B^{-1/2}\|_2 = \frac\beta2\lambda_{max}(F'B^{-1}F) \le
1$: in the limit $4/\beta$ is the stated bound. For d > r take a unit v orthogonal to U and a unit top eigenvector w of
$F'B^{-1}F$. Along $dH = vw'$ the tangent $2v(Fw)'$ of A has K = 0, so $dU\,F = 2v\,w'F'B^{-1}F = 2\lambda_{max}\,vw'$.
If $FF' = c^2I$, then $dH \mapsto dH\,F'$ is c times a partial isometry onto all d x r matrices, $X \mapsto XF$ is c
times an isometry, and the norm is $2c\cdot c\,\|DU(A)\|$.

**4.** For unit x, $\|Ax\| \ge \|U_0'Ax\| \ge x'U_0'Ax = x'B_0x + \delta\,x'\mathrm{sym}(U_0'P)x$. For P on the manifold
$\mathrm{sym}(U_0'P) = I - (P-U_0)'(P-U_0)/2$. For $P = U_0$, $A = U_0(B_0 + \delta I)$.

**5.** $r\,s_r^2 \le \|A\|_F^2$, with equality only for equal values; and $(s_{r-1}+s_r)/2$ is at most the root of the
mean of the two smallest squares, itself at most that of the mean of all, with equality only if all are equal. The
reduced frame has $c^2 = 1/(C-1)$ and $2HF'$ has singular values $2\sigma_i/\sqrt{C-1}$, so that by 3 $\|D(UF)\| =
2c^2/s_{C-1} = 1/(\sqrt{C-1}\sigma_{C-1})$; the paper's frame has the same ETF. If $\sum\sigma_i^2 = 1$, then
$\sigma_{C-1} \le 1/\sqrt{C-1}$ with equality for equal values, when H is $2^{-1}(C-1)^{1/2}A\,Z$ with orthonormal rows
Z of the Helmert matrix and A a multiple of U: an ETF.

**6.** Let $p_i$, $q_i$, $i > \rho$, be orthonormal bases of r - rho directions orthogonal to the range of A, and of its
null space. The polar factors of $A + \varepsilon\sum_{\rho<i<r}p_iq_i' \pm \varepsilon p_rq_r'$ differ by $2p_rq_r'$.
Singular values are continuous, so $s_r \to 0$, and $s_{r-1} \to 0$ if $\rho < r-1$: the constants of 1 tend to what is
said. For d = r, $\rho = r-1$ the second bound of 2 makes U Lipschitz on the part of a neighbourhood where det > 0, and
on that where det < 0.

## In the code

- `etfopt.certificate.certify`: the error that rounding of A puts into U in `distance_bound` is 2 ||dA||/s, by 2.
- `etfopt.adjoint.polar_derivative`: the map whose norm is found in 1.
- `etfopt.adjoint.nearest_etf_jvp`: the map whose norm is found in 3.

## References

R.-C. Li (1995), New perturbation bounds for the unitary polar factor, SIAM J. Matrix Anal. Appl. 16, has the first
bound of 2. Mathias (1993), Perturbation bounds for the polar decomposition, in the same journal, 14, and Higham (2008),
Functions of Matrices, section 8.2, have 1 in the real case. Horn and Johnson (2013), Matrix Analysis, 4.3.39 and 8.7.6:
Ky Fan, von Neumann.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etfopt import NearestETF, polar_factor, simplex_etf, solve
from etfopt.adjoint import nearest_etf_jvp, polar_derivative
from theory._conditioning import FULL, collapse, drawn_matrix, etf_constant, polar_constant, proximity, rank_loss
from theory._linalg import EPS, values
from theory.draws import Matrix, matrix, polar, spectrum, stiefel
from theory.registry import Evidence, Part, Residual, gather


def _local(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the norm of the whole Jacobian, and differences in the direction that attains it, with the constant."""
    d, r, A, s = drawn_matrix(rng, FULL)
    kappa, constant = s[0] / s[-1], polar_constant(d, s)
    U = polar_factor(A)
    unit = np.eye(d * r).reshape(-1, d, r)
    jacobian = np.stack([polar_derivative(A, U, E).ravel() for E in unit])
    tolerance = 20 * d * r * EPS * kappa
    yield Residual(abs(np.linalg.norm(jacobian, 2) - constant) * s[-1], tolerance, "norm of the derivative")
    P, _, Qt = np.linalg.svd(A)
    if d > r:
        E = np.outer(P[:, -1], Qt[-1])
    elif r > 1:
        E = (np.outer(P[:, -2], Qt[-1]) - np.outer(P[:, -1], Qt[-2])) / np.sqrt(2)
    else:
        return
    relative = (r * EPS * kappa) ** (1 / 3)
    h = relative * s[-1]
    moved = np.linalg.norm(polar(A + h * E) - polar(A - h * E)) / (2 * h)
    yield Residual(abs(moved / constant - 1), 20 * relative**2, "differences in the worst direction")


def _two_points(rng: np.random.Generator) -> Iterator[Residual]:
    """Try two matrices near and far, rank deficient or not; and pairs that reach equality."""
    d, r, A, s = drawn_matrix(rng)
    rotation = stiefel(rng, d, d)
    other = rotation @ A + s[0] * 10.0 ** rng.uniform(-12, 1) * rng.standard_normal((d, r))
    near = A + s[0] * 10.0 ** rng.uniform(-12, 1) * rng.standard_normal((d, r))
    t = spectrum(rng, r)
    for B in (near, other, matrix(rng, d, t / (t[0] or 1) * s[0])):
        yield from _bounded(A, B)
    U, V, size = polar(A), stiefel(rng, d, r), rng.uniform(0.1, 10, 2)
    for what, first, second, scale in (("equal spectra", U, V, 2 * size[0]), ("antipodes", U, -U, size.sum())):
        one, two = size[0] * first, scale * second - size[0] * second
        sides = scale * np.linalg.norm(polar(one) - polar(two)), 2 * np.linalg.norm(one - two)
        yield Residual(abs(sides[0] - sides[1]) / (1 + size.sum()), 100 * r * EPS, f"equality for {what}")


def _bounded(A: Matrix, B: Matrix) -> Iterator[Residual]:
    (d, r), U, V = A.shape, polar(A), polar(B)
    s, t = (values(X) for X in (A, B))
    moved, change, size = np.linalg.norm(U - V), np.linalg.norm(A - B), s[0] + t[0]
    # the computed factors are those of matrices that differ by a few r eps in norm
    tolerance = 8 * d * EPS * (2 + 2 * np.sqrt(r))
    if size:
        yield Residual(((s[-1] + t[-1]) * moved - 2 * change) / size, tolerance, "the global bound")
        if d == r > 1 and np.linalg.det(U) * np.linalg.det(V) > 0:
            sums = (s + t)[-2:].sum()
            yield Residual((sums * moved - 4 * change) / size, 2 * tolerance, "the bound within a component")
    if s[0]:
        yield Residual(np.linalg.norm(polar_factor(A) - U) * (s[-1] / s[0]), 20 * r * EPS, "etfopt's polar factor")


def _component(rng: np.random.Generator) -> Iterator[Residual]:
    """Attain the bound within a component: S + K and S - K with K skew in the plane of the two smallest values."""
    r = int(rng.integers(2, 6))
    s = spectrum(rng, r, str(rng.choice(FULL)))
    s[:-2] = 10 * s[0] * rng.uniform(1, 2)
    K = np.zeros((r, r))
    K[-2, -1] = s[-2:].sum() * 10.0 ** rng.uniform(-5, 0)
    K -= K.T
    basis = stiefel(rng, r, r)
    one, two = (basis @ (np.diag(s) + turn) @ basis.T for turn in (K, -K))
    sums = sum(values(X)[-2:].sum() for X in (one, two))
    sides = sums * np.linalg.norm(polar(one) - polar(two)) / s[0], 4 * np.linalg.norm(one - two) / s[0]
    yield Residual(abs(sides[0] - sides[1]), 200 * r * EPS, "equality within a component")


def _etf(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the Jacobian of H -> UF with its constant, for any frame, faint proximal terms, and two points."""
    first = _problem(rng)
    A, F, U = first.linear_term, first.F, solve(first).U
    s = values(A)
    constant, condition = etf_constant(A, F), s[0] / s[-1]
    unit = np.eye(first.H.size).reshape(-1, *first.H.shape)
    norm = float(np.linalg.norm([nearest_etf_jvp(first, U, dH).ravel() for dH in unit], 2))
    tolerance = 100 * first.r * EPS * condition
    if first.d > first.r:
        yield Residual(abs(norm / constant - 1), tolerance, "norm of the derivative of the ETF")
    else:
        yield Residual(norm / constant - 1, tolerance, "bound on the derivative of the ETF")
    rows = F @ F.T
    if np.allclose(rows, rows[0, 0] * np.eye(first.r), rtol=0, atol=1e-14):
        expected = 2 * rows[0, 0] * polar_constant(first.d, s)
        yield Residual(abs(norm - expected) / constant, tolerance, "a frame with orthogonal rows")
    step = 10.0 ** rng.uniform(-6, 1) * rng.standard_normal(first.H.shape)
    second = NearestETF(first.H + np.linalg.norm(first.H) * step, first.prox, first.delta, F)
    both = U.T @ A + (V := solve(second).U).T @ second.linear_term
    beta = 1 / np.linalg.eigvalsh(F.T @ np.linalg.solve((both + both.T) / 2, F))[-1]
    moved, change = np.linalg.norm((U - V) @ F), np.linalg.norm(first.H - second.H)
    yield Residual(beta * moved / (4 * change) - 1, tolerance * (1 + s[-1] / change), "the global bound for the ETF")


def _problem(rng: np.random.Generator) -> NearestETF:
    C = int(rng.integers(2, 5))
    kind = int(rng.integers(3))
    F = simplex_etf(C, reduced=kind == 1) if kind < 2 else rng.standard_normal((C - 1, C))
    r = len(F)
    d = r + int(rng.choice([0, 1, 3]))
    H = np.asarray(matrix(rng, d, spectrum(rng, r, "generic")) @ np.linalg.pinv(F.T))
    if kind and rng.integers(2):
        return NearestETF(H, frame=F)
    U = polar(H @ F.T)
    prox = polar(U + 0.2 * rng.standard_normal((d, r)))
    return NearestETF(H, prox, 10.0 ** rng.uniform(-5, 0), F)


PARTS = (
    *(Part(_local, 2), Part(_two_points, 3), Part(_component)),
    *(Part(_etf, 2), Part(proximity, 2), Part(collapse), Part(rank_loss)),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: whole Jacobians, pairs of matrices near and far, faint and heavy proximal terms."""
    return gather(rng, budget, PARTS)
