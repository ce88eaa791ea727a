"""Cost of the differentiable node: time, in units of a product A'A and of a linear layer, and memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etfopt.errors import InputError, require_extra

require_extra("torch", "torch")

import numpy as np
import torch
from torch import Tensor, nn

from etfopt._memory import Allocations
from etfopt._options import as_method
from etfopt.bench.timing import BATCH, peak_bytes, times_in_turn
from etfopt.bench.units import DELTA, SPECTRA, means_and_prox
from etfopt.frames import simplex_etf
from etfopt.nn.functional import etf_distance, nearest_etf

__all__ = ["SHAPES", "NodeRow", "bench_node", "growth", "usable_device", "wait"]

SHAPES = ((512, 10), (512, 47), (512, 100), (2048, 100), (2048, 1000))
REPEATS = 9
"""Least number of timed calls for each row."""

REPEAT_SECONDS = 0.3
"""Least time for each row, so that rows of some hundred microseconds are medians of many calls."""


@dataclass(frozen=True)
class NodeRow:
    """Medians for one shape in float32; times in seconds."""

    d: int
    C: int
    spectrum: str  # "random" class means, or "near collapse": a simplex ETF and 1 % noise
    device: str
    forward: float  # `etfopt.nn.functional.nearest_etf` with the paper's proximal term, without a graph
    total: float  # forward and backward
    product: float  # one product A'A
    linear: float  # forward and backward pass of ``nn.Linear(d, C)`` at batch 256
    memory: float  # most numbers held at a time, without input and LAPACK's own, over dC + C^2
    method: str = "auto"
    distance: float = math.nan  # `etf_distance`, forward and backward; in files, not in the table


def usable_device(name: str) -> torch.device:
    """Return the device that PyTorch names so, after computing something on it; an `InputError` if that fails."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device = {name!r} cannot be used: {str(error).splitlines()[0]}; try cpu") from error
    return device


def bench_node(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    device: str = "cpu",
    methods: Sequence[str] = ("auto",),
    on_step: Callable[[], None] | None = None,
) -> list[NodeRow]:
    """Time the node by each method on random class means and near collapse, in turn with the units.

    Parameters
    ----------
    shapes : sequence of pair of int
        d and C of each problem.
    device : str
        A PyTorch name, such as "cpu" or "cuda:1".
    methods : sequence of str
        Methods of `etfopt.nn.functional.polar_factor`.
    on_step : callable, optional
        Called after every problem.

    Returns
    -------
    list of NodeRow
        One for each shape, spectrum and method.

    Raises
    ------
    InputError
        If a method is unknown, or the device is not available.
    """
    rows = []
    where = usable_device(device)
    for method in methods:
        as_method(method)
    for d, C in shapes:
        for spectrum in SPECTRA:
            for method in methods:
                rows.append(_row(d, C, spectrum, where, method))
                if on_step:
                    on_step()
    return rows


def growth(rows: Sequence[NodeRow], d: int = 2048, small: int = 100, large: int = 1000) -> float:
    """Return the slope of log time against log C between two shapes on random means; NaN if one is missing.

    If there are several methods, the first one counts.
    """
    times = {
        row.C: row.total for row in rows if row.d == d and row.spectrum == "random" and row.method == rows[0].method
    }
    if not {small, large} <= times.keys():
        return math.nan
    return math.log(times[large] / times[small]) / math.log(large / small)


def _row(d: int, C: int, spectrum: str, device: torch.device, method: str) -> NodeRow:
    H, prox, G = _problem(d, C, spectrum, device)
    leaf, layer = H.clone().requires_grad_(), nn.Linear(d, C, device=device)
    X, dY = (torch.randn(BATCH, n, device=device) for n in (d, C))
    X.requires_grad_()

    def total() -> object:
        return torch.autograd.grad(nearest_etf(leaf, prox, DELTA, method=method), leaf, G)

    runs: dict[str, Callable[[], object]] = {
        "forward": lambda: nearest_etf(H, prox, DELTA, method=method),
        "total": total,
        "distance": lambda: torch.autograd.grad(etf_distance(leaf, method=method), leaf),
        "product": lambda: prox.mT @ prox,
        "linear": lambda: torch.autograd.grad(layer(X), (X, *layer.parameters()), dY),
    }
    taken = times_in_turn(runs, REPEATS, REPEAT_SECONDS, finish=lambda: wait(device))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    # arrays of NumPy, which few columns take on the CPU, are no tensors
    arrays = peak_bytes(total) if device.type == "cpu" else 0
    with Allocations(device) as held:
        total()
    memory = (held.peak + arrays) / 4 / (d * C + C * C)
    return NodeRow(d, C, spectrum, str(device), **medians, memory=memory, method=method)


def _problem(d: int, C: int, spectrum: str, device: torch.device) -> tuple[Tensor, ...]:
    """Return class means, a proximal point near their U, and a cotangent, in float32."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((d, C)) @ simplex_etf(C)
    arrays = (*means_and_prox(d, C, spectrum, rng), G)
    return tuple(torch.from_numpy(X).float().contiguous().to(device) for X in arrays)


def gpu_name(device: str) -> str:
    """Return what the maker calls a CUDA device."""
    return torch.cuda.get_device_name(device)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
