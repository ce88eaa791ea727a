"""How time and memory are measured, and what the figures depend on."""

from __future__ import annotations

import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import scipy

__all__ = ["conditions", "median_seconds", "peak_bytes"]


def conditions() -> dict[str, str | int | None]:
    """Return what the timings depend on: versions, processor, cores."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "library default"),
        "dtype": "float64",
        "date": time.strftime("%Y-%m-%d"),
    }


def peak_bytes(run: Callable[[], object]) -> int:
    """Peak bytes that Python and NumPy allocate during a call, in a run of its own: tracing slows it down."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def median_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    """Return the median time of a call, a first one to warm up left out."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
