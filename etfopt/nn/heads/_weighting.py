r"""Class weights of a head, and the problem that they pose.

With weights :math:`w_c`, of mean 1 over the P classes that have one, the class means are centred by their weighted mean
:math:`\bar\mu = \frac1P\sum_c w_c\mu_c`. Then :math:`\sum_c w_c h_c = 0`, so that
:math:`\sum_c w_ch_cf_c' = \sum_c w_ch_c(f_c - \bar f)'` with the weighted mean :math:`\bar f` of the frame: U is the
best of all rotations *and shifts* of the frame,

.. math:: \min_{U, a} \sum_c w_c\,\|\mu_c - a - U f_c\|^2.

A plain mean would make U depend on where the means of light classes happen to lie. With equal weights both agree.
Proof: ``theory/weights.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._arrays import as_weights
from etfopt.errors import InputError
from etfopt.nn.heads._growth import NEW, columns
from etfopt.nn.heads._shrinkage import unit_means

COUNTS = "counts"
"""The weights that follow the numbers of samples."""


def as_class_weights(value: ArrayLike | Tensor | str | None, C: int, statistics: str) -> Tensor | str | None:
    """Return weights (C,) in float64, of mean 1 over those above 0, or a name, or `InputError`."""
    if value is None:
        return None
    if isinstance(value, str):
        if value != COUNTS:
            raise InputError(f"class_weights = {value!r} is not known; pass numbers, one a class, or 'counts'")
        if statistics == "paper":
            raise InputError("class_weights='counts' is for statistics='running': the paper's rules count no samples")
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value if value.is_complex() else value.double()).numpy()
    weights = as_weights(value, "class_weights", C)
    if np.count_nonzero(weights) < 2:
        raise InputError("class_weights has one class above 0; at least two classes must count", "class_weights", value)
    return torch.from_numpy(weights / weights[weights > 0].mean())


def reindexed(value: Tensor | str | None, index: list[int]) -> Tensor | str | None:
    """Return the weights of other classes: a new one weighs what the old ones weigh on average."""
    if not isinstance(value, Tensor):
        return value
    old = value[[c for c in index if c != NEW]]
    weights = columns(value, index, float(old[old > 0].mean()) if old.any() else 0.0)
    if torch.count_nonzero(weights) < 2:
        raise InputError("fewer than two of the classes have a class weight above 0; build a head with other weights")
    return weights


def posed(mean: Tensor, weights: Tensor | None, temperature: float) -> tuple[Tensor, Tensor | None]:
    r"""Return the H and the weights of the problem that class means (d, C) pose; see the module.

    H has the weighted norm :math:`\sum_c w_c\|h_c\|^2 = 1`, and columns of zeros where the weight is 0.
    """
    if weights is None:
        return unit_means(mean, temperature), None
    w = weights.to(mean.dtype)
    present = w > 0
    number = present.sum()
    w = w * (number / torch.where(number > 0, w.sum(), 1))
    center = (mean @ w) / number.clamp(min=1)
    H = unit_means(torch.where(present, mean - center[:, None], 0), temperature, w)
    return H, torch.where(number > 0, w, 1)  # where no class counts H is zero
