r"""Simplex frames, polar factors and points of the Stiefel manifold :math:`St(d, r) = \{U : U'U = I_r\}`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from etfopt._arrays import Array, Float64Array, Seed, as_generator, as_integer, as_matrix
from etfopt._scaling import normalized, own_errstate
from etfopt.errors import ConvergenceError, InputError

__all__ = [
    "SVD",
    "TALL",
    "feasibility",
    "polar_factor",
    "random_stiefel",
    "simplex_etf",
    "svd_polar",
    "sym",
    "tall_product",
    "thin_svd",
]

FAR_OFF = 1e-3
"""Distance from orthonormality that no rounding explains."""

TALL = 2048
"""Rows from which `tall_product` adds halves: sums of so many terms round by little beside what is promised."""


def simplex_etf(C: int, *, reduced: bool = False, dtype: DTypeLike = np.float64) -> Array:
    r"""Return the simplex equiangular tight frame of `C` vectors in its own coordinates.

    .. math:: M = (I - 11'/C) / \sqrt{C-1}, \qquad
              F = Z / \sqrt{C-1} \quad (Z \text{ the Helmert matrix, } ZZ' = I,\; Z1 = 0).

    Both have Frobenius norm 1 and columns of norm :math:`1/\sqrt C` with pairwise cosine :math:`-1/(C-1)`.
    :math:`M` is the choice of Markou, Ajanthan and Gould (2024); :math:`F` spans the same frame with orthogonal rows,
    :math:`F'F = M/\sqrt{C-1}`, so that ``d = C - 1`` is enough to embed it.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.
    reduced : bool
        False gives :math:`M`, of shape (C, C); True gives :math:`F`, of shape (C-1, C).
    dtype : dtype
        float64 or float32.

    Returns
    -------
    ndarray, shape (C, C), or (C-1, C) if `reduced`
        The frame, in `dtype`.

    Raises
    ------
    InputError
        If `C` is not an integer of at least 2, or `dtype` is not a float32 or float64.

    References
    ----------
    Markou, Ajanthan and Gould (2024). That both are simplex equiangular tight frames, and that no family of C unit
    vectors is better separated: ``theory/simplex.py``. What a choice between them changes: ``theory/gauge.py``, 3.

    Examples
    --------
    >>> import etfopt
    >>> etfopt.simplex_etf(2, reduced=True).round(4)
    array([[ 0.7071, -0.7071]])
    """
    C = as_integer(C, "C", at_least=2)
    try:
        supported = np.dtype(dtype) in (np.dtype(np.float32), np.dtype(np.float64))
    except TypeError:
        supported = False
    if not supported:
        raise InputError(f"dtype must be float32 or float64; got {dtype!r}")
    if not reduced:
        frame = np.eye(C) - 1.0 / C
    else:
        # row k of the Helmert matrix: k ones, then -k, over sqrt(k (k + 1))
        k = np.arange(1, C)[:, None]
        column = np.arange(C)[None, :]
        frame = np.where(column < k, 1.0, np.where(column == k, -k, 0.0)) / np.sqrt(k * (k + 1.0))
    scaled: Array = (frame / np.sqrt(C - 1.0)).astype(dtype)
    return scaled


class SVD(NamedTuple):
    r"""Thin singular value decomposition :math:`A = P \mathrm{diag}(S) Q'` of a matrix of shape (d, r), d >= r.

    Attributes
    ----------
    P : ndarray, shape (d, r)
        Left singular vectors, one a column.
    S : ndarray, shape (r,)
        Singular values, non-increasing.
    Q : ndarray, shape (r, r)
        Right singular vectors, one a column.
    """

    P: Array
    S: Array
    Q: Array


@own_errstate
def thin_svd(A: Array, failures: list[str] | None = None) -> SVD:
    """Return the thin SVD of a matrix with entries of moderate size.

    By LAPACK's divide and conquer, and by its QR iteration where that fails to converge or returns singular vectors
    that are not orthonormal, which is then noted in `failures`.

    Parameters
    ----------
    A : ndarray, shape (d, r), d >= r
        Finite.
    failures : list of str, optional
        Where a failure of LAPACK that was overcome is noted.

    Returns
    -------
    SVD
        P, S and Q, in the dtype of A.

    Raises
    ------
    ConvergenceError
        If both fail, naming shape, dtype and norm.

    References
    ----------
    Golub and Van Loan (2013), Matrix Computations, section 8.6. The backward error that is taken for granted of it:
    ``theory/certificate.py``, (S).

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import thin_svd
    >>> thin_svd(np.diag([1.0, 4.0])).S
    array([4., 1.])
    """
    # NumPy's own LAPACK first: SciPy brings a second one, whose waiting threads slow NumPy's products down severalfold
    routines: dict[str, Callable[[], tuple[Array, Array, Array]]] = {
        "gesdd": lambda: np.linalg.svd(A, full_matrices=False),
        "gesvd": lambda: _gesvd(A),
    }
    for name, routine in routines.items():
        try:
            P, S, Qt = routine()
            if max(feasibility(P), feasibility(Qt.T)) <= FAR_OFF:
                return SVD(P, S, Qt.T)
            failure = "singular vectors that are not orthonormal"
        except np.linalg.LinAlgError as error:
            failure = str(error)
        if failures is not None:
            failures.append(f"LAPACK's {name}: {failure}")
    raise ConvergenceError(
        f"no SVD of a {A.shape[0]} x {A.shape[1]} {A.dtype} matrix with largest entry {np.abs(A).max():.3g}: "
        "LAPACK's gesdd and gesvd both failed; try float64, or rescale the input"
    )


def _gesvd(A: Array) -> tuple[Array, Array, Array]:
    import scipy.linalg  # here, as it is rarely needed and adds a fifth to the time of importing torch

    return scipy.linalg.svd(A, full_matrices=False, check_finite=False, lapack_driver="gesvd")


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
        raise InputError(f"A has shape {A.shape}; it needs at least as many rows as columns, so pass A.T")
    scaled = normalized(A)[0].astype(A.dtype)
    return svd_polar(scaled)


@own_errstate
def svd_polar(A: Array, failures: list[str] | None = None) -> Array:
    """Return the polar factor PQ' of A = PSQ', of moderate size, by an SVD and one step of refinement.

    Parameters
    ----------
    A : ndarray, shape (d, r), d >= r
        Entries of moderate size: `polar_factor` takes any.
    failures : list of str, optional
        Where a failure of LAPACK that was overcome is noted.

    Returns
    -------
    ndarray, shape (d, r)
        U, in the dtype of A.

    Raises
    ------
    ConvergenceError
        If LAPACK finds no SVD.

    References
    ----------
    Higham (2008), Functions of Matrices, chapter 8. Proof of the closed form: ``theory/closed_form.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import svd_polar
    >>> svd_polar(np.array([[0.0, 2.0], [1.0, 0.0]])).round(4) + 0.0
    array([[0., 1.],
           [1., 0.]])
    """
    P, S, Q = thin_svd(A, failures)
    return refined_polar(A, P @ Q.T, Q, S)


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


@own_errstate
def tall_product(X: Array, Y: Array) -> Array:
    r"""Return the product X'Y, whose rounding hardly grows with the number of rows.

    A sum of d equal terms can round the same way d times. Halves are summed for themselves, and so on down to `TALL`
    rows, so that only :math:`\log_2(d/TALL)` additions are added to those of the first sums.

    Parameters
    ----------
    X, Y : ndarray, shapes (d, r) and (d, s)
        Any matrices.

    Returns
    -------
    ndarray, shape (r, s)
        The product, in their dtype.

    References
    ----------
    Higham (2002), Accuracy and Stability of Numerical Algorithms, section 4.2. What rests on it:
    ``theory/certificate.py``, (f).

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import tall_product
    >>> tall_product(np.ones((10000, 1)), np.ones((10000, 1)))
    array([[10000.]])
    """
    if len(X) <= TALL:
        return np.asarray(X.T @ Y)
    half = len(X) // 2
    return tall_product(X[:half], Y[:half]) + tall_product(X[half:], Y[half:])


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
def feasibility(U: Array) -> float:
    r"""Return the distance from orthonormality :math:`\|U'U - I\|_F`, computed in float64.

    Parameters
    ----------
    U : ndarray, shape (d, r)
        Any matrix.

    Returns
    -------
    float
        0 for a point of the Stiefel manifold; inf where the value is out of range.

    Notes
    -----
    What rounding may add to it: ``theory/certificate.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from etfopt.geometry import feasibility
    >>> feasibility(np.eye(4, 2)), feasibility(2 * np.eye(4, 1))
    (0.0, 3.0)
    """
    U64 = np.asarray(U, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(tall_product(U64, U64) - np.eye(U64.shape[1])))
    return math.inf if math.isnan(distance) else distance


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
