r"""Nearest-ETF problems whose values may be looked at, as one function of autograd.

A node of autograd costs more than the products of some hundred numbers. Linear term, polar factor and their derivatives
are therefore one node here, for problems of few columns on the CPU, batches of them included, and for one problem of
many columns. On a GPU, where a decomposition costs hundreds of products, only problems near collapse take this route.
The formulas are those of `etfopt.nn.minimiser._linear_term` and `etfopt.nn.polar._node`, also for derivatives of higher
order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from etfopt._torch import differentiated_again, in_forward_mode, readable, transforms, visible
from etfopt.nn.minimiser._linear_term import linear_term, linear_term_vjp
from etfopt.nn.polar._collapsed import Collapsed, near_collapse
from etfopt.nn.polar._factors import Decomposition
from etfopt.nn.polar._few import FEW, ORDINARY, Few, few_factors
from etfopt.nn.polar._gram import gram
from etfopt.nn.polar._node import polar_derivative
from etfopt.nn.polar._routes import decompose

FAINTEST = 1e-30
"""Smallest proximal weight that is not scaled: it keeps its digits in float32."""


def single_minimiser(
    H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None, weights: Tensor | None = None
) -> Tensor | None:
    """Return the polar factor of `linear_term` at HD, D = I without weights, or None for what must go another way.

    That are values that are hidden, not finite, of unusual size, batches of many columns, forward mode and torch.func.
    """
    if in_forward_mode() or transforms() or not readable(H):
        return None  # a function of autograd that supports these takes twice the time
    if weight > ORDINARY[1] or 0 < weight < FAINTEST:
        return None
    if frame is not None and frame.requires_grad:
        return None
    HD = H if weights is None else H * weights.unsqueeze(-2)
    few = H.shape[-1] < FEW and H.device.type == "cpu"
    if not few and (H.shape[-1] < FEW or HD.dim() > 2 or (prox is not None and prox.dim() > 2)):
        return None  # a few columns on a device gain nothing near collapse, and nothing may be decomposed
    U: Tensor | None = _Node.apply(HD, prox, weight, frame, few)  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return U


def _found(
    H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None, few: bool
) -> tuple[Tensor, Few | Collapsed | Decomposition] | None:
    """Return the linear term and its factors; None if it is not finite or of unusual size, or not near collapse."""
    if few:
        few_found = few_factors(H, prox, weight, frame)
        return None if few_found is None else (torch.from_numpy(few_found[0]), few_found[1])
    A = linear_term(H, prox, weight, frame)
    square = gram(A)
    # the sum of squares is infinite or NaN where a value is, of which eigenvalues may not tell
    size = float(square.trace())
    if not ORDINARY[0] <= size**0.5 <= ORDINARY[1]:
        return None
    near = near_collapse(A, square, size, apart=frame is None)
    # on a device the long way tries products first, and decomposes what they cannot factor
    return (A, near or decompose(A, square)) if near or visible(A) else None


class _Node(torch.autograd.Function):
    """(H, prox, weight, frame, few) -> U of the linear term of H and prox, or None.

    A head overwrites its proximal point before the backward pass: nothing of the values of H and prox is used there.
    """

    @staticmethod
    def forward(
        ctx: Any, H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None, few: bool
    ) -> Tensor | None:
        found = _found(H, prox, weight, frame, few)
        if found is None:
            return None
        A, of_A = found
        tensors = [X for X in of_A if isinstance(X, Tensor)]
        ctx.given, ctx.kind, ctx.others = (H, prox, weight, frame), type(of_A), of_A[len(tensors) :]
        ctx.save_for_backward(A, *tensors)
        return of_A.U

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        A, *tensors = ctx.saved_tensors
        H, prox, weight, frame = ctx.given
        found = ctx.kind(*tensors, *ctx.others)
        to_H, to_prox = ctx.needs_input_grad[:2]
        if differentiated_again():
            dA = _differentiable(_with_graph(A.to(G.dtype), linear_term(H, prox, weight, frame)), found, G)
        elif not to_prox:
            return _pulled_back(found, G, frame).sum_to_size(H.shape), None, None, None, None
        else:
            dA = (found.as_tensors() if isinstance(found, Few) else found).derivative(G)
        dH = linear_term_vjp(dA, frame).sum_to_size(H.shape) if to_H else None
        return dH, (weight * dA).sum_to_size(prox.shape) if to_prox else None, None, None, None


def _pulled_back(found: Few | Collapsed | Decomposition, G: Tensor, frame: Tensor | None) -> Tensor:
    """Return the gradient in H."""
    if isinstance(found, Few):
        try:
            return found.derivative(G, frame)
        except RuntimeError:  # vmap hides the values of G
            found = found.as_tensors()
    return found.derivative(G, partial(linear_term_vjp, frame=frame))


def _with_graph(A: Tensor, same: Tensor) -> Tensor:
    """Return the values of A with the graph of a tensor that had them once."""
    return A + (same - same.detach())


def _differentiable(A: Tensor, found: Few | Collapsed | Decomposition, G: Tensor) -> Tensor:
    """Apply the derivative where somebody may differentiate again."""
    if isinstance(found, Few):
        found = found.as_tensors()
    _, Q, S, *_ = decompose(A.detach()) if isinstance(found, Collapsed) else found
    return polar_derivative(A, found.U, Q, S, G)
