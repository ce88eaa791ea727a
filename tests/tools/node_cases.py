"""What the tests of the node share: methods, dtypes, spectra, and whether values are seen."""

import functools
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from etfopt import simplex_etf
from etfopt.nn.functional import frame_tensor, nearest_etf
from tests.tools.blind import blind
from tests.tools.strategies import means_with, orthonormal, with_spectrum

METHODS = ("auto", "svd", "gram", "newton-schulz")
DTYPES = (torch.float32, torch.float64)
SPECTRA = {
    "generic": np.array([1.0, 0.8, 0.5]),
    "repeated": np.array([1.0, 1.0, 0.5]),
    "clustered": np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9]),
    "collapsed": np.ones(3),
}


def norm(X: np.ndarray) -> float:
    return float(np.linalg.norm(X))


def numpy(X: torch.Tensor) -> np.ndarray:
    return X.detach().double().cpu().numpy()


def looking(seen: bool) -> AbstractContextManager[object]:
    """A block in which values are seen, or hidden as on a GPU."""
    return nullcontext() if seen else blind()


def derivative_cases(d: int, values: np.ndarray, rng: np.random.Generator, method: str) -> list:
    """(function, inputs) for U and U F, with and without a proximal point, in every frame that has room."""
    H = torch.tensor(means_with(with_spectrum(d, values, rng)), requires_grad=True)
    F = torch.tensor(simplex_etf(4, reduced=True))
    find = functools.partial(nearest_etf, method=method)
    prox = torch.tensor(orthonormal(d, 3, rng), requires_grad=True)
    found = [(lambda H: find(H, frame=F), (H,)), (lambda H, prox: find(H, prox, 0.1, F), (H, prox))]
    if d >= 4:
        E, wide = frame_tensor(4, H), torch.tensor(orthonormal(d, 4, rng), requires_grad=True)
        found += [
            (lambda H: find(H) @ E, (H,)),
            (lambda H, prox: find(H, prox, 0.3), (H, wide)),
            (lambda H: find(H, wide.detach(), 1e-3) @ E, (H,)),
        ]
    return found
