"""One pass over a loader: batches taken apart and moved, in evaluation mode, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from etfopt.errors import InputError

LABELS = ("labels", "label", "targets", "target")
"""Keys under which a batch that is a mapping holds its labels."""


def unpacked(batch: Any) -> tuple[Any, Tensor]:
    """Return inputs and labels of a batch: a pair, or a mapping with the labels among its keys."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and (keys := [key for key in LABELS if key in batch]):
        return {key: value for key, value in batch.items() if key != keys[0]}, batch[keys[0]]
    raise InputError(
        f"the loader yields a {type(batch).__name__}, and pairs (inputs, labels) or mappings with the key 'labels' are "
        "expected; pass unpack=, a function from a batch to such a pair"
    )


def moved(value: Any, device: Any) -> Any:
    """Return the tensors of a nested structure on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(moved(item, device) for item in value)
    return value


def call(model: nn.Module, inputs: Any) -> None:
    """Call a model with its inputs: one tensor, a tuple or list of arguments, or a mapping of keywords."""
    if isinstance(inputs, Mapping):
        model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        model(*inputs)
    else:
        model(inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode for the block, and give every module its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
