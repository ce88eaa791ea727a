r"""Fading: what a batch weighs in the running means, and what is left of the gradient through the ETF.

## Statement

The layer keeps $\bar H_t = a_tH_t + (1-a_t)\bar H_{t-1}$, with $a_1 = 1$ and the past held constant, and solves for
$H = \bar H_t/\|\bar H_t\|_F$. The release has $a_t = \max(2/(t+1), 10^{-4})$, whose floor is reached at
$T_0 = 19999$.

1. *Weights.* $\bar H_t = \sum_k\omega_{t,k}H_k$ with $\omega_{t,k} = a_k\prod_{j=k+1}^t(1-a_j)$, which sum to 1.

   | rule | $\omega_{t,k}$ | batches in effect, $1/\sum_k\omega_{t,k}^2$ | mean age $\sum_k\omega_{t,k}(t-k)$ |
   | --- | --- | --- | --- |
   | $2/(t+1)$ | $2k/(t(t+1))$ | $3t(t+1)/(2(2t+1)) \approx 3t/4$ | $(t-1)/3$ |
   | $1/t$ | $1/t$ | t | $(t-1)/2$ |
   | constant a, $q = 1-a$ | $aq^{t-k}$, $q^{t-1}$ for k = 1 | tends to $(2-a)/a$ | tends to $(1-a)/a$ |

   So the release's "EMA" forgets nothing: it grows its memory with t. Only after $T_0$ it is one, of rate $10^{-4}$:
   $\omega_{t,k} = \omega_{T_0,k}q^{t-T_0}$ for $k \le T_0$, and from 15000 batches in effect it tends to 19999.

2. *The indirect gradient.* Let g = dL/dH through U*(H), of cotangent G = dL/dU, and
   $\Gamma = (g - \langle g, H\rangle H)/\|\bar H_t\|_F$. The gradient with respect to the batch is
   $dL/dH_t = a_t\Gamma$, and for a sample i of class c, with $n_c$ of the n samples of the batch,

   $$\frac{dL}{df_i} = a_t\Bigl[\frac{\Gamma_c}{n_c} + \frac1n\Bigl(\sum_{j\ \mathrm{never\ seen}}\Gamma_j -
      \sum_{j\ \mathrm{in\ the\ batch}}\Gamma_j\Bigr)\Bigr].$$

   A class that was seen before and is absent keeps its column and adds nothing. The normalisation removes the
   component along $\bar H_t$, which is $\langle g, H\rangle = -\delta\langle D_A[G], U_{prox}\rangle$
   (`theory/gradient.py`): none for $\delta = 0$. In size,
   $\|dL/dH_t\|_F \le 2a_t\|F\|_2\|G\|_F/(\sigma_{min}(A)\|\bar H_t\|_F)$.

3. *Fading.* With the same $\bar H_t$, U_prox and loss the indirect gradient is $a_t$ times that of the first step.
   Under the release's rule $a_{2t+1} = a_t/2$: it halves whenever the number of steps doubles, and has no half-life.
   Its weights add up to $\sum_{t\le T}a_t = 2(h_{T+1} - 1)$, h the harmonic numbers: 19.0 steps' worth in the first
   19999, where the direct gradient has 19999. Half of that is spent by step t with
   $t/\sqrt T \to e^{(1-\gamma)/2} = 1.235...$ After $T_0$ each step adds $10^{-4}$, and 189615 more steps double the
   sum. A constant rate gives 1 + (T-1)a and does not fade; $1/t$ gives $h_T$, about half of the release's and so no
   remedy.

4. *Rare classes.* A class in the batches $t_1 < \dots < t_m$ only has the column
   $\omega_0x_0 + \sum_k\omega_kH_{t_k}$, $\omega_k = a_{t_k}\prod_{j>k}(1-a_{t_j})$, $\omega_0 = \prod_j(1-a_{t_j})$,
   where $x_0$ is what filled the column before: $\mu_G$ of batch $t_1 - 1$. If it is in each batch with probability p
   independently, then under the release's rule before the floor

   $$E\,\omega_0 = \frac{\Gamma(T+2-2p)}{\Gamma(2-2p)\,\Gamma(T+2)} \sim \frac{T^{-2p}}{\Gamma(2-2p)}, \qquad
      E[\omega_{(s)} \mid s] = v_s = \frac{2}{s+1}\,\frac{\Gamma(T+2-2p)\,\Gamma(s+2)}{\Gamma(s+2-2p)\,\Gamma(T+2)}$$

   is the expected weight at time T of a visit at step s, and $v_{s+1}/v_s = (s+1)/(s+2-2p)$: later visits weigh more
   exactly if p > 1/2, all weigh 2/(T+1) if p = 1/2, **earlier ones weigh more if p < 1/2**. For p = 0.01 at the step
   19999, after about 200 visits, 83 % of the column, in expectation, is still the mean of another batch, without a
   sample of the class. If the class is in the batches 1, 1+P, 1+2P, ..., its first visit keeps the weight
   $\Gamma(m)\Gamma(1+2/P)/\Gamma(m+2/P) \sim \Gamma(1+2/P)\,m^{-2/P}$ among m, so that at most
   $m^{4/P}/\Gamma(1+2/P)^2\,(1+o(1))$ visits are in effect, fewer than in proportion for P > 4: 1.26 of 200 for P =
   100. The rate $2/(n_c+1)$, with a counter $n_c$ of the class's own visits, gives its k-th of m visits 2k/(m(m+1))
   and nothing to $x_0$, whatever the schedule. The package has the global counter, as the release does.

## Assumptions

$a_t \in (0, 1]$; $\bar H_t \ne 0$; U* differentiable at H. In part 4, 0 < p < 1, and T at most $T_0$; the batches are
given.

## Proof

**1.** Unroll the recursion; the sum of weights follows $\Omega_t = a_t + (1-a_t)\Omega_{t-1}$ from $\Omega_1 = 1$.
For the rule 2/(t+1), $1 - a_j = (j-1)/(j+1)$ and the product over j = k+1, ..., t telescopes to k(k+1)/(t(t+1)). With
$\sum k = t(t+1)/2$ and $\sum k^2 = t(t+1)(2t+1)/6$, $\sum\omega^2 = 2(2t+1)/(3t(t+1))$ and $\sum\omega k = (2t+1)/3$.
For 1/t the product is k/t. For a constant rate, $\sum\omega^2 = q^{2(t-1)} + a^2(1-q^{2(t-1)})/(1-q^2) \to a/(2-a)$,
and the age is $aq\sum_{i\ge1}iq^{i-1} = q/a$ in the limit. $2/(t+1) \le 10^{-4}$ iff $t \ge 19999$, with equality
there; afterwards the older weights are multiplied by q a step, and $3T_0(T_0+1)/(2(2T_0+1)) = 14999.6$ while
$(2-a)/a = 19999$.

**2.** $d\bar H_t = a_tdH_t$, and $dH = (d\bar H_t - H\langle H, d\bar H_t\rangle)/\|\bar H_t\|$ is self-adjoint:
$dL/d\bar H_t = \Gamma$. The column c of $H_t$ is the class's mean minus $\mu_G$ if c is in the batch, $\mu_G$ if c
was never seen, and otherwise it is set to the past one, which is constant; $d\mu_G = \sum_idf_i/n$. With
$\langle D_A[G], A\rangle = \langle G, D_A[A]\rangle = 0$, for $A = UB$ is U times a symmetric matrix,
$\langle g, H\rangle = \langle D_A[G], 2HF'\rangle = \langle D_A[G], A - \delta U_{prox}\rangle$. For the size, a
projection does not lengthen, and $\|D_A\| \le 1/\sigma_{min}(A)$.

**3.** Neither $\Gamma$ nor the bracket depends on t but through H, U_prox, G and $\|\bar H_t\|$.
$2/(2t+2) = \tfrac12\cdot2/(t+1)$; $\sum_{t\le T}2/(t+1) = 2(h_{T+1}-1)$. By $h_T = \log T + \gamma + O(1/T)$, half of
the sum is reached where $\log t + \gamma - 1 = \tfrac12(\log T + \gamma - 1) + o(1)$. $2(h_{20000} - 1) = 18.9615$.

**4.** The column changes at its visits only, with the rates of those steps: unroll. If visits are independent, E of
$\prod_t(1 - a_t[\mathrm{visit}])$ is $\prod_{t=1}^T(1-pa_t) = \prod(t+1-2p)/(t+1)$, which is the quotient of Gamma
functions; $\Gamma(T+2-2p)/\Gamma(T+2) \sim T^{-2p}$ (Stirling). Given a visit at s, its weight is
$a_s\prod_{t>s}(1-a_t[\mathrm{visit}])$; and $v_{s+1}/v_s = \frac{s+1}{s+2}/(1-\frac{2p}{s+2})$. For visits at 1+kP
the weight of the first, k = 0, is $\prod_{k=1}^{m-1}(1 - \frac{2}{kP+2}) = \prod k/(k+2/P)$;
$1/\sum\omega^2 \le 1/\omega_1^2$. A counter of its own makes the class's visits the batches of part 1.

## In the code

- `etfopt.nn.PaperClassMeans`: `averaging` is the rule; a number keeps the indirect gradient from fading.
- `etfopt.nn.NearestETFHead`: `implicit_gradient=False` cuts what is left of it after many steps.

## References

Markou, Ajanthan and Gould (2024), section 3 and the released code.
"""

from __future__ import annotations

import numpy as np

from theory._fading import PARTS
from theory.registry import Evidence, gather

__all__ = ["PARTS", "check"]


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: batches with missing classes, steps around the floor, measured gradients."""
    return gather(rng, budget, PARTS)
