"""What lies around the node: each part of the library beside something familiar, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from etfopt.errors import require_extra

require_extra("torch", "torch")

import scipy.linalg
import torch
from torch import Tensor, nn
from torch.nn import functional

import etfopt
from etfopt.bench.node import wait
from etfopt.bench.timing import blocks_in_turn
from etfopt.bench.units import means_and_prox
from etfopt.nn import NearestETFHead
from etfopt.nn.functional import etf_distance, nearest_etf

__all__ = ["PARTS", "PartRow", "measure_part"]

REPEATS, LEAST = 9, 0.5
BATCH, DIM = 128, 512

Pair = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True)
class PartRow:
    """A part beside its yardstick: median seconds, and the median over the rounds of the first over the second."""

    part: str
    size: str
    yardstick: str
    device: str
    threads: int
    seconds: float
    yardstick_seconds: float
    ratio: float


def _core(device: torch.device, d: int, C: int) -> Pair:  # noqa: ARG001 - one signature for all; the core is NumPy
    H, _ = means_and_prox(d, C, "random", 0)
    A = H - H.mean(1, keepdims=True)
    return lambda: etfopt.nearest_etf(H), lambda: scipy.linalg.polar(A)


def _distance(device: torch.device, d: int, C: int) -> Pair:
    H = torch.from_numpy(means_and_prox(d, C, "near collapse", 0)[0]).float().to(device)
    leaf = H.clone().requires_grad_()
    return lambda: torch.autograd.grad(etf_distance(leaf), leaf), lambda: nearest_etf(H)


def _head(device: torch.device, d: int, C: int) -> Pair:
    features = torch.randn(BATCH, d, device=device, generator=torch.Generator(device).manual_seed(0))
    features.requires_grad_()
    labels = torch.arange(BATCH, device=device) % C
    head, linear = NearestETFHead(d, C).to(device), nn.Linear(d, C, device=device)

    def step(logits: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            features.grad = None
            functional.cross_entropy(logits(), labels).backward()  # type: ignore[no-untyped-call] # torch leaves it so

        return run

    return step(lambda: head(features, labels)), step(lambda: linear(features))


def _metric(device: torch.device, d: int, C: int) -> Pair:
    from etfopt.metrics import NeuralCollapse

    features = torch.randn(BATCH, d, device=device, generator=torch.Generator(device).manual_seed(0))
    labels, sums = torch.arange(BATCH, device=device) % C, torch.zeros(C, d, device=device)
    metric = NeuralCollapse(num_classes=C, dim=d).to(device)
    return lambda: metric.update(features, labels), lambda: sums.index_add_(0, labels, features)


def _import(_: torch.device, module: str, d: int = 0) -> Pair:  # noqa: ARG001 - as above
    def fresh(name: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)

    return fresh(module), fresh("torch")


@dataclass(frozen=True)
class _Part:
    make: Callable[..., Pair]
    yardstick: str
    sizes: Mapping[str, tuple[Any, ...]]  # by what the table calls them
    needs: str = "torch"


def _shapes(*shapes: tuple[int, int]) -> dict[str, tuple[int, int]]:
    return {f"{d} x {C}": (d, C) for d, C in shapes}


PARTS = {
    "core": _Part(_core, "scipy.linalg.polar", _shapes((64, 10), (2048, 1000))),
    "distance": _Part(_distance, "nearest_etf, forward alone", _shapes((64, 10), (512, 10), (512, 100))),
    "head": _Part(_head, "nn.Linear", _shapes((DIM, 10), (DIM, 100))),
    "metric": _Part(_metric, "index_add_", _shapes((DIM, 10), (DIM, 100)), "torchmetrics"),
    "import": _Part(_import, "import torch", {"etfopt": ("etfopt",), "etfopt.nn": ("etfopt.nn",)}),
}
"""core: `etfopt.nearest_etf` with its certificate, float64. distance: `etf_distance`, forward and backward. head: the
nearest head, forward and backward, at batch 128. metric: an update of `NeuralCollapse`. import: a fresh process."""


def measure_part(name: str, size: str, threads: int = 1, limit: float = 10.0, device: str = "cpu") -> PartRow | None:
    """Time a part beside its yardstick, in a process that has so many threads; None where a package is missing."""
    part = PARTS[name]
    if not find_spec(part.needs):
        return None
    where = torch.device(device)
    torch.manual_seed(0)
    pair = part.make(where, *part.sizes[size])
    runs = dict(zip(("ours", "theirs"), pair, strict=True))
    taken = blocks_in_turn(runs, REPEATS, LEAST, limit, lambda: wait(where))
    ours, theirs = taken["ours"], taken["theirs"]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    medians = statistics.median(ours), statistics.median(theirs)
    return PartRow(name, size, part.yardstick, device, threads, *medians, ratio)
