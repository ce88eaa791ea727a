r"""Differentiable nearest ETF and polar factor for tensors (..., d, C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from etfopt._options import as_method
from etfopt._torch import full_precision, require_finite, working_dtype
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn._arguments import (
    masked,
    require_batches,
    require_classes,
    require_frame,
    require_matrix,
    usable_delta,
    usable_hold,
    usable_weights,
)
from etfopt.nn._distance import etf_distance
from etfopt.nn.minimiser import minimiser
from etfopt.nn.minimiser._held import as_held
from etfopt.nn.minimiser._linear_term import on_frame, size_of
from etfopt.nn.polar._node import polar

__all__ = ["etf_distance", "frame_tensor", "nearest_etf", "on_frame", "polar_factor"]


def polar_factor(A: Tensor, method: str = "auto") -> Tensor:
    r"""Return the orthonormal polar factor of each matrix: :math:`U = PQ'` for :math:`A = PSQ'`.

    Parameters
    ----------
    A : Tensor, shape (..., d, r), d >= r
        Real floating point. float16 and bfloat16 are computed in float32 and cast back.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the factor is found, always to the same accuracy. A method hands a matrix that it cannot handle to the next
        more robust one where values may be looked at.

        - "auto": on the CPU "gram", in NumPy for fewer than 64 columns. On a GPU "newton-schulz", then a check of its
          accuracy, which waits once, and "svd" where it fails. "svd" in compiled and traced graphs.
        - "svd" handles every matrix.
        - "gram" is the eigendecomposition of A'A, for condition numbers up to 2r, one faint singular value apart;
          "svd" for other matrices and in traces.
        - "newton-schulz" is a fixed number of matrix products, forward and backward, that never waits for a GPU and
          compiles without graph breaks. For condition numbers up to 3e3 in float32 and 1e5 in float64, r up to 1000.
          On a GPU and in traces nobody looks: the factor of a matrix beyond and its derivatives are NaN, and the other
          matrices of a batch are right.
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
    weights: Tensor | None = None,
    hold: Sequence[int] | Tensor | None = None,
    hold_at: Tensor | None = None,
    method: str = "auto",
) -> Tensor:
    r"""Return the minimiser U of each nearest-ETF problem, differentiable in H, the proximal point and the weights.

    .. math:: \min_{U \in St(d, r)} \; \sum_c w_c \|h_c - U f_c\|^2 + \tfrac{\delta}{2} \|U - U_{prox}\|_F^2

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
    weights : Tensor, shape (..., C), optional
        How much each class counts, at least 0; each item of a batch may have its own. Weights of 0 mask classes, whose
        columns may then hold NaN. Masks and integer counts are weights too. Default: 1 for every class.
    hold : sequence of int, or LongTensor of shape (k,), optional
        Classes whose vertices stay where `hold_at` has them: :math:`U f_c = U_0 f_c`. The others go to the nearest
        place that is left. The means of held classes have no influence. Leave two classes of a simplex free: the last
        vertex follows from the others.
    hold_at : Tensor, shape (..., d, r), optional
        :math:`U_0`, on the manifold, such as the U of an earlier call. It is a constant. Required with `hold`.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor of :math:`A = 2HDF' + \delta U_{prox}`, D = diag(w), is found, see `polar_factor`. The
        direction that the simplex does not see has a singular value of at most delta, too small for "newton-schulz"
        where delta is tiny; without a proximal term "newton-schulz" and "gram" leave that direction out and fill it in
        afterwards. "auto" takes a few products for one problem of 64 columns and more near collapse, and waits for a
        GPU two to six times.

    Returns
    -------
    Tensor, shape (..., d, r)
        U in the dtype of H; the ETF is ``U @ frame``.

    Raises
    ------
    InputError
        If an argument does not fit, d < r, the held vertices leave nothing free, or (on the CPU) a value is not
        finite, a weight negative, all weights of an item 0, or `hold_at` off the manifold. Batches are broadcast.

    Notes
    -----
    Proof of the minimiser: ``theory/closed_form.py``; of its derivative, and why it may be differentiated again:
    ``theory/gradient.py``.

    With non-uniform weights a common shift of the columns of H does change U: centre H first. Where fewer than C-1
    classes have a weight and there is no proximal point, U is not unique, but the vertices of the weighted classes
    are. The derivative in a weight of 0 is the one-sided derivative; a masked column that holds NaN has derivative 0.

    On a GPU and in traces nobody looks at values. An item without any weight then has the polar factor of the
    proximal point, or an arbitrary U with gradient 0 (by products: NaN); a `hold_at` off the manifold gives NaN.
    With `hold`, `frame` is a constant too, and a GPU is waited for once more, for an SVD of a (k, k) matrix.

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
    require_classes(H)
    require_frame(H, frame)
    dtype = working_dtype(H)
    with full_precision(H):
        delta = usable_delta(H, frame, prox, delta)
        classes = usable_hold(H, frame, hold, hold_at)
        work, prox = H.to(dtype), None if prox is None else prox.to(device=H.device, dtype=dtype)
        weights = usable_weights(H, weights)
        require_batches(H=H, prox=prox, weights=weights, hold_at=hold_at)
        if weights is not None:
            work, weights = masked(work, weights)
        held = None if hold_at is None else as_held(classes, hold_at.to(H.device), frame, int(H.shape[-1]), dtype)
        U = minimiser(work, prox, delta, frame, weights, held, method)
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
