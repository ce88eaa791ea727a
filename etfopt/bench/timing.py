"""Time and memory of calls, and the conditions that they depend on."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import DTypeLike

from etfopt._arrays import Seed, as_generator

__all__ = [
    "as_records",
    "blocks_in_turn",
    "conditions",
    "linear_layer",
    "median_seconds",
    "peak_bytes",
    "seconds",
    "times_in_turn",
]

BATCH = 256

BLOCK = 5e-3
"""Seconds of a block of short calls."""


def conditions() -> dict[str, str | int | None]:
    """Return the conditions that timings depend on: versions, processor, cores.

    Returns
    -------
    dict of str to str, int or None
        Facts by name, for the head of a report.
    """
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "library default"),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Return the model of the processor, or its kind where the system does not tell the model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the peak bytes that Python and NumPy allocate during a call. Do not time it: tracing is slow."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seconds(
    run: Callable[[], object],
    finish: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the time of a call in seconds by a clock; `finish`, which waits for a GPU, is part of it."""
    start = clock()
    run()
    if finish:
        finish()
    return clock() - start


def times_in_turn(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    least: float = 0.0,
    finish: Callable[[], object] | None = None,
    on_step: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time calls in turn by a clock, so that a busy moment of the machine meets all; a first round warms up.

    At least `repeats` rounds follow, and as many as fit into `least` seconds.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    rounds, end = 0, time.perf_counter() + least
    while rounds <= repeats or time.perf_counter() < end:
        for name, run in runs.items():
            taken[name].append(seconds(run, finish, clock))
            if on_step:
                on_step()
        rounds += 1
    return {name: times[1:] for name, times in taken.items()}


def blocks_in_turn(
    runs: Mapping[Any, Callable[[], object]],
    repeats: int,
    least: float = 0.0,
    most: float = math.inf,
    finish: Callable[[], object] | None = None,
    known: Mapping[Any, float] | None = None,
) -> dict[Any, list[float]]:
    """Time blocks of calls in turn, and return the seconds of a call in each block.

    A block is one call, or as many as fit into some milliseconds, after one that is not timed: a short call is slow
    after a long one of something else, which leaves the caches without its data.

    At least `repeats` rounds follow, and as many as fit into `least` seconds; but none after the first that would end
    later than `most` seconds. Of an earlier call its seconds may be known; a long one is then not tried again first.
    """
    counts = {}
    for name, run in runs.items():
        slow = known is not None and known[name] > 20 * BLOCK
        counts[name] = 1 if slow else max(1, int(BLOCK / min(seconds(run, finish) for _ in range(2))))
    taken: dict[Any, list[float]] = {name: [] for name in runs}
    start, rounds = time.perf_counter(), 0
    while True:
        for name, run in runs.items():
            if counts[name] > 1:
                run()
            taken[name].append(seconds(partial(_repeat, run, counts[name]), finish) / counts[name])
        rounds += 1
        past = time.perf_counter() - start
        if (rounds >= repeats and past >= least) or past * (rounds + 1) > most * rounds:
            return taken


def _repeat(run: Callable[[], object], count: int) -> None:
    for _ in range(count):
        run()


def median_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    """Return the median time of a call, a first one to warm up left out."""
    return statistics.median(times_in_turn({"": run}, repeats)[""])


def linear_layer(d: int, C: int, rng: Seed, dtype: DTypeLike = np.float64) -> Callable[[], object]:
    """Return what does the three products of a linear layer's forward and backward pass, at batch 256."""
    rng = as_generator(rng, "rng")
    X, W, G = (rng.standard_normal(shape).astype(dtype) for shape in ((BATCH, d), (C, d), (BATCH, C)))
    return lambda: (X @ W.T, G @ W, G.T @ X)


def as_records(rows: Sequence[Any]) -> list[dict[str, object]]:
    """Return rows, dataclasses of one kind, as dictionaries with the same keys each."""
    return [dataclasses.asdict(row) for row in rows]
