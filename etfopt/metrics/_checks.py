"""What both metrics share: the validation of a batch, and the reduction of a state that is set and not summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from etfopt.errors import InputError

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
    check_floats(features, "features", (None, dim))
    _check_labels(labels, len(features), num_classes)
    check_floats(weight, "weight", (num_classes, dim))
    if bias is None:
        bias = torch.zeros_like(weight[:, 0])
    check_floats(bias, "bias", (num_classes,))
    # copies: an optimiser changes the weight in place, and a caller may do so with the features
    return Batch(
        features.detach().to(like, copy=True),
        labels.detach().to(like.device, torch.int64, copy=True),
        weight.detach().to(like, copy=True),
        bias.detach().to(like, copy=True),
    )


def check_floats(value: object, name: str, shape: tuple[int | None, ...]) -> None:
    """Raise `InputError` unless `value` is a finite floating-point tensor of this shape; None is any length."""
    tensor = _as_dense_tensor(value, name)
    if tensor.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("n" if want is None else str(want) for want in shape)
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}; it must be ({wanted}{',' * (len(shape) == 1)}): "
            "check num_classes and dim, or reshape it"
        )
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {tensor.dtype}; pass real floating-point numbers, e.g. {name}.float()")
    good = tensor.isfinite() & (tensor.abs() <= LARGEST)  # in float32 the bound itself is infinite
    if not bool(good.all()):
        first = tuple(int(i) for i in (~good).nonzero()[0])
        raise InputError(
            f"{name} holds {int((~good).sum())} value(s) that are NaN, infinite or above {LARGEST:g} in size, "
            f"the first at {first}: {float(tensor[first])}; remove or rescale them"
        )


def last_set(stacked: Tensor) -> Tensor:
    """Reduce the copies of a state along the first axis to the last one that is set; NaN means not set.

    For a state that is the same wherever it is set. An element-wise maximum would serve across ranks, but would mix
    two weights into a third when ``forward`` merges a step with the steps before it.
    """
    is_set = stacked.flatten(1).isfinite().all(dim=1).nonzero()
    return stacked[int(is_set[-1]) if len(is_set) else -1]


def _as_dense_tensor(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a torch tensor; got {type(value).__name__}; pass torch.as_tensor({name})")
    if value.layout != torch.strided:
        raise InputError(f"{name} has layout {value.layout}; pass {name}.to_dense()")
    return value


def _check_labels(labels: object, n: int, num_classes: int) -> None:
    tensor = _as_dense_tensor(labels, "labels")
    if tensor.shape != (n,):
        raise InputError(
            f"labels has shape {tuple(tensor.shape)}; it must be ({n},): one class index for each row of features"
        )
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"labels has dtype {tensor.dtype}; pass class indices as integers, e.g. labels.long()")
    bad = ((tensor < 0) | (tensor >= num_classes)).nonzero()
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"labels holds {int(tensor[first])} at position {first}; it must lie in [0, {num_classes}): "
            "check num_classes, and drop the samples to be ignored"
        )
