"""Distance of class means, or of a classifier, to the nearest rotation of a frame, of any size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from etfopt._arrays import as_weights, room_hint
from etfopt.errors import InputError
from etfopt.frames import FramePair, frame_matrix
from etfopt.metrics._checks import EPS
from etfopt.metrics._measures import Statistics
from etfopt.metrics._moments import rows_at_once
from etfopt.metrics._precise import largest_entry
from etfopt.polar._svd import thin_svd


class Target(NamedTuple):
    """The frames to compare with."""

    means: Tensor  # (r, C)
    weights: Tensor  # (r, C)
    shares: Tensor  # (C,), the weight of each class


def as_target(frame: Any, weights: Any, C: int, d: int) -> Target | None:
    """Return the frames for class means and classifier, which differ for a pair, or raise; None without a frame."""
    if frame is None:
        if weights is not None:
            raise InputError("frame_weights is given without frame; pass the frame too, e.g. frame='simplex'")
        return None
    frame, weights = (X.detach().cpu().double().numpy() if isinstance(X, Tensor) else X for X in (frame, weights))
    pair = frame if isinstance(frame, FramePair) else (frame, frame)
    F_H, F_W = (np.asarray(frame_matrix(F, C, d), dtype=np.float64) for F in pair)
    if F_H.shape[0] > d or F_W.shape[0] > d:
        named = isinstance(frame, str) and frame == "simplex"
        hint = room_hint(d, C, simplex=named, reduced="'reduced'", name="dim")
        raise InputError(f"frame has {len(F_H)} rows and dim is {d}; {hint}")
    shares = np.ones(C) if weights is None else as_weights(weights, "frame_weights", C)
    return Target(*(torch.tensor(X) for X in (F_H, F_W, shares)))


def frame_distances(target: Target, W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the squared distances, relative to the squared norms.

    The origin of the features means nothing: class means and frame are centred by the same weighted mean, which is the
    best translation. Frames such as those of imbalanced classes are not centred by the mean of the samples. The rows of
    a classifier have an origin, and stay where they are.
    """
    shares = target.shares * stats.seen
    found = {"frame_distance_means": stats.H.new_full((), torch.nan)}
    if shares.any():
        H, F = (X - (shares @ X) / shares.sum() for X in (stats.H, target.means.T))
        found["frame_distance_means"] = _distance(H, F, shares, stats.floor)
    if W is not None:
        found["frame_distance_weights"] = _distance(W, target.weights.T, target.shares, 0.0)
    return found


def _distance(X: Tensor, F: Tensor, shares: Tensor, floor: float) -> Tensor:
    """Least sum_c w_c |x_c - s U f_c|^2 over U and s, over sum_c w_c |x_c|^2; NaN where that is zero. One row a class.

    The best U is the polar factor of X'DF. The distance is that of this U, not a difference of squared norms: an error
    of U enters squared, and no digits are lost near the frame.
    """
    root = (shares / shares.max()).sqrt()[:, None]
    size = largest_entry(root * X)
    if not size > floor:
        return torch.full_like(size, torch.nan)
    F = root * F
    rows = rows_at_once(X.shape[1])
    tiles = [slice(i, i + rows) for i in range(0, len(X), rows)]
    A, whole = X.new_zeros(X.shape[1], F.shape[1]), X.new_zeros(())
    for t in tiles:
        x = root[t] * X[t] / size
        A.addmm_(x.T, F[t])
        whole += x.square().sum()
    if not largest_entry(A) > EPS * max(X.shape):
        return torch.ones_like(size)
    P, s, Q = thin_svd(A.numpy())
    UF = torch.from_numpy(P @ Q.T) * (float(s.sum()) / F.square().sum())
    apart = torch.stack([(root[t] * X[t] / size - F[t] @ UF.T).square().sum() for t in tiles]).sum()
    return apart / whole
