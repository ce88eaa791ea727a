"""The polar factor by a singular value decomposition: it works for every matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Array, as_matrix
from etfopt._scaling import normalized, own_errstate
from etfopt.errors import ConvergenceError, InputError
from etfopt.polar._products import FAR_OFF, feasibility, tall_product


class SVD(NamedTuple):
    """Thin singular value decomposition A = P diag(S) Q' of a d x r matrix, d >= r, S non-increasing."""

    P: Array
    S: Array
    Q: Array


@own_errstate
def thin_svd(A: Array) -> SVD:
    """Return the thin SVD of a finite matrix of moderate size; its backward error: ``theory/certificate.py``, (S)."""
    return robust_svd(A)[0]


def robust_svd(A: Array) -> tuple[SVD, str]:
    """Return the thin SVD by LAPACK's divide and conquer, or by its QR iteration and why the first one failed."""
    # NumPy's own LAPACK first: SciPy brings a second one, whose waiting threads slow NumPy's products down severalfold
    routines: dict[str, Callable[[], tuple[Array, Array, Array]]] = {
        "gesdd": lambda: np.linalg.svd(A, full_matrices=False),
        "gesvd": lambda: _gesvd(A),
    }
    failure = ""
    for name, routine in routines.items():
        try:
            P, S, Qt = routine()
            if max(feasibility(P), feasibility(Qt.T)) <= FAR_OFF:
                return SVD(P, S, Qt.T), failure
            failure = f"LAPACK's {name}: singular vectors that are not orthonormal"
        except np.linalg.LinAlgError as error:
            failure = f"LAPACK's {name}: {error}"
    raise ConvergenceError(
        f"no SVD of a {A.shape[0]} x {A.shape[1]} {A.dtype} matrix with largest entry {np.abs(A).max():.3g}: "
        "LAPACK's gesdd and gesvd both failed; try float64, or rescale the input"
    )


def _gesvd(A: Array) -> tuple[Array, Array, Array]:
    import scipy.linalg  # here, as it is rarely needed and adds a fifth to the time of importing torch

    found: tuple[Array, Array, Array] = scipy.linalg.svd(
        A, full_matrices=False, check_finite=False, lapack_driver="gesvd"
    )
    return found


@own_errstate
def polar_factor(A: ArrayLike) -> Array:
    r"""Return the orthonormal polar factor of a matrix: the nearest point of the Stiefel manifold.

    .. math:: \max_{U'U = I} \langle A, U\rangle = \|A\|_*, \quad\text{attained at } U = PQ' \text{ for } A = PSQ'.

    It is the only maximiser exactly when A has full column rank; otherwise one of them is returned.

    Parameters
    ----------
    A : array_like, shape (d, r), d >= r
        Any finite matrix, the zero matrix included.

    Returns
    -------
    U : ndarray, shape (d, r)
        With :math:`\|U'U - I\|_F \le 10\,r\,u`, u the rounding unit of the dtype.

    Raises
    ------
    InputError
        If `A` is not a finite real matrix with at least as many rows as columns.

    References
    ----------
    Schonemann (1966); Higham (2008), Functions of Matrices, chapter 8. Proof: ``theory/closed_form.py``.

    Examples
    --------
    >>> import etfopt
    >>> etfopt.polar_factor([[3.0, 0.0], [0.0, -2.0], [0.0, 0.0]]).round(4) + 0.0
    array([[ 1.,  0.],
           [ 0., -1.],
           [ 0.,  0.]])
    """
    A = as_matrix(A, "A")
    if A.shape[0] < A.shape[1]:
        message = f"A has shape {A.shape}; it needs at least as many rows as columns"
        raise InputError(message, "A", A, "pass A.T")
    scaled = normalized(A)[0].astype(A.dtype)
    P, S, Q = thin_svd(scaled)
    return refined_polar(scaled, P @ Q.T, Q, S)


def refined_polar(A: Array, U: Array, Q: Array, S: Array) -> Array:
    r"""Return the polar factor of A, of moderate size, by one step of iterative refinement from U near it.

    Where singular values cluster, LAPACK splits them at tens of rounding units, and PQ' inherits that. Within the
    column space of A the polar factor differs from U by :math:`U(\Omega - E/2)` to first order, with E = U'U - I,
    B = QSQ', K = U'A and :math:`B\Omega + \Omega B = K - K' - (EB - BE)/2`; the rotation :math:`I + \Omega` and one
    Newton-Schulz step apply both. What is left is about one unit. Directions with singular values so small that the
    correction would not be small are left as they are.
    """
    identity = np.eye(len(S), dtype=S.dtype)
    K, UtU = tall_product(U, A), tall_product(U, U)
    K = K - 0.5 * (UtU - identity) @ K
    sums = S[:, None] + S[None, :]
    small = np.sqrt(np.finfo(S.dtype).eps) * S.max()
    inverse = np.divide(1, sums, out=np.zeros_like(sums), where=sums > small)
    turn = identity + Q @ ((Q.T @ (K - K.T) @ Q) * inverse) @ Q.T
    # both steps at once, so that only three products of the size of A are needed
    return np.asarray(U @ (1.5 * turn - 0.5 * turn @ (turn.T @ UtU @ turn)))
