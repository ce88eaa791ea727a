"""What a head is trained with: features (..., d), and a class index or probabilities for each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt._torch import require_features, require_labels, visible
from etfopt.errors import InputError
from etfopt.nn.pooling import ROUNDING, are_probabilities

LABELS_REQUIRED = (
    "labels are required in training: call head(features, labels), or wrap the call of the network in `with "
    "head.labels(labels):`, or call head.eval() to predict; pass the backbone alone to what runs a network without "
    "labels, such as torch.optim.swa_utils.update_bn"
)


def rows(features: Tensor, dim: int) -> Tensor:
    """Return features (..., d) as (n, d)."""
    require_features(features, dim)
    return features if features.dim() == 2 else features.reshape(-1, dim)  # the usual case costs a trace no node


def targets(labels: object, lead: torch.Size, num_classes: int, ignore_index: int) -> Tensor:
    """Return labels (...) as int64 (n,), or probabilities (..., C) as floats (n, C); `lead` is the shape (...)."""
    if labels is None:
        raise InputError(LABELS_REQUIRED)
    if isinstance(labels, Tensor) and tuple(labels.shape) == (*lead, num_classes):
        return _probabilities(labels, num_classes)
    count = lead.numel()
    if isinstance(labels, Tensor) and labels.shape == lead:
        labels = labels.reshape(count)
    elif len(lead) != 1 and isinstance(labels, Tensor):
        raise InputError(
            f"labels has shape {tuple(labels.shape)}; it must be {tuple(lead)}, one class index for each feature, or "
            f"{(*lead, num_classes)}, probabilities"
        )
    return require_labels(labels, count, num_classes, ignore_index)


def _probabilities(given: Tensor, num_classes: int) -> Tensor:
    if given.is_complex() or given.layout != torch.strided:
        raise InputError(f"labels has dtype {given.dtype} and layout {given.layout}; pass real, dense probabilities")
    p = given.detach().reshape(-1, num_classes)
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    if visible(p):
        wrong = (~are_probabilities(p)).nonzero()
        if len(wrong):
            first = int(wrong[0])
            raise InputError(
                f"labels has a row of each class, and row {first} is no probability: its entries lie between "
                f"{float(p[first].min()):.3g} and {float(p[first].max()):.3g} and sum to {float(p[first].sum()):.3g}. "
                f"They must be at least 0 and sum to 1 (to {ROUNDING:g}): pass softmax outputs or one-hot rows, or "
                "class indices"
            )
    return p
