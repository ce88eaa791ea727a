r"""The relaxation to the spectral-norm ball: tight, dual to the nuclear norm, with a face of minimisers.

## Statement

A is d x r, d >= r, of rank k, $A = P_1S_1Q_1'$ its compact SVD, $P_2$ and $Q_2$ orthonormal bases of the complements of
the ranges of $P_1$ (d - k columns) and $Q_1$ (r - k columns). The ball is $\{X \in R^{d \times r} : \|X\|_2 \le 1\}$.

(a) *Tight.* The ball is the convex hull of St(d, r), and St(d, r) is the set of its extreme points. So
$\max \langle A, X\rangle$ over either is $\|A\|_*$.

(b) *Dual.* $\|X\|_2 \le 1$ if and only if $\begin{pmatrix} I & X \\ X' & I\end{pmatrix} \succeq 0$; the Lagrangian
dual is

$$\min\; tr D_1 + tr D_2 \quad\text{subject to}\quad
  K = \begin{pmatrix} D_1 & -A/2 \\ -A'/2 & D_2\end{pmatrix} \succeq 0,$$

with the minimum $\|A\|_*$ at $D_1 = \frac12(AA')^{1/2}$, $D_2 = \frac12(A'A)^{1/2}$.

(c) *Rigorous bounds.* For **any** symmetric $D_1, D_2$ and $t \ge \max(0, -\lambda_{min}(K))$,
$\|A\|_* \le tr D_1 + tr D_2 + (d + r)t$; with d = r this is what the solver reports as `dual`. For **any** X,
$\langle A, X\rangle/\max(1, \|X\|_2) \le \|A\|_*$, its `primal`. In floating point the first holds up to (d + r) times
the error of the computed eigenvalue.

(d) *Face.* The maximisers over the ball are exactly

$$X = P_1Q_1' + P_2YQ_2', \qquad Y \in R^{(d-k)\times(r-k)},\; \|Y\|_2 \le 1:$$

a face of dimension (d-k)(r-k), a single point if and only if k = r. Its extreme points are those with Y'Y = I: the
minimisers on the manifold, and no others.

(e) *Where an interior-point method stops.* The maximiser of
$\langle A, X\rangle + \mu\log\det(I - X'X)$, the central path of the semidefinite program, is

$$X_\mu = P\,diag(x_i)\,Q', \qquad x_i = \frac{s_i}{\mu + \sqrt{\mu^2 + s_i^2}}, \qquad A = P\,diag(s_i)\,Q'.$$

So $1 - x_i \le \mu/s_i$, the gap is at most $k\mu$, and $X_\mu \to P_1Q_1'$ as $\mu \to 0$: the centre Y = 0 of the
face, with $\|X'X - I\|_F \to \sqrt{r-k}$. A solver that stops on the path therefore returns a point off the manifold
where A is rank deficient, or so nearly that some $s_i$ is not large against its last $\mu$, and nowhere else. A real
one stops near the path; the check runs Clarabel. A solver of another kind may return any point of the face.

(f) *Rounding.* Let X be in the ball with gap $g = \|A\|_* - \langle A, X\rangle$, and U a polar factor of X. Then
$\|A\|_* - \langle A, U\rangle \le 2g$, and 2 is the best constant. In particular rounding a maximiser gives a minimiser
on the manifold, $P_1Q_1' + P_2VQ_2'$ with V a polar factor of Y. Near the centre of the face V is decided by rounding
errors: which of the minimisers comes out is arbitrary.

(g) *Reduction.* Let A = QR, Q d x r with Q'Q = I. Then $Y \mapsto QY$ maps the r x r ball into the ball, with
$\langle A, QY\rangle = \langle R, Y\rangle$, and maximisers for R to maximisers for A (to all of them if k = r or d =
r); $\|R\|_* = \|A\|_*$.

## Assumptions

None but d >= r.

## Proof

*(a)* The ball is convex and contains St(d, r). Let $X = P\,diag(\sigma_i)\,Q'$ be a thin SVD, $\sigma_i \in [0, 1]$.
With independent signs $\varepsilon_i$ of mean $\sigma_i$, X is the mean of the $P\,diag(\varepsilon_i)\,Q'$, which
lie on the manifold: a convex combination. If some $\sigma_i < 1$, X is the midpoint of two other points of the ball,
with $\sigma_i \pm (1 - \sigma_i)$ in its place, so not extreme. Points of the ball have $\|X\|_F \le \sqrt r$, those
of St(d, r) equality; no point of a sphere is the midpoint of two others of its ball. A linear function has the same
maximum over a set and over its convex hull, and claim `closed_form` (b) gives it on the manifold.

*(b)* The quadratic form of the block matrix, $\|v\|^2 + 2v'Xw + \|w\|^2$, is least in v at v = -Xw, where it is
$w'(I - X'X)w$: it is semidefinite if and only if $I - X'X \succeq 0$. For the matrix variable $Z \succeq 0$ with blocks
$Z_{11} = I$, $Z_{12} = X$, $Z_{22} = I$ and multipliers $D_1, D_2$ of the two equations, the dual function is
$\sup_{Z \succeq 0} \langle A, Z_{12}\rangle + \langle D_1, I - Z_{11}\rangle + \langle D_2, I - Z_{22}\rangle =
tr D_1 + tr D_2 + \sup_{Z \succeq 0} -\langle K, Z\rangle$, which is $tr D_1 + tr D_2$ if $K \succeq 0$ and infinite
otherwise (take $Z = \alpha vv'$ with $v'Kv < 0$). So every feasible pair bounds $\|A\|_*$. With $A = PSQ'$, the
stated pair is $\frac12PSP'$, $\frac12QSQ'$: $K = \frac12\binom{P}{-Q}S\binom{P}{-Q}' \succeq 0$ with value tr S.

*(c)* $D_i + tI$ is feasible, by definition of t, and has the stated value. X divided by $\max(1, \|X\|_2)$ is in the
ball, and (a) applies. The multipliers may come from anywhere, with either sign: nothing was assumed of them.

*(d)* Let $p_i, q_i$ be the columns of $P_1, Q_1$. In the ball $\langle A, X\rangle = \sum s_i\,p_i'Xq_i \le \sum
s_i$, with equality if and only if all $p_i'Xq_i = 1$, that is, since $\|Xq_i\| \le 1$ and $\|X'p_i\| \le 1$, $Xq_i =
p_i$ and $X'p_i = q_i$. Then $X = P_1P_1'X + P_2P_2'X = P_1Q_1' + P_2P_2'X(Q_1Q_1' + Q_2Q_2')$, where $P_2'XQ_1 =
P_2'P_1 = 0$: the stated form with $Y = P_2'XQ_2$. Conversely such an X has orthogonal blocks, so $\|X\|_2 = \max(1,
\|Y\|_2)$ for k > 0 and $\|Y\|_2$ for k = 0, and attains the maximum. The map $Y \mapsto X$ is affine and injective,
so extreme points correspond; by (a), for (d-k) x (r-k) matrices, they have Y'Y = I, which means X'X = I.

*(e)* $\log\det(I - X'X)$ is the logarithm of the determinant of the block matrix in (b), strictly concave in X on
the open ball, so that a stationary point is the only maximiser. The gradient is $A - 2\mu X(I - X'X)^{-1}$; for
$X = P\,diag(x_i)\,Q'$ it vanishes if $s_i(1 - x_i^2) = 2\mu x_i$, whose root in [0, 1) is the stated one.
$s_i(1 - x_i) = s_i + \mu - \sqrt{\mu^2 + s_i^2} \le \mu$, which gives the bound on $1 - x_i$ and, summed over
$s_i > 0$, that on the gap. $x_i \to 1$ for $s_i > 0$, and $x_i = 0$ for $s_i = 0$.

*(f)* Let X = UN, $N = (X'X)^{1/2}$, $0 \preceq N \preceq I$. Then $2X - U = U(2N - I)$ lies in the ball, so $2\langle
A, X\rangle - \langle A, U\rangle \le \|A\|_*$, which is $\|A\|_* - \langle A, U\rangle \le 2g$. For d = r = 1, A = 1,
X = -x with x > 0 small, the gaps are 1 + x and 2. If X is in the face,
$X'X = Q_1Q_1' + Q_2Y'YQ_2'$, so that $NQ_1 = Q_1$ and $NQ_2 = Q_2(Y'Y)^{1/2}$. Then $UQ_1 = UNQ_1 = XQ_1 = P_1$, and
$UQ_2$, orthogonal to it, is $P_2V$ with V'V = I; $P_2Y = XQ_2 = UNQ_2 = P_2V(Y'Y)^{1/2}$ says that V is a polar factor
of Y.

*(g)* $\|QY\|_2 = \|Y\|_2$, $\langle QR, QY\rangle = \langle R, Y\rangle$, A'A = R'R. If X is in the ball, so is Y =
Q'X, and $\langle R, Q'X\rangle = \langle A, X\rangle$: the maxima agree. If d = r, X = QQ'X; if k = r, both
maximisers are unique.

## In the code

- `etfopt.solvers.convex_relaxation.ConvexRelaxation`: (g), (b), and rounding (f).
- `etfopt.solvers.convex_relaxation.RelaxationStats`: `primal` and `dual` are (c); `infeasibility`, `on_manifold` (e).
- `etfopt.solvers.convex_relaxation._dual_bound`: (c).

## References

Fazel (2002), Matrix rank minimization with applications, for the semidefinite form of the nuclear norm. Watson (1992),
Characterization of the subdifferential of some matrix norms, has (d): the face is the subdifferential of the nuclear
norm at A. Boyd and Vandenberghe (2004), Convex Optimization, chapters 5 and 11. (c), (e) and (f) are derived here.
"""

from __future__ import annotations

import numpy as np

from theory import _duality as cases
from theory.registry import Evidence, Part, gather

PARTS = (
    Part(cases.tightness, 2),
    Part(cases.bounds, 2),
    Part(cases.face, 3),
    Part(cases.central_path, 2),
    Part(cases.rounded, 2),
    Part(cases.conic, 0.3),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: bounds that fail, maximisers off the face, conic minimisers where none should be."""
    return gather(rng, budget, PARTS)
