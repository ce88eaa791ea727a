r"""The nearest-ETF problem: data, objective, derivatives and the linear term :math:`A`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etfopt._arrays import Array, Float64Array, as_matrix, as_weights, room_hint
from etfopt._held import Held, as_held
from etfopt._linear_term import (
    LinearTerm,
    Term,
    data_in_range,
    frame_term,
    gathered,
    proximal_in_range,
    proximal_term,
    simplex_term,
    without_common_mean,
)
from etfopt._scalars import proximal_weight
from etfopt._scaling import normalized, numerical_rank, own_errstate, rescaled, squared_norm, weighted
from etfopt.errors import InputError
from etfopt.frames import frame_matrix, simplex_etf
from etfopt.polar._gram import GramSpectrum, gram_spectrum
from etfopt.polar._products import tall_product

__all__ = ["NearestETF"]


class NearestETF:
    r"""The problem of finding the rotation of a frame that lies nearest to given class means.

    .. math:: \min_{U \in St(d, r)} \; \sum_c w_c \|h_c - U f_c\|^2 + \tfrac{\delta}{2} \|U - U_{prox}\|_F^2

    On :math:`St(d, r)` the norms of U and of each :math:`U f_c` are constant, so the objective is a constant less
    :math:`\langle A, U\rangle` with the linear term :math:`A = 2HDF' + \delta U_{prox}`, D = diag(w). All weights
    are 1 unless given: then it is :math:`\|H - UF\|_F^2`.

    Parameters
    ----------
    H : array_like, shape (d, C)
        Class means, one column a class, of any finite scale. With equal weights the simplex ignores a common shift of
        the columns, so centring is not needed; with others, pass means that are centred. float32 and float64 are kept;
        integers become float64.
    prox : array_like, shape (d, r), optional
        Proximal point. It need not lie on the manifold.
    delta : float, optional
        Proximal weight, at least 0. Default: 1e-3 with a `prox` (the paper's value, for means of norm 1), 0 without.
    frame : array_like, shape (r, C), or str, optional
        The frame F: a matrix, an `etfopt.frames.Frame`, a name ("simplex", "reduced", "best"), or the import path
        ``package.module:function`` of a function of C (and of d, if it has a parameter ``d``) that returns one.
        Default: "simplex", the paper's choice.
    reduced : bool
        Short for ``frame="reduced"``, r = C - 1. Then d = C - 1 is enough, and U is unique without a proximal term.
    weights : array_like, shape (C,), optional
        A weight w_c of at least 0 for each class, such as its number of samples. A class of weight 0 is masked: its
        column of H is not read, may hold NaN, and is stored as zeros. Default: 1 each, the paper's choice.
    hold : sequence of int, optional
        Classes whose vertices stay where `hold_at` has them, exactly to rounding; the others go to the nearest places
        that are left. Use the reduced frame: with the square one the held vertices leave a direction free that no
        class sees.
    hold_at : array_like, shape (d, r), optional
        A point U_0 of the manifold: the vertex of a held class is U_0 f_c. It is exact in the dtype of H.

    Raises
    ------
    InputError
        If an array has the wrong shape or a value that is not finite, d < r, C < 2, or two arguments contradict; if a
        weight is negative, or all are 0; if held classes are no classes, leave nothing free or have no `hold_at`, or
        that is not on the manifold.

    Notes
    -----
    The arrays are copied and read-only, so a problem never changes. A is formed in float64 whatever the dtype of H,
    and scaled by powers of two: no finite H overflows or underflows.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248. Schonemann (1966) for the linear form, which
    ``theory/closed_form.py`` proves. That searching over U is searching over all simplex ETFs: ``theory/simplex.py``.
    Which part of U the data determine: ``theory/gauge.py``. Weights and held classes: ``theory/weights.py`` and
    ``theory/held.py``.

    Examples
    --------
    >>> import numpy as np
    >>> import etfopt
    >>> problem = etfopt.NearestETF(np.eye(5, 3), prox=np.eye(5, 3), delta=1e-3)
    >>> problem.d, problem.C, problem.r
    (5, 3, 3)
    >>> round(problem.objective(np.eye(5, 3)), 4)
    1.1716
    >>> masked = etfopt.NearestETF(np.eye(5, 3), weights=[2, 1, 0])  # the third class is not there yet
    >>> etfopt.solve(masked).etf.shape
    (5, 3)
    """

    @own_errstate
    def __init__(
        self,
        H: ArrayLike,
        prox: ArrayLike | None = None,
        delta: float | None = None,
        frame: ArrayLike | str | None = None,
        *,
        reduced: bool = False,
        weights: ArrayLike | None = None,
        hold: Sequence[int] | None = None,
        hold_at: ArrayLike | None = None,
    ) -> None:
        self.weights: Float64Array | None = None if weights is None else as_weights(weights, "weights")
        self.H: Array = as_matrix(H, "H", unread=None if self.weights is None else self.weights == 0)
        d, C = self.H.shape
        if self.weights is not None:
            as_weights(self.weights, "weights", C)
        if C < 2:
            message = f"H has shape {self.H.shape}, so C = {C} class; it needs a column for each of C >= 2 classes"
            raise InputError(message, "H", self.H)
        if reduced and frame is not None:
            raise InputError("reduced = True names a frame, and frame is given too", "reduced", True, "leave one out")
        simplex = simplex_etf(C)
        simplex.flags.writeable = False
        frame = "reduced" if reduced else frame
        self.F: Array = simplex if frame is None else frame_matrix(frame, C, d)
        # products with the simplex are centring; one that is passed is recognised, so that it gives the same digits
        self._simplex = self.F is simplex or np.array_equal(self.F, simplex)
        if d < self.r:
            hint = room_hint(d, C, simplex=self._simplex, reduced="'reduced'")
            message = f"H has shape {self.H.shape}: d = {d} features are fewer than the r = {self.r} rows of the frame"
            raise InputError(message, "H", self.H, f"{hint}. Columns of H are classes: if its rows are, pass H.T")
        self.delta: float = proximal_weight(delta, (d, self.r), has_prox=prox is not None)
        self.prox: Array | None = None if prox is None else as_matrix(prox, "prox", shape=(d, self.r))
        self.held: Held | None = as_held(hold, hold_at, d, self.F, self.unit)
        self._before: tuple[Term, ...] = ()  # what was rounded to form the data of a `free` problem

    def fresh(self) -> NearestETF:
        """Return the same problem without its cached linear term and Gram matrix, for timings.

        Returns
        -------
        NearestETF
        """
        return self._with(self.prox, self.delta)

    def _with(self, prox: Array | None, delta: float) -> NearestETF:
        """Return the problem with another proximal term."""
        frame = None if self._simplex else self.F
        hold, at = (None, None) if self.held is None else (self.held.classes, self.held.U0)
        other = NearestETF(self.H, prox, delta, frame, weights=self.weights, hold=hold, hold_at=at)
        other._before = self._before
        return other

    def _reordered(self, order: NDArray[np.intp]) -> NearestETF:
        """Return the problem in which class c has column ``order[c]`` of the frame; nothing may be held."""
        frame = None if self._simplex and np.array_equal(order, np.arange(self.C)) else self.F[:, order]
        return NearestETF(self.H, self.prox, self.delta, frame, weights=self.weights)

    @property
    def without_prox(self) -> NearestETF:
        """The problem without its proximal term."""
        return self._with(None, 0.0)

    @cached_property
    @own_errstate
    def free(self) -> NearestETF:
        r"""The smaller problem of the same kind that held classes leave; the problem itself where none are held.

        With B an orthonormal basis of what the held vertices do not span, and Q that of the directions of the frame
        that they do not span, it has the class means :math:`B'H`, the frame :math:`Q'F`, both zero for held classes,
        and the proximal point :math:`B'U_{prox}Q`. ``problem.held.assembled(U)`` makes a point of the whole problem of
        one of this. Proof: ``theory/held.py``.
        """
        held = self.held
        if held is None:
            return self
        frame = held.frame(self.F)
        own = np.where(np.isin(np.arange(self.C), held.classes), self.dtype.type(0), self.H)
        H, weights, f = data_in_range(own, self.weights)
        prox, delta = (None, 0.0) if self.prox is None else proximal_in_range(self.prox, self.delta)
        part = None if prox is None else held.part(prox)
        free = NearestETF((held.B.T @ H).astype(self.dtype), part, delta, rescaled(frame, f), weights=weights)
        # the products with B and Q round what they take: as much as the whole data, however little of them is left
        rounded = [frame_term(own, frame, self.weights), *self._proximal_term()]
        units = 1 + self.d / self.C  # C u is counted for a norm, and a product over d rows rounds d times
        free._before = tuple(term._replace(matrix=np.zeros((1, 1)), norm=units * term.norm) for term in rounded)
        return free

    @property
    def d(self) -> int:
        """Feature dimension."""
        return int(self.H.shape[0])

    @property
    def C(self) -> int:
        """Number of classes."""
        return int(self.H.shape[1])

    @property
    def r(self) -> int:
        """Rows of the frame: columns of U."""
        return int(self.F.shape[0])

    @cached_property
    @own_errstate
    def frame_rank(self) -> int:
        """Numerical rank of the frame."""
        return self.C - 1 if self._simplex else numerical_rank(self.F)

    @cached_property
    @own_errstate
    def _frame_norm(self) -> float:
        """Spectral norm of the frame, of the simplex (up to rounding) the 1/sqrt(C-1) of ``theory/simplex.py``."""
        return 1 / math.sqrt(self.C - 1) if self._simplex else float(np.linalg.norm(self.F, 2))

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Working dtype, that of H. U is returned in it, and accuracy is promised in its rounding unit."""
        return self.H.dtype

    @property
    def unit(self) -> float:
        """Rounding unit u = eps of the working dtype."""
        return float(np.finfo(self.dtype).eps)

    @cached_property
    @own_errstate
    def scaled_linear_term(self) -> LinearTerm:
        r"""The linear term with its power of two taken out: :math:`A = 2^e A_s`."""
        w = self.weights
        data = simplex_term(self.H, w) if self._simplex else frame_term(self.H, self.F, w)
        return gathered([data, *self._proximal_term(), *self._before], self.C * self.unit)

    def _proximal_term(self) -> list[Term]:
        """Return delta U_prox, or nothing without one."""
        return [proximal_term(self.prox, self.delta)] if self.delta > 0 and self.prox is not None else []

    @own_errstate
    def on_frame(self, X: Array) -> Array:
        """Return the product X F, without a matrix product for the simplex: X M is X minus its mean column, scaled.

        Parameters
        ----------
        X : ndarray, shape (d, r)

        Returns
        -------
        ndarray, shape (d, C), of the dtype of X
        """
        if self._simplex:
            centred = without_common_mean(X)
            centred *= 1 / math.sqrt(self.C - 1)
            return centred
        return np.asarray(X @ self.F.astype(X.dtype))

    @cached_property
    @own_errstate
    def gram(self) -> Float64Array:
        """Gram matrix A_s'A_s of the scaled linear term, shape (r, r), float64."""
        A = self.scaled_linear_term.A
        return np.asarray(tall_product(A, A), dtype=np.float64)

    @cached_property
    @own_errstate
    def gram_spectrum(self) -> GramSpectrum:
        """Eigendecomposition of the Gram matrix; `etfopt.polar._gram.Unsuitable` if LAPACK fails."""
        return gram_spectrum(self.gram)

    @property
    @own_errstate
    def linear_term(self) -> Float64Array:
        r""":math:`A = 2HDF' + \delta U_{prox}`, shape (d, r), float64, infinite only where A is out of range."""
        term = self.scaled_linear_term
        return rescaled(term.A, term.exponent)

    def _point(self, value: ArrayLike, name: str) -> Float64Array:
        return np.asarray(as_matrix(value, name, copy=False, shape=(self.d, self.r)), dtype=np.float64)

    @own_errstate
    def objective(self, U: ArrayLike) -> float:
        """Return the objective at a point, on the manifold or off it, in float64; inf where it is out of range.

        Parameters
        ----------
        U : array_like, shape (d, r)

        Returns
        -------
        float
        """
        U = self._point(U, "U")
        with np.errstate(over="ignore"):
            residual, e = self._weighted(self.H - U @ self.F, root=True)
            value = float(rescaled(squared_norm(residual), 2 * e))
            if self.delta > 0 and self.prox is not None:
                value += self.delta / 2 * squared_norm(U - self.prox)
        return value

    @own_errstate
    def gradient(self, U: ArrayLike) -> Float64Array:
        r"""Return the Euclidean gradient :math:`2(UF - H)DF' + \delta(U - U_{prox})`, with the quadratic terms.

        Parameters
        ----------
        U : array_like, shape (d, r)

        Returns
        -------
        ndarray, shape (d, r), float64
        """
        U = self._point(U, "U")
        residual, k = self._weighted(U @ self.F - self.H)
        residual, e = normalized(residual)
        gradient, e = 2 * residual @ self.F.T, e + k
        if self.delta > 0 and self.prox is not None:
            (pull, p), (mantissa, q) = normalized(U - self.prox), math.frexp(self.delta)
            top = max(e, p + q)
            gradient, e = rescaled(gradient, e - top) + rescaled(mantissa * pull, p + q - top), top
        return rescaled(gradient, e)

    @own_errstate
    def hessian_vector_product(self, V: ArrayLike) -> Float64Array:
        r"""Return the Euclidean Hessian, :math:`V \mapsto 2VFDF' + \delta V`, applied to a direction.

        Parameters
        ----------
        V : array_like, shape (d, r)

        Returns
        -------
        ndarray, shape (d, r), float64
        """
        V = self._point(V, "V")
        product, e = self._weighted(V @ self.F)
        return rescaled(2 * product @ self.F.T, e) + self.delta * V

    def _weighted(self, X: Float64Array, *, root: bool = False) -> tuple[Float64Array, int]:
        """Return (Y, e) with XD = 2**e Y, or X times the root of D."""
        if self.weights is None:
            return X, 0
        return weighted(X, np.sqrt(self.weights) if root else self.weights)

    def __repr__(self) -> str:
        held = "" if self.held is None else f", held={len(self.held.classes)}"
        weighted = "" if self.weights is None else ", weighted"
        return (
            f"NearestETF(d={self.d}, C={self.C}, r={self.r}, delta={self.delta:g}, dtype={self.dtype}{weighted}{held})"
        )


def require_problem(problem: object) -> None:
    """Raise `InputError` unless the argument called `problem` is one."""
    if not isinstance(problem, NearestETF):
        message = f"problem must be a NearestETF; got {type(problem).__name__}"
        remedy = "for class means H use etfopt.nearest_etf(H), or pass etfopt.NearestETF(H)"
        raise InputError(message, "problem", problem, remedy)
