"""The measures of `NeuralCollapse` as functions of the moments of the features and of the classifier.

Nothing here is of size (C, C) where C exceeds 2d + 1, and no measure is a difference of two large sums of squares.
Class means are rows, and what is as large as all of them is made once and changed in place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.frames import simplex_etf
from etfopt.metrics._checks import EPS
from etfopt.metrics._moments import Moments, rows_at_once, within_scatter, within_squares
from etfopt.metrics._precise import deviation, frobenius, largest_entry, row_norms, tall_r, two_sum
from etfopt.polar._svd import thin_svd


class Statistics(NamedTuple):
    """Moments of the features divided by `size`, with Sigma_B = P diag(s^2) P'."""

    counts: Tensor  # (C,)
    H: Tensor  # (C, d), centred class means; exactly zero where rounding cannot tell them apart
    variances: Tensor  # (C,), mean squared distance from the mean of the class
    within: Tensor  # (d, d), Sigma_W; (0, 0) where it was not kept
    P: Tensor  # (d, rank of Sigma_B)
    s: Tensor  # (that rank,), non-increasing
    spread: float  # trace of Sigma_W
    floor: float  # what rounding may have put into H

    @property
    def seen(self) -> Tensor:
        return self.counts > 0


def centred_means(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class means minus the global mean, (C, d), and the global mean as the sum of two vectors."""
    shares = moments.counts / moments.counts.sum()
    near = shares @ moments.shifts  # any point near the means would do
    centred = moments.shifts - near
    rows = rows_at_once(centred.shape[1])
    for start in range(0, len(centred), rows):
        tile = slice(start, start + rows)
        centred[tile] += moments.sums[tile] / moments.counts[tile].clamp(min=1)[:, None]
    shift = shares @ centred
    centred -= shift
    centred[moments.counts == 0] = 0.0
    return centred, *two_sum(near, shift)


def summarise(moments: Moments, centred: Tensor) -> Statistics:
    """Return the statistics, on the CPU, for `centred` from `centred_means`, which becomes H."""
    (C, d), n = centred.shape, float(moments.counts.sum())
    squares, within = within_squares(moments), within_scatter(moments)
    total = (within.trace() if len(within) else squares.sum()).clamp(min=0)
    size = torch.maximum(largest_entry(centred), moments.unit[0] * (total / n).sqrt())
    size = size.where(size > 0, 1.0)
    H, unit = centred.div_(size), (moments.unit / size).square()
    spread = float(total * unit / n)
    P, s, _ = _svd(tall_r(C, lambda rows: H[rows] * (moments.counts[rows] / n).sqrt()[:, None]).T)
    floor = EPS * (max(C, d) + n**0.5) * (float(s.square().sum()) + spread) ** 0.5
    seen = int((moments.counts > 0).sum())
    rank = int((s[: seen - 1] > floor).sum())  # the shares sum to one: H' p = 0
    if not rank:
        H.zero_()
    variances = squares * unit / moments.counts
    return Statistics(moments.counts, H, variances, within * (unit / n), P[:, :rank], s[:rank], spread, floor)


def nc1(stats: Statistics) -> Tensor:
    """tr(Sigma_W pinv(Sigma_B))/C: the within-class variance along each direction of Sigma_B over the one between."""
    if not len(stats.s):
        return stats.H.new_full((), torch.nan)
    within = ((stats.P.T @ stats.within) * stats.P.T).sum(dim=1)
    return torch.div(within.clamp(min=0), stats.s.square()).sum().div(len(stats.seen))


def vci(stats: Statistics) -> Tensor:
    r"""1 - tr((Sigma_W + Sigma_B)^+ Sigma_B)/m for m = min(d, C - 1), without the difference.

    Along P, the variance within classes that is not explained by the other directions is T, a Schur complement of
    Sigma_W. With z the eigenvalues of diag(1/s) T diag(1/s), the trace is the sum of 1/(1 + z) over the rank of
    Sigma_B, and so the measure is that of z/(1 + z), plus one for each direction the rank lacks, over m.
    """
    C, d = stats.H.shape
    m, rank = min(d, C - 1), len(stats.s)
    if not rank:
        return stats.H.new_ones(())
    others = torch.linalg.qr(stats.P, mode="complete").Q[:, rank:]
    variance, V = torch.linalg.eigh(others.T @ stats.within @ others)
    keep = variance > EPS * max(d, C) * stats.within.trace()
    explained = (V[:, keep] / variance[keep].sqrt()).T @ (others.T @ stats.within @ stats.P)
    T = stats.P.T @ stats.within @ stats.P - explained.T @ explained
    z = torch.linalg.eigvalsh(T / stats.s / stats.s[:, None]).clamp(min=0)
    unexplained: Tensor = (z / (1 + z)).sum()
    return (m - rank + unexplained) / m


def gram_measures(W: Tensor | None, H: Tensor) -> dict[str, Tensor]:
    """Return the measures of WW', HH' and WH', W and H (C, d) of any norm, from coordinates X, Y in their span.

    [1/sqrt(C), W, H] = QR, W and H over their norms, has WW' = Q XX' Q', HH' = Q YY' Q', WH' = Q XY' Q' and, with q the
    first column of Q, M = (QQ' - qq' + (I - QQ'))/sqrt(C - 1). The differences from M are taken entry by entry in a
    matrix of size min(C, 2d + 1), and Q is not needed.
    """
    C, d = H.shape
    parts = [(X, norm.where(norm > 0, 1.0)) for X in (H, W) if X is not None for norm in [frobenius(X)]]

    def columns(rows: slice) -> Tensor:
        scaled = [X[rows] / size for X, size in parts]
        return torch.cat([H.new_full((len(scaled[0]), 1), C**-0.5), *scaled], dim=1)

    R = tall_r(C, columns)
    Y, X = R[:, 1 : 1 + d], R[:, 1 + d :]
    of_means = {"nc2_means": _from_simplex(Y @ Y.T, C, 0.0)}
    if W is None:
        return of_means
    return {
        **of_means,
        "nc2": _from_simplex(X @ X.T, C, 0.0),
        "nc3": _from_simplex(X @ Y.T, C, EPS * max(C, 2 * d + 1)),
    }


def equinorms(W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the variation of the norms of class means and of rows of the classifier."""
    means = _variation(row_norms(stats.H)[stats.seen])
    if W is None:
        return {"equinorm_means": means}
    weights = _variation(row_norms(W))
    return {
        "equinorm_means": means,
        "equinorm_weights": weights,
        "equinorm_difference": (means - weights).abs(),
    }


def etf_distances(W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the squared distances of H and W, both of norm 1, to their nearest ETFs, and between these.

    Empty where no simplex ETF fits.
    """
    C, d = stats.H.shape
    if d < C - 1:
        return {}
    to_means, etf_means = _nearest_etf(_unit(stats.H).T, stats.floor / torch.linalg.norm(stats.H))
    if W is None:
        return {"etf_distance_means": to_means}
    to_weights, etf_weights = _nearest_etf(_unit(W).T, EPS * max(W.shape))
    return {
        "etf_distance_means": to_means,
        "etf_distance_weights": to_weights,
        "etf_distance_between": (etf_means - etf_weights).square().sum(),
    }


def _from_simplex(G: Tensor, C: int, floor: float) -> Tensor:
    """||QGQ'/||G|| - M||_F for the Q of `gram_measures`; NaN where no entry of G exceeds `floor`."""
    G, size = _unit(G, floor), (C - 1) ** -0.5
    G.diagonal()[1:].sub_(size)
    return (G.square().sum() + (C - len(G)) / (C - 1)).sqrt()


def _nearest_etf(X: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Squared distance of X, ||X||_F = 1, to the ETFs tUF; and UF, NaN where it is not unique.

    The squared distance 1 - ||XF'||_*^2 is the squared norm of the mean column, times C, plus the sum of squares of
    the singular values of XZ', Z = sqrt(C - 1) F, around their mean: no digits are lost near an ETF.
    """
    C = X.shape[1]
    nothing = X.new_full((), torch.nan)
    if X.isnan().any():
        return nothing, nothing
    Z = torch.from_numpy(simplex_etf(C, reduced=True)) * (C - 1) ** 0.5
    P, s, Q = _svd(X @ Z.T)
    distance = X.sum(dim=1).square().sum() / C + (s - s.mean()).square().sum()
    return distance, P @ Q.T @ Z / (C - 1) ** 0.5 if s[-1] > floor else nothing


def _unit(X: Tensor, floor: float = 0.0) -> Tensor:
    """X/||X||_F, and NaN where no entry exceeds `floor`."""
    return X / frobenius(X) if largest_entry(X) > floor else torch.full_like(X, torch.nan)


def _variation(norms: Tensor) -> Tensor:
    return deviation(norms) / norms.mean()


def _svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    P, s, Q = thin_svd(A.numpy())
    return torch.from_numpy(P), torch.from_numpy(s), torch.from_numpy(Q)
