r"""The certificate: gap, distance and optimality of any point, and what they are worth in floating point.

## Statement

A is d x r, d >= r, $A = U^*B$ with $B = (A'A)^{1/2}$ and $U^*$ any minimiser of the nearest-ETF problem (any polar
factor of A). For a d x r matrix U let $gap(U) = \|A\|_* - \langle A, U\rangle$ and $\eta = \|U'U - I\|_F$. $\sigma_i$
are the singular values of A, $\sigma$ the smallest. The spectral ball is $\|U\|_2 \le 1$.

(a) *Identity.* $gap(U) = \frac12 tr((U^*-U)B(U^*-U)') + \frac12 tr(B(I-U'U))$ for every U.

(b) *Distance.* In the ball, $\|U - U^*\|_F \le \sqrt{2\,gap(U)/\sigma}$. Outside, $V = U/\max(1, \|U\|_2)$ lies in it,
$\|U - V\|_F \le \frac\eta2\sqrt r$ and $gap(V) \le gap(U) + \frac\eta2\|A\|_*$.

(c) *Optimality.* A feasible U is a minimiser if and only if A = UK with K symmetric positive semidefinite (then
K = U'A = B). That U'A be symmetric positive semidefinite is enough for d = r and **not enough for d > r**: A = (1, 1)',
U = (1, 0)' has U'A = 1 and the gap $\sqrt2 - 1$. What decides is the stationarity $\rho = \|A - UK\|_F$ with
K = sym(U'A), together with its eigenvalues $\lambda_i$:
$gap(U) \le 2\sum_i\max(0, -\lambda_i) + \sqrt r\,\rho$, and both terms vanish at minimisers.

(d) *Perturbation.* Let $\tilde A$ be another matrix with minimiser $\tilde U$ and singular values $\tilde\sigma_i$.
Then $\|U^* - \tilde U\|_F \le 2\|A - \tilde A\|_F/(\sigma + \tilde\sigma)$. If $\tilde Q_1$ holds the leading k
right singular vectors of $\tilde A$, $\|(U^* - \tilde U)\tilde Q_1\|_F \le 4\|A - \tilde A\|_F/\tilde\sigma_k$,
whatever the rest does.

(e) *Rounding.* Let $\hat g$ be the gap, $\hat\sigma_i$ the singular values, $\hat\eta$ the infeasibility as computed in
`etfopt/certificate.py` from the stored matrix $A_s$ of the linear term, and p = d + 10r + 100. Then

$$|\hat g - gap(U)| \le 1.01\,(2d + 12r + 100)\,u\,\sqrt{r + \sqrt r\,\eta}\;\|A_s\|_F =: \gamma,$$

for the gap with respect to $A_s$, and to the matrix $\hat A$ of which the computed SVD is exact. With $\bar\eta =
1.05(\hat\eta + dru) \ge \eta$, also in place of $\eta$ in $\gamma$, $e = \max(\hat g, 0) + \gamma +
\frac{\bar\eta}2\sum\hat\sigma_i$ and

$$\omega = (C+4)\,2u\,(2\|H\|\|F\| + \delta\|U_{prox}\|) + 1.01\,p\,u\,\|A_s\|_F \ge \|A - \hat A\|_F,$$

every minimiser $U^*$ of the problem with the exact A satisfies

$$\|U - U^*\|_F \le \sqrt{2e/\hat\sigma_r} + \bar\eta\sqrt r + 2\omega/\hat\sigma_r \qquad (\hat\sigma_r > 0),$$
$$\|(U-U^*)F\|_F \le \|F\|_2\bigl(\sqrt{2e/\hat\sigma_k} + \bar\eta\sqrt r + 4\omega/\hat\sigma_k\bigr)
   + 2\|\hat Q_2'F\|_F + 2.02\sqrt r\,(p+r)\,u\,\|F\|_F,$$

for every k with $\hat\sigma_k > 0$, $\hat Q_2$ the computed right singular vectors after the k-th (for k = r with 2 in
place of 4, and nothing after the bracket). With the computed K = sym(U'A_s), its computed smallest eigenvalue
$\hat\lambda$, the computed $\hat\rho$ of $\|A_s - UK\|_F$ and

$$\nu = 1.01\,\bigl(\hat\rho + (p+r+2)\,u\,\|A_s\|_F + (r+2)\,u\,\|U\|_F\|K\|_F\bigr) + \bar\eta\|K\|_F
   + \sqrt r\,\bigl(\max(0, -\hat\lambda) + (11r + 100)\,u\,\|K\|_F\bigr),$$

both remain true with $\bar\eta + 4\nu/\hat\sigma_k$ in place of $\sqrt{2e/\hat\sigma_k} + \bar\eta\sqrt r$ (for k = r
with 2 in place of 4). The smaller of the two are `distance_bound` and `etf_distance_bound`. The gap is of second order
in the distance, so that the first is never below the root of rounding, of U to float32 for instance; $\nu$ is of first
order, and serves only near minimisers.

(f) *What it decides.* `optimal(t)`, and so `converged`, proves that V of (b) has, for the exact A,

$$gap(V) \le (1+2ru)\,t\sum\hat\sigma_i + \gamma + \tfrac{\bar\eta}2\sum\hat\sigma_i + 2\sqrt r\,\omega:$$

a nearly least objective. It never proves that U is a minimiser, nor, without a margin, that U is near one. A sum of d
equal terms can round d times the same way, and did: at $10^5$ equal entries a minimiser was rejected. So U'U and U'A
are summed by halves down to 2048 rows (`tall_product`), which leaves $\log_2(d/2048)$ additions of relative error at
most u to each sum beyond what 2048 rows cost: in Frobenius norm, for U'U, u times $\||U|'|U|\|_F \le \|U\|_F^2$, once
where the solver normalises and once where $\hat\eta$ is computed. The tolerance of feasibility,
$(100 + \log_2\max(1, d/2048))\,r\,u_w$, grows by the sum of both. The bounds of (e) hold for sums in any order.

`margin` is $\sigma_{min}(A)$ to within $\omega$. Let $\theta = Cu_w(2\|H\|\|F\| + \delta\|U_{prox}\|)$, $u_w$ the eps
of the working dtype. `unique` says whether margin > $\theta$. False proves that some change of A of norm at most
$\theta + \omega$ makes the minimiser ambiguous. True proves that the minimiser of the exact A is unique if
margin > $\omega$, which `unique` alone implies in float32 but not in float64, where $\omega$ may exceed $\theta$.

`etf_unique` says, with k the number of $\hat\sigma_i > \theta$, whether k = r or k > 0 and
$\|\hat Q_2'F\|_2 \le \sqrt{\theta/\hat\sigma_k}\,\|F\|_2$: a convention. What is proved, whatever it says, is that the
frames of any two minimisers differ by at most $8\omega\|F\|_2/\hat\sigma_k$ plus the last two terms of the second
bound. The distance bounds hold regardless of the flags, which decide only whether they are reported as infinite.

## Assumptions

u = 2^-53; $(100 + d + 12r)\sqrt r\,u \le 10^{-3}$ and $r^2u \le 10^{-3}$; no underflow (powers of two are taken out
first, so that it stays below $2^{-700}\|A\|$). Sums may be evaluated in any order, with or
without fused operations (Higham 2002, sections 3.1 and 4.2). The exact A is $2HF' + \delta U_{prox}$ with the exact
M for the paper's frame, and with F less its row means where those are within rounding of zero: `etfopt` takes such a
frame for one that does not see a common mean.

**(S)** *Backward stability of LAPACK's SVD*: the computed $\hat P, \hat S, \hat Q$ of $A_s$ are near matrices $\bar
P, \bar Q$ with orthonormal columns, $\|\hat Q - \bar Q\|_F \le p\,u\sqrt r$, such that $\hat A = \bar P\hat S\bar Q'$
has $\|\hat A - A_s\|_F \le p\,u\|A_s\|_F$, p = d + 10r + 100. This form is standard (LAPACK Users' Guide, section
4.9), the size of p is an assumption. Its constant term is needed: the QR iteration sets to zero what is below max(10,
min(100, $u^{-1/8}$)) u = 99 u (xBDSQR), and up to 97 u were seen; the rest bounds the rounding of reflections, of
which far less is seen. The check looks for a counterexample.

## Proof

*(a)* $A = U^*B$ gives $\langle A, U\rangle = tr(BU^{*\prime}U)$, and $\|A\|_* = tr B$. Expanding with
$U^{*\prime}U^* = I$ gives $\frac12tr(B(U^*-U)'(U^*-U)) = \frac12tr B - \langle A, U\rangle + \frac12tr(BU'U)$; to this
add $\frac12tr B - \frac12tr(BU'U)$.

*(b)* In the ball $I - U'U \succeq 0$, so the second term is a trace of a product of semidefinite matrices, not
negative; the first is at least $\frac\sigma2\|U^*-U\|_F^2$. More generally, with the leading right singular vectors
$Q_1$, $B \succeq \sigma_kQ_1Q_1'$ gives

$$\tfrac{\sigma_k}2\|(U-U^*)Q_1\|_F^2 \le gap(U) \qquad (\|U\|_2 \le 1). \tag{1}$$

Outside, let $m = \max(1, \|U\|_2) \le \sqrt{1+\eta} \le 1 + \eta/2$. $\|U - V\|_F = (m-1)\|V\|_F \le \frac\eta2\sqrt
r$; $gap(V) = gap(U) + (1 - \frac1m)\langle A, U\rangle \le gap(U) + (m-1)\|A\|_*$, as $\langle A, U\rangle \le
m\|A\|_*$.

*(c)* If U is a minimiser, claim `closed_form` (c) gives $UQ_1 = P_1$, so $A = P_1S_1Q_1' = UQ_1S_1Q_1' = UB$.
If A = UK with U'U = I and K semidefinite, then $A'A = K^2$, K = B and $\langle A, U\rangle = tr K = \|A\|_*$. Always
$\|A\|_* \le \|UK\|_* + \|A - UK\|_* \le \sum|\lambda_i| + \sqrt r\rho$ and
$\langle A, U\rangle = tr K = \sum\lambda_i$. For d = r, $A = UU'A$ always.

*(d)* By (1) with k = r for both matrices, $\langle A, U^*-\tilde U\rangle \ge \frac\sigma2x^2$ and $\langle\tilde A,
\tilde U-U^*\rangle \ge \frac{\tilde\sigma}2x^2$, $x = \|U^*-\tilde U\|_F$. The sum of the left sides is $\langle
A-\tilde A, U^*-\tilde U\rangle \le \|A-\tilde A\|_Fx$. For the second part let $\tilde B$ belong to $\tilde A$, and
first $\|B-\tilde B\|_F \le \sqrt2\|A-\tilde A\|_F$: with $W = U^{*\prime}\tilde U$, $\|W\|_2 \le 1$,

$$2\|A-\tilde A\|_F^2 - \|B-\tilde B\|_F^2 = \|B\|_F^2 + \|\tilde B\|_F^2 + 2tr(B\tilde B) - 4tr(BW\tilde B), \quad
tr(BW\tilde B) = \langle B^{1/2}\tilde B^{1/2}, B^{1/2}W\tilde B^{1/2}\rangle$$

and the last trace is at most $(tr(B\tilde B)\,tr(BW\tilde BW'))^{1/2} \le (tr(B\tilde B)\|B\|_F\|\tilde B\|_F)^{1/2}
\le \frac12tr(B\tilde B) + \frac12\|B\|_F\|\tilde B\|_F \le \frac12tr(B\tilde B) + \frac14(\|B\|_F^2 + \|\tilde
B\|_F^2)$. Now let $T = U^*\tilde Q_1$, $\tilde P_1 = \tilde U\tilde Q_1$, $N = \tilde Q_1'B\tilde Q_1 \succeq 0$, and
$\tilde Q_2$ complete $\tilde Q_1$. Then $\tilde A\tilde Q_1 = \tilde P_1\tilde S_1$ and $A\tilde Q_1 = U^*B\tilde
Q_1 = TN + U^*\tilde Q_2(\tilde Q_2'B\tilde Q_1)$. Since $\tilde B$ has no block between $\tilde Q_1$ and $\tilde Q_2$,
and such a block of a symmetric matrix occurs twice in it, $\|\tilde Q_2'B\tilde Q_1\|_F = \|\tilde Q_2'(B-\tilde
B)\tilde Q_1\|_F \le \|B-\tilde B\|_F/\sqrt2 \le \|A-\tilde A\|_F$, so $\|TN - \tilde P_1\tilde S_1\|_F \le
2\|A-\tilde A\|_F$. By (c), T is a minimiser for TN, and $\tilde P_1$ for $\tilde P_1\tilde S_1$; the first part,
applied to these d x k matrices, bounds $\|T - \tilde P_1\|_F$ by $2\cdot2\|A-\tilde A\|_F/\tilde\sigma_k$.

*(e)* With $\gamma_n = nu/(1-nu)$ (Higham 2002, lemma 3.1, and (3.5) for inner products), the computed trace of U'A_s
is off by at most $\gamma_{d+r-1}\sum|U||A_s| \le \gamma_{d+r-1}\|U\|_F\|A_s\|_F$, the sum of singular values by
$\gamma_{r-1}\sum\hat\sigma_i$, their difference by $u$ times itself, and by (S) and $|\|A_s\|_* - \|\hat A\|_*| \le
\sqrt r\|A_s-\hat A\|_F$ the sum itself by $\sqrt r\,p\,u\|A_s\|_F$ (with respect to $\hat A$ this becomes
$|\langle\hat A-A_s, U\rangle| \le p\,u\|A_s\|_F\|U\|_F$). As $\|U\|_F^2 = tr(U'U) \le r + \sqrt r\eta$ and
$\sum\hat\sigma_i \le \sqrt r(1+pu)\|A_s\|_F$, the units add up to p + (r-1) + (d+r-1) + 2 = 2d + 12r + 100; 1.01
holds what is of second order, and the rounding of evaluating the bound. The computed U'U is off by $\gamma_d\|U\|_F^2
\le 1.002\,du(r + \sqrt r\eta)$ in Frobenius norm, subtraction and norm by a relative $\gamma_{r^2+2}$: $\eta \le
\bar\eta$.

Forming A, in units of $2u = $ eps times $N = 2\|H\|\|F\| + \delta\|U_{prox}\|$. Any frame: the product 2HF' costs
$\gamma_C \approx C/2$. Where the row sums of F are within rounding of zero, $\|F1\| \le C\,$eps$\,\|F\|$, the columns
of H are centred first: the subtraction costs 1/2, the computed mean only what $F1$ sees of it, which is of second
order, and the change $H1(F1)'/C$ of the product, at most $\sqrt C$, either belongs to rounding (where F itself is
meant) or is intended (where the exact F has zero row sums). Multiplying by $\delta$ and adding cost 1/2 each. In all
$C/2 + \sqrt C + 3/2 \le C + 4$. The paper's frame: the mean of a row x of H is computed to within
$\gamma_{C+1}\|x\|/\sqrt C$, which enters C columns, so that with the factor $2/\sqrt{C-1}$ it costs
$\frac{C+1}{2\sqrt{C-1}}$; subtracting, and the factor with its root, quotient and product, $\frac2{\sqrt{C-1}}$;
delta and the sum 1. In all $\frac{C+5}{2\sqrt{C-1}} + 1 \le C + 4$. With (S), $\|A-\hat A\|_F \le \omega$.

Now (1) for $\hat A$ and V, with $gap(V) \le e$ by (b), bounds the distance of V from $\hat A$'s minimiser $\hat U$;
(d) bounds that of $\hat U$ from $U^*$; (b) that of U from V. For the other bound let W be a polar factor of U. Since
$|s-1| \le |s^2-1|$ for the singular values s of U, $\|U-W\|_F \le \eta$. Whatever symmetric K is, $K_+ = K + mI$ with
$m = \max(0, -\hat\lambda) + (11r + 100)u\|K\|_F$ is semidefinite ((S) for eigenvalues), so that W is a minimiser for
$WK_+$ by (c), and $\|\hat A - WK_+\|_F \le \|\hat A - A_s\|_F + \|A_s - UK\|_F + \eta\|K\|_F + \sqrt r\,m \le \nu$: a
product with the r rows of K and the subtraction round by at most $\gamma_{r+1}$. By (d), for $WK_+$ and $\hat A$, at
distance $\nu$ at most, W is within $2\nu/\hat\sigma_r$ of $\hat U$, or on $\bar Q_1$ within $4\nu/\hat\sigma_k$. For
the ETF split $I = \bar Q_1\bar Q_1' + \bar Q_2\bar Q_2'$: on $\bar Q_1$ as before with the second part of (d); on
$\bar Q_2$, $\|V-U^*\|_2 \le 2$, and $\|\bar Q_2'F\|_F \le \|\hat Q_2'F\|_F + p\,u\sqrt r\|F\|_F$, whose computation
costs another $\gamma_r\sqrt r\|F\|_F$.

*(f)* The first is (e) with $|gap_A(V) - gap_{\hat A}(V)| \le 2\sqrt r\omega$. By Weyl's theorem $|\sigma_{min}(A) -
\hat\sigma_r| \le \omega$. If $\hat\sigma_r \le \theta$, some $\hat A + E$ with $\|E\|_2 \le \theta$ is rank
deficient, at distance $\theta + \omega$ of A, and `closed_form` (c) applies. If $\hat\sigma_r > \omega$, A has full
rank. In float32 $u_w = 2^{29}\cdot2u$, so that $\theta > \omega$ unless $(d + 10r + 100)/C$ reaches $10^9$. Two
minimisers of A are each within $4\omega/\hat\sigma_k$ of $\hat U$ on $\bar Q_1$, and differ by at most 2 in norm on
$\bar Q_2$.

## In the code

- `etfopt.certificate.certify`: the gap, and the bounds of (e). `etfopt.certificate.Certificate`: the flags of (f).
- `etfopt.solution.Solution`: `converged` is `Certificate.optimal` at the solver's tolerance.
- `etfopt.polar.feasibility`: the computed infeasibility. `etfopt.polar.thin_svd`: (S).

## References

Higham (2002), Accuracy and Stability of Numerical Algorithms, chapters 3 and 4. Anderson et al. (1999), LAPACK Users'
Guide, section 4.9. The first bound of (d) is R.-C. Li's (1995), New perturbation bounds for the unitary polar factor;
the bound on B is Araki and Yamagami's (1981), proved as Kittaneh does. Horn and Johnson (2013), Matrix Analysis,
corollary 7.3.5 (Weyl's theorem for singular values).
"""

from __future__ import annotations

import numpy as np

from theory import _certificate as cases
from theory.registry import Evidence, Part, gather

PARTS = (
    Part(cases.identity, 3),
    Part(cases.optimality, 3),
    Part(cases.perturbation, 3),
    Part(cases.rounding, 1),
    Part(cases.long_columns, 0.3),
    Part(cases.backward_stability, 0.6),
    Part(cases.forming, 0.6),
    Part(cases.distances, 0.6),
    Part(cases.partial_distances, 0.3),
    Part(cases.decisions, 0.6),
)


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample to each part, in sixty digits where rounding is at stake."""
    return gather(rng, budget, PARTS)
