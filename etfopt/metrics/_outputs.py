"""From what a module returns to samples: features with the last axis for one feature, and a label for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from etfopt._torch import INTEGERS, require_floats, require_labels
from etfopt.errors import InputError
from etfopt.metrics._checks import require_values

Pool: TypeAlias = str | Callable[[Tensor], Tensor]

POOLS = ("auto", "mean", "each")
CHANNELS = ("auto", "first", "last")

LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
"""Modules that work along the last axis."""

SECOND = (
    *(nn.Conv1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d),
)
"""Modules whose outputs of three axes have their channels in the second."""

SECOND_OF_MAPS = (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
"""Modules whose outputs of four and more axes have their channels in the second."""


def first_tensor(output: Any) -> Tensor:
    """Return a tensor itself, or the first tensor of a tuple, a list or a mapping (such as a ModelOutput)."""
    if isinstance(output, Tensor):
        return output
    items: Any = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for item in items:
        if isinstance(item, Tensor):
            return item
    raise InputError(
        f"the output is a {type(output).__name__} without a tensor; pass output=, a function from it to a tensor"
    )


def as_plain(output: object) -> Tensor:
    """Return an output if it is a dense floating-point tensor, or raise."""
    if isinstance(output, Tensor) and output.is_nested:
        raise InputError(
            "the output is a nested tensor, which nn.TransformerEncoder passes between its layers where a mask marks "
            "padding; call torch.backends.mha.set_fastpath_enabled(False) before, or build the encoder with "
            "enable_nested_tensor=False"
        )
    return require_floats(output, "the output", None)


def axis_of(module: nn.Module, network: nn.Module, output: Tensor, labels: tuple[int, ...], channels: str) -> int:
    """Return the axis of an output that holds one feature, 1 or -1, or raise where that cannot be known.

    Labels for every position decide where only one axis fits. Then the modules inside do.
    """
    if output.ndim < 3:
        return -1
    if channels != "auto":
        return 1 if channels == "first" else -1
    if len(labels) > 1:
        fits = [tuple(output.shape[:-1]) == labels, (output.shape[0], *output.shape[2:]) == labels]
        if fits.count(True) == 1:
            return -1 if fits[0] else 1
    second = SECOND if output.ndim == 3 else SECOND_OF_MAPS
    works_last, works_second = _holds(module, LAST), _holds(module, second)
    if works_last != works_second:
        return -1 if works_last else 1
    if not works_last and (output.ndim > 3 or not _holds(network, SECOND)):
        return 1 if output.ndim > 3 else -1  # maps, or the tokens of a network without one-dimensional convolutions
    raise InputError(
        f"the output has shape {tuple(output.shape)}, and its channels may be the second axis or the last; pass "
        "channels='first' or channels='last'"
    )


def _holds(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    return any(isinstance(part, kinds) for part in module.modules())


def as_features(output: Tensor, labels: tuple[int, ...], axis: int, pool: Pool) -> Tensor:
    """Return a copy of an output as features (..., d): one a sample, or one for every position; see `LayerMeasures`."""
    output = output.detach()
    if output.ndim < 2:
        raise InputError(
            f"the output has shape {tuple(output.shape)}; at least two axes are needed, samples and features: "
            "pass output=, a function that returns them"
        )
    features = output.movedim(axis, -1)
    if callable(pool):
        features = pool(features)
        if not isinstance(features, Tensor) or features.ndim != 2:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(f"pool returned {shape}; it must return features (n, d) from features (n, ..., d)")
    elif features.ndim > 2 and (pool == "mean" or (pool == "auto" and len(labels) == 1)):
        # a half has too few digits for a mean over many positions
        wide = torch.promote_types(features.dtype, torch.float32)
        return features.mean(dim=tuple(range(1, features.ndim - 1)), dtype=wide)
    return features.clone()  # the network may overwrite its outputs, e.g. by ReLU(inplace=True)


def counted(features: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the samples that count, one a row, and their labels, or raise; both are looked at.

    Labels of whole samples are those of all their positions.
    """
    if labels.ndim == 1 and features.ndim > 2 and len(labels) == len(features):
        labels = labels.view(-1, *[1] * (features.ndim - 2)).expand(features.shape[:-1])
    index = require_labels(labels, tuple(features.shape[:-1]), num_classes, ignore_index).to(features.device)
    counts = index != ignore_index
    rows = features[counts]
    require_values(rows, "features")
    return rows, index[counts]


def as_class_indices(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return labels of any shape but () as int64, or raise; soft labels are refused with the remedy."""
    shape = tuple(getattr(labels, "shape", ()))
    hard = not isinstance(labels, Tensor) or labels.dtype in INTEGERS
    # of others the last axis is taken for that of the classes, as the message then says
    if isinstance(labels, Tensor) and labels.device.type not in ("cpu", "meta"):
        labels = labels.cpu()  # so that their values are looked at before anything is measured
    index = require_labels(labels, shape if hard else shape[: max(1, len(shape) - 1)], num_classes, ignore_index)
    if not shape:
        raise InputError("labels has shape (); pass one class index for each sample, of shape (n,)")
    return index
