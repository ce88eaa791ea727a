r"""The polar factor as a node of autograd, with its closed-form derivative.

The forward pass takes one of the routes of `etfopt.nn.polar._routes`. The backward pass reuses what it found of B,

.. math:: dL/dA = U\,\Omega + (G - UK)B^{-1}, \qquad B\Omega + \Omega B = K - K', \quad K = U'G, \; A = UB,

and is itself a differentiable function, so that derivatives of every order exist wherever the first does. Repeated
singular values, which neural collapse produces and where autograd through an SVD gives NaN, are harmless here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etfopt._torch import full_precision, in_forward_mode, outside_graphs, transforms, visible, widened
from etfopt.nn.polar._linear_term import RowMap, unchanged
from etfopt.nn.polar._products import factor_by_products, poisoned
from etfopt.nn.polar._routes import GATHER_FROM, Found, condition, find_factors, pseudo_inverse
from etfopt.nn.polar._sylvester import solve_skew

__all__ = ["polar"]


def polar(A: Tensor, method: str = "auto") -> Tensor:
    """Return the polar factor of each matrix, as a node of autograd.

    `etfopt.nn.functional.polar_factor` checks and scales before it calls this.

    Parameters
    ----------
    A : Tensor, shape (..., d, r), d >= r
        float32 or float64, entries of moderate size.
    method : "auto", "svd", "gram" or "newton-schulz"
        As in `etfopt.nn.functional.polar_factor`.

    Returns
    -------
    Tensor, shape (..., d, r)
        In the dtype of A, differentiable to every order.

    References
    ----------
    Higham (2008), Functions of Matrices, chapter 8. Proof of the derivative: ``theory/gradient.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn.polar.node import polar
    >>> polar(torch.tensor([[0.0, 2.0], [1.0, 0.0]])).round(decimals=4) + 0.0
    tensor([[0., 1.],
            [1., 0.]])
    """
    if not torch.compiler.is_compiling():
        return _first(_apply(_Polar, A, method))
    levels = transforms()
    forward = in_forward_mode()
    if not forward and levels in ((), ("Grad",)):
        return _first(_apply(_CompiledPolar, A, method))
    # of other transforms the compiler makes zeros or NaN, without a word, if it meets a rule of ours; and of dual
    # numbers that enter the graph from outside, in any case
    if method == "newton-schulz" and (not forward or "Jvp" in levels):
        U, _, _, good = factor_by_products(A)
        return poisoned(U, good)
    uncompiled: Tensor = _uncompiled(A, method)
    return uncompiled


@outside_graphs
def _uncompiled(A: Tensor, method: str) -> Tensor:
    """Leave the graph, which is an error where the whole is to be one graph."""
    return polar(A, method)


def _apply(function: type[torch.autograd.Function], *arguments: Tensor | str) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call] # torch leaves Function.apply untyped


def _first(outputs: tuple[Tensor, ...]) -> Tensor:
    return outputs[0]


class _Polar(torch.autograd.Function):
    """(A, method) -> (U, X, Y), as `find_factors`. X and Y are for the derivative; they carry none themselves."""

    @staticmethod
    def forward(A: Tensor, method: str) -> Found:
        return find_factors(A, method, look=visible(A))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Found) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        A, U, *of_B = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody may differentiate again
            return polar_derivative(A, U, of_B, G), None
        return first_derivative(U, of_B, G), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, _: None) -> tuple[Tensor, None, None]:
        # the derivative of the polar factor is self-adjoint
        A, U, *of_B = ctx.saved_tensors
        return polar_derivative(A, U, of_B, dA), None, None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int, None], A: Tensor, method: str) -> tuple[Any, tuple[int, int, int]]:
        return _apply(_Polar, A.movedim(in_dims[0], 0), method), (0, 0, 0)


class _CompiledPolar(torch.autograd.Function):
    """The same for graphs that are compiled, which take no rule for forward mode; differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, method: str) -> Found:
        return find_factors(A, method, look=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Found) -> None:  # noqa: ARG004 - torch's signature
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        U, *of_B = ctx.saved_tensors
        return first_derivative(U, of_B, G), None


def first_derivative(
    U: Tensor,
    of_B: Sequence[Tensor],
    X: Tensor,
    kappa: float | None = None,
    inverse: Tensor | None = None,
    then: RowMap = unchanged,
) -> Tensor:
    r"""Apply the derivative to X, without a graph for the next one.

    As :math:`(X - U\Lambda)B^{-1}` with the symmetric :math:`\Lambda = K - \Omega B`, that is
    :math:`B\Lambda + \Lambda B = BK + K'B`.

    Parameters
    ----------
    U, of_B, X : Tensors
        The polar factor, what a route has found of B, and a tangent or cotangent.
    kappa, inverse : float and Tensor, optional
        The condition number and B^-1, where they are known already.
    then : callable
        What follows the derivative, as a map of rows.
    """
    with full_precision(X):
        S = of_B[1]
        r = S.shape[-1]
        if _by_products(of_B):
            return then(_with_null_directions(U, of_B, X))
        kappa = _known_condition(S) if kappa is None else kappa
        if not kappa * r * torch.finfo(S.dtype).eps < 1:
            return then(_with_null_directions(U, of_B, X))
        Q, row, column = of_B[0], S if S.dim() == 1 else S.unsqueeze(-2), S.unsqueeze(-1)
        if r < GATHER_FROM or kappa > 2 * r:
            # rounding on a direction that is divided by a faint singular value stays in that direction
            P, X = U @ Q, X @ Q
            return _less(X, P, _multipliers(P.mT @ X, row, column)) @ then((Q / row).mT)
        if inverse is None:
            inverse = (Q / row) @ Q.mT
        # with three products of the size of A in place of five: B^-1 may be formed, its entries being small
        multipliers = _multipliers(Q.mT @ (U.mT @ X) @ Q, row, column)
        turn = Q @ multipliers.div_(row) @ Q.mT
        return then(_less(X @ inverse, U, turn))


def _less(X: Tensor, P: Tensor, W: Tensor) -> Tensor:
    """Return X - PW, written over X."""
    return X.addmm_(P, W, alpha=-1) if X.dim() == 2 else X.sub_(P @ W)


def _multipliers(K: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Return Lambda for K = U'X, both in the eigenvectors of B, whose eigenvalues are given as a row and a column."""
    K = K.mul_(column)
    return (K + K.mT).div_(row + column)


def _with_null_directions(U: Tensor, of_B: Sequence[Tensor], X: Tensor) -> Tensor:
    """Do the same where some direction may be null, or where there is no decomposition."""
    K = U.mT @ X
    Omega, N = _resolve(K - K.mT, X - U @ K, of_B)
    return U @ Omega + N


def _by_products(of_B: Sequence[Tensor]) -> bool:
    """Whether these are B^-1 and B, and not the eigenvectors and eigenvalues of B."""
    return of_B[0].dim() == of_B[1].dim()


def _known_condition(S: Tensor) -> float:
    return condition(S) if visible(S) else math.inf


def polar_derivative(A: Tensor, U: Tensor, of_B: Sequence[Tensor], X: Tensor) -> Tensor:
    """Apply the derivative at A to X, differentiably in all but `of_B`, which stands for a value."""
    dtype = X.dtype
    A, U, X = widened(A, U, X)
    with full_precision(A):  # a backward pass may be run inside an autocast region
        K = U.mT @ X
        B = U.mT @ A
        Omega, N = _apply(_Resolvent, (B + B.mT) / 2, K - K.mT, X - U @ K, *of_B)
        derivative: Tensor = U @ Omega + N
    return derivative.to(dtype)


class _Resolvent(torch.autograd.Function):
    r"""(B, R, N) -> (Omega, N B^-1) with B Omega + Omega B = R, for symmetric positive B and skew R.

    What the forward pass found of B is values to compute with, not inputs to differentiate: differentiating an
    eigendecomposition fails at repeated eigenvalues, differentiating the two linear systems does not.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(B: Tensor, R: Tensor, N: Tensor, *of_B: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004 - of_B stands for B
        with full_precision(R):
            return _resolve(R, N, of_B)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        B, _, _, *of_B = inputs
        ctx.save_for_backward(B, *output, *of_B)
        ctx.save_for_forward(B, *output, *of_B)

    @staticmethod
    def backward(ctx: Any, dOmega: Tensor, dY: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        B, Omega, Y, *of_B = ctx.saved_tensors
        # both systems are self-adjoint, so their adjoints are solved by the same function
        R, N = _apply(_Resolvent, B, (dOmega - dOmega.mT) / 2, dY, *of_B)
        product = R @ Omega
        dB = product + product.mT - Y.mT @ N
        return (dB + dB.mT) / 2, R, N, None, None

    @staticmethod
    def jvp(ctx: Any, dB: Tensor, dR: Tensor, dN: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        B, Omega, Y, *of_B = ctx.saved_tensors
        tangents: tuple[Tensor, Tensor] = _apply(_Resolvent, B, dR - dB @ Omega - Omega @ dB, dN - Y @ dB, *of_B)
        return tangents


def _resolve(R: Tensor, N: Tensor, of_B: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    if _by_products(of_B):
        inverse, B = (Y.to(R.dtype) for Y in of_B)
        return solve_skew(B, inverse, R), N @ inverse
    Q, S = of_B
    # of the precision that they were found in, though R and N be wider
    null = S.shape[-1] * torch.finfo(S.dtype).eps * S.amax(dim=-1, keepdim=True) >= S
    Q, S = Q.to(R.dtype), S.masked_fill(null, 0).to(R.dtype)
    sums = S[..., :, None] + S[..., None, :]
    Omega = Q @ ((Q.mT @ R @ Q) * pseudo_inverse(sums)) @ Q.mT
    return Omega, (N @ Q) * pseudo_inverse(S)[..., None, :] @ Q.mT
