r"""The smallest cross-entropy of unit-norm rows, and the temperature that a confidence at collapse asks for.

## Statement

Let $w_1, \dots, w_C$ be the rows of a classifier, b its bias, and $f_1, \dots, f_n$ features with labels $y_i$. The
mean cross-entropy of the logits $z_{ij} = w_j'f_i + b_j$ satisfies

$$L \ge \log\bigl(1 + (C-1)\,e^{-\tau C/(C-1)}\bigr),$$

with equality if and only if the rows are a simplex equiangular tight frame, every feature is $\tau$ times the row of
its class, and all $b_j$ are equal: at collapse and nowhere else. For the rows of a simplex and b = 0, every single
sample obeys the bound, balanced or not. Where it is reached, each sample has the softmax probability $p = e^{-L}$ for
its class, so that a wanted $p \in (1/C, 1)$ asks for

$$\tau = \frac{C-1}{C}\,\log\frac{(C-1)\,p}{1-p}.$$

The bound at $\tau = 5$ is 0.034 for C = 10, 0.95 for C = 242 and 2.04 for C = 1000: with more classes the paper's
temperature leaves a loss that no training removes.

*Any frame.* Let the features of class c be $\tau x_c$, $\|x_c\| = 1$, and let b = 0. With the least lead of the right
logit, $g = \min_{j \ne c} (w_c - w_j)'x_c$, every sample has a softmax probability of at least
$1/(1 + (C-1)\,e^{-\tau g})$ for its class. If g > 0, each is therefore at least p for

$$\tau = \frac1g\,\log\frac{(C-1)\,p}{1-p}.$$

The bound is reached for class c if and only if all its leads $(w_c - w_j)'x_c$ are g. For unit vectors $w_c = x_c$
with largest cosine $\mu$, $g = 1 - \mu$. If $\frac1C\sum_c\|w_c\|^2 = 1$, then $g \le C/(C-1)$, which a simplex
reaches: there the formula is the one above.

## Assumptions

For the first bound: $\|w_j\| = 1$; any b in R^C; $\|f_i\| \le \tau$; balanced labels, n/C samples of each class.
Rows of a simplex need d >= C-1; with fewer dimensions the bound holds and is not reached.

## Proof

The loss of sample i is $\log(1 + \sum_{j \ne y_i} e^{z_{ij} - z_{iy_i}})$. The exponential is convex, so by Jensen the
sum is at least $(C-1)\exp(a_i)$ with $a_i = \frac1{C-1}\sum_{j\ne y_i}(z_{ij} - z_{iy_i})
= \frac{C}{C-1}(\bar z_i - z_{iy_i})$, where $\bar z_i = \bar w'f_i + \bar b$ is the mean of row i. The function
$a \mapsto \log(1 + (C-1)e^a)$ is convex and increasing, so L is at least its value at the mean of the $a_i$,

$$\bar a = -\frac{C}{C-1}\,\frac1n\sum_i\bigl[(w_{y_i} - \bar w)'f_i + b_{y_i} - \bar b\bigr]
   = -\frac{C}{C-1}\,\frac1n\sum_i (w_{y_i} - \bar w)'f_i,$$

since balanced labels average $b_{y_i}$ to $\bar b$. By Cauchy-Schwarz, twice, and balance again,

$$\frac1n\sum_i (w_{y_i}-\bar w)'f_i \le \frac{\tau}{C}\sum_c\|w_c-\bar w\|
   \le \tau\Bigl(\frac1C\sum_c\|w_c-\bar w\|^2\Bigr)^{1/2} = \tau\,(1-\|\bar w\|^2)^{1/2} \le \tau,$$

which is the bound. Equality needs it in every step: $\bar w = 0$; $f_i = \tau w_{y_i}$; and, from Jensen, for each i
the same $z_{ij}$ for all $j \ne y_i$, and from the second convexity (strict) the same $a_i$ for all i. With
$f_i = \tau w_c$ these say $\tau w_j'w_c + b_j = k_c$ for all $j \ne c$, and $\tau + b_c - k_c = m$ is the same for all
c. So $\tau w_j'w_c = \tau + b_c - b_j - m$; the left side is symmetric in j and c, so $b_j = b_c$, for every pair; and
then all $w_j'w_c$ are equal, which with $\sum_j w_j = 0$ makes them -1/(C-1): a simplex. Conversely a simplex with
these features has $z_{iy_i} - z_{ij} = \tau C/(C-1)$, hence equality, and the probability p above, which solved for
$\tau$ is the formula. For the rows of a simplex and b = 0, $a_i = -\frac{C}{C-1}w_{y_i}'f_i \ge -\frac{C}{C-1}\tau$
for every i, so the bound holds sample by sample.

*Any frame.* The probability of class c is $1/(1 + \sum_{j\ne c} e^{-\tau(w_c-w_j)'x_c})$, and each of the C-1 terms is
at most $e^{-\tau g}$, with equality iff its lead is g. Setting the bound to p gives $\tau$. For unit vectors
$(x_c - x_j)'x_c = 1 - x_j'x_c \ge 1 - \mu$, with equality for some pair. The mean of all leads is
$\frac1C\sum_c \frac{C}{C-1}(w_c - \bar w)'x_c$, since $\sum_{j \ne c} (w_c - w_j) = C(w_c - \bar w)$; by the two
inequalities of Cauchy and Schwarz above, which need the mean square of the norms only, it is at most C/(C-1), and g is
no larger than the mean.

## In the code

- `etfopt.nn.collapse_temperature`: `temperature="auto"` of the heads with a simplex.
- `etfopt.nn.frame_temperature`: the same for any frame. `etfopt.frames.FramePair.logit_gap`: g of a pair.

## References

Yaras, Wang, Zhu, Balzano, Qu (2022), Neural collapse with normalized features: A geometric analysis over the Riemannian
manifold, has the minimisers for normalised features and rows without a bias.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from etfopt import simplex_etf
from etfopt.frames import seli
from etfopt.nn import collapse_temperature, frame_temperature
from theory.draws import Matrix, stiefel, unit_columns
from theory.registry import Evidence, Part, Residual, at_least, gather


def bound(C: int, tau: float) -> float:
    """Return the smallest mean cross-entropy."""
    return float(np.log1p((C - 1) * np.exp(-tau * C / (C - 1))))


def temperature(C: int, p: float) -> float:
    """Return the temperature at which collapse has confidence p."""
    return float((C - 1) / C * np.log((C - 1) * p / (1 - p)))


def _lower_bound(rng: np.random.Generator) -> Iterator[Residual]:
    """Any rows, biases and features, from random ones to those near the rows."""
    C, d = int(rng.integers(2, 9)), int(rng.integers(1, 12))
    tau, labels = float(rng.uniform(0.1, 12)), np.repeat(np.arange(C), int(rng.integers(1, 4)))
    rows = unit_columns(rng.standard_normal((d, C))).T
    near = rows[labels] + 10.0 ** rng.uniform(-3, 1) * rng.standard_normal((len(labels), d))
    features = tau * rng.uniform(0.9, 1) * unit_columns(near.T).T
    biases = 10.0 ** rng.uniform(-3, 1) * rng.standard_normal(C)
    loss = _losses(features @ rows.T + biases, labels).mean()
    yield Residual(bound(C, tau) - loss, 1e-12, "mean loss below the bound")


def _collapse(rng: np.random.Generator) -> Iterator[Residual]:
    """Try collapse: a simplex reaches the bound; perturbing rows, features or biases loses; samples obey it."""
    C, tau = int(rng.choice([2, 3, 10, 57])), float(rng.uniform(0.3, 8))
    rows = np.sqrt(C / (C - 1)) * (np.eye(C) - 1 / C) @ stiefel(rng, C + 2, C).T
    labels, lowest = np.arange(C), bound(C, tau)
    yield Residual(abs(_losses(tau * rows @ rows.T, labels).mean() - lowest), 1e-12 * C, "loss at collapse")
    others = tau * unit_columns(rng.standard_normal((C + 2, 50))).T
    least = _losses(others @ rows.T, rng.integers(0, C, 50)).min()
    yield Residual(lowest - least, 1e-12, "a single sample below the bound")
    turned = unit_columns((rows + 0.1 * rng.standard_normal(rows.shape)).T).T
    for what, logits in (
        ("features with perturbed rows", tau * turned @ turned.T),
        ("perturbed features", tau * turned @ rows.T),
        ("unequal biases", tau * rows @ rows.T + 0.1 * labels),
    ):
        yield at_least(_losses(logits, labels).mean() - lowest, 1e-11, f"excess of {what}")


def _formula(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the formula: the temperature of a confidence brings it, in the theory and in the code."""
    C = int(np.exp(rng.uniform(np.log(2), np.log(1e4))))
    p = 1 / C + (1 - 1 / C) * float(rng.uniform(0.01, 0.9999))
    tau = temperature(C, p)
    yield Residual(abs(np.exp(-bound(C, tau)) - p), 1e-12, "confidence at collapse")
    yield Residual(abs(collapse_temperature(C, p) - tau), 1e-12 * (1 + tau), "etfopt's temperature")


def least_lead(rows: Matrix, features: Matrix) -> float:
    """Return the least lead of the right logit; column c of `features` belongs to class c."""
    logits = rows @ features
    lead = np.diagonal(logits) - logits
    return float(lead[~np.eye(len(rows), dtype=bool)].min())


def _any_frame(rng: np.random.Generator) -> Iterator[Residual]:
    """Try any frame: no class is below the confidence that was asked for, and those of a simplex have it."""
    C, d = int(rng.integers(2, 12)), int(rng.integers(2, 12))
    p = 1 / C + (1 - 1 / C) * float(rng.uniform(0.05, 0.999))
    unit = unit_columns(rng.standard_normal((d, C)))
    pair = seli(rng.integers(1, 200, C))
    simplex = np.sqrt(C) * simplex_etf(C)
    for what, rows, x in (
        ("unit vectors", unit.T, unit),
        ("rows of any norms", rng.standard_normal((C, d)), unit),
        ("SELI", np.sqrt(C) * pair.F_W.F.T, pair.F_H.vectors),
        ("a simplex", simplex.T, simplex),
    ):
        g = least_lead(rows, x)
        if g <= 0:
            continue
        tau = frame_temperature(C, 1 - g, p) if what != "rows of any norms" else np.log((C - 1) * p / (1 - p)) / g
        confidence = np.exp(-_losses(tau * (rows @ x).T, np.arange(C)))
        yield Residual(p - float(confidence.min()), 1e-12, f"confidence of {what}")
        if what == "a simplex":
            yield Residual(float(confidence.max()) - p, 1e-12, "confidence above what was asked for, on a simplex")
        if what != "rows of any norms":
            yield Residual(g - C / (C - 1), 1e-12, f"lead of {what} above that of a simplex")
    cosines = (unit.T @ unit)[~np.eye(C, dtype=bool)]
    yield Residual(abs(least_lead(unit.T, unit) - 1 + float(cosines.max())), 1e-12, "lead and largest cosine")
    yield Residual(abs(pair.logit_gap - least_lead(np.sqrt(C) * pair.F_W.F.T, pair.F_H.vectors)), 1e-12, "pair's lead")


PARTS = (Part(_lower_bound, 3), Part(_collapse), Part(_formula), Part(_any_frame))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: random rows, biases and features, and small steps away from collapse."""
    return gather(rng, budget, PARTS)


def _losses(logits: Matrix, labels: NDArray[np.int64]) -> Matrix:
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(labels)), labels])
