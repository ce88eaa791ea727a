"""The measures beside the usual ones, spelled out class by class and pair by pair in NumPy, in float64."""

import itertools
import math

import numpy as np
from torch import Tensor

from etfopt.frames import Frame

FLOOR = 1e-12  # of the largest norm: class means and distances below it have no direction


def more_reference(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    frame: Frame | None = None,
    shares: np.ndarray | None = None,
) -> dict[str, float]:
    f, y, W = features.double().numpy(), labels.numpy(), weight.double().numpy()
    seen = [int(c) for c in np.unique(y)]
    mean = f.mean(axis=0)
    own = {c: f[y == c] for c in seen}
    h = {c: own[c].mean(axis=0) - mean for c in seen}
    variances = {c: float(np.mean(np.sum((own[c] - own[c].mean(axis=0)) ** 2, axis=1))) for c in seen}
    size = max(float(np.linalg.norm(f - mean, axis=1).max()), 1e-300)
    unit = {c: h[c] / np.linalg.norm(h[c]) if np.linalg.norm(h[c]) > FLOOR * size else np.nan * h[c] for c in seen}
    rows = {c: W[c] / np.linalg.norm(W[c]) if W[c].any() else np.nan * W[c] for c in seen}
    found = {
        **_pairs(h, unit, variances, FLOOR * size),
        "equinorm_log_means": _deviation([_log(np.linalg.norm(h[c]), FLOOR * size) for c in seen]),
        "equinorm_log_weights": _deviation([_log(np.linalg.norm(w), 0.0) for w in W]),
        "self_duality": float(np.mean([np.linalg.norm(rows[c] - unit[c]) for c in seen])),
        **_unc3(
            [float(W[c] @ h[c]) for c in seen], max(float(np.linalg.norm(W[c]) * np.linalg.norm(h[c])) for c in seen)
        ),
    }
    within = sum((own[c] - own[c].mean(axis=0)).T @ (own[c] - own[c].mean(axis=0)) for c in seen) / len(f)
    between = sum(len(own[c]) / len(f) * np.outer(h[c], h[c]) for c in seen)
    found["effective_rank_within"] = _effective_rank(within, size)
    found["effective_rank_between"] = _effective_rank(between, size)
    if frame is not None:
        v = np.ones(len(W)) if shares is None else shares
        own_v = np.array([v[c] if c in h else 0.0 for c in range(len(W))])
        columns, F = np.stack([h.get(c, np.zeros(f.shape[1])) for c in range(len(W))]), frame.F
        if own_v.any():
            columns, F = columns - own_v @ columns / own_v.sum(), (F.T - own_v @ F.T / own_v.sum()).T
        columns = columns * (np.linalg.norm(np.sqrt(own_v)[:, None] * columns) > FLOOR * size)
        found["frame_distance_means"] = _frame_distance(columns, F, own_v)
        found["frame_distance_weights"] = _frame_distance(W, frame.F, v)
    return found


def _pairs(h: dict, unit: dict, variances: dict, floor: float) -> dict[str, float]:
    cdnv, logs = [], []
    for i, j in itertools.combinations(h, 2):
        apart = float(np.sum((h[i] - h[j]) ** 2))
        cdnv.append((variances[i] + variances[j]) / (2 * apart) if apart > floor**2 else math.nan)
        distance = float(np.linalg.norm(unit[i] - unit[j]))
        logs.append(-math.log(distance) if distance > FLOOR else math.nan)
    return {
        "cdnv": float(np.mean(cdnv)) if cdnv else math.nan,
        "gnc2": float(np.std(logs)) if logs else math.nan,
    }


def _unc3(products: list[float], size: float) -> dict[str, float]:
    if len(products) < 2 or abs(np.mean(products)) <= FLOOR * size:
        return {"unc3": math.nan}
    return {"unc3": float(np.std(products, ddof=1) / abs(np.mean(products)))}


def _effective_rank(covariance: np.ndarray, size: float) -> float:
    spectrum = np.linalg.eigvalsh(covariance).clip(min=0)
    if spectrum.sum() <= (FLOOR * size) ** 2:
        return math.nan
    p = spectrum[spectrum > 0] / spectrum.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def _frame_distance(X: np.ndarray, F: np.ndarray, weights: np.ndarray) -> float:
    """1 - ||X'DF'||_*^2 / (||X||_D^2 ||F||_D^2), all of it by the definition."""
    norm = np.sum(weights[:, None] * X**2)
    if not norm:
        return math.nan
    nuclear = np.linalg.norm(X.T @ (weights[:, None] * F.T), "nuc")
    return float(1 - nuclear**2 / np.sum(weights * np.sum(F**2, axis=0)) / norm)


def _log(x: float, floor: float) -> float:
    return math.log(x) if x > floor else math.nan


def _deviation(x: list[float]) -> float:
    return float(np.std(x, ddof=1)) if len(x) > 1 else math.nan
