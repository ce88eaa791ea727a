r"""The squared distance of class means to their nearest ETF, whose gradient needs no derivative of U.

At its minimiser a function does not change with the point, to first order: the derivative of
:math:`D(H, w) = \min_{s, U} \sum_c w_c\|h_c - sUf_c\|^2` is that at constant s and U (envelope theorem). The second
derivative is not: the *gradient* is a function of U, and whoever differentiates it goes through the node of U.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from etfopt._options import as_method
from etfopt._torch import (
    differentiated_again,
    full_precision,
    in_forward_mode,
    outside_graphs,
    require_floats,
    transforms,
    working_dtype,
)
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn._arguments import masked, require_batches, require_classes, require_frame, usable_weights
from etfopt.nn.polar._linear_term import lasting_product
from etfopt.nn.polar._minimiser import minimiser


def etf_distance(
    H: Tensor | Sequence[Tensor],
    frame: Tensor | None = None,
    weights: Tensor | Sequence[Tensor] | None = None,
    free_scale: bool = True,
    *,
    method: str = "auto",
) -> Tensor:
    r"""Return the squared distance of class means to their nearest ETF: a loss, differentiable to every order.

    .. math:: D(H) = \min_{s, U} \sum_c w_c \|h_c - s\,U f_c\|^2
       = \|H\|_D^2 - \|HDF'\|_*^2 / \|F\|_D^2, \qquad \|X\|_D^2 = \sum_c w_c \|x_c\|^2, \quad D = diag(w)

    Its gradients are :math:`2(H - s^*U^*F)D` in H and :math:`\|h_c - s^*U^*f_c\|^2` in :math:`w_c`. One polar factor
    gives value and gradient. Both are right and finite at collapse, where they are 0.

    Parameters
    ----------
    H : Tensor, shape (..., d, C), or sequence of Tensor, shapes (d, C_i)
        Class means, one column a class. Centre them first: the mean of the columns counts as distance. Sets of
        different sizes come as a list, with at least two classes each. All sets of one size are computed together.
    frame : Tensor, shape (r, C), optional
        Default: the reduced simplex, for which d >= C-1 is enough. A list of sets then gets one for each size.
    weights : Tensor, shape (..., C), or sequence of Tensor, shapes (C_i,), optional
        How much each class counts, at least 0. Weights of 0 mask classes, whose columns may then hold NaN; the others
        are compared with a part of the simplex of all C classes. An item without any weight has distance 0.
        Default: 1 for every class.
    free_scale : bool
        True compares with an ETF of any size. The distance then falls as H shrinks; divide it by :math:`\|H\|^2`, as
        `etfopt.nn.ETFDistance` can, where that would be the easiest way to reduce a loss. False compares with UF.
    method : "auto", "svd", "gram" or "newton-schulz"
        How the polar factor is found, see `etfopt.nn.functional.polar_factor`.

    Returns
    -------
    Tensor, shape (...), or (m,) for a sequence of m sets
        In the dtype of H; float32 for float16 and bfloat16.

    Raises
    ------
    InputError
        If an argument does not fit, d < r, a set has fewer than two classes, or (on the CPU) a value is not finite or
        a weight negative.

    Notes
    -----
    The value is the residual of the nearest ETF, not the difference in the formula: near collapse it keeps its digits.
    Second derivatives contain that of U, and are as accurate as it. A compiled graph is differentiable once; a second
    derivative of it is an error of PyTorch.

    Where the nearest ETF is not unique, the gradient is that of one of them. The derivative in a weight of 0 is that
    to the right; a masked column that holds NaN has derivative 0.

    References
    ----------
    Danskin (1967), The Theory of Max-Min. Proof: ``theory/envelope.py``; the value: ``theory/free_scale.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.functional import etf_distance
    >>> H = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)  # three classes on a line
    >>> D = etf_distance(H)
    >>> D.backward()
    >>> D.item(), H.grad.shape
    (1.0, torch.Size([2, 3]))
    >>> etf_distance([torch.eye(3), torch.eye(3, 2)]).shape
    torch.Size([2])
    """
    as_method(method)
    if isinstance(H, (list, tuple)):
        return _of_sets(H, frame, weights, free_scale, method)
    if not (weights is None or isinstance(weights, Tensor)):
        raise InputError(f"weights must be a torch tensor, as H is; got {type(weights).__name__}")
    return _of_batch(cast(Tensor, H), frame, weights, free_scale, method)


def _of_batch(H: Tensor, frame: Tensor | None, weights: Tensor | None, free_scale: bool, method: str) -> Tensor:
    require_classes(H)
    F = _reduced_simplex(H) if frame is None else frame
    require_frame(H, F)
    w = usable_weights(H, weights, may_vanish=True)
    with full_precision(H):
        work = H.to(working_dtype(H))
        if w is not None:
            require_batches(H=H, weights=w)
            work, w = masked(work, w)
            if work.shape[:-2] != w.shape[:-1]:
                batch = torch.broadcast_shapes(work.shape[:-2], w.shape[:-1])  # type: ignore[no-untyped-call] # torch's
                work, w = work.expand(*batch, -1, -1), w.expand(*batch, -1)
        size = "fixed" if not free_scale else "simplex" if frame is None else "free"
        D = _distance(work, w, F.to(work), size, method)
    return D.to(torch.promote_types(H.dtype, torch.float32))


def _reduced_simplex(H: Tensor) -> Tensor:
    C, dtype = int(H.shape[-1]), working_dtype(H)
    find = _simplex if torch.compiler.is_compiling() else _cached_simplex
    return find(C, dtype).to(H.device)


def _simplex(C: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(simplex_etf(C, reduced=True)).to(dtype)


_cached_simplex = lru_cache(maxsize=8)(_simplex)


def _of_sets(
    sets: Sequence[Tensor],
    frame: Tensor | None,
    weights: Tensor | Sequence[Tensor] | None,
    free_scale: bool,
    method: str,
) -> Tensor:
    """Return the distance of each set of classes, those of one shape together."""
    if not sets:
        raise InputError("H is an empty sequence; pass one set of class means at the least")
    if weights is not None and (not isinstance(weights, (list, tuple)) or len(weights) != len(sets)):
        raise InputError(f"weights must be a sequence of {len(sets)} tensors, one for each set, as H is")
    groups: dict[torch.Size, list[int]] = {}
    for i, X in enumerate(sets):
        require_classes(require_floats(X, f"H[{i}]", ("d", "C")), f"H[{i}]")
        if weights is not None and weights[i].shape != X.shape[1:]:
            raise InputError(f"weights[{i}] has shape {tuple(weights[i].shape)}; it must be ({X.shape[1]},)")
        groups.setdefault(X.shape, []).append(i)
    found = []
    for members in groups.values():
        w = None if weights is None else torch.stack([weights[i] for i in members])
        try:
            found.append(etf_distance(torch.stack([sets[i] for i in members]), frame, w, free_scale, method=method))
        except InputError as error:
            raise InputError(f"of the sets {members}, stacked: {error}") from error
    order = sorted(range(len(sets)), key=[i for members in groups.values() for i in members].__getitem__)
    return torch.cat(found)[torch.tensor(order, device=found[0].device)]


def _distance(H: Tensor, w: Tensor | None, F: Tensor, size: str, method: str) -> Tensor:
    transformed = bool(transforms()) or in_forward_mode()
    if not torch.compiler.is_compiling():
        if not transformed:
            D: Tensor = _Distance.apply(H, w, F, size, method)  # type: ignore[no-untyped-call] # torch leaves apply untyped
            return D
        U = minimiser(H, None, 0.0, F, w, None, method)
        found: tuple[Tensor, ...] = _AtMinimiser.apply(H, w, F, U, size)  # type: ignore[no-untyped-call]
        return found[0]
    if transformed:
        return _uncompiled(H, w, F, size, method)
    # a graph is differentiable once: constants are enough
    with torch.no_grad():
        U = minimiser(H, None, 0.0, F, w, None, method)
        _, s = _residual(H, w, F, U, size)
    return _squared(H - s * (U @ F), w)


@outside_graphs
def _uncompiled(H: Tensor, w: Tensor | None, F: Tensor, size: str, method: str) -> Tensor:
    """Leave the graph, which is an error where the whole is to be one graph."""
    return _distance(H, w, F, size, method)


class _Distance(torch.autograd.Function):
    """(H, w, F, size, method) -> the distance. Few differentiate twice: the graph of U is built when somebody does."""

    @staticmethod
    def forward(ctx: Any, H: Tensor, w: Tensor | None, F: Tensor, size: str, method: str) -> Tensor:
        U = minimiser(H, None, 0.0, F, w, None, method)
        R, s = _residual(H, w, F, U, size)
        of_F = (U, s) if ctx.needs_input_grad[2] else ()
        ctx.save_for_backward(H, w, F, R, *of_F)
        ctx.size, ctx.method = size, method
        return _squared(R, w)

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        H, w, F, R, *of_F = ctx.saved_tensors
        U, s = of_F or (None, None)
        if differentiated_again():
            with full_precision(H):
                U = minimiser(H, None, 0.0, F, w, None, ctx.method)
                R, s = _residual(H, w, F, U, ctx.size)
        return *_gradients(G, w, R, U, s, ctx.needs_input_grad[:3]), None, None


class _AtMinimiser(torch.autograd.Function):
    """(H, w, F, U, size) -> the distance, residual and scale at the minimiser U, for torch.func and forward mode.

    U comes with its graph and gets no gradient. The gradient of the others is a function of U.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(H: Tensor, w: Tensor | None, F: Tensor, U: Tensor, size: str) -> tuple[Tensor, Tensor, Tensor]:
        R, s = _residual(H, w, F, U, size)
        return _squared(R, w), R, s

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:4], *output[1:])
        ctx.save_for_forward(*inputs[:4])
        ctx.size = inputs[4]

    @staticmethod
    def backward(ctx: Any, G: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if G is None:
            return (None,) * 5
        H, w, F, U, R, s = ctx.saved_tensors
        if differentiated_again():
            with full_precision(H):
                R, s = _residual(H, w, F, U, ctx.size)
        return *_gradients(G, w, R, U, s, ctx.needs_input_grad[:3]), None, None

    @staticmethod
    def jvp(ctx: Any, dH: Tensor | None, dw: Tensor | None, dF: Tensor | None, *_: Any) -> tuple[Tensor, None, None]:
        H, w, F, U = ctx.saved_tensors
        with full_precision(H):
            R, s = _residual(H, w, F, U, ctx.size)
            X = 2 * _weighted(R, w)
            tangent = torch.zeros_like(R[..., 0, 0])
            if dH is not None:
                tangent = tangent + (X * dH).sum(dim=(-2, -1))
            if dw is not None:
                tangent = tangent + (R.square().sum(dim=-2) * dw).sum(dim=-1)
            if dF is not None:
                tangent = tangent - (lasting_product(s * U, dF) * X).sum(dim=(-2, -1))
        return tangent, None, None


def _gradients(
    G: Tensor, w: Tensor | None, R: Tensor, U: Tensor | None, s: Tensor | None, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients in H, w and F, as far as they are wanted; U and s are for the last."""
    of_H, of_w, of_F = wanted
    double = 2 * G
    X = _weighted(R * (double if G.dim() == 0 else double.unsqueeze(-1).unsqueeze(-1)), w)
    dw = R.square().sum(dim=-2) * G.unsqueeze(-1) if of_w else None
    dF = None
    if of_F and U is not None and s is not None:
        with full_precision(X):
            dF = -_summed(lasting_product((s * U).mT, X))
    return X if of_H else None, dw, dF


def _residual(H: Tensor, w: Tensor | None, F: Tensor, U: Tensor, size: str) -> tuple[Tensor, Tensor]:
    """Return H - sUF and the best s, (..., 1, 1); s = 1 if the size is "fixed"; F has norm 1 if it is "simplex"."""
    E = lasting_product(U, F)
    if size == "fixed":
        s = torch.ones_like(H[..., :1, :1])
    elif w is None:
        s = (H * E).sum(dim=(-2, -1), keepdim=True)
        s = s if size == "simplex" else s / _divisor(F.square().sum())
    else:
        slopes, weight = (w * (H * E).sum(dim=-2)).sum(dim=-1), (w * F.square().sum(dim=-2)).sum(dim=-1)
        s = (slopes / _divisor(weight))[..., None, None]
    return torch.addcmul(H, s, E, value=-1), s


def _divisor(X: Tensor) -> Tensor:
    """Return X with 1 for 0."""
    return torch.where(X > 0, X, torch.ones_like(X))


def _squared(R: Tensor, w: Tensor | None) -> Tensor:
    return R.square().sum(dim=(-2, -1)) if w is None else (w * R.square().sum(dim=-2)).sum(dim=-1)


def _weighted(X: Tensor, w: Tensor | None) -> Tensor:
    return X if w is None else X * w.unsqueeze(-2)


def _summed(X: Tensor) -> Tensor:
    """Return the sum of the matrices of a batch."""
    return X.sum(dim=tuple(range(X.dim() - 2))) if X.dim() > 2 else X
