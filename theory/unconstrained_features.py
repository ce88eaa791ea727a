r"""Unconstrained features with the nearest ETF as classifier: the minimisers are the collapsed features.

## Statement

Let $f_i \in R^d$, $\|f_i\| = \tau$, be free features with labels $y_i$, m of each of C classes, n = mC, and let W(f)
be the rows of the simplex ETF nearest to the class means (any of them where there are several). The layer's loss L(f)
is the mean cross-entropy of the logits $W(f)(f_i - \mu_G)$; $\ell(f, W)$ is the same for any W. With
$\beta = \log(1 + (C-1)e^{-\tau C/(C-1)})$:

1. *Global minimisers.* $L(f) \ge \beta$, with equality if and only if $f_i = \tau w_{y_i}$ for the rows $w_c$ of some
   simplex ETF, of any rotation. There W(f) is that ETF, and is unique.
2. *With a proximal term* of weight $\delta > 0$ at an orthonormal U_prox, $L \ge \beta$ still, but $\beta$ is reached
   only by collapse onto the ETFs U_prox S F with $S = S' = S^{-1}$ and $2FF' + \delta S \succeq 0$, surely where that
   is $\succ 0$. S = I is always among them, and for the reduced frame the only one if $\delta > 2/(C-1)$: the
   proximal term singles out its own ETF and reflections of it. In the layer U_prox is the previous solution, so that
   collapsed features stay where they are.
3. *Gradients at collapse.* Write the gradient of L as direct plus indirect, $D_i + I_i$: through f and $\mu_G$ with W
   held, and through W(f). At collapse, on the sphere, both vanish, each for itself.
4. *Joint rotations.* L is invariant under $f_i \mapsto Rf_i$, R orthogonal, and under a common factor of the class
   means. So $\sum_i\bigl((D_i+I_i)f_i' - f_i(D_i+I_i)'\bigr) = 0$ and $\sum_i\langle I_i, f_i\rangle = 0$, while the
   direct gradient alone turns all features jointly: with $\Gamma = \partial\ell/\partial W$,

$$\sum_i(D_if_i' - f_iD_i') = W'\Gamma - \Gamma'W,$$

   which is zero only if $W'\Gamma$ is symmetric. The indirect path removes exactly this torque. With a proximal term
   the torque of the full gradient is $\delta(U_{prox}Y' - YU_{prox}')$, Y = dL/dA: at most $2\delta\|Y\|_F$.
5. *Landscape for a frozen W* (the fixed head, or a nearest ETF that is no longer updated). If $d \ge C$, every
   second-order critical point of $\ell(\cdot, W)$ on the product of spheres is global: collapse onto W. All other
   critical points are strict saddles. **For d = C - 1 this is false**, with and without the indirect path: for C = 3,
   d = 2, m = 3, $\tau = 5$ there is a local minimum, strict but for joint rotations, with $L - \beta = 0.4086$, in
   which one of the nine features points away from its class, and the two others of that class are 80 degrees off.
6. *Not proved:* that L itself, W following f, has no spurious minimum for $d \ge C$; and that descent along the
   direct gradient alone converges. The checks start both from random features and have always ended at $\beta$.

## Assumptions

$d \ge C-1$, $m \ge 1$, $\tau > 0$, balanced labels, one batch that holds all samples, no running mean. In 1 and 3 to
6 there is no proximal term but where said. The layer's first step, whose U_prox is its own solution, has the same W,
and the gradient of part 2 with S = I. In 2, and in 3 and 4 where they have a proximal term, W is unique and
differentiable at f.

## Proof

**1.** $b = -W\mu_G$ is some bias and the rows of W(f) have unit norm, so `theory/temperature.py` applies to each f:
$L \ge \beta$, with equality only if $f_i = \tau w_{y_i}$ with the rows of W(f). Conversely let $f_i = \tau w_{y_i}$
for a simplex, $W = \sqrt C(VF)'$ with the reduced frame F, say. Then $\mu_G = 0$ by balance, so b = 0, and the class
means are $H = \tau\sqrt C\,VF$, $H/\|H\| = VF$ as $\|F\| = 1$: the distance of VF itself to it is 0, and of no other
ETF. So W(f) = W (self-consistency), and the value is $\beta$.

**2.** The bound holds as before. It is reached iff f is collapsed onto an E = UF for which a minimiser U of the
problem for H = E, that is of $A = 2EF' + \delta U_{prox}$, has UF = E. Such a U has $A = UB$, $B \succeq 0$
symmetric, so $\delta U_{prox} = U(B - 2FF')$: with $S = (B - 2FF')/\delta$ symmetric, $U_{prox} = US$ and
$S^2 = S'S = U_{prox}'U_{prox} = I$. So $U = U_{prox}S$. Conversely $A = U(2FF' + \delta S)$ has the minimiser U, the
only one if the bracket is definite. If U_prox F = E, then S = I does.

**3.** For fixed W, $\ell(\cdot, W) \ge \beta$ on the spheres, with equality at collapse onto W: the gradient of
$\ell$ in f, which is $D$, has no part along the spheres. The same holds for L, whose gradient is D + I, by 1 (by 2
with a proximal term); W is differentiable there, since for the reduced frame $A = 2VFF' = \frac{2}{C-1}V$ has full
rank (`theory/gradient.py`). The difference I has none either.

**4.** With all f turned by R, H becomes RH, the nearest ETF turns along, W becomes WR', and the logits stay.
Differentiate at R = exp(tZ), Z skew: $0 = \sum_i\langle D_i+I_i, Zf_i\rangle = \langle Z, \sum_i(D_i+I_i)f_i'\rangle$
for all skew Z, so that the sum is symmetric. The indirect path sees f through $H/\|H\|$ alone and H is linear in f,
so I is orthogonal to f (Euler). For the direct part let $e_i$ be the softmax of sample i minus the unit vector of its
class, over n. Then $D_i = W'(e_i - \bar e)$ and $\Gamma = \sum_ie_i(f_i-\mu_G)'$, so $\sum_iD_if_i' = W'\Gamma$. With
a proximal term L is invariant if U_prox turns too: the torque of f is minus that of
$\partial L/\partial U_{prox} = \delta Y$, and $\|U_{prox}Y' - YU_{prox}'\| \le 2\|Y\|$.

**5.** Let f be critical: $D_i = \lambda_if_i$. As $d \ge C$ there is a unit vector q with Wq = 0. If
$\lambda_i \ne 0$, $f_i = W'(e_i-\bar e)/\lambda_i$ is orthogonal to q. Move it along
$f_i\cos\theta + \tau q\sin\theta$: the logits of all samples do not change to first order, so the second derivative
of $\ell$ is $\langle D_i, \ddot f_i\rangle = -\lambda_i\tau^2$. At a second-order critical point hence all
$\lambda_i \le 0$. Now $\ell(\cdot, W)$ is convex in $(f_1, ..., f_n) \in R^{dn}$, a sum of log-sum-exps of linear
functions, so for any g in the product of spheres

$$\ell(g) \ge \ell(f) + \sum_i\langle D_i, g_i - f_i\rangle
   = \ell(f) + \sum_i\lambda_i(\langle f_i, g_i\rangle - \tau^2) \ge \ell(f):$$

f is global, and the global minimisers are known from 1. The counterexample is found by Newton's method and certified
by the eigenvalues of its Hessian: 0.0256 and more for the frozen ETF; one zero, the rotation, and 0.30 and more with
both paths.

## In the code

- `etfopt.nn.NearestETFHead`: the layer; `implicit_gradient` is the indirect path, `freeze_after` the frozen W of part
  5.
- `etfopt.nn.FixedETFHead`: part 5 again.

## References

Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features, and Yaras et al. (2022),
Neural collapse with normalized features, have benign landscapes for learned classifiers with d > C. Markou, Ajanthan
and Gould (2024) for the layer.
"""

from __future__ import annotations

import numpy as np

from theory._unconstrained_features import PARTS
from theory.registry import Evidence, gather

__all__ = ["PARTS", "check"]


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any features, collapse, turns, critical points, and optimisation from many starts."""
    return gather(rng, budget, PARTS)
