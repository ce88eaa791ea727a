"""What the metrics share: the validation of a batch, and the reduction of states that are set and not summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt._torch import INTEGERS, require_features, require_finite, require_floats, require_labels
from etfopt.errors import InputError

EPS = torch.finfo(torch.float64).eps
# Sums of squares of anything larger could overflow float64.
LARGEST = 1e100
# Logits held at once: 32 MiB.
CHUNK = 2**22
# Of the largest entry: by so much may the same tensor differ between processes on different processors.
SAME = 1e-12


class Classifier(NamedTuple):
    """As given, on the device of the metric; `doubles` makes copies."""

    weight: Tensor
    bias: Tensor  # zero where there is none

    def doubles(self) -> Classifier:
        """Return copies in float64."""
        return Classifier(*(X.to(torch.float64, copy=True) for X in self))


class Batch(NamedTuple):
    """Samples that count, one a row, on the device of the metric. Features may be those of the caller: copy to keep."""

    features: Tensor  # (n, d), of the given dtype
    labels: Tensor  # (n,), int64
    classifier: Classifier | None

    def doubles(self) -> Tensor:
        """Return a copy of the features in float64."""
        return self.features.to(torch.float64, copy=True)


def check_batch(
    features: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    sizes: tuple[int, int],
    ignore_index: int,
    device: torch.device,
) -> Batch:
    """Check the arguments of ``update``; n = 0 is valid, the network may be in half precision or on another device."""
    num_classes, dim = sizes
    shape = tuple(require_features(features, dim).shape[:-1])
    classes = require_labels(labels, shape, num_classes, ignore_index)
    _require_real(classes, "labels")
    _require_real(features, "features")
    if classes.device.type != "cpu":  # `update` waits for the device in any case
        require_labels(classes.cpu(), shape, num_classes, ignore_index)
    f, y = _counted(features.detach(), classes, ignore_index)
    classifier = _check_classifier(weight, bias, sizes, device)
    return Batch(f.to(device), y.to(device, copy=True), classifier)


def _counted(features: Tensor, classes: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the samples that count, one a row, their values checked: those of an ignored sample may be NaN."""
    counted = classes != ignore_index
    if counted.all():
        require_values(features, "features")
        return features.reshape(-1, features.shape[-1]), classes.flatten()
    keep = counted.to(features.device)
    require_values(features.where(keep[..., None], 0.0), "features")  # of the given shape, for the position of a NaN
    return features[keep], classes[counted]


def _check_classifier(
    weight: Tensor | None, bias: Tensor | None, sizes: tuple[int, int], device: torch.device
) -> Classifier | None:
    """Return the classifier on the device, or None where none is given."""
    if weight is None:
        if bias is not None:
            raise InputError("bias is given without weight; pass the weight of the classifier too, or neither")
        return None
    require_floats(weight, "weight", sizes)
    if bias is not None:
        require_floats(bias, "bias", sizes[:1])
    for name, value in {"weight": weight, "bias": bias}.items():
        if value is not None:
            require_values(value, name)
    return Classifier(*(X.detach().to(device) for X in (weight, _or_zero(bias, weight))))


def _or_zero(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def predict(features: Tensor, classifier: Classifier) -> Tensor:
    """Return the classes of the largest logits, shape (n,), without all logits at once; the classifier in float64."""
    weight, bias = classifier
    pieces = torch.split(features, max(1, CHUNK // len(weight)))
    return torch.cat([torch.addmm(bias, f.double(), weight.T).argmax(dim=1) for f in pieces])


def require_values(X: Tensor, name: str) -> None:
    """Raise `InputError` if X has no values, or one that is NaN, infinite or above 1e100; look on every device."""
    _require_real(X, name)
    X = X.detach()
    if _plainly_usable(X):
        return
    if not (X.abs() <= min(LARGEST, torch.finfo(X.dtype).max)).all():  # 1e100 is infinite in half precision
        require_finite(X.cpu(), name, LARGEST)


def _plainly_usable(X: Tensor) -> bool:
    """Whether one pass without copies shows that all values are usable; False where it does not tell."""
    if not X.numel():
        return True
    if X.dtype == torch.float64:
        least, largest = torch.aminmax(X)
        return bool((least >= -LARGEST) & (largest <= LARGEST))
    # a finite sum has finite terms, and finite terms of these dtypes are small enough
    return bool(X.sum(dtype=torch.float32).isfinite())


def _require_real(X: Tensor, name: str) -> None:
    if X.device.type == "meta":
        raise InputError(f"{name} is on the meta device, where tensors have no values; move it to a real device")


def require_classes(value: object, name: str, num_classes: int) -> Tensor:
    """Return `value` as int64 on the CPU if it is a vector of classes in [0, num_classes), or raise."""
    if not isinstance(value, Tensor) or value.ndim != 1 or value.dtype not in INTEGERS:
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} must be a vector of class indices, a tensor of integers; got {found}")
    _require_real(value, name)
    index = value.to("cpu", torch.int64)
    if (wrong := (index < 0) | (index >= num_classes)).any():
        at = int(wrong.nonzero()[0])
        raise InputError(f"{name} holds {int(index[at])} at position {at}; it must lie in [0, {num_classes})")
    return index


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
