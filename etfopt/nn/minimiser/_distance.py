r"""The squared distance of class means to their nearest ETF as a function of autograd, without the derivative of U.

At its minimiser a function does not change with the point, to first order: the derivative of
:math:`D(H, w) = \min_{s, U} \sum_c w_c\|h_c - sUf_c\|^2` is that at constant s and U (envelope theorem). The second
derivative is not: the *gradient* is a function of U, and whoever differentiates it goes through the node of U.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt._torch import differentiated_again, full_precision, in_forward_mode, outside_graphs, transforms
from etfopt.nn.minimiser._linear_term import lasting_product
from etfopt.nn.minimiser._minimiser import minimiser


def distance(H: Tensor, w: Tensor | None, F: Tensor, size: str, method: str) -> Tensor:
    """Return the distance of each H, (..., d, C), with weights (..., C), to UF if the size is "fixed", else to sUF.

    The size "simplex" says that F has norm 1 and columns of one length.
    """
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
    return distance(H, w, F, size, method)


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
        s = s if size == "simplex" else s / divisor(F.square().sum())
    else:
        slopes, weight = (w * (H * E).sum(dim=-2)).sum(dim=-1), (w * F.square().sum(dim=-2)).sum(dim=-1)
        s = (slopes / divisor(weight))[..., None, None]
    return torch.addcmul(H, s, E, value=-1), s


def divisor(X: Tensor) -> Tensor:
    """Return X with 1 for 0."""
    return torch.where(X > 0, X, torch.ones_like(X))


def _squared(R: Tensor, w: Tensor | None) -> Tensor:
    return R.square().sum(dim=(-2, -1)) if w is None else (w * R.square().sum(dim=-2)).sum(dim=-1)


def _weighted(X: Tensor, w: Tensor | None) -> Tensor:
    return X if w is None else X * w.unsqueeze(-2)


def _summed(X: Tensor) -> Tensor:
    """Return the sum of the matrices of a batch."""
    return X.sum(dim=tuple(range(X.dim() - 2))) if X.dim() > 2 else X
