r"""Imbalanced classes: the geometry that they collapse to, SELI, and how slowly cross-entropy approaches it.

## Statement

Class c has $n_c > 0$ of the n samples, sample i the label $y_i$. Let $S = I - 11'/C$, D = diag(n_1, ..., n_C), and let
Z be the C x n matrix of columns $S e_{y_i}$ (the simplex-encoded labels), $Z = V\Lambda R'$ its thin SVD, of rank C-1.

1. *Factors.* $F_W = \Lambda^{1/2}V'$ and $F_H = \Lambda^{-1/2}V'$ have $F_H'F_W = S$, $F_W'F_W = (SDS)^{1/2} = G_W$ and
   $F_H'F_H = D^{-1/2}(D^{1/2}SD^{1/2})^{1/2}D^{-1/2} = G_H$, the pseudo-inverse of $G_W$. If all $n_c$ are equal, both
   are multiples of S: the simplex. With the Helmert matrix Q (C-1 rows) and $K = QDQ'$, $K^{1/4}Q$ and $K^{-1/4}Q$ are
   the same up to one rotation. They are continuous in the counts.
2. *Obtuse means.* All entries of $G_H$ off the diagonal are negative.
3. *Optimality.* Let $d \ge C-1$. The minimisers of $\frac12\|W\|_F^2 + \frac12\|H\|_F^2$, W of shape C x d, H of d x n,
   under $(WH)_{y_ii} - (WH)_{ci} \ge 1$ for all i and $c \ne y_i$, are exactly $W = (UF_W)'$, $h_i = UF_He_{y_i}$ with
   U in St(d, C-1). The logits WH are Z, and the minimum is $\operatorname{tr}\Lambda$.
4. *Step imbalance.* Let k/2 of k classes have Rm samples and the others m. Then
   $\|w_{maj}\|^2/\|w_{min}\|^2 = \bigl(\sqrt R(1-\frac2k) + \frac1k\sqrt{\frac{R+1}2}\bigr) \big/
   \bigl(1 - \frac2k + \frac1k\sqrt{\frac{R+1}2}\bigr)$.
5. *Cross-entropy.* Let (W, H) be a stationary point of $\frac1n\sum_i CE_i + \frac\lambda2(\|W\|^2 + \|H\|^2)$ whose
   logits X = WH have rank C-1 and zero column sums, and let $B = \bar V\bar R'$ be the orthonormal factor of
   $X = \bar V\bar\Lambda\bar R'$. Then the softmax probabilities are $p_{ci} = -n\lambda B_{ci}$ for $c \ne y_i$, so

$$X_{y_ii} - X_{ci} = \log\frac1{n\lambda} - \log(-B_{ci}) + \log p_{y_ii}.$$

   If X/||X|| tends to Z/||Z|| as $\lambda \to 0$, the distance is of the order of $1/\log(1/\lambda)$ and no smaller
   unless all $B_{ci}$ agree. It is slow: for R = 10, k = 10, n = 55 the Gram matrices (of norm 1) are at 0.063 (W) and
   0.104 (H) from SELI at $\lambda = 10^{-6}$, with the norm ratio 3.07 for 2.67, and at 0.0045 and 0.0075 at
   $10^{-96}$; from the simplex they are at 0.49 and 0.43. The squared hinge loss is at SELI at $10^{-6}$, to 1e-5.

## Assumptions

$n_c > 0$, real in 1 and 2. In 5, that minimisers tend to the maximal margin is the theorem of the first reference.

## Proof

**1.** $ZZ' = SDS$, so $V\Lambda^2V' = SDS$ and V spans the complement of 1: $VV' = S$. $R' = \Lambda^{-1}V'Z$ has the
column $\Lambda^{-1}V'e_{y_i}$, so $\Lambda^{1/2}R'$ has $F_He_{y_i}$. $F_H'F_W = VV' = S$; $F_W'F_W = V\Lambda V'$ and
$F_H'F_H = V\Lambda^{-1}V'$. For $SD^{1/2} = V\Lambda T'$ (thin SVD), $T = D^{1/2}V\Lambda^{-1}$ and
$(D^{1/2}SD^{1/2})^{1/2} = T\Lambda T'$, so $D^{-1/2}T\Lambda T'D^{-1/2} = V\Lambda^{-1}V'$. For D = mI, SDS = mS. Last,
$Q'Q = S$ and $QQ' = I$, so O = QV is orthogonal, with $K = O\Lambda^2O'$, $K^{1/4}Q =
O\Lambda^{1/2}V'$ and $K^{-1/4}Q = O\Lambda^{-1/2}V'$; roots of positive definite matrices are continuous.

**2.** $x^{-1/2} = \frac2\pi\int_0^\infty\frac{dt}{x+t^2}$ for x > 0. On the complement of 1 therefore
$G_H = \frac2\pi\int_0^\infty(SDS + t^2S)^+dt$. With $E = D + t^2I$, $SDS + t^2S = SES$, whose pseudo-inverse is
$J = E^{-1} - E^{-1}11'E^{-1}/s$, $s = 1'E^{-1}1$: J is symmetric, J1 = 0, so SJ = J, and
$SESJ = S(I - 11'E^{-1}/s) = S$. Off the diagonal $J_{ij} = -1/(E_{ii}E_{jj}s) < 0$.

**3.** Let X = WH and $B = VR'$, $\|B\|_2 = 1$. Column i of B is $G_He_{y_i}$, so $1'B = 0$ and $B_{ci} < 0$ for
$c \ne y_i$ by 2. Then

$$\tfrac12\|W\|^2 + \tfrac12\|H\|^2 \ge \langle V'W, R'H'\rangle = \langle B, X\rangle
  = \sum_i\sum_{c\ne y_i}(-B_{ci})(X_{y_ii} - X_{ci}) \ge \sum_i\sum_{c \ne y_i}(-B_{ci}) = \langle B, Z\rangle
  = \operatorname{tr}\Lambda,$$

as the differences of Z are all 1. The factors of 1 reach it. Equality in the second place makes all differences 1, so
X = Z + 1a'; then $\langle B, X\rangle = \operatorname{tr}\Lambda$. Equality in the first needs $V'W = R'H' = T'$,
$W = VV'W$, $H' = RR'H'$: W = VT', H = TR'. So $1'X = 1'VT'TR' = 0$, a = 0, and $Z = VT'TR'$ gives $T'T = \Lambda$,
$T = U\Lambda^{1/2}$ with U in St(d, C-1).

**4.** On vectors that live in the majority and sum to zero SDS is Rm, in the minority m, and on
$v = (1, \dots, 1, -1, \dots, -1)$: $Dv = m(R, \dots, -1, \dots)$ has mean m(R-1)/2, so $SDSv = m\frac{R+1}2v$. So the
diagonal of $G_W/\sqrt m$ is $\sqrt R(1 - \frac2k) + \frac1k\sqrt{\frac{R+1}2}$ for the majority, and without the
$\sqrt R$ for the minority.

**5.** Let Y be the one-hot labels and $N = (Y - P)/(n\lambda)$. Stationarity is $NH' = W$, $W'N = H$. So $W'W = W'NH' =
HH'$, and $W = \bar V\bar\Lambda^{1/2}\bar U'$, $H = \bar U\bar\Lambda^{1/2}\bar R'$. Then $N\bar R = \bar V$ and
$\bar V'N = \bar R'$, so $N = B + N_2$ with $\bar V'N_2 = 0$. Columns of N and of X sum to zero, so $\bar V$ spans the
complement of 1, and $1'N_2 = 0$: $N_2 = 0$. Off the labels N = B reads $p_{ci} = -n\lambda B_{ci}$; the difference of
two logits is the logarithm of the ratio of their probabilities. If X/||X|| tends to Z/||Z||, of rank C-1, B tends to
the B of 3, whose entries are not zero, so the last two logarithms stay bounded while the first grows.

## In the code

- `etfopt.frames.seli`: 1, with the symmetric roots. `etfopt.frames.FramePair`: F_H for means, F_W for the classifier.

## References

Thrampoulidis, Kini, Vakilian, Behnia (2022), Imbalance trouble: revisiting neural-collapse geometry, arXiv 2208.05512,
for 1, 3 and 4. Ji, Lu, Zhang, Deng, Su (2022), An unconstrained layer-peeled perspective on neural collapse, for the
maximal margin. The integral in 2 and the stationary points of 5 are worked out here.
"""

from __future__ import annotations

import numpy as np

from theory._seli import PARTS
from theory.registry import Evidence, gather

__all__ = ["PARTS", "check"]


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: any counts, feasible classifiers, and features trained without a network."""
    return gather(rng, budget, PARTS)
