"""What the metrics share: the validation of a batch, and the reduction of states that are set and not summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._torch import require_finite, require_floats, require_labels
from etfopt.errors import InputError

EPS = torch.finfo(torch.float64).eps
# Sums of squares of anything larger could overflow float64.
LARGEST = 1e100
# Logits held at once: 32 MiB.
CHUNK = 2**22
# Of the largest entry: by so much may the same tensor differ between processes on different processors.
SAME = 1e-12


class Batch(NamedTuple):
    """Copies in float64, and labels in int64, on the device of the metric: a caller may change the originals."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor  # zero where there is none


def check_batch(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    sizes: tuple[int, int],
    device: torch.device,
) -> Batch:
    """Check the arguments of ``update``; n = 0 is valid, the network may be in half precision or on another device."""
    num_classes, dim = sizes
    require_floats(features, "features", ("n", dim))
    classes = require_labels(labels, len(features), num_classes)
    require_floats(weight, "weight", (num_classes, dim))
    if bias is not None:
        require_floats(bias, "bias", (num_classes,))
    _require_real(classes, "labels")
    if classes.device.type != "cpu":  # `update` waits for the device in any case
        require_labels(classes.cpu(), len(features), num_classes)
    for name, value in {"features": features, "weight": weight, "bias": bias}.items():
        if value is not None:
            require_values(value, name)
    f, W, b = (X.detach().to(device, torch.float64, copy=True) for X in (features, weight, _or_zero(bias, weight)))
    return Batch(f, classes.detach().to(device, torch.int64, copy=True), W, b)


def _or_zero(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def predict(batch: Batch) -> Tensor:
    """Return the classes of the largest logits, shape (n,), without all logits at once."""
    pieces = torch.split(batch.features, max(1, CHUNK // len(batch.weight)))
    return torch.cat([torch.addmm(batch.bias, f, batch.weight.T).argmax(dim=1) for f in pieces])


def require_values(X: Tensor, name: str) -> None:
    """Raise `InputError` if X has no values, or one that is NaN, infinite or above 1e100; look on every device."""
    _require_real(X, name)
    X = X.detach()
    if not (X.isfinite() & (X.abs() <= LARGEST)).all():
        require_finite(X.cpu(), name, LARGEST)


def _require_real(X: Tensor, name: str) -> None:
    if X.device.type == "meta":
        raise InputError(f"{name} is on the meta device, where tensors have no values; move it to a real device")


def last_set(stacked: Tensor) -> Tensor:
    """Reduce the copies of a state along the first axis to the last one that is set; NaN means not set.

    For a state that is the same wherever it is set. An element-wise maximum would serve across ranks, but would mix
    two weights into a third when ``forward`` merges a step with the steps before it.
    """
    is_set = stacked.flatten(1).isfinite().all(dim=1).nonzero()
    return stacked[int(is_set[-1]) if len(is_set) else -1]


def same_everywhere(stacked: Tensor, name: str) -> Tensor:
    """Reduce the copies of a tensor that every metric was given to the last, or raise if they differ; NaN is NaN."""
    last = stacked[-1]
    tolerance = SAME * float(last.nan_to_num(0.0).abs().max())
    if not torch.allclose(stacked, last.expand_as(stacked), rtol=0, atol=tolerance, equal_nan=True):
        raise InputError(f"{name} differs between the metrics to be merged; build all of them with the same {name}")
    return last
