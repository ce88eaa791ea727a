"""The checks of `theory.fading`."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from etfopt import NearestETF, solve
from etfopt.adjoint import nearest_etf_vjp, polar_derivative
from etfopt.nn import NearestETFHead, PaperClassMeans
from theory.draws import Matrix, polar, problem
from theory.registry import Part, Residual, at_least

__all__ = ["PARTS"]

UNIT = float(np.finfo(np.float64).eps)
FLOOR, LAST = 1e-4, 19999

Labels = NDArray[np.int64]


def weights(rule: str | float, t: int) -> Matrix:
    """Return the weights of the batches 1, ..., t as stated, before the floor."""
    k = np.arange(1, t + 1)
    if rule == "paper":
        return np.asarray(2 * k / (t * (t + 1)))
    if rule == "cumulative":
        return np.full(t, 1 / t)
    a = float(rule)
    return np.asarray(np.where(k == 1, (1 - a) ** (t - 1), a * (1 - a) ** (t - k)))


def _class_means(rng: np.random.Generator) -> Iterator[Residual]:
    """Feed batches to PaperClassMeans: columns are the stated weights of the visits; so are the derivatives."""
    C, d, T = int(rng.integers(2, 6)), int(rng.integers(1, 5)), int(rng.integers(1, 40))
    rule: str | float = str(rng.choice(["paper", "cumulative"])) if rng.integers(2) else float(rng.uniform(0.05, 1))
    means, share = PaperClassMeans(num_classes=C, dim=d, averaging=rule).double(), rng.uniform(0.02, 1, C)
    history: list[tuple[Matrix, Labels]] = [_batch(rng, C, d, share) for _ in range(T)]
    *past, (f, y) = history
    for x, labels in past:
        _step(means, torch.from_numpy(x), labels)
    seen = {int(c) for _, labels in past for c in labels}
    leaf = torch.from_numpy(f).requires_grad_()
    mean = _step(means, leaf, y)
    size = max(np.abs(x).max() for x, _ in history)
    rates = [_rate(rule, t) for t in range(1, T + 1)]
    for c in range(C):
        error = np.abs(mean[:, c].detach().numpy() - _column(history, c, rates)).max()
        yield Residual(float(error), 10 * T * UNIT * size, "column of the running means")
    if all(c in labels for _, labels in history for c in range(C)):
        H = np.array([_column([batch], c, [1.0]) for batch in history for c in range(C)]).reshape(T, C, d)
        stated = np.tensordot(weights(rule, T), H, 1).T
        yield Residual(float(np.abs(mean.detach().numpy() - stated).max()), 10 * T * UNIT * size, "stated weights")
    Gamma = rng.standard_normal((d, C))
    (mean * torch.from_numpy(Gamma)).sum().backward()
    assert leaf.grad is not None
    present = np.isin(np.arange(C), y)
    new = np.array([c not in seen and not present[c] for c in range(C)])
    shared = (Gamma[:, new].sum(1) - Gamma[:, present].sum(1)) / len(y)
    stated = rates[-1] * np.array([Gamma[:, c] / np.sum(y == c) + shared for c in y])
    error = np.abs(leaf.grad.numpy() - stated).max()
    yield Residual(float(error), 20 * UNIT * C * np.abs(Gamma).max(), "dL/df of the running means")


def _step(module: torch.nn.Module, features: torch.Tensor, y: Labels) -> Any:
    """Take a training step; batches of one class are among the cases."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*hold one class only", UserWarning)
        return module(features, torch.from_numpy(y))


def _batch(rng: np.random.Generator, C: int, d: int, share: Matrix) -> tuple[Matrix, Labels]:
    y = np.flatnonzero(rng.random(C) < share)
    y = np.append(y, rng.integers(C, size=int(len(y) == 0)))
    y = np.repeat(y, rng.integers(1, 4, len(y)))
    return rng.standard_normal((len(y), d)), y


def _rate(rule: str | float, t: int) -> float:
    if rule == "paper":
        return max(2 / (t + 1), FLOOR)
    return 1 / t if rule == "cumulative" else float(rule) if t > 1 else 1.0


def _column(history: list[tuple[Matrix, Labels]], c: int, rates: list[float]) -> Matrix:
    """Return the column of class c by the weights of part 4."""
    visits = [t for t, (_, y) in enumerate(history) if c in y]
    if not visits:
        return np.asarray(history[-1][0].mean(0))
    left = [math.prod(1 - rates[t] for t in visits[k:]) for k in range(len(visits) + 1)]
    before = history[visits[0] - 1][0].mean(0) if visits[0] else np.zeros(history[0][0].shape[1])
    column = left[0] * before
    for k, t in enumerate(visits):
        f, y = history[t]
        column = column + rates[t] * left[k + 1] * (f[y == c].mean(0) - f.mean(0))
    return np.asarray(column)


def _floor(rng: np.random.Generator) -> Iterator[Residual]:
    """Start PaperClassMeans near the step where the release stops shrinking its rate."""
    start, T = int(rng.integers(LAST - 8, LAST + 4)), int(rng.integers(1, 12))
    means, old = PaperClassMeans(num_classes=2, dim=1).double(), rng.standard_normal((1, 2))
    means.mean.copy_(torch.from_numpy(old))
    means.seen.fill_(True)
    means.steps.fill_(start)
    halves = rng.standard_normal(T)
    for x in halves:
        means(torch.tensor([[x], [-x]], dtype=torch.float64), torch.tensor([0, 1]))
    last, k = start + T, np.arange(1, start + T + 1)
    edge = min(last, LAST)
    omega = np.where(k <= LAST, 2 * k / (edge * (edge + 1)) * (1 - FLOOR) ** max(last - LAST, 0), 0)
    omega[LAST:] = FLOOR * (1 - FLOOR) ** (last - k[LAST:])
    yield Residual(abs(omega.sum() - 1), 1e-12, "sum of the weights after the floor")
    expected = (1 - omega[start:].sum()) * old + np.dot(omega[start:], halves) * np.array([[1, -1]])
    yield Residual(float(np.abs(means.mean.numpy() - expected).max()), 1e-14, "running mean around the floor")


def _indirect(rng: np.random.Generator) -> Iterator[Residual]:
    """Measure the indirect gradient of a head, with and without it, against differences of its own loss."""
    C, delta = int(rng.integers(2, 5)), float(rng.choice([1e-3, 0.1, 1.0]))
    d, rule = C + int(rng.integers(0, 3)), float(rng.uniform(0.2, 1)) if rng.integers(2) else "paper"
    head, share = NearestETFHead(d, C, delta=delta, statistics="paper", averaging=rule).double(), rng.uniform(0.3, 1, C)
    batches = [_batch(rng, C, d, share if t else np.ones(C)) for t in range(int(rng.integers(2, 8)))]
    *past, (x, y) = batches
    for f, labels in past:
        _step(head, torch.from_numpy(f), labels)
    E, D = rng.standard_normal((len(y), C)), rng.standard_normal(x.shape)
    old, prox, a = head.means.centred().numpy().copy(), head.U.numpy().copy(), _rate(rule, len(batches))
    f0 = 5 * x / np.linalg.norm(x, axis=1, keepdims=True)

    def mean(x: Matrix) -> Matrix:
        f = 5 * x / np.linalg.norm(x, axis=1, keepdims=True)
        new = [f[y == c].mean(0) - f.mean(0) if c in y else old[:, c] for c in range(C)]
        return np.asarray(a * np.array(new).T + (1 - a) * old)

    M = (np.eye(C) - 1 / C) / np.sqrt(C - 1)

    def loss(x: Matrix) -> float:
        H = mean(x) / np.linalg.norm(mean(x))
        W = np.sqrt(C) * (polar(2 * H @ M + delta * prox) @ M).T
        return float(np.vdot(E, (f0 - f0.mean(0)) @ W.T))

    H = mean(x) / np.linalg.norm(mean(x))
    spectrum = np.linalg.svd(2 * H @ M + delta * prox, compute_uv=False)
    small, size = spectrum[-1], np.linalg.norm(mean(x))
    step = 1e-4 * small * size * np.linalg.norm(x, axis=1).min() / np.linalg.norm(D)
    measured = float(np.vdot(_gradient(head, x, y, E, True) - _gradient(head, x, y, E, False), D))
    differences = (loss(x + step * D) - loss(x - step * D)) / (2 * step)
    cotangent = 10 * np.sqrt(C) * np.linalg.norm(E) * np.sqrt(len(y))
    scale = cotangent * 10 * np.linalg.norm(D / np.linalg.norm(x, axis=1, keepdims=True)) / (small * size)
    yield Residual(abs(measured - differences), 1e-6 * scale, "indirect gradient of a step")
    yield Residual(abs(measured), a * scale, "size of the indirect gradient")


def _gradient(head: NearestETFHead, x: Matrix, y: Labels, E: Matrix, implicit: bool) -> Matrix:
    """Return dL/dx of the linear loss <E, logits> in a copy of the head."""
    head = copy.deepcopy(head)
    head.implicit_gradient = implicit
    leaf = torch.from_numpy(x).requires_grad_()
    (_step(head, leaf, y) * torch.from_numpy(E)).sum().backward()
    assert leaf.grad is not None
    return np.asarray(leaf.grad.numpy())


def _fading(rng: np.random.Generator) -> Iterator[Residual]:
    """Repeat one batch: nothing changes but the rate, and the indirect gradient is that multiple of the first."""
    C, n = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    d, rule = C + int(rng.integers(0, 3)), str(rng.choice(["paper", "cumulative"]))
    x, y = rng.standard_normal((C * n, d)), np.repeat(np.arange(C), n)
    E, head = rng.standard_normal((C * n, C)), NearestETFHead(d, C, statistics="paper", averaging=rule).double()
    first = _gradient(head, x, y, E, True) - _gradient(head, x, y, E, False)
    direct = _gradient(head, x, y, E, False)
    head(torch.from_numpy(x), torch.from_numpy(y))
    for t in (2, int(np.exp(rng.uniform(1, 9.9))), int(np.exp(rng.uniform(9.95, 11)))):
        head.means.steps.fill_(t - 1)
        total = _gradient(head, x, y, E, True) - direct
        ratio = max(2 / (t + 1), FLOOR) if rule == "paper" else 1 / t
        error = np.linalg.norm(total - ratio * first)
        allowed = 1e-11 * (np.linalg.norm(direct) + ratio * np.linalg.norm(first))
        yield Residual(float(error), float(allowed), "indirect gradient against the rate times the first")


def _radial(rng: np.random.Generator) -> Iterator[Residual]:
    """Try part 2's component along H, for any frame and proximal point."""
    p = problem(rng, str(rng.choice(["generic", "equal", "repeated"])))
    s = np.linalg.svd(p.linear_term, compute_uv=False)
    while s[-1] < 1e-6 * s[0]:
        p = problem(rng, "generic")
        s = np.linalg.svd(p.linear_term, compute_uv=False)
    U, G = solve(p).U, rng.standard_normal((p.d, p.r))
    along = float(np.vdot(nearest_etf_vjp(p, U, G).H, p.H))
    prox = np.zeros_like(G) if p.prox is None else p.prox
    stated = -p.delta * float(np.vdot(polar_derivative(p.linear_term, U, G), prox))
    scale = np.linalg.norm(G) / s[-1] * (np.linalg.norm(p.H) * np.linalg.norm(p.F, 2) + p.delta * np.linalg.norm(prox))
    allowed = 200 * p.r * UNIT * s[0] / s[-1] * scale
    yield Residual(abs(along - stated), float(allowed), "component along H")
    scaled = NearestETF(p.H, frame=p.F) if p.delta == 0 else NearestETF(2 * p.H, p.prox, 2 * p.delta, p.F)
    gap = np.linalg.norm(scaled.linear_term / (1 + (p.delta > 0)) - p.linear_term)
    yield Residual(float(gap), 1e-12 * s[0], "A is homogeneous in H and delta")


def _sums(rng: np.random.Generator) -> Iterator[Residual]:
    """Add up the stated weights and rates, by brute force."""
    t = int(np.exp(rng.uniform(0, np.log(LAST))))
    k, a = np.arange(1, t + 1), float(rng.uniform(0.01, 1))
    for rule, number, age in (("paper", 1.5 * t * (t + 1) / (2 * t + 1), (t - 1) / 3), ("cumulative", t, (t - 1) / 2)):
        omega = weights(rule, t)
        yield Residual(abs(omega.sum() - 1), 1e-12, f"sum of the weights, {rule}")
        yield Residual(abs(1 / np.sum(omega**2) / number - 1), 1e-11, f"batches in effect, {rule}")
        yield Residual(abs(np.sum(omega * (t - k)) - age), 1e-11 * t, f"mean age, {rule}")
    long = weights(a, 4000)
    yield Residual(abs(np.sum(long**2) * (2 - a) / a - 1), 1e-9, "batches in effect, constant rate")
    yield Residual(abs(np.sum(long * np.arange(4000)[::-1]) * a - (1 - a)), 1e-9, "mean age, constant rate")
    rates = np.maximum(2 / (np.arange(1, 210000) + 1), FLOOR)
    spent = np.cumsum(rates)
    yield Residual(abs(spent[t - 1] - 2 * (np.sum(1 / np.arange(1, t + 2)) - 1)), 1e-11, "sum of the rates")
    yield Residual(abs(rates[2 * t] - max(rates[t - 1] / 2, FLOOR)), 1e-17, "the rate halves as the steps double")
    doubled = int(np.searchsorted(spent, 2 * spent[LAST - 1] - 1e-9)) + 1
    yield Residual(abs(doubled - LAST - 189615), 0.5, "steps that double the sum after the floor")
    half = int(np.searchsorted(spent, spent[t - 1] / 2)) + 1
    limit = math.exp((1 - np.euler_gamma) / 2) * math.sqrt(t)
    yield Residual(abs(half - limit), 2.0, "step by which half is spent")


def _rare(rng: np.random.Generator) -> Iterator[Residual]:
    """Take the exact expectation over all visiting patterns of a few steps, and long regular visits."""
    T, p = int(rng.integers(2, 9)), float(rng.uniform(0.01, 0.99))
    start, visit = 0.0, np.zeros(T)
    for pattern in itertools.product([0, 1], repeat=T):
        chance = math.prod(p if there else 1 - p for there in pattern)
        kept = [math.prod(1 - 2 / (t + 2) * there for t, there in enumerate(pattern) if t >= s) for s in range(T + 1)]
        start += chance * kept[0]
        visit += [chance * 2 / (s + 2) * kept[s + 1] * pattern[s] / p for s in range(T)]
    stated = [_visit_weight(p, T, s) for s in range(1, T + 1)]
    yield Residual(abs(start - _start_weight(p, T)), 1e-13, "expected weight of what filled the column")
    yield Residual(float(np.abs(visit - stated).max()), 1e-13, "expected weight of a visit")
    sign = np.sign(np.diff(visit)) * np.sign(p - 0.5)
    yield Residual(float(-sign.min()), 0.0 if abs(p - 0.5) > 1e-6 else 1.0, "later visits weigh more iff p > 1/2")
    P, m = int(rng.integers(1, 200)), int(rng.integers(2, 400))
    steps = 1 + P * np.arange(m)
    rates = 2 / (steps + 1)
    later = np.append(np.cumprod((1 - rates)[::-1])[::-1], 1.0)[1:]
    omega = rates * later
    exact = math.exp(math.lgamma(m) + math.lgamma(1 + 2 / P) - math.lgamma(m + 2 / P))
    yield Residual(abs(omega[0] - exact), 1e-11, "weight of the first of regular visits")
    yield Residual(float(1 / np.sum(omega**2)), exact**-2 * (1 + 1e-9), "visits in effect")
    own = np.array([2 / (k + 1) * math.prod(1 - 2 / (j + 1) for j in range(k + 1, m + 1)) for k in range(1, m + 1)])
    yield Residual(float(np.abs(own - weights("paper", m)).max()), 1e-13, "weights of a counter of its own")
    if P > 4:
        yield at_least(
            float(1 / np.sum(own**2)), float(1 / np.sum(omega**2)), "a counter of its own has more in effect"
        )


def _start_weight(p: float, T: int) -> float:
    return math.exp(math.lgamma(T + 2 - 2 * p) - math.lgamma(2 - 2 * p) - math.lgamma(T + 2))


def _visit_weight(p: float, T: int, s: int) -> float:
    powers = math.lgamma(T + 2 - 2 * p) + math.lgamma(s + 2) - math.lgamma(s + 2 - 2 * p) - math.lgamma(T + 2)
    return 2 / (s + 1) * math.exp(powers)


PARTS = (
    Part(_class_means, 2),
    Part(_floor),
    Part(_indirect),
    Part(_fading, 0.5),
    Part(_radial, 2),
    Part(_sums, 0.3),
    Part(_rare, 0.5),
)
