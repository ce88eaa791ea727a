r"""The nearest ETF of any size: its distance is a nuclear norm.

## Statement

Let $N = HF'$, d >= r, and let $D(H)$ be the minimum of $\|H - sUF\|_F$ over real s and U in St(d, r).

1. *Value.* For **every** frame $F \ne 0$, $\;D^2 = \|H\|_F^2 - \|N\|_*^2/\|F\|_F^2$. The minimisers are $s^* =
   \|N\|_*/\|F\|^2 \ge 0$ with U any polar factor of N, and their negatives $(-s^*, -U)$, the same ETFs. So the best U
   is that for a fixed size and $\delta = 0$. The best s for another U is $\langle N, U\rangle/\|F\|^2$, of either sign.
   (No orthogonal rows are needed, only $\|UF\| = \|F\|$.)
2. *As a variance.* If $FF' = c^2I$, with $\sigma_i$ the r singular values of $N/c$ and $\bar\sigma$ their mean, $D^2 =
   \|H(I - F^+F)\|^2 + \sum_i(\sigma_i - \bar\sigma)^2$. For the simplex in either frame, with $\bar h$ the mean of the
   columns and $\sigma_i$ the largest C-1 singular values of the centred H, $D^2 = C\,\|\bar h\|^2 +
   \sum_{i<C}(\sigma_i - \bar\sigma)^2$: zero exactly for centred means with equal singular values. For centred H of
   unit norm $0 \le D^2 \le (C-2)/(C-1)$, with equality on the right at rank one; centred means of two classes always
   have D = 0.
3. *Gradient.* Let $E = s^*U^*F$. $D^2$ is differentiable at H if and only if E is unique: N = 0, or F' vanishes on the
   null space of N. Then $\nabla D^2 = 2(H - E)$, $\nabla D = (H - E)/D$ where D > 0, and for the relative $\rho =
   D^2/\|H\|^2$, $\nabla\rho = (2/\|H\|^2)\bigl((1 - \rho)H - E\bigr)$. In all cases the one-sided derivative of $D^2$
   along X is $2\langle H, X\rangle - 2s^*\bigl(\langle P_1Q_1'F, X\rangle + \|P_2'XF'Q_2\|_*\bigr)$, where $N =
   P_1S_1Q_1'$ with $S_1 > 0$ and $P_2$, $Q_2$ complete $P_1$, $Q_1$ to orthonormal bases.
4. *Invariance.* $D(QH) = D(H)$ for orthogonal Q; $D(tH) = |t|D(H)$; rows of zeros change nothing; $D(H\Pi) = D(H)$ for
   orthogonal $\Pi$ with $F\Pi = TF$, T orthogonal, such as permutations for the simplex. A shift does: $D^2(H + b1') =
   D^2(H) + C\,(\|\bar h + b\|^2 - \|\bar h\|^2)$ for the simplex.
5. *Not the distance at unit size.* Let $\|H\| = \|F\| = 1$, $x = \|N\|_* \in [0, 1]$. The squared distance to the
   nearest ETF of norm 1, the figure of the release, is $q = 2 - 2x$; free scale gives $1 - x^2 = q - q^2/4$. They agree
   to first order at collapse (x = 1), and nowhere else.

## Assumptions

d >= r. F is any r x C matrix but zero, unless said otherwise. H any d x C matrix; in $\nabla\rho$, not zero.

## Proof

**1.** $\|H - sUF\|^2 = \|H\|^2 - 2s\langle N, U\rangle + s^2\|F\|^2$ as $\|UF\|^2 = \mathrm{tr}\,F'U'UF = \|F\|^2$.
Over s the minimum is $\|H\|^2 - \langle N, U\rangle^2/\|F\|^2$ at $s = \langle N, U\rangle/\|F\|^2$. The maximum of
$|\langle N, U\rangle|$ is $\|N\|_*$, reached by the polar factors of N and their negatives (`theory/gauge.py`, 1).

**2.** $\|N\|_* = c\sum\sigma_i$ and $\|F\|^2 = rc^2$, so $\|N\|_*^2/\|F\|^2 = (\sum\sigma_i)^2/r$; and $F^+ = F'/c^2$
gives $\|H\|^2 = \|H(I - F^+F)\|^2 + \|N\|^2/c^2 = \|H(I - F^+F)\|^2 + \sum\sigma_i^2$. For the reduced simplex $F^+F =
I - 11'/C$ and $c^2 = 1/(C-1)$; the paper's frame has the same ETFs if d >= C. If the $\sigma_i$ are equal, E = H:
centred H has H = $(N/c)(F/c)$, N a multiple of a point of the manifold. Last, $\sum\sigma_i^2 = 1$ implies
$\sum\sigma_i \ge 1$, with equality if and only if one is not zero; for C = 2 there is one.

**3.** $D^2 = \|H\|^2 - \psi(H)$ with $\psi(H) = \max_{s,U}\bigl(2s\langle H, UF\rangle - s^2\|F\|^2\bigr)$, a maximum
of affine functions of H, for bounded H over a compact set: a convex function, whose one-sided derivative along X is the
maximum of $\langle 2sUF, X\rangle$ over the maximisers, and whose subdifferential is the convex hull of their 2sUF
(Danskin; Hiriart-Urruty and Lemarechal 1993, VI.4.4). A convex function is differentiable exactly where its
subdifferential is one point (Rockafellar 1970, theorem 25.1). Up to the sign that (s, U) and (-s, -U) share, the
maximisers are $s^*$ and $P_1Q_1' + P_2WQ_2'$ with any W with orthonormal columns; over W the maximum of $\langle
P_2WQ_2'F, X\rangle$ is $\|P_2'XF'Q_2\|_*$, because $P_2$ has at least as many columns as $Q_2$. The 2sUF are one point
if $s^* = 0$ or $Q_2'F = 0$, and by W and -W only then. The other gradients are the chain rule, with $\nabla\rho =
2(H-E)/\|H\|^2 - 2D^2H/\|H\|^4$.

**4.** The set of all sUF is mapped onto itself by $E \mapsto QE$, $tE$ ($t \ne 0$; and D(0) = 0) and $E\Pi$ ($sUF\Pi =
s(UT)F$). With zero rows, N has the same singular values. The shift is read off 2.

**5.** $\|H - UF\|^2 = 2 - 2\langle N, U\rangle \ge 2 - 2x$, and $1 - x^2 = (1-x)(1+x) = \frac q2(2 - \frac q2)$. $x \le
\|H\|\|UF\| = 1$.

## In the code

- `etfopt.solution.Solution.distance`: D, as the residual $\|H - s^*U^*F\|$, which keeps its digits near collapse.
- `etfopt.solution.Solution.scale`: the best s for the solution's U.
- `etfopt.metrics.collapse.NeuralCollapse`: `etf_distance_means` and `etf_distance_weights` are the relative squared
  distance.

## References

Markou, Ajanthan, Gould (2024) report the distance to the nearest ETF. Rockafellar (1970), Convex Analysis.
Hiriart-Urruty and Lemarechal (1993), Convex Analysis and Minimization Algorithms I.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from etfopt import NearestETF, polar_factor, simplex_etf, solve
from etfopt.metrics import NeuralCollapse
from etfopt.nn.functional import nearest_etf
from theory._free_scale import gradient, one_sided, precise_distance, relative_gradient, squared_distance, two_sided
from theory._linalg import EPS, nuclear, values
from theory.draws import frame, matrix, polar, problem, spectrum, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather


def _formula(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare etfopt's distance and scale with the formula on any problem; try other sizes, signs and points."""
    unit = problem(rng)
    case = NearestETF(unit.H, unit.prox, unit.delta, 10.0 ** rng.uniform(-2, 2) * unit.F)
    H, F, (d, r) = case.H, case.F, (case.d, case.r)
    size, square = float(np.linalg.norm(H)) or 1.0, float(np.linalg.norm(F)) ** 2
    found, tolerance = solve(case), 50 * (r + d) * EPS
    best = squared_distance(H, F)
    yield Residual(abs((found.distance / size) ** 2 - best / size**2), tolerance, "distance of the solution")
    slope = float(np.vdot(H @ F.T, found.U)) / square
    yield Residual(abs(found.scale - slope) / size * square**0.5, tolerance, "scale of the solution")
    U, s = polar(H @ F.T), nuclear(H @ F.T) / square
    for sign in (1, -1):
        reached = float(np.linalg.norm(H - (sign * s) * (sign * U) @ F)) ** 2
        yield Residual(abs(reached - best) / size**2, tolerance, "attainment at either sign")
    if case.delta == 0:
        yield Residual(abs(found.scale - s) / size * square**0.5, tolerance, "scale without a proximal term")
    for V, t in ((stiefel(rng, d, r), rng.uniform(-2, 2)), (found.U, rng.uniform(-2, 2)), (U, 1 + 1e-3)):
        tried = float(np.linalg.norm(H - t * s * V @ F)) ** 2
        yield Residual((best - tried) / size**2, tolerance, "a better size or point")


def _simplex(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the variance of the singular values, in both frames; the extremes; the invariances."""
    C = int(rng.integers(2, 8))
    d, R = C + int(rng.choice([0, 1, 4])), simplex_etf(C, reduced=True)
    centred = matrix(rng, d, spectrum(rng, C - 1, str(rng.choice(["generic", "repeated", "deficient"])))) @ R
    b = rng.standard_normal((d, 1)) * 10.0 ** rng.uniform(-3, 0)
    H = centred + b
    sigma = values(centred)[: C - 1]
    spread, tolerance = float(((sigma - sigma.mean()) ** 2).sum()), 100 * C * EPS * (1 + float((b**2).sum()))
    for name, F in (("paper's", simplex_etf(C)), ("reduced", R)):
        found = solve(NearestETF(H, frame=F)).distance ** 2
        yield Residual(abs(found - spread - C * float((b**2).sum())), 10 * tolerance, f"variance, {name} frame")
    here = squared_distance(H, R)
    for what, other in (
        ("rotation", stiefel(rng, d, d) @ H),
        ("permutation", H[:, rng.permutation(C)]),
        ("padding", np.vstack([H, np.zeros((2, C))])),
        ("sign", -H),
    ):
        yield Residual(
            abs(solve(NearestETF(other, frame=R)).distance ** 2 - here), 10 * tolerance, f"invariance: {what}"
        )
    line = np.outer(stiefel(rng, d, 1), stiefel(rng, C - 1, 1).T @ R * np.sqrt(C - 1))
    flat = np.outer(stiefel(rng, d, 1), simplex_etf(2)[0] / np.sqrt(0.5))
    yield Residual(abs(squared_distance(line, R) - (C - 2) / (C - 1)), tolerance, "rank one")
    yield Residual(solve(NearestETF(flat)).distance, 20 * EPS, "two centred classes")
    if (size := float(np.linalg.norm(centred))) > 0:
        worst = solve(NearestETF(centred / size)).distance ** 2
        yield Residual(worst - (C - 2) / (C - 1), tolerance, "the largest distance")


def _derivative(rng: np.random.Generator) -> Iterator[Residual]:
    """Differentiate with fifty digits: two-sided where the nearest ETF is unique, one-sided where it is not."""
    C = int(rng.integers(2, 5))
    F = frame(rng, C) * 10.0 ** rng.uniform(-0.5, 0.5)
    r = len(F)
    d, kind = r + int(rng.integers(0, 3)), str(rng.choice(["generic", "equal", "repeated", "clustered", "deficient"]))
    inverse = np.linalg.pinv(F)
    H = matrix(rng, d, spectrum(rng, r, kind)) @ inverse.T
    H += 0.1 * rng.standard_normal((d, C)) @ (np.eye(C) - inverse @ F)  # what the frame does not see
    X = rng.standard_normal((d, C))
    X /= np.linalg.norm(X)
    left, s, Qt = np.linalg.svd(H @ F.T)
    rank = int(np.sum(s > 1e-12))
    fixed = float(np.vdot(left[:, :rank] @ Qt[:rank] @ F, X))
    free = nuclear(left[:, rank:].T @ X @ F.T @ Qt[rank:].T) if rank < r else 0.0
    best = float(s.sum() / np.linalg.norm(F) ** 2)
    curvature = 1 + float(np.linalg.norm(F) / s[rank - 1] if rank else 0.0)
    for sign in (1, -1):
        slope = 2 * sign * float(np.vdot(H, X)) - 2 * best * (sign * fixed + free)
        yield Residual(abs(one_sided(H, sign * X, F) - slope), 1e-6 * curvature, "one-sided derivative")
    if best > 1e-12 and free > 1e-12:
        return
    tolerance = 100 * C * EPS * curvature * (1 + best) * (1 + float(np.linalg.norm(H)))
    found = two_sided(H, X, F)
    yield Residual(abs(found - float(np.vdot(gradient(H, F), X))), tolerance, "gradient of the square")
    if size := float(np.linalg.norm(H)) ** 2:
        found = two_sided(H, X, F, relative=True)
        tolerance *= (1 + 1 / size) ** 2
        yield Residual(abs(found - float(np.vdot(relative_gradient(H, F), X))), tolerance, "gradient of the relative")


def _digits(rng: np.random.Generator) -> Iterator[Residual]:
    """Near collapse compare etfopt's distance with fifty digits: it must keep the digits of the noise."""
    C = int(rng.integers(2, 5))
    F = simplex_etf(C, reduced=bool(rng.integers(2)))
    noise = 10.0 ** rng.uniform(-12, -1)
    E = rng.uniform(0.5, 2) * stiefel(rng, d := len(F) + 2, len(F)) @ F
    H = np.asarray(E + noise * rng.standard_normal((d, C)))
    off = abs(solve(NearestETF(H, frame=F)).distance - precise_distance(H, F))
    yield Residual(off, 20 * C * EPS, "distance near collapse")


def _autograd(rng: np.random.Generator) -> Iterator[Residual]:
    """Differentiate through etfopt's node for tensors: the residual has the gradient of the formula."""
    C = int(rng.integers(2, 6))
    d, F = C - 1 + int(rng.integers(0, 4)), simplex_etf(C, reduced=True)
    H = matrix(rng, d, spectrum(rng, C - 1, str(rng.choice(["generic", "equal", "clustered"])))) @ F
    H = np.asarray(H + rng.standard_normal((d, 1)))
    leaf, Ft = torch.tensor(H, requires_grad=True), torch.from_numpy(F)
    U = nearest_etf(leaf, frame=Ft)
    value = torch.sum((leaf - torch.sum(leaf @ Ft.T * U) / torch.sum(Ft**2) * (U @ Ft)) ** 2)
    (found,) = torch.autograd.grad(value, leaf)
    off = float(np.linalg.norm(found.numpy() - gradient(H, F)))
    smallest = values(H @ F.T)[-1]
    yield Residual(off, 1e3 * C * EPS * (1 + float(np.linalg.norm(H))) / smallest, "gradient through the node")


def _release(rng: np.random.Generator) -> Iterator[Residual]:
    """Compare the distance at unit size with that of any size, and the metric of a whole classifier with both."""
    C = int(rng.integers(2, 8))
    d, F = C + int(rng.choice([0, 1, 4])), simplex_etf(C)
    noise = 10.0 ** rng.uniform(-4, 1)
    H = stiefel(rng, d, C) @ F + noise * rng.standard_normal((d, C)) @ F
    H /= np.linalg.norm(H)
    case = NearestETF(H)
    found, x = solve(case), nuclear(H @ F)
    q, free = found.objective, found.distance**2
    yield Residual(abs(q - (2 - 2 * x)), 50 * C * EPS, "squared distance at unit size")
    yield Residual(abs(free - (q - q**2 / 4)), 50 * C * EPS, "squared distance at any size")
    if q > 1e-6:
        yield at_least(q - free, 0.2 * q**2, "the difference of the two")
    W, shift = rng.standard_normal((C, d)), rng.standard_normal(d)
    metric = NeuralCollapse(num_classes=C, dim=d)
    features = np.repeat(3 * H.T + shift, 2, axis=0)
    metric.update(torch.from_numpy(features), torch.arange(C).repeat_interleave(2), torch.from_numpy(W))
    seen = {key: float(value) for key, value in metric.compute().items()}
    W = W.T / np.linalg.norm(W)
    tolerance = 500 * C * EPS * (1 + float(shift @ shift)) / noise
    yield Residual(abs(seen["etf_distance_means"] - free), tolerance, "etf_distance_means")
    yield Residual(abs(seen["etf_distance_weights"] - squared_distance(W, F)), tolerance, "etf_distance_weights")
    apart = float(np.linalg.norm(polar_factor(H @ F) @ F - polar_factor(W @ F) @ F)) ** 2
    yield Residual(abs(seen["etf_distance_between"] - apart), tolerance * 1e3, "etf_distance_between")


PARTS = (
    *(Part(_formula, 6), Part(_simplex, 1.5), Part(_derivative, 0.7), Part(_digits, 0.5)),
    *(Part(_autograd, 0.5), Part(_release, 0.8)),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any frame, rank and scale; derivatives in fifty digits; the metric of a classifier."""
    return gather(rng, budget, PARTS)
