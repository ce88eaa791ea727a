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


def as_target(frame: Any, weights: Any, C: int, d: int) -> Target:
    """Return the frames for class means and classifier, which differ for a pair, or raise."""
    pair = frame if isinstance(frame, FramePair) else (frame, frame)
    F_H, F_W = (np.asarray(frame_matrix(F, C, d), dtype=np.float64) for F in pair)
    if F_H.shape[0] > d or F_W.shape[0] > d:
        named = isinstance(frame, str) and frame == "simplex"
        hint = room_hint(d, C, simplex=named, reduced="'reduced'", name="dim")
        raise InputError(f"frame has {len(F_H)} rows and dim is {d}; {hint}")
    shares = np.ones(C) if weights is None else as_weights(weights, "frame_weights", C)
    return Target(*(torch.tensor(X) for X in (F_H, F_W, shares)))


def frame_distances(target: Target, W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the squared distances, relative to the squared norms."""
    found = {"frame_distance_means": _distance(stats.H, target.means, target.shares)}
    if W is not None:
        found["frame_distance_weights"] = _distance(W, target.weights, target.shares)
    return found


def _distance(X: Tensor, F: Tensor, shares: Tensor) -> Tensor:
    """Least sum_c w_c |x_c - s U f_c|^2 over U and s, over sum_c w_c |x_c|^2; NaN where that is zero.

    The best U is the polar factor of X'DF'. The distance is that of this U, not a difference of squared norms: an error
    of U enters squared, and no digits are lost near the frame.
    """
    size = largest_entry(X)
    root = (shares / shares.max()).sqrt()[:, None]
    rows = rows_at_once(X.shape[1])
    tiles = [slice(i, i + rows) for i in range(0, len(X), rows)]
    A = sum(((root[t] * X[t] / size).T @ (root[t] * F.T[t]) for t in tiles), X.new_zeros(()))
    if not largest_entry(A) > EPS:
        whole = sum(((root[t] * X[t] / size).square().sum() for t in tiles), X.new_zeros(()))
        return torch.ones_like(size).where(whole > 0, torch.nan)
    P, s, Q = thin_svd(A.numpy())
    scale = float(s.sum()) / float((root[:, 0].square() * F.square().sum(dim=0)).sum())
    UF = scale * torch.from_numpy(P @ Q.T)
    apart, whole = X.new_zeros(()), X.new_zeros(())
    for t in tiles:
        x = root[t] * X[t] / size
        apart += (x - root[t] * (F.T[t] @ UF.T)).square().sum()
        whole += x.square().sum()
    return apart / whole
