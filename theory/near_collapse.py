r"""Near collapse: the polar factor and its derivative by products, and what their series leave out.

## Statement

Let A (d x r) have full column rank, v be a unit vector, $\sigma, \theta > 0$ and

$$A'A = \sigma\bigl(I + E - (1-\theta/\sigma)vv'\bigr), \qquad Ev = 0, \quad e = \|E\|_2 < 1 .$$

Write A = UB (polar), $I + N = (I+E)^{-1/2}$, $1 + \alpha = (\sigma/\theta)^{1/2}$, $\tau = \theta/\sigma$, m = r-1,
$\nu = (1-e)^{-1/2} - 1$, and $c_k$ for the coefficients of $(1+x)^{-1/2}$.

1. *Root.* $B^{-1} = \sigma^{-1/2}(I + N + \alpha vv')$, Nv = 0 and $\|N\|_2 \le \nu \le e/(2(1-e))$.
2. *Series.* The $c_k$ alternate in sign and fall in size, and N without its powers above 2n is off by at most
   $|c_{2n+1}|e^{2n+1}/(1-e)$ and, for $E = -e\,pp'$, by at least $|c_{2n+1}|e^{2n+1}$, in the spectral norm.
3. *Derivative.* With K = U'G and J = K - K' the derivative of the polar factor at A takes G to $(G - U\Lambda)B^{-1}$,
   where $\Lambda = \tfrac12(K+K') + \Delta$ and $\Delta$ is the only solution of
   $S\Delta + \Delta S = \tfrac12(JS - SJ)$, for S any positive multiple of $B^{-1}$.
4. *Split.* $\Delta = M + yv' + vy'$ with v'y = 0, Mv = 0, j = Jv, and

$$\bigl((2+\alpha)I + N\bigr)y = \tfrac12(\alpha j - Nj) =: x, \qquad
   2M + NM + MN = \tfrac12\bigl(JN - NJ + (Nj)v' + v(Nj)'\bigr) =: 2M_0 .$$

   With $y_0 = x/(2+\alpha)$, $y_{k+1} = (x - Ny_k)/(2+\alpha)$ and $M_{k+1} = M_0 - \tfrac12(NM_k + M_kN)$,

$$\|y_n - y\| \le \Bigl(\frac{\nu}{2+\alpha}\Bigr)^{n+1}\frac{|\alpha|+\nu}{2(2+\alpha-\nu)}\|j\|, \qquad
   \|M_{n-1} - M\|_F \le \frac{n^n\sqrt{1+e}}{2(n+1)^{n+1}}\,\nu^{n+1}\|J\|_F ,$$

   the first if $\nu < 2 + \alpha$.
5. *How many terms.* Let $\rho > 0$ and let n satisfy $2|c_{2n+1}|\epsilon^{2n+1} \le \rho(1-\epsilon)$ and
   $(\epsilon/2)^{n+1} \le 16\rho(1-\epsilon)$ for $\epsilon^2 = \|E^2\|_F$. Then $e \le \epsilon$, the series is off
   by at most $\rho/2$, and $\|M_{n-1} - M\|_F \le \rho\,\|J\|_F\,8n^n(n+1)^{-n-1}(1+\epsilon)^{1/2}(1-\epsilon)^{-n}$:
   for n at most 3 and $\rho \le 1.2\cdot10^{-4}$, which is float32 up to r = 1000, at most $3\rho\|J\|_F$.
6. *Estimate.* Let $\sigma$ be the mean of the eigenvalues of A'A but for $\theta$. Then for $\tau \le 2$

$$\frac{m}{\sqrt r}\Bigl(\frac{m\,\|A'A\|_F^2}{(\mathrm{tr}A'A)^2} - 1\Bigr) \le \|E^2\|_F ,$$

   so that by 5 a matrix that the left side refuses is one that the right side would refuse. For larger $\tau$ this is
   false, and the left side is at least $mr^{-1/2}\tau\bigl((m-1)\tau - 2m\bigr)/(m+\tau)^2$: from 64 to 1000 columns it
   refuses every $\tau \ge 4$ for $\rho \le 1.2\cdot10^{-4}$. With v = 0 and $\sigma$ the mean of all eigenvalues the
   inequality holds always.
7. *Direction.* In $w \mapsto w - A'Aw\,m/\mathrm{tr}(A'A)$ each step multiplies the part orthogonal to v, relative to
   the part along v, by at most $(e + \tau/m)/|1 - \tau + \tau/m|$.

## Assumptions

d >= r >= 2; G any d x r matrix; n >= 1; $\sigma$ in 1 to 5 any number, in 6 and 7 the mean, so that tr E = 0.

## Proof

**1.** A'A maps v to $\theta v$ and is $\sigma(I+E)$ on the complement of v, which E keeps; so its inverse root is
$\theta^{-1/2}$ at v and $\sigma^{-1/2}(I+E)^{-1/2}$ there. The eigenvalues of N lie between $(1+e)^{-1/2}-1$
and $\nu$, and the first is smaller in size, by convexity. $\nu = e/(\sqrt{1-e}\,(1+\sqrt{1-e}))$, whose denominator
is at least 2(1-e).

**2.** $c_{k+1}/c_k = -(2k+1)/(2k+2)$. So the rest $\sum_{k>2n}c_kx^k$ is at most
$|c_{2n+1}|\,|x|^{2n+1}\sum_k|x|^k$; at x = -e all its terms have one sign, and its size is at least that of the first.
N and its partial sums are functions of E, so eigenvalues tell their difference.

**3.** `theory/gradient.py` has $(G - U\Lambda)B^{-1}$ with $B\Lambda + \Lambda B = BK + K'B$ (its lemma: $YB + U\Lambda
= G$ with $\Lambda = K - \Omega B$). Take away the same for $\tfrac12(K+K')$: since $K - \tfrac12(K+K') = \tfrac12J$ and
$K' - \tfrac12(K+K') = -\tfrac12J$, $B\Delta + \Delta B = \tfrac12(BJ - JB)$. Multiply by $B^{-1}$ from both sides. The
solution is unique, for sums of eigenvalues of S are positive; both sides are homogeneous in S.

**4.** Take $S = I + N + \alpha vv'$ and $X = \tfrac12(JS - SJ) = \tfrac12\bigl(JN - NJ + \alpha(jv' + vj')\bigr)$, for
v'J = -j'. J is skew, so v'j = 0 and, with Nv = 0, v'Xv = 0; as $v'(S\Delta+\Delta S)v = 2(1+\alpha)v'\Delta v$, also
$v'\Delta v = 0$. Let $y = \Delta v$, orthogonal to v: $Xv = S y + (1+\alpha)y = Ny + (2+\alpha)y$, and
$Xv = \tfrac12(\alpha j - Nj)$. With P = I - vv' and $M = P\Delta P$, $PSP = P + N$, so
$2M + NM + MN = PXP = \tfrac12P(JN-NJ)P$. Here $PJN = JN - vv'JN = JN + v(Nj)'$, and $NJP = -(PJN)'$, so that PXP is
half of PJN and its transpose. Both equations have one solution, which is the fixed point of the iteration.
The error of $y_k$ is $(-N/(2+\alpha))^{k+1}y$, and $\|y\| \le \|x\|/(2+\alpha-\nu)$. In an eigenbasis of N with values
$a_i$, $M_{ij} = J_{ij}(a_j - a_i)/(2(2+a_i+a_j))$ outside v, and the error of $M_k$ is $(-(a_i+a_j)/2)^{k+1}M_{ij}$.
The denominator is at least $4(1+e)^{-1/2}$, and $|a+b|^n|a-b|$ for $|a|,|b| \le \nu$ is largest at $a = \nu$,
$b = \nu(n-1)/(n+1)$, where it is $(2\nu)^{n+1}n^n/(n+1)^{n+1}$: it grows along rays and is the same for (b, a) and
(-a, -b), so that $a = \nu$ may be taken, and there the derivative in b has no other zero inside.

**5.** $e^2 = \|E^2\|_2 \le \|E^2\|_F$. The rest follows from 2, and from 4 with $\nu \le \epsilon/(2(1-\epsilon))$. The
first condition with $\rho = 1.2\cdot10^{-4}$ gives $\epsilon < 0.06$, 0.19 and 0.3 for n = 1, 2 and 3, and then
$8n^n(n+1)^{-n-1}(1+\epsilon)^{1/2}(1-\epsilon)^{-n}$ is at most 2.2, 2 and 2.9.

**6.** $\mathrm{tr}A'A = \sigma(m+\tau)$ and $\|A'A\|_F^2 = \sigma^2(m + \|E\|_F^2 + \tau^2)$, for tr E = 0. So the
bracket is $m\|E\|_F^2/(m+\tau)^2 + \tau((m-1)\tau - 2m)/(m+\tau)^2$. For $\tau \le 2 \le 2m/(m-1)$ the second term is
not positive and the first at most $\|E\|_F^2/m$; and $\|E\|_F^2 \le \sqrt r\,\|E^2\|_F$ by Cauchy-Schwarz. For larger
$\tau$ the second term is what the bracket is at least. For $\tau \ge 1$ it grows with $\tau$, its derivative having the
sign of $m^2(\tau-1)$; at $\tau = 4$ it is $8(m-2)/(m+4)^2$, which times $m/\sqrt r$ falls from m = 63 on, to 0.25 at
m = 999; and by 5 no n up to 3 serves $\epsilon = 0.5$ unless $\rho > 0.006$. With v = 0, $\mathrm{tr}A'A = r\sigma$ and
the bracket is $(m\|E\|_F^2 - r)/r^2$.

**7.** The trace is $\sigma(m+\tau)$. The map has the eigenvalue $1 - \tau/(1+\tau/m)$ at v and, on its complement,
$1 - (1+\lambda)/(1+\tau/m)$ for the eigenvalues $\lambda$ of E: divide $|\tau/m - \lambda|$ by $|1 + \tau/m - \tau|$.

## In the code

- `etfopt.nn.polar._collapsed.near_collapse`: 1, 2, and the estimate 6 before v is known, with v from 7.
- `etfopt.nn.polar._collapsed.Collapsed.derivative`: 3 and 4.
- `etfopt.nn.polar._collapsed._terms`: 5, with $\rho = ru$.

## References

Higham (2008), Functions of Matrices, chapters 4 and 6.
"""

from __future__ import annotations

import numpy as np

from theory._near_collapse import PARTS
from theory.registry import Evidence, gather

__all__ = ["PARTS", "check"]


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: every bound with errors far above rounding, and the code against eigenvectors."""
    return gather(rng, budget, PARTS)
