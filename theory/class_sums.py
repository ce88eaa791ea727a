r"""Sums around a sample: what they lose to cancellation, how two parts are merged, and the best translation to a frame.

## Statement

Let $x_1, \dots, x_n$ be the features of a class, m their mean and $Q = \sum_i \|x_i - m\|^2$.

**1.** The squares around *one of the samples*, here $x_1$, cancel by a factor of at most n:

$$Q \le \sum_i \|x_i - x_1\|^2 \le n\,Q,$$

with equality on the right if and only if $x_2 = \dots = x_n$. The same holds along every direction. So the variance
that $\sum_i\|x_i - x_1\|^2 - \|\sum_i (x_i - x_1)\|^2/n$ gives has a relative error of at most about $n$ roundings,
whatever the offset of the features, and exactly zero for a collapsed class. No shift that is chosen without looking at
the samples has such a bound.

**2.** Let a part of N samples have the sum s of $x - a$ and the scatter $T = \sum (x-a)(x-a)'$. Around another shift b,
with $\delta = a - b$ and $p = s + N\delta/2$, they are $s + N\delta$ and $T + \delta p' + p\,\delta'$.

**3.** For weights $v_c \ge 0$ with sum V > 0, class means $\mu_c$ and a frame with columns $f_c$, the least
$\sum_c v_c\|\mu_c - t - sUf_c\|^2$ over translations t is $\sum_c v_c\|\mu_c^\circ - sUf_c^\circ\|^2$, where ° takes
the v-weighted mean off: $\mu_c^\circ = \mu_c - \sum_j v_j\mu_j/V$, and the same of $f_c$. So the distance of class
means to a frame depends on no origin, and is zero for any rotation, size and position of the frame.

## Assumptions

$n, N \ge 1$; U of any shape that fits. The bound of 1 is in exact arithmetic; the roundings are those of the sums.

## Proof

**1.** $\sum_i\|x_i - x_1\|^2 = Q + n\|x_1 - m\|^2$, which gives the left side. Since $\sum_i (x_i - m) = 0$,
$x_1 - m = -\sum_{i \ge 2}(x_i - m)$, and by Cauchy-Schwarz

$$\|x_1 - m\|^2 \le (n-1)\sum_{i\ge2}\|x_i - m\|^2 = (n-1)(Q - \|x_1 - m\|^2),$$

so $n\|x_1 - m\|^2 \le (n-1)Q$. Equality needs all $x_i - m$, $i \ge 2$, to be equal. Applied to $v'x_i$ it holds along
v. For a fixed shift b, samples that are all at distance 1 from b and within $\epsilon$ of each other have
$\sum\|x_i - b\|^2 \approx n$ and $Q \le n\epsilon^2$: the ratio has no bound.

**2.** $x - b = (x - a) + \delta$. Sum, and multiply out:
$\sum (x-b)(x-b)' = T + s\delta' + \delta s' + N\delta\delta'$.

**3.** The sum is a convex quadratic in t. Its gradient vanishes at $t = \sum_c v_c(\mu_c - sUf_c)/V$, and the residual
there is $\mu_c^\circ - sUf_c^\circ$.

## In the code

- `etfopt.metrics.NeuralCollapse`: the state of every class, its merger between batches and ranks, and the frame
  distances.

## References

Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance: analysis and recommendations, The American
Statistician 37, has shifted sums and mergers; the bound for a shift that is one of the samples follows from its
condition number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from etfopt.metrics import NeuralCollapse
from theory.draws import Matrix, frame, stiefel
from theory.registry import Evidence, Part, Residual, at_least, gather


def _around_the_first(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the bounds on any samples, on those that reach them, and along a direction; and a fixed shift."""
    n, d = int(rng.integers(1, 40)), int(rng.integers(1, 6))
    x = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-3, 3, d)
    if rng.random() < 0.3:
        x[1:] = x[-1]
    for part in (x, x @ rng.standard_normal((d, 1))):
        Q = float(np.sum((part - part.mean(axis=0)) ** 2))
        around = float(np.sum((part - part[0]) ** 2))
        yield Residual(around - n * Q, 1e-12 * (around + n * Q), "more than n times")
        yield Residual(Q - around, 1e-12 * (Q + around), "less than around the mean")
        if n > 1 and np.all(part[1:] == part[-1]) and Q > 0:
            yield Residual(abs(around / (n * Q) - 1), 1e-9, "equality where all others agree")
    near = rng.standard_normal(d) / 10 + 1 + 1e-6 * rng.standard_normal((30, d))
    ratio = float(np.sum(near**2) / np.sum((near - near.mean(axis=0)) ** 2))
    yield at_least(ratio, 1e6, "what a fixed shift loses")


def _variances(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the metric's variances and means: any offset, any batches, merged or not, against sums around the mean."""
    C, d, n = int(rng.integers(2, 6)), int(rng.integers(1, 6)), int(rng.integers(6, 60))
    labels = rng.integers(0, C, n)
    offset, noise = 10.0 ** rng.uniform(0, 7) * rng.standard_normal(d), 10.0 ** rng.uniform(-3, 0)
    features = rng.standard_normal((C, d))[labels] + noise * rng.standard_normal((n, d)) + offset
    cut, parts = int(rng.integers(0, n + 1)), [NeuralCollapse(num_classes=C, dim=d, measures=["nc1"]) for _ in range(2)]
    for metric, rows in zip(parts, (slice(0, cut), slice(cut, n)), strict=True):
        for k in range(rows.start, rows.stop, 7):
            piece = slice(k, min(k + 7, rows.stop))
            metric.update(torch.tensor(features[piece]), torch.tensor(labels[piece]))
    parts[0].merge_state(parts[1])
    found, means = parts[0].class_variances().numpy(), parts[0].feature_means().numpy()
    for c in np.unique(labels):
        own = features[labels == c]
        exact = float(np.mean(np.sum((own - own[0] - (own - own[0]).mean(axis=0)) ** 2, axis=1)))
        yield Residual(abs(found[c] - exact), 1e-9 * exact, "variance of a class")
        mean = own[0] + (own - own[0]).mean(axis=0)
        yield Residual(float(np.abs(means[c] - mean).max()), 1e-14 * float(np.abs(own).max()), "mean of a class")


def _merged(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the sums and the scatter around another shift."""
    N, d = int(rng.integers(1, 20)), int(rng.integers(1, 6))
    x, a, b = rng.standard_normal((N, d)), rng.standard_normal(d), 10 * rng.standard_normal(d)
    s, T, delta = (x - a).sum(axis=0), (x - a).T @ (x - a), a - b
    p = s + N * delta / 2
    size = float(np.sum((x - b) ** 2))
    apart = T + np.outer(delta, p) + np.outer(p, delta) - (x - b).T @ (x - b)
    yield Residual(float(np.abs(s + N * delta - (x - b).sum(axis=0)).max()), 1e-13 * N * size**0.5, "sum")
    yield Residual(float(np.abs(apart).max()), 1e-13 * (size + N), "scatter")


def _translation(rng: np.random.Generator) -> Iterator[Residual]:
    """Try the metric's distance to a frame that was turned, scaled and moved, and to one that no move brings near."""
    C = int(rng.integers(3, 7))
    F = frame(rng, C)
    d, counts = C + 1, rng.integers(1, 5, C)
    labels, weights = np.repeat(np.arange(C), counts), rng.uniform(0.1, 2, C)
    U, s, t = stiefel(rng, d, len(F)), 10.0 ** rng.uniform(-1, 1), rng.standard_normal(d)
    placed = s * (U @ F).T + t
    yield Residual(_distance(placed[labels], labels, F, weights), 1e-20, "distance of a frame that was moved")
    means = placed + 0.3 * s * rng.standard_normal((C, d))
    found = _distance(means[labels], labels, F, weights)
    centred, G = (X - weights @ X / weights.sum() for X in (means, F.T))
    square = float(weights @ np.sum(G**2, axis=1))
    for _ in range(3):
        V, size, move = stiefel(rng, d, len(F)), float(rng.uniform(0, 2 * s)), t + rng.standard_normal(d)
        tried = float(weights @ np.sum((means - move - size * (V @ F).T) ** 2, axis=1))
        whole = float(weights @ np.sum(centred**2, axis=1))
        yield Residual(found - tried / whole, 1e-12, "a better place")
    nuclear = float(np.linalg.norm(centred.T @ (weights[:, None] * G), "nuc"))
    whole = float(weights @ np.sum(centred**2, axis=1))
    yield Residual(abs(found - (1 - nuclear**2 / square / whole)), 1e-11, "the formula")


def _distance(features: Matrix, labels: np.ndarray[tuple[int], np.dtype[np.int64]], F: Matrix, v: Matrix) -> float:
    metric = NeuralCollapse(
        num_classes=F.shape[1],
        dim=features.shape[1],
        measures=["frame_distance_means"],
        frame=F,
        frame_weights=v,
    )
    metric.update(torch.tensor(features), torch.tensor(labels))
    return float(metric.compute()["frame_distance_means"])


PARTS = (Part(_around_the_first, 2), Part(_variances), Part(_merged), Part(_translation))


def check(rng: np.random.Generator, budget: int = 1000) -> Evidence:
    """Look for a counterexample: samples of any spread, offsets, mergers, and frames turned, scaled and moved."""
    return gather(rng, budget, PARTS)
