"""Problems to measure on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from etfopt._inputs import Float64Array
from etfopt.geometry import random_stiefel, simplex_etf

__all__ = ["drifting_means"]


def drifting_means(d: int, C: int, rng: np.random.Generator) -> Iterator[Float64Array]:
    """Yield class means of norm 1 that drift from random ones towards a simplex ETF, as in training."""
    target = random_stiefel(d, C, rng) @ simplex_etf(C)
    H = rng.standard_normal((d, C))
    H -= H.mean(axis=1, keepdims=True)
    while True:
        H /= np.linalg.norm(H)
        yield H.copy()
        noise = rng.standard_normal((d, C)) / np.sqrt(d * C)
        H = 0.95 * H + 0.05 * target + 0.02 * (noise - noise.mean(axis=1, keepdims=True))
