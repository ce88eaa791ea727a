"""What ``etfopt measure`` computes: each layer that was found in files, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etfopt._options import METRICS, as_ignored
from etfopt._scalars import as_integer
from etfopt._torch import require_labels
from etfopt.files import SavedLayer
from etfopt.metrics._layerwise import LayerResults, Make, said_of
from etfopt.metrics._outputs import counted
from etfopt.metrics.collapse import NeuralCollapse


def metrics_of(measures: Sequence[str], metrics: Sequence[str]) -> list[Make]:
    """Return `NeuralCollapse` of the measures, if any are named, and the metrics that have these names."""
    measured = [partial(NeuralCollapse, measures="all" if "all" in measures else measures)] if measures else []
    return [*measured, *(METRICS.load(name) for name in metrics)]


def measure_saved(
    layers: Sequence[SavedLayer],
    *,
    num_classes: int,
    metrics: Sequence[Make],
    ignore_index: int = -100,
    batch_size: int = 4096,
    step: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Tensor]]:
    """Return the measures of every layer by name, `batch_size` rows at a time; `step` is called after each batch."""
    batch_size = as_integer(batch_size, "batch_size", at_least=1)
    results, ignored = LayerResults(num_classes, metrics), as_ignored(ignore_index, num_classes)
    for layer in layers:
        labels, where = torch.from_numpy(layer.labels), layer.features.where
        with said_of(f"{where}, whose labels"):  # before the first batch: positions are those in the file
            require_labels(labels, tuple(labels.shape), num_classes, ignored)
        classifier = {"weight": _classifier_tensor(layer.weight), "bias": _classifier_tensor(layer.bias)}
        for i, part in enumerate(layer.features.batches(batch_size)):
            start = i * batch_size
            with said_of(f"{where}, from row {start:,} on"):
                rows, index = counted(_tensor(part), labels[start : start + batch_size], num_classes, ignored)
                results.metrics_of(layer.name, rows.shape[-1], "cpu").update(rows, index, **classifier)
            step()
    return results.compute()


def _classifier_tensor(array: np.ndarray[Any, Any] | None) -> Tensor | None:
    return None if array is None else _tensor(array)


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor; PyTorch has no long double, which becomes float64."""
    return torch.from_numpy(array.astype(np.float64) if array.dtype == np.longdouble else array)
