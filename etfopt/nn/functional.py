r"""Differentiable nearest ETF and polar factor for tensors (..., d, C)."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt._options import as_method
from etfopt._torch import full_precision, require_finite, working_dtype
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn._arguments import require_frame, require_matrix, usable_delta
from etfopt.nn.polar._gauge import without_gauge
from etfopt.nn.polar._linear_term import frame_factor, on_frame, scaled_linear_term, size_of
from etfopt.nn.polar._node import polar
from etfopt.nn.polar._single import single_minimiser

__all__ = ["frame_tensor", "nearest_etf", "on_frame", "polar_factor"]


def polar_factor(A: Tensor, method: str = "auto") -> Tensor:
    r"""Return the orthonormal polar factor of each matrix: :math:`U = PQ'` for :math:`A = PSQ'`.

    Parameters
    ----------
    A : Tensor, shape (..., d, r), d >= r
        Real floating point. float16 and bfloat16 are computed in float32 and cast back.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the factor is found, always to the same accuracy. On the CPU, a method hands a matrix that it cannot handle
        to the next more robust one. On a GPU and in traces that would mean to wait: there the factor of such a matrix
        and its derivatives are NaN, and the other matrices of a batch are right.

        - "auto": "gram" on the CPU, "svd" in compiled and traced graphs. On a GPU "newton-schulz", then a check of its
          accuracy, which waits once, and "svd" where it fails.
        - "svd" handles every matrix.
        - "gram" is the eigendecomposition of A'A, for condition numbers up to 8e3.
        - "newton-schulz" is a fixed number of matrix products, forward and backward, that never waits for a GPU and
          compiles without graph breaks. For condition numbers up to 3e3 in float32 and 1e5 in float64, r up to 1000.
          (`etfopt.solvers.Procrustes` has another algorithm of this name, for matrices near collapse.)

        Products of float32 keep the digits of float32 whatever ``torch.set_float32_matmul_precision`` allows. Compiled
        and traced graphs compute them in float64 instead; set ``torch.backends`` before you make such a graph.

    Returns
    -------
    Tensor, shape (..., d, r)
        In the dtype of A, differentiable to every order.

    Raises
    ------
    InputError
        If A is not a real floating-point tensor with d >= r, (on the CPU) not finite, or the method is unknown.

    Notes
    -----
    Where A is rank deficient the factor has no derivative. The gradient then leaves out what would divide by a singular
    value below ``r u sigma_max`` (the pseudo-inverse), and stays finite.

    References
    ----------
    Higham (2008), Functions of Matrices, chapter 8. Gould, Hartley and Campbell (2022) for the declarative view. Proof
    of the derivative: ``theory/gradient.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import polar_factor
    >>> A = torch.eye(3, 2, requires_grad=True)  # equal singular values: autograd through an SVD gives NaN here
    >>> polar_factor(A)[0, 1].backward()
    >>> A.grad
    tensor([[ 0.0000,  0.5000],
            [-0.5000,  0.0000],
            [ 0.0000,  0.0000]])
    """
    as_method(method)
    require_matrix(A, "A")
    require_finite(A, "A")
    if A.shape[-2] < A.shape[-1]:
        raise InputError(f"A has shape {tuple(A.shape)}; it needs at least as many rows as columns (..., d >= r)")
    with full_precision(A):
        work = A.to(working_dtype(A))
        U = polar(work / size_of(work), method)
    return U.to(A.dtype)


def nearest_etf(
    H: Tensor,
    prox: Tensor | None = None,
    delta: float | None = None,
    frame: Tensor | None = None,
    *,
    method: str = "auto",
) -> Tensor:
    r"""Return the minimiser U of each nearest-ETF problem, differentiable in H and in the proximal point.

    .. math:: \min_{U \in St(d, r)} \; \|H - U F\|_F^2 + \tfrac{\delta}{2} \|U - U_{prox}\|_F^2

    Parameters
    ----------
    H : Tensor, shape (..., d, C)
        Class means, one column a class.
    prox : Tensor, shape (..., d, r), optional
        Proximal point, one for each H, for all, or several for one H. Detach it to hold it constant, as the paper does.
    delta : float, optional
        Proximal weight, at least 0. Default: 1e-3 with a `prox` (the paper's value, for means of norm 1), 0 without.
    frame : Tensor, shape (r, C), optional
        None is the simplex of `etfopt.simplex_etf`, r = C. The reduced one, r = C-1, needs no proximal term for
        uniqueness and works with d = C-1.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor of :math:`A = 2HF' + \delta U_{prox}` is found, see `polar_factor`. The direction that the
        simplex does not see has a singular value of at most delta, too small for "newton-schulz" and "gram" where
        delta is tiny; without a proximal term they leave that direction out and fill it in afterwards. "auto" takes a
        few products for one problem of 64 columns and more near collapse, and waits for a GPU two to six times.

    Returns
    -------
    Tensor, shape (..., d, r)
        U in the dtype of H; the ETF is ``U @ frame``.

    Raises
    ------
    InputError
        If an argument does not fit, d < r, or (on the CPU) a value is not finite. Batches are broadcast.

    Notes
    -----
    Proof of the minimiser: ``theory/closed_form.py``; of its derivative, and why it may be differentiated again:
    ``theory/gradient.py``.

    References
    ----------
    Markou, Ajanthan and Gould (2024), arXiv 2411.01248.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import frame_tensor, nearest_etf
    >>> H = torch.eye(4, 3, requires_grad=True)
    >>> U = nearest_etf(H)
    >>> (U @ frame_tensor(3, H)).square().sum().backward()
    >>> H.grad.shape
    torch.Size([4, 3])
    """
    as_method(method)
    require_matrix(H, "H")
    if H.shape[-1] < 2:
        raise InputError(f"H has shape {tuple(H.shape)}; it needs a column for each of C >= 2 classes")
    require_frame(H, frame)
    with full_precision(H):
        work = H.to(working_dtype(H))
        delta = usable_delta(H, frame, prox, delta)
        prox = None if prox is None else prox.to(work)
        weight = delta / frame_factor(H.shape[-1], frame)
        U = single_minimiser(work, prox, weight, frame) if method == "auto" else None
        if U is None:
            require_finite(H, "H")
            for X, name in ((prox, "prox"), (frame, "frame")):
                if X is not None:
                    require_finite(X, name)
            A = scaled_linear_term(work, prox, delta, frame)
            # what cancels is small, and squares of it must stay in range
            A = A / size_of(A)
            bare = method in ("gram", "newton-schulz") and frame is None and not delta
            U = without_gauge(A, method) if bare else polar(A, method)
    return U.to(H.dtype)


def frame_tensor(C: int, like: Tensor, *, reduced: bool = False) -> Tensor:
    """Return `etfopt.simplex_etf(C)` as a tensor with the dtype and device of `like`.

    Parameters
    ----------
    C : int
        Number of classes, at least 2.
    like : Tensor, any shape
    reduced : bool
        Whether the frame with r = C-1 rows is wanted.

    Returns
    -------
    Tensor, shape (C, C), or (C-1, C) if `reduced`

    Raises
    ------
    InputError
        If `C` is not an integer of at least 2.

    Notes
    -----
    Both frames: ``theory/simplex.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import frame_tensor
    >>> frame_tensor(2, torch.zeros(()), reduced=True)
    tensor([[ 0.7071, -0.7071]])
    """
    return torch.from_numpy(simplex_etf(C, reduced=reduced)).to(like)
