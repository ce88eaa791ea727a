r"""Points of the Stiefel manifold :math:`St(d, r) = \{U : U'U = I_r\}`."""

from __future__ import annotations

from typing import Any

import numpy as np

from etfopt._arrays import Array, Float64Array, Seed, as_generator
from etfopt._deprecated import moved
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.polar import feasibility, polar_factor

__all__ = ["feasibility", "random_stiefel", "sym"]

__getattr__ = moved(
    __name__, {"simplex_etf": "etfopt.frames"} | dict.fromkeys(("SVD", "thin_svd", "tall_product"), "etfopt.polar")
)


@own_errstate
def random_stiefel(d: int, r: int, rng: Seed) -> Float64Array:
    """Return a uniformly (Haar) distributed point of the Stiefel manifold St(d, r).

    It is the polar factor of a Gaussian matrix, whose distribution no rotation changes.

    Parameters
    ----------
    d, r : int
        Rows and columns, d >= r >= 1.
    rng : numpy.random.Generator or seed
        What the point is drawn from. A generator is advanced; anything else is passed to `numpy.random.default_rng`: an
        integer, a sequence of integers, a `numpy.random.SeedSequence` or a bit generator repeats, None does not.

    Returns
    -------
    ndarray, shape (d, r), float64
        U with :math:`U'U = I`.

    Raises
    ------
    InputError
        If d < r or r < 1, or they are no integers; if `rng` is no generator and no seed.

    References
    ----------
    Chikuse (2003), Statistics on Special Manifolds, chapter 2.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> U = etfopt.random_stiefel(5, 2, rng=0)
    >>> bool(np.allclose(U.T @ U, np.eye(2)))
    True
    """
    if not (isinstance(d, (int, np.integer)) and isinstance(r, (int, np.integer)) and 1 <= r <= d):
        raise InputError(f"St(d, r) needs d >= r >= 1; got d = {d}, r = {r}")
    return np.asarray(polar_factor(as_generator(rng, "rng").standard_normal((d, r))), dtype=np.float64)


@own_errstate
def sym(X: np.ndarray[Any, np.dtype[Any]]) -> Array:
    """Return the symmetric part (X + X')/2.

    Parameters
    ----------
    X : ndarray, shape (n, n)
        Any square matrix.

    Returns
    -------
    ndarray, shape (n, n)
        Its projection on the symmetric matrices.

    Notes
    -----
    Where it enters: ``theory/certificate.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import sym
    >>> sym(np.array([[1.0, 2.0], [0.0, 3.0]]))
    array([[1., 1.],
           [1., 3.]])
    """
    symmetric: Array = (X + X.T) / 2
    return symmetric
