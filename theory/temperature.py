r"""The smallest cross-entropy of unit-norm rows, and the temperature that a confidence at collapse asks for.

**Claim.** Let :math:`w_1, \dots, w_C` be vectors of unit norm, b any vector in R^C, and :math:`f_1, \dots, f_n`
features with :math:`\|f_i\| \le \tau` whose labels y_i are balanced (n/C samples of each class). The mean
cross-entropy of the logits :math:`z_{ij} = w_j'f_i + b_j` satisfies

.. math:: L \ge \log\bigl(1 + (C-1)\,e^{-\tau C/(C-1)}\bigr),

with equality if and only if the rows are a simplex equiangular tight frame, every feature is :math:`\tau` times the
row of its class, and all b_j are equal: at collapse and nowhere else. (Rows of a simplex need d >= C-1; with fewer
dimensions the bound holds and is not reached.) For the rows of a simplex and b = 0, every single sample obeys the
bound, balanced or not. Where it is reached, each sample has the softmax probability :math:`p = e^{-L}` for its class,
so that a wanted :math:`p \in (1/C, 1)` asks for

.. math:: \tau = \frac{C-1}{C}\,\log\frac{(C-1)\,p}{1-p}.

**Proof.** The loss of sample i is :math:`\log(1 + \sum_{j \ne y_i} e^{z_{ij} - z_{iy_i}})`. The exponential is
convex, so by Jensen the sum is at least (C-1) exp(a_i) with :math:`a_i = \frac1{C-1}\sum_{j\ne y_i}(z_{ij} - z_{iy_i})
= \frac{C}{C-1}(\bar z_i - z_{iy_i})`, where :math:`\bar z_i = \bar w'f_i + \bar b` is the mean of row i. The function
:math:`a \mapsto \log(1 + (C-1)e^a)` is convex and increasing, so L is at least its value at the mean of the a_i,

.. math:: \bar a = -\frac{C}{C-1}\,\frac1n\sum_i\bigl[(w_{y_i} - \bar w)'f_i + b_{y_i} - \bar b\bigr]
   = -\frac{C}{C-1}\,\frac1n\sum_i (w_{y_i} - \bar w)'f_i,

since balanced labels average :math:`b_{y_i}` to :math:`\bar b`. By Cauchy-Schwarz, twice, and balance again,

.. math:: \frac1n\sum_i (w_{y_i}-\bar w)'f_i \le \frac{\tau}{C}\sum_c\|w_c-\bar w\|
   \le \tau\Bigl(\frac1C\sum_c\|w_c-\bar w\|^2\Bigr)^{1/2} = \tau\,(1-\|\bar w\|^2)^{1/2} \le \tau,

which is the bound. Equality needs it in every step: :math:`\bar w = 0`; :math:`f_i = \tau w_{y_i}`; and, from Jensen,
for each i the same :math:`z_{ij}` for all :math:`j \ne y_i`, and from the second convexity (strict) the same a_i for
all i. With :math:`f_i = \tau w_c` these say :math:`\tau w_j'w_c + b_j = k_c` for all :math:`j \ne c`, and
:math:`\tau + b_c - k_c = m` is the same for all c. So :math:`\tau w_j'w_c = \tau + b_c - b_j - m`; the left side is
symmetric in j and c, so :math:`b_j = b_c`, for every pair; and then all :math:`w_j'w_c` are equal, which with
:math:`\sum_j w_j = 0` makes them -1/(C-1): a simplex. Conversely a simplex with these features has
:math:`z_{iy_i} - z_{ij} = \tau C/(C-1)`, hence equality, and the probability p above, which solved for :math:`\tau`
is the formula. For the rows of a simplex and b = 0, :math:`a_i = -\frac{C}{C-1}w_{y_i}'f_i \ge -\frac{C}{C-1}\tau` for
every i, so the bound holds sample by sample.

**Consequence.** The bound at :math:`\tau = 5` is 0.034 for C = 10, 0.95 for C = 242 and 2.04 for C = 1000: with more
classes the paper's temperature leaves a loss that no training removes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def bound(C: int, tau: float) -> float:
    """Return the smallest mean cross-entropy."""
    return float(np.log1p((C - 1) * np.exp(-tau * C / (C - 1))))


def temperature(C: int, p: float) -> float:
    """Return the temperature at which collapse has confidence p."""
    return float((C - 1) / C * np.log((C - 1) * p / (1 - p)))


def check(rng: np.random.Generator) -> None:
    """Look for a counterexample: random rows, biases and features, and steps downhill towards collapse."""
    for _ in range(200):
        C, d = int(rng.integers(2, 9)), int(rng.integers(1, 12))
        tau, copies = float(rng.uniform(0.1, 12)), int(rng.integers(1, 4))
        rows, labels = _unit(rng.standard_normal((C, d))), np.repeat(np.arange(C), copies)
        near = rows[labels] + 10.0 ** rng.uniform(-3, 1) * rng.standard_normal((len(labels), d))
        features = tau * rng.uniform(0.9, 1) * _unit(near)
        losses = _losses(features @ rows.T + rng.standard_normal(C) * 10.0 ** rng.uniform(-3, 1), labels)
        assert losses.mean() >= bound(C, tau) - 1e-12, (C, d, tau, losses.mean(), bound(C, tau))
    for C in (2, 3, 10, 57):
        _check_collapse(C, rng)
    for C, p in ((2, 0.6), (10, 0.9664), (242, 0.01), (242, 0.9664), (1000, 0.999)):
        assert abs(np.exp(-bound(C, temperature(C, p))) - p) < 1e-12, (C, p)
    assert abs(temperature(10, float(np.exp(-bound(10, 5.0)))) - 5) < 1e-12


def _check_collapse(C: int, rng: np.random.Generator) -> None:
    """Check that the simplex reaches the bound, that perturbing it loses, and that single samples obey it."""
    basis, _ = np.linalg.qr(rng.standard_normal((C + 2, C)))
    rows = np.sqrt(C / (C - 1)) * (np.eye(C) - 1 / C) @ basis.T
    labels = np.arange(C)
    for tau in (0.5, 5.0):
        lowest = bound(C, tau)
        assert abs(_losses(tau * rows @ rows.T, labels).mean() - lowest) < 1e-12 * C
        others = tau * _unit(rng.standard_normal((50, C + 2)))
        assert (_losses(others @ rows.T, rng.integers(0, C, 50)) >= lowest - 1e-12).all()
        turned = _unit(rows + 0.1 * rng.standard_normal(rows.shape))
        assert _losses(tau * turned @ turned.T, labels).mean() > lowest + 1e-9
        assert _losses(tau * turned @ rows.T, labels).mean() > lowest + 1e-9
        assert _losses(tau * rows @ rows.T + 0.1 * labels, labels).mean() > lowest + 1e-9


def _unit(X: Matrix) -> Matrix:
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))


def _losses(logits: Matrix, labels: NDArray[np.int64]) -> Matrix:
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(labels)), labels])
