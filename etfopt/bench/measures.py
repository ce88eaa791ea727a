"""Cost of an update of `etfopt.metrics.NeuralCollapse`, beside a plain sum of the features over classes."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle
from typing import Any

from etfopt.errors import require_extra

require_extra("metrics", "torch", "torchmetrics")

import torch
from torch import Tensor

from etfopt.bench.timing import times_in_turn
from etfopt.metrics import NeuralCollapse

__all__ = ["LABELS", "SHAPES", "UpdateRow", "bench_measures"]

SHAPES = ((10, 512, 1024), (1000, 512, 4096), (50257, 768, 4096))
"""C, d and the number of samples of a batch."""

LABELS = ("uniform", "zipf")
"""How labels are drawn: all classes alike, or with probabilities that fall like 1/rank, as tokens do."""

PEER_BATCH = 256
"""Samples of a batch for neural-collapse, which makes a matrix of samples x classes."""


@dataclass(frozen=True)
class UpdateRow:
    """Median microseconds of CPU time for a sample, in float32."""

    C: int
    d: int
    batch: int
    labels: str
    index_add: float  # ``index_add_`` of the features into sums in float32: one pass, nothing checked
    index_add_double: float  # the same into sums in float64, for which the features are converted
    means: float  # NeuralCollapse without the d x d scatter: counts, means, variances of classes
    whole: float  # NeuralCollapse with it
    peer: float | None  # neural-collapse: means, then variances in a second pass; None if it is not installed


def bench_measures(
    shapes: Sequence[tuple[int, int, int]] = SHAPES, rounds: int = 9, on_step: Callable[[], None] | None = None
) -> list[UpdateRow]:
    """Time updates in turn, on batches of random features, by the CPU time of this process.

    Parameters
    ----------
    shapes : sequence of triple of int
        C, d and samples of a batch.
    rounds : int
        Timed calls of each; 9 gives steady medians.
    on_step : callable, optional
        Called after every call.

    Returns
    -------
    list of UpdateRow
        One for each shape and each of `LABELS`.

    References
    ----------
    Papyan, Han, Donoho (2020) for the measures. ``neural-collapse`` is Wu's package, on GitHub.
    """
    return [_row(shape, labels, rounds, on_step) for shape in shapes for labels in LABELS]


def _row(shape: tuple[int, int, int], kind: str, rounds: int, on_step: Callable[[], None] | None) -> UpdateRow:
    C, d, batch = shape
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, d, generator=generator)
    drawn = [_labels(kind, C, batch, generator) for _ in range(5)]
    single, double = torch.zeros(C, d), torch.zeros(C, d, dtype=torch.float64)
    kinds = {"means": ["cdnv", "gnc2"], "whole": ["nc1"]}
    metrics = {name: NeuralCollapse(num_classes=C, dim=d, measures=keys) for name, keys in kinds.items()}
    runs: dict[str, Callable[[Tensor], object]] = {
        "index_add": lambda y: single.index_add_(0, y, features),
        "index_add_double": lambda y: double.index_add_(0, y, features.double()),
        "means": lambda y: metrics["means"].update(features, y),
        "whole": lambda y: metrics["whole"].update(features, y),
    }
    if find_spec("neural_collapse"):
        runs["peer"] = _peer(C, d, features[:PEER_BATCH])
    for run in runs.values():
        for y in drawn:  # the first samples of a class are its own case, and pages of memory are new
            run(y)
    batches = {name: cycle(drawn) for name in runs}
    timed = {name: lambda run=run, own=batches[name]: run(next(own)) for name, run in runs.items()}
    found = times_in_turn(timed, rounds, on_step=on_step, clock=time.process_time)
    size = {"peer": min(batch, PEER_BATCH)}
    medians = {name: 1e6 * statistics.median(taken) / size.get(name, batch) for name, taken in found.items()}
    peer = medians.pop("peer", None)
    return UpdateRow(C, d, batch, kind, **medians, peer=peer)


def _labels(kind: str, C: int, batch: int, generator: torch.Generator) -> Tensor:
    if kind == "uniform":
        return torch.randint(C, (batch,), generator=generator)
    return torch.multinomial(1 / torch.arange(1, C + 1), batch, replacement=True, generator=generator)


def _peer(C: int, d: int, features: Tensor) -> Callable[[Tensor], object]:
    """Return what adds a batch to the class means and to the class variances of neural-collapse."""
    package: Any = importlib.import_module("neural_collapse.accumulate")
    means, variances = package.MeanAccumulator(C, d), package.VarNormAccumulator(C, d)
    given = torch.zeros(C, d)

    def add(labels: Tensor) -> None:
        y = labels[: len(features)]
        means.accumulate(features, y)
        variances.accumulate(features, y, given)

    return add
