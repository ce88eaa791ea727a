"""What both metrics share: the validation of a batch, and the reduction of a state that is set and not summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._tensors import require_finite, require_floats, require_labels

EPS = torch.finfo(torch.float64).eps
# Sums of squares of anything larger could overflow float64.
LARGEST = 1e100


class Batch(NamedTuple):
    """A valid batch, detached and copied, in float64 (labels: int64), on one device; a missing bias is zero."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor


def check_batch(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, like: Tensor) -> Batch:
    """Return the arguments of ``update`` as a `Batch`.

    Parameters
    ----------
    features, labels, weight, bias : Tensor
        Shapes (n, d), (n,), (C, d) and (C,) or None; n = 0 is valid.
    like : Tensor, shape (C, d)
        The metric's own weight. It gives C, d, dtype and device: the network may be in half precision, or elsewhere.

    Raises
    ------
    InputError
        If a shape or dtype is wrong, a value is NaN, infinite or above 1e100, or a label is outside [0, C).
    """
    num_classes, dim = like.shape
    require_floats(features, "features", ("n", dim))
    labels = require_labels(labels, len(features), num_classes)
    require_floats(weight, "weight", (num_classes, dim))
    if bias is None:
        bias = torch.zeros_like(weight[:, 0])
    require_floats(bias, "bias", (num_classes,))
    for name, value in {"features": features, "weight": weight, "bias": bias}.items():
        require_finite(value, name, LARGEST)
    # copies: an optimiser changes the weight in place, and a caller may do so with the features
    return Batch(
        features.detach().to(like, copy=True),
        labels.detach().to(like.device, copy=True),
        weight.detach().to(like, copy=True),
        bias.detach().to(like, copy=True),
    )


def last_set(stacked: Tensor) -> Tensor:
    """Reduce the copies of a state along the first axis to the last one that is set; NaN means not set.

    For a state that is the same wherever it is set. An element-wise maximum would serve across ranks, but would mix
    two weights into a third when ``forward`` merges a step with the steps before it.
    """
    is_set = stacked.flatten(1).isfinite().all(dim=1).nonzero()
    return stacked[int(is_set[-1]) if len(is_set) else -1]
