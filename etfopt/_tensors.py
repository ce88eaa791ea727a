"""Validation of tensor arguments, shared by the bridge and the metrics. Needs the extra `torch`."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt.errors import InputError

__all__ = ["require_features", "require_finite", "require_labels"]


def require_finite(X: Tensor, name: str) -> None:
    """Raise `InputError` if X holds NaN or infinity, where looking is free: on the CPU, outside tracing and vmap.

    Elsewhere looking would stall the device or break the trace, so nothing is checked.
    """
    # functorch has no public name for this question; vmap hides values, so they cannot steer Python
    if X.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(X):
        return
    finite = torch.isfinite(X)
    if not finite.all():
        bad = (~finite).nonzero()
        raise InputError(
            f"{name} holds {len(bad)} value(s) that are NaN or infinite, the first at {tuple(bad[0].tolist())}; "
            "nothing was changed. Look for a diverging loss, or a wrong learning rate"
        )


def require_features(features: Tensor, dim: int) -> None:
    """Raise `InputError` unless `features` is a finite floating-point tensor of shape (n, dim)."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"features must be a floating-point tensor; got {kind}, e.g. call .float()")
    if features.dim() != 2 or features.shape[1] != dim:
        raise InputError(
            f"features have shape {tuple(features.shape)}; they must be (n, {dim}): flatten them, "
            "or set dim to their width"
        )
    require_finite(features, "features")


def require_labels(labels: Tensor, count: int, num_classes: int) -> None:
    """Raise `InputError` unless `labels` is an integer tensor of shape (count,) with values in [0, num_classes)."""
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels must be a tensor of integers; got {kind}, e.g. call .long()")
    if tuple(labels.shape) != (count,):
        raise InputError(
            f"labels have shape {tuple(labels.shape)}; they must be ({count},), one class index "
            "for each row of features"
        )
    if count and labels.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = (labels < 0) | (labels >= num_classes)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise InputError(
                f"labels holds {int(outside.sum())} value(s) outside 0..{num_classes - 1}, the first at {first}: "
                f"{int(labels[first])}; set num_classes to the number of classes, or relabel from 0"
            )
