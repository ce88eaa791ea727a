r"""The polar factor as a node of autograd, with its closed-form derivative.

The forward pass takes one of the routes of `etfopt.nn.polar._routes`. The backward pass reuses what it found, see
`etfopt.nn.polar._factors`, and is itself a differentiable function, so that derivatives of every order exist wherever
the first does. Repeated singular values, which neural collapse produces and where autograd through an SVD gives NaN,
are harmless here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt._torch import (
    differentiated_again,
    full_precision,
    in_forward_mode,
    outside_graphs,
    transforms,
    visible,
    widened,
)
from etfopt.errors import EtfoptError
from etfopt.nn.polar._factors import of_tensors, resolve
from etfopt.nn.polar._products import factor_by_products, poisoned
from etfopt.nn.polar._routes import find_factors


def polar(A: Tensor, method: str = "auto") -> Tensor:
    """Return the polar factor of each matrix of moderate size, (..., d, r) in float32 or float64, d >= r."""
    levels = transforms()
    if levels.count("Jvp") > 1:  # torch would take the derivative of our rule for zero, without a word
        raise EtfoptError(
            "forward mode of forward mode is not supported: take torch.func.hessian, or jacfwd of torch.func.grad"
        )
    if not torch.compiler.is_compiling():
        return _first(_apply(_Polar, A, method))
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
    """(A, method) -> the tensors of `find_factors`. All but U are for the derivative; they carry none themselves."""

    @staticmethod
    def forward(A: Tensor, method: str) -> tuple[Tensor, Tensor, Tensor]:
        return find_factors(A, method, look=visible(A))[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # a distance asks for no first derivative of U
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, G: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, None]:
        if G is None:
            return None, None
        A, U, X, Y = ctx.saved_tensors
        if differentiated_again():
            return polar_derivative(A, U, X, Y, G), None
        return of_tensors(U, X, Y).derivative(G), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, _: None) -> tuple[Tensor, None, None]:
        # the derivative of the polar factor is self-adjoint
        A, U, X, Y = ctx.saved_tensors
        return polar_derivative(A, U, X, Y, dA), None, None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int, None], A: Tensor, method: str) -> tuple[Any, tuple[int, int, int]]:
        return _apply(_Polar, A.movedim(in_dims[0], 0), method), (0, 0, 0)


class _CompiledPolar(torch.autograd.Function):
    """The same for graphs that are compiled, which take no rule for forward mode; differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, method: str) -> tuple[Tensor, Tensor, Tensor]:
        return find_factors(A, method, look=False)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: tuple[Tensor, ...]) -> None:  # noqa: ARG004 - torch's signature
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        return of_tensors(*ctx.saved_tensors).derivative(G), None


def polar_derivative(A: Tensor, U: Tensor, X: Tensor, Y: Tensor, G: Tensor) -> Tensor:
    """Apply the derivative at A to G, differentiably in A, U and G; X and Y are what a result holds of B, as values."""
    dtype = G.dtype
    A, U, G = widened(A, U, G)
    with full_precision(A):  # a backward pass may be run inside an autocast region
        K = U.mT @ G
        B = U.mT @ A
        Omega, N = _apply(_Resolvent, (B + B.mT) / 2, K - K.mT, G - U @ K, X, Y)
        derivative: Tensor = U @ Omega + N
    return derivative.to(dtype)


class _Resolvent(torch.autograd.Function):
    r"""(B, R, N, X, Y) -> (Omega, N B^-1) with B Omega + Omega B = R, for symmetric positive B and skew R.

    What the forward pass found of B is values to compute with, not inputs to differentiate: differentiating an
    eigendecomposition fails at repeated eigenvalues, differentiating the two linear systems does not.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(B: Tensor, R: Tensor, N: Tensor, X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004 - for B
        with full_precision(R):
            return resolve(X, Y, R, N)

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
