r"""Class means shrunk to their nearest ETF: classifiers between the two.

The nearest ETF of :math:`H = PSQ'` is :math:`PQ'F`. It keeps the directions in which the class means differ and gives
all of them the same weight, also those in which they hardly differ and few samples cannot tell noise from signal. With
F = M, :math:`s\,PQ'M + (1-s)\,H` has the same singular vectors and a spectrum between the flat one and that of H:
linear shrinkage, as of covariance matrices (Ledoit and Wolf, 2004), with the nearest ETF as the target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shrunk_rows(etf: Tensor, H: Tensor, s: float) -> Tensor:
    r"""Return the rows of :math:`s\,E + (1-s) \sqrt C\, H'`, brought to the lengths of those of E, (C, d).

    E has Frobenius norm sqrt(C), and H, (d, C), norm 1. A column of zeros in H gives the row of E.
    """
    if s == 1:
        return etf
    rows = s * etf + (1 - s) * math.sqrt(H.shape[-1]) * H.mT
    size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    unit = rows / size.masked_fill(size == 0, 1)
    # U'U = I holds the lengths of E constant: no gradient
    shrunk: Tensor = unit * torch.linalg.vector_norm(etf.detach(), dim=1, keepdim=True)
    return shrunk


def unit_means(mean: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Return class means (d, C) of features of this norm over their weighted norm; 0 where all is rounding."""
    size = torch.linalg.matrix_norm(mean if weights is None else mean * weights.sqrt())
    # means that differ by rounding alone have no direction, and no gradient
    faint = ~(size > 10 * mean.shape[-1] * torch.finfo(mean.dtype).eps * temperature)
    unit: Tensor = (mean / size.masked_fill(faint, 1)).masked_fill(faint, 0)
    return unit
