r"""Points of the Stiefel manifold :math:`St(d, r) = \{U : U'U = I_r\}`."""

from __future__ import annotations

import numpy as np

from etfopt._arrays import Float64Array, Seed, as_generator
from etfopt._deprecated import moved
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.polar import polar_factor

__all__ = ["random_stiefel"]

__getattr__ = moved(
    __name__,
    {"simplex_etf": "etfopt.frames"}
    | dict.fromkeys(("SVD", "thin_svd", "tall_product", "feasibility", "sym"), "etfopt.polar"),
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
        Source of the draw. A generator is advanced; anything else goes to `numpy.random.default_rng`. An integer gives
        the same point each time.

    Returns
    -------
    ndarray, shape (d, r), float64

    Raises
    ------
    InputError
        If not d >= r >= 1, or `rng` is neither a generator nor a seed.

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
