r"""The gradient of the nearest ETF: closed form, implicit formula, second derivatives, and inexact solutions.

## Statement

For an orthonormal U (d x r), a symmetric $B = Q\,\mathrm{diag}(s)\,Q' \succ 0$ and any G (d x r), let K = U'G and

$$D_{U,B}[G] = U\Omega + (G - UK)B^{-1}, \qquad \Omega = Q\Bigl[\frac{(Q'(K-K')Q)_{ij}}{s_i+s_j}\Bigr]Q',$$

the closed form. Let A have full column rank, with polar decomposition $A = U_*B_*$ and singular values
$s_1 \ge \dots \ge s_r = s > 0$, and write $D_A = D_{U_*,B_*}$.

1. *Derivative.* The polar factor $\pi(A) = U_*$ is real analytic at A, with derivative $D_A$, so that derivatives of
   every order exist wherever the first does. Where A is rank deficient, no choice of minimiser is even continuous.
   (For a loss of UF alone and $\delta = 0$ read AN for A, with N an orthonormal basis of F's range: $UN = \pi(AN)$.)
2. *Adjoint, kernel, size.* $D_A$ is self-adjoint; $D_A[G] = 0$ exactly for $G = U_*S$ with S symmetric; its norm is
   1/s for d > r and, for d = r > 1, $2/(s_r + s_{r-1})$. Hence $dL/dH = 2D_A[G]F$ and $dL/dU_{prox} = \delta D_A[G]$.
   F kills what it does not see: if F1 = 0, the rows of dL/dH sum to zero.
3. *Implicit formula.* At any orthonormal U with $B = \mathrm{sym}(U'A) \succ 0$, minimiser or not, the paper's dense
   formula returns $2D_{U,B}[G]F$. At the minimiser it is the closed form.
4. *Second derivative.* With $V = D_A[X]$, $W = D_A[E]$, $\Lambda = U_*'(X - VB_*)$, $\dot B = U_*'(E - WB_*)$ and
   $\Sigma = -\mathrm{sym}(W'V)$,

   $$D^2\pi(A)[X, E] = U_*\Sigma - D_A[V\dot B + W\Lambda + U_*\Sigma B_*], \qquad
      \|D^2\pi(A)[X,E]\|_F \le \frac{3\sqrt2}{s^2}\|X\|_F\|E\|_F .$$

5. *Inexact solutions.* $D_{U,B}$ is the exact derivative at another linear term, UB. If
   $\varepsilon = \|A - UB\|_F < s$ (for $B = \mathrm{sym}(U'A)$ this is the norm of the Riemannian gradient that the
   solver left), then

   $$\|D_{U,B}[G] - D_A[G]\|_F \le \frac{3\sqrt2\,\varepsilon}{s(s-\varepsilon)}\|G\|_F, \qquad
      \|U - U_*\|_F \le \frac{2\varepsilon}{s + \lambda_{min}(B)} \le \frac{2\varepsilon}{2s - \varepsilon},$$

   to first order $3\sqrt2\,\varepsilon/s^2$, and no power of $\varepsilon/s$ or s is better. With dL/dU itself taken
   at U in place of $U_*$, and $\ell$-Lipschitz, $2\ell\varepsilon/(s(2s-\varepsilon))$ is added. dL/dH multiplies
   both by $2\|F\|_2$. `etfopt.adjoint` accepts points with $\varepsilon \le 10^{-6}s_1$ and refuses others (in
   float64; where it takes $B = (A'A)^{1/2}$, $\varepsilon$ is estimated from products with random vectors). The
   condition on B matters: at other critical points $\varepsilon = 0$, and the formula there is not the gradient.
6. *Small* $\delta$. Let F'n = 0 for one unit vector n up to sign (the paper's frame: n = 1/sqrt(C)), X = 2HF' of rank
   r-1 with smallest non-zero singular value $\sigma$, $U_{prox}$ orthonormal, and $\rho > 0$ the distance of
   $U_{prox}n$ from the range of X, $a = (1-\rho^2)^{1/2}$. For a linear loss $\langle G_E, UF\rangle$, $dL/dH$ tends
   to its value for the reduced frame without a proximal term, with

   $$\lim_{\delta\to0}\frac{\|g_\delta - g_0\|_F}{\delta} \le \frac{2\|F\|_2^2\|G_E\|_F}{\sigma^2}
      \Bigl(3\sqrt{2(r-1)} + \frac{a^2}{\rho}[d>r] + (1+\sqrt2)\,a + 1\Bigr).$$

   So no $1/\delta$ leaks, and in units of $\|F\|_2^2\|G_E\|/\sigma$ the error is $O(\delta/\sigma)$ with a constant
   for a near proximal point, where $\rho = 1$. The promise "at most $30\,\delta$" is **false** for a far one: for C =
   2, d = 3 the relative error is $\delta/(\sigma\rho)$ to leading order, for instance $500\,\delta$ at
   $\rho = 10^{-3}$, $\sigma = 2$.

## Assumptions

d >= r; A of full column rank but where said; G fixed unless said. Norms are Frobenius, $\|\cdot\|_2$ spectral.

## Proof

**Lemma.** $Y = D_{U,B}[G]$ is the only matrix with U'Y skew and $YB + U\Lambda = G$ for a symmetric $\Lambda$. For
the formula, U'Y = $\Omega$ is skew, and $\Lambda = K - \Omega B$ is symmetric since
$\Lambda - \Lambda' = K - K' - \Omega B - B\Omega = 0$ entry by entry in the basis Q;
$YB + U\Lambda = U\Omega B + G - UK + UK - U\Omega B = G$. For G = 0, $\Omega = U'Y$ has $\Omega B = -\Lambda$
symmetric, so $\Omega B + B\Omega = 0$, $(s_i+s_j)\Omega_{ij} = 0$, $\Omega = \Lambda = 0$, YB = 0, Y = 0. In the
basis Q, $\Lambda_{ij} = (s_iK_{ij} + s_jK_{ji})/(s_i+s_j)$, so by Cauchy-Schwarz
$\Lambda_{ij}^2 + \Lambda_{ji}^2 \le 2(K_{ij}^2+K_{ji}^2)$ and $\|\Lambda\| \le \sqrt2\|G\|$.

**1.** $\pi(A) = A(A'A)^{-1/2}$, and the inverse root is analytic on positive definite matrices. Differentiating A =
UB and U'U = I along E: $E = \dot UB + U\dot B$, $\dot B$ symmetric, $U'\dot U$ skew; by the lemma $\dot U = D_A[E]$.
If A is deficient, take unit vectors q with Aq = 0 and p orthogonal to the range of A (which has dimension < r <= d).
For t > 0, $\langle A \pm tpq', U\rangle$ is largest only at U with $Uq = \pm p$: q is a right singular vector of
value t, and $tr(S\,P'UQ)$ attains $\sum s_i$ only if $p_i'Uq_i = 1$ wherever $s_i > 0$. So any choice of minimisers
jumps by 2.

**2.** For skew $\Omega$ of G and $\Omega_2$ of G_2,
$\langle D_A[G], G_2\rangle = \tfrac12\langle\Omega, K_2-K_2'\rangle + \langle (I-UU')GB^{-1}, G_2\rangle$, and both
terms are symmetric in G and $G_2$. It is zero iff $K = K'$ and G = UK. In the basis Q,
$\sum_{ij}\Omega_{ij}^2 \le \sum_{i<j} 2\cdot2(K_{ij}^2 + K_{ji}^2)/(s_i+s_j)^2$, so the first part has norm at most
$2/(s_r+s_{r-1}) \le 1/s$, reached by $K = q_rq_{r-1}' - q_{r-1}q_r'$; the second at most 1/s, reached for d > r; the
two parts are orthogonal in image and source. dA = 2 dH F' + $\delta\,dU_{prox}$ gives the gradients.

**3.** With $f$ the objective, Gould et al. (equality-constrained case) have
$Dy = \mathcal H^{-1}J'(J\mathcal H^{-1}J')^{-1} J\mathcal H^{-1}\mathcal B - \mathcal H^{-1}\mathcal B$. Here
$\nabla f = 2UFF' + \delta U - A$, so $\mathcal H: V \mapsto V(2FF' + \delta I - \mathrm{sym}(U'\nabla f)) = VB$;
$\mathcal B$ takes dH to -2 dH F'; J takes V to U'V + V'U, so that the range of J' is $\{U\Lambda\}$. Applied to G the
transpose returns 2YF with $Y = \mathcal H^{-1}(G - J'\lambda)$, JY = 0: $YB + U\Lambda = G$ and U'Y skew. The lemma
says $Y = D_{U,B}[G]$.

**4.** Differentiate $VB + U\Lambda = X$ and U'V + V'U = 0 along E: $\dot VB + V\dot B + W\Lambda + U\dot\Lambda = 0$
and $U'\dot V + \dot V'U = -(W'V + V'W) = 2\Sigma$. So $Y = \dot V - U\Sigma$ has U'Y skew and
$YB + U\dot\Lambda = -(V\dot B + W\Lambda + U\Sigma B)$: the lemma again. For the bound: $\|D_A\| \le 1/s$,
$\|V\| \le \|X\|/s$, $\|W\| \le \|E\|/s$, and by the lemma $\|\Lambda\| \le \sqrt2\|X\|$,
$\|\dot B\| \le \sqrt2\|E\|$, so $V\dot B$ and $W\Lambda$ give $\sqrt2/s^2$ each. In the basis Q,
$U\Sigma - D_A[U\Sigma B]$ has the entries $\Sigma_{ij}\,2s_i/(s_i+s_j)$, and $4(s_i^2+s_j^2)/(s_i+s_j)^2 \le 4$ makes
its norm at most $\sqrt2\|\Sigma\| \le \sqrt2\|V\|\|W\|$: the third $\sqrt2/s^2$.

**5.** (U, B) is the polar decomposition of UB, so $D_{U,B} = D_{UB}$. On the segment $A_t = A + t(UB - A)$ the
smallest singular value is at least $s - t\varepsilon > 0$ (Weyl), and by 4 the difference is at most
$\int_0^1 3\sqrt2\,\varepsilon(s-t\varepsilon)^{-2}dt\,\|G\|$. The Riemannian gradient of $-\langle A, U\rangle$ is
$-(A - U\mathrm{sym}(U'A))$. For the distance,
$\mathrm{tr}B_* - \langle U, U_*B_*\rangle = \tfrac12\|(U-U_*)B_*^{1/2}\|^2$ and likewise with B, so
$\langle U_* - U, A - UB\rangle = \tfrac12\|(U-U_*)B_*^{1/2}\|^2 + \tfrac12\|(U-U_*)B^{1/2}\|^2$, at least
$\tfrac12(s + \lambda_{min}(B))\|U - U_*\|^2$; use Cauchy-Schwarz and $\lambda_{min}(B) \ge s - \varepsilon$. With r =
1, U at the angle $\theta$ from $U_* = A/s$, $B = s\cos\theta$ and $G = U_*$: $\varepsilon = s\sin\theta$,
$D_A[G] = 0$ and $\|D_{U,B}[G]\| = \tan\theta/s = \varepsilon/(s\sqrt{s^2-\varepsilon^2})$: the bound is sharp but for
its constant.

**6.** Write N for an orthonormal basis of n's complement, $X_1 = XN = VR$ (polar), $P_1 = U_{prox}N$,
$p = U_{prox}n = V\alpha + \rho e$ with e a unit vector orthogonal to V, $|\alpha| = a$. In the columns [N n], A is
$[X_1 + \delta P_1,\ \delta p]$. With $V_\delta = \pi(X_1 + \delta P_1)$, $R_\delta$, $\alpha_\delta$, $\rho_\delta$,
$e_\delta$ in the places of V, ..., e, it is $[V_\delta\ e_\delta]T$ with
$T = [[R_\delta, \delta\alpha_\delta], [0, \delta\rho_\delta]]$, and its polar factor is $[V_\delta\ e_\delta]\pi(T)$.
$\pi(T) = O$ solves "O'T symmetric", an equation on O(r) that is analytic in T and has, at $\delta = 0$, O = I, the
linearisation $\Omega S_0 + S_0\Omega$, $S_0 = \mathrm{diag}(R, 0)$: invertible on skew matrices, as at most one
singular value is zero. So O is analytic in $(H, \delta)$ near $\delta = 0$ (and O'T, of determinant
$\delta\rho\det R_\delta > 0$ and with all eigenvalues but one near those of R, is positive definite: O is the polar
factor), and so is $UF = [V_\delta\ e_\delta]O[I; 0]N'F$. To first order $O = I + [[0, w], [-w', 0]]$ with
$(R + \delta\rho I)w = \delta\alpha$, hence $w = \delta R^{-1}\alpha + O(\delta^2)$ and

$$UF = \bigl(V + \delta\{D_{X_1}[P_1] - e\,\alpha'R^{-1}\}\bigr)N'F + O(\delta^2),$$

an expansion of analytic functions, whose derivative in H may be taken term by term. Let $\dot X_1 = 2\dot HF'N$, of
norm at most $2\|F\|_2\|\dot H\|$. The first brace changes by at most $3\sqrt2\,\|P_1\|\|\dot X_1\|/\sigma^2$ (4, and
$\|P_1\| = \sqrt{r-1}$). With $\dot V = V\Omega + Z$, V'Z = 0:
$|\dot\alpha| = |\dot V'p| \le \|\dot V\| \le \|\dot X_1\|/\sigma$; $\|\dot R\| \le \sqrt2\|\dot X_1\|$; and
$e = (I-VV')p/\rho$ gives $\dot e = -(I-ee')Z\alpha/\rho - VZ'e$, where (I-ee')Z = 0 if d = r. So the second changes
by at most $\|\dot X_1\|\sigma^{-2}\bigl((a/\rho\,[d>r] + 1)a + 1 + \sqrt2a\bigr)$. For C = 2, V = v and R = $\sigma$
is a number; along $\dot X_1$ orthogonal to v and e, $Z = \dot X_1/\sigma$ and the second brace changes by
$\dot X_1a^2/(\rho\sigma^2)$, all else staying bounded as $\rho \to 0$, against $\dot V = \dot X_1/\sigma$.

## In the code

- `etfopt.adjoint.nearest_etf_vjp`: the closed form; its cost is that of a few products.
- `etfopt.adjoint.nearest_etf_jvp`: the same map forwards, for part 2 says that it is self-adjoint.
- `etfopt.adjoint.polar_derivative`: D_A, refused where parts 1 and 5 leave no gradient to return.
- `etfopt.adjoint.kkt_vjp`: the dense formula, kept as an oracle. It forms B as a difference of terms of the size of
  FF', and so has no digits for A much smaller than that.
- `etfopt.nn.functional.nearest_etf`: part 4 is why autograd may differentiate it again.

## References

Gould, Hartley and Campbell (2022), Deep declarative networks. Markou, Ajanthan and Gould (2024). Higham (2008),
Functions of Matrices, chapter 8. R.-C. Li (1995), New perturbation bounds for the unitary polar factor, has the
distance for square A.
"""

from __future__ import annotations

import numpy as np

from theory._gradient import PARTS
from theory.registry import Evidence, gather

__all__ = ["PARTS", "check"]


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: in fifty digits, by dense systems, off the minimiser, at faint weights."""
    return gather(rng, budget, PARTS)
