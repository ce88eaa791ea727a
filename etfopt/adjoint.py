r"""Derivatives of the polar factor and of the nearest-ETF map, in closed form.

With :math:`A = PSQ'`, :math:`U = PQ'`, symmetric polar factor :math:`B = U'A = QSQ'`, cotangent G and K = U'G,

.. math:: dL/dA = UQ\Big[\tfrac{(Q'(K-K')Q)_{ij}}{s_i+s_j}\Big]Q' + (G-UK)\,QS^{-1}Q',
          \qquad dL/dH = 2\,(dL/dA)FD, \quad dL/dw_c = 2\,h_c'(dL/dA)f_c, \quad dL/dU_{prox} = \delta\, dL/dA.

Only A, U and G enter, so U may come from any solver. The cost is :math:`O(dr^2 + r^3)`. The formula holds at the
minimiser alone, as the paper's implicit one does: these functions check that U is one, or raise `InputError`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from etfopt._arrays import Array, Float64Array, as_matrix, as_vector
from etfopt._rounding import frame_ignores
from etfopt._scaling import (
    in_range,
    normalized,
    normalized_columns,
    own_errstate,
    rescaled,
    weighted,
    weighted_columns,
)
from etfopt._spectrum import Spectrum, spectrum_at, spectrum_of
from etfopt.errors import InputError
from etfopt.implicit import kkt_memory, kkt_vjp
from etfopt.polar._products import tall_product
from etfopt.problem import NearestETF, require_problem

__all__ = ["Gradient", "kkt_memory", "kkt_vjp", "nearest_etf_jvp", "nearest_etf_vjp", "polar_derivative"]

ADD_PROX = "add a proximal term (prox=..., delta > 0)"


class Gradient(NamedTuple):
    """Cotangents of a nearest-ETF problem.

    Attributes
    ----------
    H, prox : ndarray, shapes (d, C) and (d, r)
        :math:`dL/dH` and :math:`dL/dU_{prox}`, which is None without a proximal point.
    weights : ndarray, shape (C,), float64
        :math:`dL/dw`, at weights of 1 where the problem has none. Of a masked class it is 0, for its column of H is
        stored as zeros.
    """

    H: Array
    prox: Array | None
    weights: Float64Array


@own_errstate
def polar_derivative(A: ArrayLike, U: ArrayLike, X: ArrayLike) -> Float64Array:
    r"""Apply the derivative of the polar factor at A to X. It is self-adjoint: this is both JVP and VJP.

    Parameters
    ----------
    A, U : array_like, shape (d, r), d >= r
        A matrix of full column rank and its polar factor.
    X : array_like, shape (d, r)
        A tangent dA, or a cotangent dL/dU.

    Returns
    -------
    ndarray, shape (d, r), float64
        dU, or dL/dA.

    Raises
    ------
    InputError
        If U is not the polar factor of A, or A is rank deficient, where the factor has no derivative.

    References
    ----------
    Higham (2008), Functions of Matrices, chapter 8, for the polar decomposition. Proof: ``theory/gradient.py``; the
    norm of the map: ``theory/conditioning.py``, 1.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.adjoint import polar_derivative
    >>> A, dA = np.diag([1.0, 3.0]), np.array([[0.0, 1.0], [0.0, 0.0]])
    >>> polar_derivative(A, etfopt.polar_factor(A), dA).round(4) + 0.0  # (dA - dA')/(1 + 3)
    array([[ 0.  ,  0.25],
           [-0.25,  0.  ]])
    """
    A = as_matrix(A, "A")
    U, X = as_matrix(U, "U", shape=A.shape), as_matrix(X, "X", shape=A.shape)
    unit = float(np.finfo(U.dtype).eps)
    A, k = normalized(A)  # the derivative is homogeneous of degree -1
    spectrum = spectrum_of(A, U, A.shape[1] * unit * float(np.linalg.norm(A)), unit)
    if spectrum.null.shape[1]:
        message = f"A has numerical rank {spectrum.rank} < r = {A.shape[1]}, where its polar factor has no derivative"
        raise InputError(message, "A", A, ADD_PROX)
    Y, e = _derivative(U, X, spectrum)
    return rescaled(Y, e - k)


@own_errstate
def nearest_etf_vjp(problem: NearestETF, U: ArrayLike, cotangent: ArrayLike) -> Gradient:
    r"""Pull a cotangent of the minimiser U* back to the class means and the proximal point.

    Parameters
    ----------
    problem : NearestETF
    U : array_like, shape (d, r)
        The minimiser, from any solver.
    cotangent : array_like, shape (d, r)
        G = dL/dU. A loss of the ETF E = UF has G = (dL/dE) F'.

    Returns
    -------
    Gradient
        dL/dH, whose rows sum to zero for the simplex with equal weights, dL/dU_prox, in the problem's dtype, and
        dL/dw. Held vertices are constants.

    Raises
    ------
    InputError
        If U is not the minimiser, or if the loss depends on a part of U that H leaves free. A loss of the ETF alone is
        differentiable whenever the ETF is unique, with or without a proximal term. A loss of the vertices of the
        classes with a positive weight is differentiable where those vertices are unique.

    Notes
    -----
    Proof of the closed form, and why an inexact U is refused: ``theory/gradient.py``. The gradient of a loss of the
    ETF does not grow with :math:`1/\delta`: ``theory/gauge.py``, 6. Weights: ``theory/weights.py``. Held classes:
    ``theory/held.py``.

    References
    ----------
    Gould, Hartley and Campbell (2022), Deep declarative networks, for the implicit view.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.adjoint import nearest_etf_vjp
    >>> problem = etfopt.NearestETF(np.eye(4, 3))
    >>> U = etfopt.solve(problem).U
    >>> nearest_etf_vjp(problem, U, np.eye(4, 3) @ problem.F.T).H.shape
    (4, 3)
    """
    free, (U, G) = _free(problem, *_points(problem, U=U, cotangent=cotangent))
    term, spectrum = free.scaled_linear_term, spectrum_at(free, U)
    _require_gauge_free(free, G, spectrum, _present(free))
    # A = 2^e A_s, and the derivative is homogeneous of degree -1
    dA, e = _derivative(U, G, spectrum)
    e -= term.exponent
    with np.errstate(over="ignore"):
        dAF, f = _on_whole_frame(problem, dA)
        w, (H, h) = problem.weights, normalized_columns(problem.H)
        dw = np.ldexp(2 * np.einsum("dc,dc->c", H, dAF), e + f + h)
        dH = rescaled(dAF, 1 + e + f) if w is None else weighted_columns(dAF, w, 1 + e + f)
        dH = dH.astype(problem.dtype, copy=False)
        if problem.prox is None:
            return Gradient(dH, None, dw)
        if problem.held is not None:
            dA = problem.held.spread(dA)
        return Gradient(dH, rescaled(problem.delta * dA, e).astype(problem.dtype, copy=False), dw)


@own_errstate
def nearest_etf_jvp(
    problem: NearestETF, U: ArrayLike, tangent: ArrayLike, weights_tangent: ArrayLike | None = None
) -> Float64Array:
    """Push a tangent of the class means, and of the weights, forward to the ETF.

    Parameters
    ----------
    problem : NearestETF
    U : array_like, shape (d, r)
        The minimiser, from any solver.
    tangent : array_like, shape (d, C)
        dH.
    weights_tangent : array_like, shape (C,), optional
        dw. Default: 0.

    Returns
    -------
    ndarray, shape (d, C), float64
        d(UF), which is the same for every minimiser U where only the ETF is unique.

    Raises
    ------
    InputError
        If U is not the minimiser, or the ETF is not unique.

    Notes
    -----
    Proof: ``theory/gradient.py``; its norm is found in ``theory/conditioning.py``, 3.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> from etfopt.adjoint import nearest_etf_jvp
    >>> problem = etfopt.NearestETF(np.eye(4, 3))
    >>> U = etfopt.solve(problem).U
    >>> shift = np.ones((4, 3))  # moves all class means alike, and the ETF not at all
    >>> bool(np.abs(nearest_etf_jvp(problem, U, shift)).max() < 1e-14)
    True
    """
    U, dH = _points(problem, U=U, tangent=tangent)
    dw = None if weights_tangent is None else as_vector(weights_tangent, "weights_tangent", problem.C)
    free, (U,) = _free(problem, U)
    spectrum = spectrum_at(free, U)
    _require_gauge_free(free, np.zeros_like(U), spectrum, free.F)
    scaled, k = _tangent_of_weighted(problem, dH, dw)
    if problem.held is None:
        dA = 2 * scaled @ problem.F.T
    else:
        F, f = normalized(problem.held.frame(problem.F))
        dA, k = 2 * (problem.held.B.T @ scaled) @ F.T, k + f
    dU, e = _derivative(np.asarray(U, dtype=np.float64), dA, spectrum)
    dUF, f = _on_whole_frame(problem, dU)
    return rescaled(dUF, f + k + e - free.scaled_linear_term.exponent)


def _tangent_of_weighted(problem: NearestETF, dH: Array, dw: Array | None) -> tuple[Float64Array, int]:
    """Return (X, k) with d(HD) = dH D + H dD = 2**k X, in range."""
    products = [weighted(dH, np.ones(problem.C) if problem.weights is None else problem.weights)]
    if dw is not None:
        products.append(weighted(problem.H, dw))
    scaled = [(X, e + k) for X, e, k in ((*normalized(Y), k) for Y, k in products)]
    k = max((e for X, e in scaled if X.any()), default=0)
    return np.asarray(sum(rescaled(X, e - k) for X, e in scaled)), k


def _free(problem: NearestETF, U: Array, *cotangents: Array) -> tuple[NearestETF, list[Array]]:
    """Return the problem that held classes leave, and the parts in it of a point U and of cotangents there."""
    held = problem.held
    if held is None:
        return problem, [U, *cotangents]
    off = held.moved(U)
    if not off <= 100 * problem.r * problem.unit:
        message = f"U does not hold the classes of hold: it is off by {off:.1e} there"
        raise InputError(message, "U", U, "pass etfopt.solve(problem).U")
    return problem.free, [held.part(X) for X in (U, *cotangents)]


def _on_whole_frame(problem: NearestETF, X: Array) -> tuple[Array, int]:
    """Return (Y, e) with XF = 2**e Y, for a tangent X that leaves held vertices where they are."""
    if problem.held is None:
        return problem.on_frame(X), 0
    # not by X itself: the frame without the held classes keeps their columns at zero, and what it does not see away
    F, f = normalized(problem.held.frame(problem.F))
    return np.asarray(problem.held.B @ (X @ F)), f


def _points(problem: NearestETF, **matrices: ArrayLike) -> list[Array]:
    """Check matrices of the shape of U, or of H for a tangent, by name."""
    require_problem(problem)
    shapes = {"tangent": (problem.d, problem.C)}
    usual = (problem.d, problem.r)
    return [as_matrix(X, name, copy=False, shape=shapes.get(name, usual)) for name, X in matrices.items()]


def _derivative(U: Array, X: Array, spectrum: Spectrum) -> tuple[Float64Array, int]:
    """Apply the derivative, linear in X, to X: the result is the returned (Y, e) as 2**e Y."""
    X64, e, _ = in_range(X)
    X = X64.astype(U.dtype, copy=False)
    Q, inverse, inverse_sum = (x.astype(U.dtype, copy=False) for x in spectrum[:3])
    K = tall_product(U, X)
    rotation = Q @ ((Q.T @ (K - K.T) @ Q) * inverse_sum) @ Q.T
    if spectrum.benign:
        # U rotation + (X - UK) B^-1, with the products of the size of A gathered
        stretch = (Q * inverse) @ Q.T
        result = X @ stretch
        result += U @ (rotation - K @ stretch)
        return np.asarray(result, dtype=np.float64), e
    # rounding on a direction that is divided by a faint proximal weight must stay in that direction, which F kills
    return np.asarray(U @ rotation + ((X - U @ K) @ Q * inverse) @ Q.T, dtype=np.float64), e


def _present(problem: NearestETF) -> Array:
    """Return the columns of the frame that the data place: not those of absent classes."""
    return problem.F if problem.weights is None else problem.F[:, problem.weights > 0]


def _require_gauge_free(problem: NearestETF, G: Array, spectrum: Spectrum, F: Array) -> None:
    """Refuse where the answer, of vertices with the columns F of the frame, would depend on an arbitrary choice."""
    if not spectrum.null.shape[1]:
        return
    if not spectrum.rank or not frame_ignores(problem, spectrum.null, spectrum.smallest, F):
        message = (
            f"H leaves the nearest ETF undetermined: A has numerical rank {spectrum.rank} < r = {problem.r}, so no "
            "gradient exists"
        )
        raise InputError(message, "H", problem.H, ADD_PROX)
    G, _ = normalized(G)
    # what F' leaves of the null space is the error of its basis, and a loss of the ETF, G = XF', feels X times as much
    s = np.linalg.svd(F, compute_uv=False)
    blur = np.linalg.norm(F.T @ spectrum.null, 2) / s[s > len(s) * problem.unit * s[0]].min()
    if np.linalg.norm(G @ spectrum.null) > (np.sqrt(problem.unit) + blur) * np.linalg.norm(G):
        sees = "the frame does not see" if F.shape[1] == problem.C else "no class with a positive weight sees"
        message = f"the cotangent acts on a direction of U that {sees}, where U is not unique"
        remedy = f"use a loss of the ETF alone (cotangent = G_etf @ problem.F.T) or reduced=True, or {ADD_PROX}"
        raise InputError(message, "cotangent", G, remedy)
