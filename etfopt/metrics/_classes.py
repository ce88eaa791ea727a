"""Measures that are means or variations over classes, and the effective ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt.metrics._checks import EPS
from etfopt.metrics._measures import Statistics
from etfopt.metrics._moments import rows_at_once
from etfopt.metrics._precise import deviation, largest_entry, row_norms


def log_norm_deviations(W: Tensor | None, stats: Statistics) -> dict[str, Tensor]:
    """Return the standard deviations (divisor C - 1) of the log norms of class means and of rows of W."""
    norms = torch.linalg.vector_norm(stats.H, dim=1)[stats.seen]
    found = {"equinorm_log_means": _log_deviation(norms.where(norms > stats.floor, torch.nan))}
    if W is not None:
        found["equinorm_log_weights"] = _log_deviation(row_norms(W))
    return found


def duality(W: Tensor, stats: Statistics) -> dict[str, Tensor]:
    """Return UNC3 and the mean distance between the directions of rows of W and class means."""
    products, apart = class_products(W, stats), class_distances(W, stats)[stats.seen]
    sizes = (row_norms(W) * torch.linalg.vector_norm(stats.H, dim=1))[stats.seen]
    mean = products.mean()
    rounding = EPS * max(W.shape) * sizes.mean()
    unc3 = (deviation(products) / mean.abs()).where(mean.abs() > rounding, torch.nan)
    return {"unc3": unc3, "self_duality": apart.mean()}


def class_products(W: Tensor, stats: Statistics) -> Tensor:
    """Return w_c'h_c of the classes that occurred, in units of the largest entry of W."""
    size = largest_entry(W)
    size = size.where(size > 0, 1.0)
    return torch.cat([(w / size * h).sum(dim=1) for w, h in _tiles(W, stats.H)])[stats.seen]


def class_distances(W: Tensor, stats: Statistics) -> Tensor:
    """Return |w_c/|w_c| - h_c/|h_c||, shape (C,); NaN where a direction has no value."""
    found = []
    for w, h in _tiles(W, stats.H):
        rows = w / w.abs().amax(dim=1, keepdim=True)  # squares of tiny entries do not underflow
        norms = torch.linalg.vector_norm(h, dim=1, keepdim=True)
        apart = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True) - h / norms
        found.append(torch.linalg.vector_norm(apart, dim=1).where(norms[:, 0] > stats.floor, torch.nan))
    return torch.cat(found)


def effective_rank_between(stats: Statistics) -> Tensor:
    """Return exp of the entropy of the spectrum of Sigma_B; NaN where rounding cannot tell the class means apart."""
    return _effective_rank(stats.s.square())


def effective_rank_within(stats: Statistics) -> Tensor:
    """Return exp of the entropy of the spectrum of Sigma_W; NaN where rounding cannot tell it from zero."""
    if not stats.spread > stats.floor**2:
        return stats.H.new_full((), torch.nan)
    return _effective_rank(torch.linalg.eigvalsh(stats.within).clamp(min=0))


def _effective_rank(spectrum: Tensor) -> Tensor:
    if not len(spectrum):
        return spectrum.new_full((), torch.nan)
    shares = spectrum / spectrum.sum()
    return torch.exp(-torch.xlogy(shares, shares).sum())


def _log_deviation(norms: Tensor) -> Tensor:
    """Return the standard deviation of log norms; NaN where one is zero, or there is one only."""
    return deviation(norms.where(norms > 0, torch.nan).log())


def _tiles(W: Tensor, H: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows = rows_at_once(H.shape[1])
    return list(zip(torch.split(W, rows), torch.split(H, rows), strict=True))
