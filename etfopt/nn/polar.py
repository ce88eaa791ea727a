r"""The polar factor as a node of autograd, with its closed-form derivative.

The forward pass takes one SVD :math:`A = PSQ'`; the backward pass reuses its Q and S,

.. math:: dL/dA = U\,\Omega + (G - UK)B^{-1}, \qquad B\Omega + \Omega B = K - K', \quad K = U'G, \; B = QSQ',

and is itself a differentiable function, so that derivatives of every order exist wherever the first does. Repeated
singular values, which neural collapse produces and where autograd through an SVD gives NaN, are harmless here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["polar"]


def polar(A: Tensor) -> Tensor:
    """Return the polar factor of each matrix A, (..., d, r), d >= r, float32 or float64, of moderate size."""
    U: Tensor = _apply(_Polar, A)[0]
    return U


def _apply(function: type[torch.autograd.Function], *arguments: Tensor) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call] # torch leaves Function.apply untyped


class _Polar(torch.autograd.Function):
    """A -> (U, Q, S). Q and S are returned so that the backward pass can use them; they carry no gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        P, S, Qh = torch.linalg.svd(A, full_matrices=False)
        U, Q = P @ Qh, Qh.mT.contiguous()
        # one step of refinement, for LAPACK splits clustered singular values at tens of rounding units: U'A must be
        # symmetric, and the turn U Omega makes it so to first order, with B Omega + Omega B = U'A - A'U; left alone
        # are pairs of small singular values, where rounding is all there is
        K = U.mT @ A
        sums = S[..., :, None] + S[..., None, :]
        inverse = _pseudo_inverse(torch.where(sums >= S[..., :1, None], sums, torch.zeros_like(sums)))
        return U + U @ (Q @ ((Qh @ (K - K.mT) @ Q) * inverse) @ Qh), Q, S

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (A,), (U, Q, S) = inputs, output
        ctx.mark_non_differentiable(Q, S)
        ctx.save_for_backward(A, U, Q, S)
        ctx.save_for_forward(A, U, Q, S)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> Tensor:
        A, U, Q, S = ctx.saved_tensors
        return _polar_derivative(A, U, Q, S, G)

    @staticmethod
    def jvp(ctx: Any, dA: Tensor) -> tuple[Tensor, None, None]:
        # the derivative of the polar factor is self-adjoint
        A, U, Q, S = ctx.saved_tensors
        return _polar_derivative(A, U, Q, S, dA), None, None


def _polar_derivative(A: Tensor, U: Tensor, Q: Tensor, S: Tensor, X: Tensor) -> Tensor:
    with torch.autocast(A.device.type, enabled=False):  # a backward pass may be run inside an autocast region
        K = U.mT @ X
        B = U.mT @ A
        Omega, N = _apply(_Resolvent, (B + B.mT) / 2, K - K.mT, X - U @ K, Q, S)
        derivative: Tensor = U @ Omega + N
    return derivative


class _Resolvent(torch.autograd.Function):
    r"""(B, R, N) -> (Omega, N B^-1) with B Omega + Omega B = R, for symmetric B = Q diag(S) Q' and skew R.

    Q and S are values to compute with, not inputs to differentiate: differentiating an eigendecomposition fails at
    repeated eigenvalues, differentiating the two linear systems does not.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(B: Tensor, R: Tensor, N: Tensor, Q: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004 - Q, S stand for B
        null = S.shape[-1] * torch.finfo(S.dtype).eps * S[..., :1] >= S
        S = S.masked_fill(null, 0)
        sums = S[..., :, None] + S[..., None, :]
        Omega = Q @ ((Q.mT @ R @ Q) * _pseudo_inverse(sums)) @ Q.mT
        return Omega, (N @ Q) * _pseudo_inverse(S)[..., None, :] @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        B, _, _, Q, S = inputs
        ctx.save_for_backward(B, Q, S, *output)
        ctx.save_for_forward(B, Q, S, *output)

    @staticmethod
    def backward(ctx: Any, dOmega: Tensor, dY: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        B, Q, S, Omega, Y = ctx.saved_tensors
        # both systems are self-adjoint, so their adjoints are solved by the same function
        R, N = _apply(_Resolvent, B, (dOmega - dOmega.mT) / 2, dY, Q, S)
        product = R @ Omega
        dB = product + product.mT - Y.mT @ N
        return (dB + dB.mT) / 2, R, N, None, None

    @staticmethod
    def jvp(ctx: Any, dB: Tensor, dR: Tensor, dN: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        B, Q, S, Omega, Y = ctx.saved_tensors
        tangents: tuple[Tensor, Tensor] = _apply(_Resolvent, B, dR - dB @ Omega - Omega @ dB, dN - Y @ dB, Q, S)
        return tangents


def _pseudo_inverse(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, 1 / torch.where(positive, x, torch.ones_like(x)), torch.zeros_like(x))
