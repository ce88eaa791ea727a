"""Data and two-pass transcriptions in NumPy to hold the metrics against: every formula is spelled out."""

import copy
import math
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor

from etfopt.frames import simplex_etf
from etfopt.geometry import random_stiefel
from etfopt.metrics import CosineMargin, NearestMeanMismatch, NeuralCollapse, NumericalRank

Data = tuple[Tensor, Tensor, Tensor, Tensor]
SIZES = {"num_classes": 5, "dim": 8}
ETF_DISTANCES = {"etf_distance_means", "etf_distance_weights", "etf_distance_between"}


def nearest_etf_reference(X: np.ndarray) -> tuple[float, np.ndarray]:
    """Squared distance to the nearest ETF of any size, through M itself, and that ETF (where unique) at norm 1."""
    C = X.shape[1]
    M = (np.eye(C) - np.ones((C, C)) / C) / math.sqrt(C - 1)
    P, s, Qt = np.linalg.svd(X @ M, full_matrices=False)
    return float(np.sum(X**2) - np.sum(s) ** 2), P[:, : C - 1] @ Qt[: C - 1] @ M


def collapse_reference(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> dict[str, float]:
    f, y, W = features.double().numpy(), labels.numpy(), weight.double().numpy()
    (n, d), C = f.shape, len(W)
    b = np.zeros(C) if bias is None else bias.double().numpy()
    mean = f.mean(axis=0)
    H, seen = np.zeros((d, C)), np.unique(y)
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for c in seen:
        own = f[y == c]
        H[:, c] = own.mean(axis=0) - mean
        within += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0)) / n
        between += len(own) / n * np.outer(H[:, c], H[:, c])
    M = (np.eye(C) - np.ones((C, C)) / C) / math.sqrt(C - 1)
    norms_H, norms_W = np.linalg.norm(H[:, seen], axis=0), np.linalg.norm(W, axis=1)
    to_means, etf_means = nearest_etf_reference(H / np.linalg.norm(H))
    to_weights, etf_weights = nearest_etf_reference(W.T / np.linalg.norm(W))
    equinorm = [float(x.std(ddof=1) / x.mean()) for x in (norms_H, norms_W)]
    return {
        "accuracy": float(np.mean(np.argmax(f @ W.T + b, axis=1) == y)),
        "nc1": float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / C),
        "vci": 1
        - float(np.trace(np.linalg.pinv(within + between, rcond=1e-13, hermitian=True) @ between)) / min(d, C - 1),
        "nc2": float(np.linalg.norm(W @ W.T / np.linalg.norm(W @ W.T) - M)),
        "nc2_means": float(np.linalg.norm(H.T @ H / np.linalg.norm(H.T @ H) - M)),
        "nc3": float(np.linalg.norm(W @ H / np.linalg.norm(W @ H) - M)),
        "nc4": float(np.linalg.norm(W @ mean + b)),
        "equinorm_means": equinorm[0],
        "equinorm_weights": equinorm[1],
        "equinorm_difference": abs(equinorm[0] - equinorm[1]),
        "etf_distance_means": to_means,
        "etf_distance_weights": to_weights,
        "etf_distance_between": float(np.sum((etf_means - etf_weights) ** 2)),
    }


def margin_reference(features: Tensor, labels: Tensor, weight: Tensor, mean: Tensor | None = None) -> np.ndarray:
    f, W = features.double().numpy(), weight.double().numpy()
    centre = f.mean(axis=0) if mean is None else mean.double().numpy()
    margins = []
    for x, y in zip(f - centre, labels.numpy(), strict=True):
        cosines = [x @ w / (np.linalg.norm(x) * np.linalg.norm(w)) for w in W - W.mean(axis=0)]
        margins.append(cosines.pop(y) - max(cosines))
    return np.sort(margins)


def rank_reference(features: Tensor, labels: Tensor) -> float:
    f, y = features.double().numpy(), labels.numpy()
    norms = [(np.linalg.norm(f[y == c], "nuc"), np.linalg.norm(f[y == c])) for c in np.unique(y)]
    return float(np.mean([(nuclear / frobenius) ** 2 for nuclear, frobenius in norms]))


def mismatch_reference(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> float:
    f, y, W, b = (x.double().numpy() for x in (features, labels, weight, bias))
    means = {int(c): f[y == c].mean(axis=0) for c in np.unique(y)}
    nearest = [min(means, key=lambda c: float(np.linalg.norm(x - means[c]))) for x in f]
    return float(np.mean([int(np.argmax(W @ x + b)) != c for x, c in zip(f, nearest, strict=True)]))


# --- data ----------------------------------------------------------------------------------------------------------


def draw(C: int, d: int, n: int, seed: int = 0, noise: float = 0.5, dtype: torch.dtype = torch.float32) -> Data:
    """Features around random class means off the origin, with every class present in unequal numbers."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(C), (C * torch.rand(n - C, generator=g) ** 2).long()])
    means = torch.randn(C, d, generator=g, dtype=torch.float64) + torch.randn(d, generator=g, dtype=torch.float64)
    features = means[labels] + noise * torch.randn(n, d, generator=g, dtype=torch.float64)
    weight, bias = means + 0.3 * torch.randn(C, d, generator=g, dtype=torch.float64), torch.randn(C, generator=g)
    return features.to(dtype), labels, weight.to(dtype), bias.to(dtype)


def simplex(C: int, d: int, seed: int = 0) -> Tensor:
    """Unit-norm vertices of a simplex ETF in a random position, shape (C, d)."""
    U = random_stiefel(d, C - 1, np.random.default_rng(seed))
    return math.sqrt(C) * torch.from_numpy(U @ simplex_etf(C, reduced=True)).T


def batches(data: Data, sizes: list[int]) -> Iterator[Data]:
    features, labels, weight, bias = data
    for f, y in zip(features.split(sizes), labels.split(sizes), strict=True):
        yield f, y, weight, bias


def with_ignored(data: Data, label: int, value: float, every: int = 4) -> Data:
    """Put a sample that must not count before every few samples."""
    features, labels, weight, bias = data
    rows = torch.arange(len(labels) + len(labels) // every)
    extra = rows % (every + 1) == 0
    wide, marked = features.new_full((len(rows), features.shape[1]), value), labels.new_full((len(rows),), label)
    wide[~extra], marked[~extra] = features, labels
    return wide, marked, weight, bias


def measures(data: Data, sizes: list[int] | None = None) -> dict[str, float]:
    C, d = data[2].shape
    metric = NeuralCollapse(num_classes=C, dim=d)
    for batch in batches(data, sizes or [len(data[0])]):
        metric.update(*batch)
    return {key: float(value) for key, value in metric.compute().items()}


def without_nan(values: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in values.items() if not math.isnan(value)}


def nan_keys(values: dict[str, float]) -> set[str]:
    return set(values) - set(without_nan(values))


def by_position(make: type[torchmetrics.Metric], *given: str, **options: object) -> Callable[..., torchmetrics.Metric]:
    """A metric of C classes in d dimensions, with the tensors that it may be given."""
    tensors = {"global_mean": lambda _, d: torch.full((d,), 0.1), "class_means": torch.eye}
    return lambda C, d, **kw: make(
        num_classes=C, dim=d, **{name: tensors[name](C, d) for name in given}, **options, **kw
    )


BUILDERS: dict[str, Callable[..., torchmetrics.Metric]] = {
    "collapse": by_position(NeuralCollapse),
    "vocabulary": by_position(NeuralCollapse, measures=["cdnv", "gnc2", "unc3", "self_duality"]),
    "stored": by_position(CosineMargin),
    "streamed": by_position(CosineMargin, "global_mean"),
    "kept": by_position(CosineMargin, "global_mean", keep_margins=True),
    "mismatch": by_position(NearestMeanMismatch),
    "mismatch of given means": by_position(NearestMeanMismatch, "class_means"),
    "rank": by_position(NumericalRank),
}
builders = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS.keys())


def as_floats(value: Tensor | dict[str, Tensor]) -> dict[str, float]:
    return {key: float(x) for key, x in (value if isinstance(value, dict) else {"": value}).items()}


def results(metric: torchmetrics.Metric) -> dict[str, float]:
    return as_floats(metric.compute())


def expected_results(build: Callable[..., torchmetrics.Metric], data: Data | None = None) -> object:
    """What one metric makes of all data in one batch."""
    data = data or draw(5, 8, 100)
    metric = build(*data[2].shape)
    metric.update(*data)
    return pytest.approx(results(metric), rel=1e-9, abs=1e-12, nan_ok=True)


def states(metric: torchmetrics.Metric) -> dict[str, object]:
    return copy.deepcopy(metric.metric_state)


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(-7), b.nan_to_num(-7))
    return isinstance(a, list) and isinstance(b, list) and all(same(x, y) for x, y in zip(a, b, strict=True))


def exact_collapse(features: Tensor, labels: Tensor) -> dict[str, float]:
    """nc1 and vci in 60 digits, where every class occurs, Sigma_B has rank C - 1 and their sum is regular."""
    with mpmath.workdps(60):
        f, n = mpmath.matrix(features.double().tolist()), len(labels)
        C, d = int(labels.max()) + 1, features.shape[1]
        mean = mpmath.ones(1, n) * f / n
        offsets, shares, within = mpmath.matrix(C, d), [], mpmath.zeros(d, d)
        for c in range(C):
            rows = [i for i in range(n) if labels[i] == c]
            own = sum((f[i, :] for i in rows), mpmath.zeros(1, d)) / len(rows)
            offsets[c, :], deviations = own - mean, mpmath.matrix(len(rows), d)
            for k, i in enumerate(rows):
                deviations[k, :] = f[i, :] - own
            within += deviations.T * deviations / n
            shares.append(mpmath.mpf(len(rows)) / n)
        between = offsets.T * mpmath.diag(shares) * offsets
        K = offsets[: C - 1, :].T  # the shares give the last column of H: between = K (diag(p) + pp'/p_C) K'
        p = mpmath.matrix(shares[:-1])
        left = mpmath.inverse(K.T * K) * K.T
        nc1 = mpmath.inverse(mpmath.diag(shares[:-1]) + p * p.T / shares[-1]) * left * within * left.T
        m = min(d, C - 1)
        vci = mpmath.inverse(within + between) * within  # tr(S^-1 B) = d - tr(S^-1 W)
        return {
            "nc1": float(sum(nc1[i, i] for i in range(C - 1)) / C),
            "vci": float((m - d + sum(vci[i, i] for i in range(d))) / m),
        }
