"""Cases for `theory.seli`: counts of any ratio, feasible classifiers, and unconstrained features by optimisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from etfopt.frames import FramePair, seli
from theory.draws import Matrix
from theory.registry import Part, Residual, at_least

__all__ = ["PARTS", "classes_of", "features", "hinge", "norm_ratio", "scaled_cross_entropy"]

Loss = Callable[[Matrix], tuple[float, Matrix]]
"""From the leads of the right logit, of shape (C, n), to the loss and its derivative."""


def norm_ratio(R: float, k: int) -> float:
    """Return the ratio of squared row norms of W, majority to minority, for a step imbalance of k classes."""
    shared = np.sqrt((R + 1) / 2) / k
    return float((np.sqrt(R) * (1 - 2 / k) + shared) / (1 - 2 / k + shared))


def classes_of(rng: np.random.Generator) -> Matrix:
    """Return between 2 and 10 class sizes whose ratio is up to 1e4."""
    return np.asarray(10.0 ** (rng.uniform(0, 4) * rng.random(int(rng.integers(2, 11)))))


def unit(G: Matrix) -> Matrix:
    """Return a matrix of Frobenius norm 1."""
    return np.asarray(G / np.linalg.norm(G))


def grams(pair: FramePair) -> tuple[Matrix, Matrix]:
    """Return G_W and G_H of a pair, each of norm 1."""
    return unit(pair.F_W.F.T @ pair.F_W.F), unit(pair.F_H.F.T @ pair.F_H.F)


def _factors(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 1: the product, and both Gram matrices as the positive semidefinite roots that they are."""
    n = classes_of(rng)
    C, pair = len(n), seli(n)
    S, root = np.eye(C) - 1 / C, np.sqrt(n)
    yield Residual(float(np.abs(pair.scale * pair.F_H.F.T @ pair.F_W.F - S).max()), 1e-12, "F_H'F_W")
    G_W, G_H = grams(pair)
    yield Residual(float(np.abs(unit(G_W @ G_W) - unit(S * n @ S)).max()), 1e-12, "square of G_W")
    weighted = root[:, None] * G_H * root
    yield Residual(float(np.abs(unit(weighted @ weighted) - unit(root[:, None] * S * root)).max()), 1e-12, "of G_H")
    yield Residual(-float(min(np.linalg.eigvalsh(G)[0] for G in (G_W, weighted))), 1e-10, "negative eigenvalue")
    yield Residual(float(np.linalg.norm(unit(G_W @ G_H) - unit(S))), 1e-9, "G_H as the pseudo-inverse of G_W")
    same = grams(seli(np.full(C, n[0])))
    yield Residual(max(float(np.linalg.norm(G - unit(S))) for G in same), 1e-14, "the simplex of equal counts")
    moved = seli(n * (1 + 1e-9 * rng.random(C)))
    yield Residual(float(np.linalg.norm(moved.F_H.F - pair.F_H.F)), 1e-6, "F_H of counts that are nearly the same")


def _obtuse(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 2: the signs, and the integral."""
    n = classes_of(rng)
    _, G_H = grams(seli(n))
    off = ~np.eye(len(n), dtype=bool)
    yield Residual(float(G_H[off].max()), 0.0, "entry of G_H off the diagonal")
    nodes, weights = np.polynomial.legendre.leggauss(400)
    total, middle = np.zeros_like(G_H), np.sqrt(np.sqrt(n.min() * n.max()))
    for theta, weight in zip(np.pi / 4 * (nodes + 1), weights, strict=True):
        t = middle * np.tan(theta)
        e = 1 / (n + t * t)
        total += weight * (np.diag(e) - np.outer(e, e) / e.sum()) * middle / np.cos(theta) ** 2
    yield Residual(float(np.abs(unit(total) - G_H).max()), 1e-9, "the integral for G_H")


def _optimal(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 3: feasible W and H, near SELI and far from it, cost no less."""
    n = rng.integers(1, 12, int(rng.integers(2, 7)))
    C, y = len(n), np.repeat(np.arange(len(n)), n)
    pair = seli(n)
    S, columns = np.eye(C) - 1 / C, np.arange(len(y))
    least = float(np.linalg.svd(S[:, y], compute_uv=False).sum())
    # the size of each that makes the product S and the norms equal
    W, H = pair.F_W.F.T, pair.F_H.F[:, y]
    size = np.linalg.norm(H) / np.linalg.norm(W)
    W, H = W * np.sqrt(pair.scale * size), H * np.sqrt(pair.scale / size)
    yield Residual(abs(float(np.sum(W**2) + np.sum(H**2)) / 2 - least), 1e-11 * least, "cost of SELI")
    noise = 10.0 ** rng.uniform(-6, 0)
    W = W + noise * rng.standard_normal(W.shape)
    H = H + noise * rng.standard_normal(H.shape)
    X = W @ H
    lead = X[y, columns] - X
    lead[y, columns] = np.inf
    if lead.min() > 0:
        cost = float(np.sum(W**2) + np.sum(H**2)) / 2 / float(lead.min())
        yield Residual(least - cost, 1e-11 * least, "cost of other feasible factors below that of SELI")


def _ratio(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 4: norms of classifier rows under a step imbalance."""
    k, R, m = 2 * int(rng.integers(1, 10)), float(10.0 ** rng.uniform(0, 3)), float(rng.integers(1, 50))
    squares = np.sum(seli(np.repeat([R * m, m], k // 2)).F_W.F ** 2, axis=0)
    yield Residual(abs(float(squares[0] / squares[-1]) / norm_ratio(R, k) - 1), 1e-11, "ratio of squared norms")


def features(rng: np.random.Generator, y: NDArray[np.int64], loss: Loss, start: Matrix | None = None) -> Matrix:
    """Minimise loss + (||W||^2 + ||H||^2)/2 over W and H of C dimensions; return them as one vector."""
    C, n = int(y.max()) + 1, len(y)
    columns = np.arange(n)

    def value(x: Matrix) -> tuple[float, Matrix]:
        W, H = x[: C * C].reshape(C, C), x[C * C :].reshape(C, n)
        X = W @ H
        found, slope = loss(X[y, columns] - X)
        slope[y, columns] = 0
        G = -slope
        G[y, columns] = slope.sum(axis=0)
        return found + float(x @ x) / 2, np.concatenate([(G @ H.T).ravel(), (W.T @ G).ravel()]) + x

    start = rng.standard_normal(C * (C + n)) * 0.3 if start is None else start
    found = scipy.optimize.minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 50000, "ftol": 0.0, "gtol": 1e-8, "maxcor": 40},
    )
    return np.asarray(found.x)


def hinge(n: int, lam: float) -> Loss:
    """Return the mean squared hinge loss over the weight of the regularisation."""

    def loss(lead: Matrix) -> tuple[float, Matrix]:
        short = np.maximum(1 - lead, 0)
        short[lead == 0] = 0  # the right logit itself
        return float(np.sum(short**2)) / (2 * n * lam), -short / (n * lam)

    return loss


def scaled_cross_entropy(n: int, lam: float) -> Loss:
    """Return the mean cross-entropy over the weight of the regularisation."""

    def loss(lead: Matrix) -> tuple[float, Matrix]:
        wrong = np.exp(-lead)
        wrong[lead == 0] = 0
        total = wrong.sum(axis=0)
        return float(np.log1p(total).sum()) / (n * lam), -wrong / (1 + total) / (n * lam)

    return loss


def class_grams(x: Matrix, y: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Return the Gram matrices of the rows of W and of the class means, each of norm 1."""
    C = int(y.max()) + 1
    W, H = x[: C * C].reshape(C, C), x[C * C :].reshape(C, len(y))
    means = np.stack([H[:, y == c].mean(axis=1) for c in range(C)], axis=1)
    return unit(W @ W.T), unit(means.T @ means)


def _trained(rng: np.random.Generator) -> Iterator[Residual]:
    """Try 3 and 5 by optimisation from random features: R = 10, 10 classes, at 1e-6 and in the limit."""
    n_c = np.repeat([10, 1], 5)
    y, n, lam = np.repeat(np.arange(10), n_c), int(n_c.sum()), 1e-6
    target, simplex = grams(seli(n_c)), unit(np.eye(10) - 0.1)
    found = class_grams(features(rng, y, hinge(n, lam)), y)
    for name, G, goal in zip(("W", "H"), found, target, strict=True):
        yield Residual(float(np.linalg.norm(G - goal)), 2e-3, f"hinge loss: Gram matrix of {name} against SELI")
        yield at_least(float(np.linalg.norm(G - simplex)), 0.1, f"Gram matrix of {name} against the simplex")
    squares = np.diagonal(found[0])
    yield Residual(abs(float(squares[:5].mean() / squares[5:].mean()) / norm_ratio(10, 10) - 1), 0.01, "norm ratio")
    x = features(rng, y, scaled_cross_entropy(n, 1e-3))
    distances: list[list[float]] = []
    for power in (6, 12, 24, 48, 96):
        x = features(rng, y, scaled_cross_entropy(n, 10.0**-power), x * (np.sqrt(2) if distances else 1))
        found = class_grams(x, y)
        distances.append([float(np.linalg.norm(G - goal)) for G, goal in zip(found, target, strict=True)])
        if power == 6:
            for name, G, goal in zip(("W", "H"), found, finite(n_c, lam), strict=True):
                yield Residual(float(np.linalg.norm(G - goal)), 1e-7, f"Gram matrix of {name} against 5")
    for (w, h), (w2, h2) in itertools.pairwise(distances):
        yield Residual(max(w2 / w, h2 / h), 0.6, "distance at the square of lambda over that at lambda")
    yield Residual(max(distances[-1]), 1e-2, "distance from SELI at 1e-96")


def finite(n_c: NDArray[np.int64], lam: float) -> tuple[Matrix, Matrix]:
    """Return the Gram matrices that 5 has at a finite regularisation, by fixed-point iteration on the logits."""
    n, root, C = int(n_c.sum()), np.sqrt(n_c), len(n_c)
    X = np.eye(C) - 1 / C
    for _ in range(100):
        V, L, Rt = np.linalg.svd(X * root, full_matrices=False)
        V, L, R = V[:, :-1], L[:-1], Rt[:-1].T / root[:, None]
        p = -n * lam * (V @ R.T)
        np.fill_diagonal(p, 0)
        np.fill_diagonal(p, 1 - p.sum(axis=0))
        X = (X + np.log(p) - np.log(p).mean(axis=0)) / 2  # the full step amplifies differences within a group
    return unit(V * L @ V.T), unit(R * L @ R.T)


PARTS = (Part(_factors, 3), Part(_obtuse, 1), Part(_optimal, 3), Part(_ratio, 2), Part(_trained, 0.03))
