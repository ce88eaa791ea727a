"""Linear terms of the simplex that have no proximal part, and so say nothing of the direction 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etfopt.nn.minimiser._linear_term import lasting_product
from etfopt.nn.polar._node import polar


def without_gauge(X: Tensor, method: str) -> Tensor:
    r"""Return a polar factor of each X, (..., d, C), with X1 = 0, from one of C-1 columns.

    The reflection :math:`T = I - ww'/(1 + 1/\sqrt C)`, :math:`w = e_C + 1/\sqrt C`, takes the direction 1 to the last
    one, where XT vanishes. U sends it to a unit vector orthogonal to the rest; losses of the ETF do not see which.
    """
    C = X.shape[-1]
    root = 1 / math.sqrt(C)
    w = torch.full((C,), root, dtype=X.dtype, device=X.device)
    w = torch.cat([w[:-1], w[-1:] + 1])

    def reflected(Y: Tensor) -> Tensor:
        return Y - lasting_product(Y, w[:, None]) * (w / (1 + root))

    return reflected(completed(polar(reflected(X)[..., :-1], method)))


def completed(U: Tensor) -> Tensor:
    """Return U, (..., d, r) with orthonormal columns, r < d, with one more of them."""
    # the coordinate direction that U covers least keeps at least 1/d of its square; twice is enough
    rows = torch.arange(U.shape[-2], device=U.device)
    least = U.detach().square().sum(dim=-1, keepdim=True).argmin(dim=-2, keepdim=True)
    last = (rows[:, None] == least).to(U.dtype)
    for _ in range(2):
        last = last - lasting_product(U, lasting_product(U.mT, last))
        last = last / torch.linalg.vector_norm(last, dim=-2, keepdim=True)
    return torch.cat([U, last], dim=-1)
