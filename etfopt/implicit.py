r"""The paper's gradient: the implicit function theorem on the KKT conditions, with dense linear algebra.

At the minimiser it equals the closed form of `etfopt.adjoint`, which costs far less. Use it as a reference.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike

from etfopt._arrays import Array, Float64Array, as_matrix
from etfopt._scaling import own_errstate
from etfopt.errors import InputError
from etfopt.polar._products import sym
from etfopt.problem import NearestETF, require_problem

__all__ = ["kkt_memory", "kkt_vjp"]


def kkt_memory(d: int, r: int) -> int:
    """Return the bytes that `kkt_vjp` needs: two r(r+1)/2 x dr matrices and their product, in float64.

    Parameters
    ----------
    d, r : int
        Rows and columns of U.

    Returns
    -------
    int

    Notes
    -----
    The formula: ``theory/gradient.py``.

    Examples
    --------
    >>> from etfopt.adjoint import kkt_memory
    >>> round(kkt_memory(512, 100) / 2**30, 1)  # GiB
    4.0
    """
    p = r * (r + 1) // 2
    return 8 * (2 * p * d * r + p * p)


@own_errstate
def kkt_vjp(problem: NearestETF, U: ArrayLike, cotangent: ArrayLike) -> Array:
    r"""Pull a cotangent G = dL/dU of the minimiser back to H by the formula that the paper uses.

    With the Lagrangian Hessian :math:`\mathcal H` (one block :math:`2FDF' + \delta I - \Lambda` a row of U,
    :math:`\Lambda = \mathrm{sym}(U'\nabla f)`), the Jacobian J of the r(r+1)/2 constraints U'U = I, and
    :math:`\mathcal B = \partial^2 f/\partial U\partial H`,

    .. math:: DU^* = \mathcal H^{-1}J'(J\mathcal H^{-1}J')^{-1}J\mathcal H^{-1}\mathcal B - \mathcal H^{-1}\mathcal B.

    It costs :math:`O(r^5 d)` time and `kkt_memory` bytes. `etfopt.adjoint.nearest_etf_vjp` returns the same.

    Parameters
    ----------
    problem : NearestETF
        With A of full column rank.
    U : array_like, shape (d, r)
        The minimiser. This is not checked, and the result is wrong at any other point.
    cotangent : array_like, shape (d, r)
        G = dL/dU.

    Returns
    -------
    ndarray, shape (d, C)
        dL/dH in the problem's dtype.

    Raises
    ------
    InputError
        If a shape does not fit, or the Hessian's block is not positive definite.

    References
    ----------
    Gould, Hartley and Campbell (2022), Deep declarative networks, equality-constrained case. Markou, Ajanthan and
    Gould (2024). That both formulas agree: ``theory/gradient.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.adjoint import kkt_vjp, nearest_etf_vjp
    >>> problem = etfopt.NearestETF(np.eye(5, 3), prox=np.eye(5, 3), delta=0.1)
    >>> U, G = etfopt.solve(problem).U, np.eye(5, 3)[::-1]
    >>> bool(np.allclose(kkt_vjp(problem, U, G), nearest_etf_vjp(problem, U, G).H))
    True
    """
    require_problem(problem)
    U, G = (
        np.asarray(as_matrix(X, name, shape=(problem.d, problem.r)), dtype=np.float64)
        for X, name in ((U, "U"), (cotangent, "cotangent"))
    )
    held = problem.held
    if held is None:
        slope = _direction(problem, U, G) @ problem.F
    else:
        slope = held.B @ (_direction(problem.free, held.part(U), held.part(G)) @ held.frame(problem.F))
    return np.asarray(-2 * slope * (1 if problem.weights is None else problem.weights), dtype=problem.dtype)


def _direction(problem: NearestETF, U: Float64Array, G: Float64Array) -> Float64Array:
    """Return the cotangent of the linear term, with its sign changed."""
    F = np.asarray(problem.F, dtype=np.float64)
    FD = F if problem.weights is None else F * problem.weights
    block = 2 * FD @ F.T + problem.delta * np.eye(problem.r) - sym(U.T @ problem.gradient(U))
    try:
        factor = scipy.linalg.cho_factor(block)
    except scipy.linalg.LinAlgError as error:
        least = np.linalg.eigvalsh(block)[0]
        message = f"the Lagrangian's Hessian is not positive definite at U (smallest eigenvalue {least:.1e})"
        remedy = "U is not the only minimiser: add a proximal term (prox=..., delta > 0)"
        raise InputError(message, "problem", problem, remedy) from error
    J = _constraint_jacobian(U)

    def solve(rows: Float64Array) -> Float64Array:  # the Hessian has d equal blocks, which act on the rows of U
        return np.asarray(scipy.linalg.cho_solve(factor, rows.reshape(-1, problem.r).T).T).reshape(rows.shape)

    w = -solve(G.reshape(1, -1))
    T = solve(J)
    s = -scipy.linalg.solve(J @ T.T, J @ w.T, assume_a="pos")
    return np.asarray((w + s.T @ T).reshape(U.shape), dtype=np.float64)


def _constraint_jacobian(U: Float64Array) -> Float64Array:
    """Return the derivative of (U'U)_ij, i <= j, with respect to the entries of U: shape (r(r+1)/2, dr)."""
    d, r = U.shape
    i, j = np.triu_indices(r)
    J = np.zeros((len(i), d, r))
    row = np.arange(len(i))
    J[row, :, i] += U[:, j].T
    J[row, :, j] += U[:, i].T
    return J.reshape(len(i), d * r)
