"""The measures of `NeuralCollapse` as functions of the moments of the features and of the classifier.

Nothing here is of size (C, C) where C exceeds 2d + 1, and no measure is a difference of two large sums of squares.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.frames import simplex_etf
from etfopt.metrics._checks import EPS
from etfopt.metrics._moments import Moments
from etfopt.metrics._precise import two_sum
from etfopt.polar._svd import thin_svd


class Statistics(NamedTuple):
    """Moments of the features divided by `size`, with Sigma_B = P diag(s^2) P'."""

    seen: Tensor  # (C,), bool
    H: Tensor  # (d, C), exactly zero where rounding cannot tell the class means apart
    within: Tensor  # (d, d), Sigma_W
    P: Tensor  # (d, rank of Sigma_B)
    s: Tensor  # (that rank,), non-increasing
    floor: float  # what rounding may have put into H


def centred_means(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class means minus the global mean, (C, d), and the global mean as the sum of two vectors."""
    shares = moments.counts / moments.counts.sum()
    near = shares @ moments.means  # any point near the means would do
    offsets = (moments.means - near) + moments.rests
    shift = shares @ offsets
    return (offsets - shift) * (moments.counts > 0)[:, None], *two_sum(near, shift)


def summarise(moments: Moments, centred: Tensor) -> Statistics:
    """Return the statistics, on the CPU, for `centred` from `centred_means`."""
    (C, d), n = centred.shape, float(moments.counts.sum())
    size = torch.maximum(centred.abs().max(), moments.unit[0])
    size = size.where(size > 0, 1.0)
    H = centred.T / size
    within = moments.scatter * ((moments.unit / size).square() / n)
    seen = moments.counts > 0
    P, s, _ = _svd(torch.linalg.qr((H * (moments.counts / n).sqrt()).T, mode="r").R.T)
    floor = EPS * (max(C, d) + n**0.5) * float((s.square().sum() + within.trace()).sqrt())
    rank = int((s[: int(seen.sum()) - 1] > floor).sum())  # the shares sum to one: H diag(p) 1 = 0
    return Statistics(seen, H * (rank > 0), within, P[:, :rank], s[:rank], floor)


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
    d, C = stats.H.shape
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


def shape_measures(W: Tensor, stats: Statistics) -> dict[str, Tensor]:
    """Return the measures of W and H: all that does not look at the features around the means."""
    unit_W, unit_H = _unit(W), _unit(stats.H)
    rounding = EPS * max(W.shape)
    of_means = _variation(torch.linalg.norm(unit_H, dim=0)[stats.seen])
    of_weights = _variation(torch.linalg.norm(unit_W, dim=1))
    to_means, etf_means = _nearest_etf(unit_H, stats.floor / torch.linalg.norm(stats.H))
    to_weights, etf_weights = _nearest_etf(unit_W.T, rounding)
    return {
        **_gram_measures(unit_W.nan_to_num(0.0), unit_H.nan_to_num(0.0)),
        "equinorm_means": of_means,
        "equinorm_weights": of_weights,
        "equinorm_difference": (of_means - of_weights).abs(),
        "etf_distance_means": to_means,
        "etf_distance_weights": to_weights,
        "etf_distance_between": (etf_means - etf_weights).square().sum(),
    }


def _gram_measures(W: Tensor, H: Tensor) -> dict[str, Tensor]:
    """Return the measures of WW', H'H and WH, for W and H of norm 1 (or 0), from coordinates X, Y in their span.

    [1/sqrt(C), W, H'] = QR has WW' = Q XX' Q', H'H = Q YY' Q', WH = Q XY' Q' and, with q the first column of Q,
    M = (QQ' - qq' + (I - QQ'))/sqrt(C - 1). The differences from M are taken entry by entry in a matrix of size
    min(C, 2d + 1), and Q is not needed.
    """
    C, d = W.shape
    R = torch.linalg.qr(torch.cat([W.new_full((C, 1), C**-0.5), W, H.T], dim=1), mode="r").R
    X, Y = R[:, 1 : 1 + d], R[:, 1 + d :]
    return {
        "nc2": _from_simplex(X @ X.T, C, 0.0),
        "nc2_means": _from_simplex(Y @ Y.T, C, 0.0),
        "nc3": _from_simplex(X @ Y.T, C, EPS * max(C, 2 * d + 1)),
    }


def _from_simplex(G: Tensor, C: int, floor: float) -> Tensor:
    """||QGQ'/||G|| - M||_F for the Q of `_gram_measures`; NaN where no entry of G exceeds `floor`."""
    G, size = _unit(G, floor), (C - 1) ** -0.5
    G.diagonal()[1:].sub_(size)
    return (G.square().sum() + (C - len(G)) / (C - 1)).sqrt()


def _nearest_etf(X: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Squared distance of X, ||X||_F = 1, to the ETFs tUF; and UF, NaN where it is not unique.

    The squared distance 1 - ||XF'||_*^2 is the squared norm of the mean column, times C, plus the sum of squares of
    the singular values of XZ', Z = sqrt(C - 1) F, around their mean: no digits are lost near an ETF.
    """
    d, C = X.shape
    nothing = X.new_full((), torch.nan)
    if d < C - 1 or X.isnan().any():
        return nothing, nothing
    Z = torch.from_numpy(simplex_etf(C, reduced=True)) * (C - 1) ** 0.5
    P, s, Q = _svd(X @ Z.T)
    distance = X.sum(dim=1).square().sum() / C + (s - s.mean()).square().sum()
    return distance, P @ Q.T @ Z / (C - 1) ** 0.5 if s[-1] > floor else nothing


def _unit(X: Tensor, floor: float = 0.0) -> Tensor:
    """X/||X||_F, and NaN where no entry exceeds `floor`; the first division keeps the squares in range."""
    largest = X.abs().max()
    unit: Tensor = X / largest / torch.linalg.norm(X / largest)
    return unit if largest > floor else torch.full_like(X, torch.nan)


def _variation(norms: Tensor) -> Tensor:
    mean = norms.mean()
    return ((norms - mean).square().sum() / (len(norms) - 1)).sqrt() / mean


def _svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    P, s, Q = thin_svd(A.numpy())
    return torch.from_numpy(P), torch.from_numpy(s), torch.from_numpy(Q)
