r"""One nearest-ETF problem as one function of autograd: on the CPU, dispatch overhead dominates its cost.

A node of autograd costs more than the products of some hundred numbers. Linear term, polar factor and their derivatives
are therefore one node here, which looks at values as seldom as possible. On a GPU, where a decomposition costs hundreds
of products, only problems near collapse take this route. The formulas are those of `etfopt.nn.polar._linear_term` and
`etfopt.nn.polar._node`, also for derivatives of higher order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from etfopt._torch import in_forward_mode, readable, transforms, visible
from etfopt.nn.polar._collapsed import Collapsed, near_collapse
from etfopt.nn.polar._factors import Decomposition
from etfopt.nn.polar._linear_term import linear_term, linear_term_vjp
from etfopt.nn.polar._node import polar_derivative
from etfopt.nn.polar._routes import NARROW_FROM, decompose, squared

ORDINARY = (1e-6, 1e6)
"""Norms of linear terms that need no scaling: squares and inverses stay in range, and keep their digits."""

FAINTEST = 1e-30
"""Smallest proximal weight that is not scaled: it keeps its digits in float32."""


def single_minimiser(
    H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None, weights: Tensor | None = None
) -> Tensor | None:
    """Return the polar factor of `linear_term` at HD, D = I without weights, or None for what must go another way.

    That are batches, values that are hidden, not finite, of unusual size, forward mode and torch.func.
    """
    given = [X for X in (H, prox, frame) if X is not None]
    if any(X.dim() != 2 or not readable(X) for X in given) or (frame is not None and frame.requires_grad):
        return None
    if weights is not None and (weights.dim() != 1 or not readable(weights)):
        return None
    if H.shape[1] < NARROW_FROM and not visible(H):
        return None  # nothing is gained near collapse, and nothing may be decomposed
    if in_forward_mode() or transforms():
        return None  # a function of autograd that serves these costs twice as much
    if weight > ORDINARY[1] or 0 < weight < FAINTEST:
        return None
    HD = H if weights is None else H * weights
    if not torch.is_grad_enabled():
        found = _found(linear_term(HD, prox, weight, frame), frame)
        return None if found is None else found.U
    U: Tensor | None = _Node.apply(HD, prox, weight, frame)[0]  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return U


def _found(A: Tensor, frame: Tensor | None) -> Collapsed | Decomposition | None:
    """Return None if A is not finite or of unusual size, or on a device and not near collapse."""
    of_A = squared(A)
    # the sum of squares is infinite or NaN where a value is, of which eigenvalues may not tell
    size = float(of_A[1].trace())
    if not ORDINARY[0] <= size**0.5 <= ORDINARY[1]:
        return None
    near = near_collapse(A, of_A[1], size, apart=frame is None) if A.shape[1] >= NARROW_FROM else None
    return near or (decompose(A, of_A) if visible(A) else None)


class _Node(torch.autograd.Function):
    """(H, prox, weight, frame) -> (U, A), for A the linear term of H and prox, or nothing as `_found` of it.

    A is an output so that derivatives of higher order, which are those of `polar_derivative` at A, find the way from
    it to H and prox. Neither is kept: a head overwrites its proximal point before the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, H: Tensor, prox: Tensor | None, weight: float, frame: Tensor | None
    ) -> tuple[Tensor, Tensor] | tuple[None]:
        A = linear_term(H, prox, weight, frame)
        of_A = _found(A, frame)
        if of_A is None:
            return (None,)
        tensors = [X for X in of_A if not isinstance(X, (int, float))]
        ctx.weight, ctx.kind, ctx.numbers = weight, type(of_A), of_A[len(tensors) :]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(A, frame, *tensors)
        return of_A.U, A

    @staticmethod
    def backward(ctx: Any, G: Tensor | None, G_A: Tensor | None) -> tuple[Tensor | None, ...]:
        A, frame, *tensors = ctx.saved_tensors
        to_H, to_prox = ctx.needs_input_grad[:2]
        if G is None:
            if G_A is None:
                return (None,) * 4
            dA = G_A
        else:
            found = ctx.kind(*tensors, *ctx.numbers)
            if G_A is None and not to_prox and not torch.is_grad_enabled():
                return found.derivative(G, partial(linear_term_vjp, frame=frame)), None, None, None
            dA = _differentiable(A, found, G) if torch.is_grad_enabled() else found.derivative(G)
            if G_A is not None:
                dA = dA + G_A
        return linear_term_vjp(dA, frame) if to_H else None, ctx.weight * dA if to_prox else None, None, None


def _differentiable(A: Tensor, found: Collapsed | Decomposition, G: Tensor) -> Tensor:
    """Apply the derivative where somebody may differentiate again."""
    _, Q, S, *_ = found if isinstance(found, Decomposition) else decompose(A.detach())
    return polar_derivative(A, found.U, Q, S, G)
