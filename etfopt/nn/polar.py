r"""The polar factor as a node of autograd, with its closed-form derivative.

The forward pass eigendecomposes :math:`A'A = QS^2Q'`, or takes the SVD :math:`A = PSQ'` where A is less well
conditioned or where its values cannot be looked at for free (on a device, in a compiled graph). The backward pass
reuses Q and S,

.. math:: dL/dA = U\,\Omega + (G - UK)B^{-1}, \qquad B\Omega + \Omega B = K - K', \quad K = U'G, \; B = QSQ',

and is itself a differentiable function, so that derivatives of every order exist wherever the first does. Repeated
singular values, which neural collapse produces and where autograd through an SVD gives NaN, are harmless here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from etfopt._tensors import visible

__all__ = ["polar"]

RESOLVED = 8e3
"""Condition number that a Gram matrix in float64 resolves for a factor in float32."""

GATHER_FROM = 32
"""Columns from which fewer large products are worth a look at the condition number."""

NARROW_FROM = 64
"""Columns from which float32 matrices are first tried in float32; below, float64 costs next to nothing."""


def polar(A: Tensor) -> Tensor:
    """Return the polar factor of each matrix A, (..., d, r), d >= r, float32 or float64, of moderate size."""
    if torch.compiler.is_compiling():
        # the level is read here, so that the graph is guarded by it
        once = forward_ad._current_level < 0 and _differentiated_once()
        compiled: Tensor = _apply(_CompiledPolar, A)[0] if once else _uncompiled(A)
        return compiled
    U: Tensor = _apply(_Polar, A)[0]
    return U


@torch.compiler.disable  # type: ignore[untyped-decorator] # torch leaves it untyped
def _uncompiled(A: Tensor) -> Tensor:
    """Leave the graph, which is an error where the whole is to be one graph."""
    return polar(A)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator] # torch leaves it untyped
def _differentiated_once() -> bool:
    """Whether no transform is active but one gradient. Others would be compiled to zeros or NaN, without a word."""
    # torch has public names neither for the transforms at work nor for the level of forward mode
    levels = [level.key() for level in torch._C._functorch.get_interpreter_stack() or []]
    return levels in ([], [torch._C._functorch.TransformType.Grad])


def _apply(function: type[torch.autograd.Function], *arguments: Tensor) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call] # torch leaves Function.apply untyped


class _Polar(torch.autograd.Function):
    """A -> (U, Q, S). Q and S are returned so that the backward pass can use them; they carry no gradient."""

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (_by_gram(A) if visible(A) else None) or _by_svd(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (A,), (U, Q, S) = inputs, output
        ctx.mark_non_differentiable(Q, S)
        ctx.save_for_backward(A, U, Q, S)
        ctx.save_for_forward(A, U, Q, S)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> Tensor:
        A, U, Q, S = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody may differentiate again
            return _polar_derivative(A, U, Q, S, G)
        return _first_derivative(U, Q, S, G)

    @staticmethod
    def jvp(ctx: Any, dA: Tensor) -> tuple[Tensor, None, None]:
        # the derivative of the polar factor is self-adjoint
        A, U, Q, S = ctx.saved_tensors
        return _polar_derivative(A, U, Q, S, dA), None, None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int], A: Tensor) -> tuple[Any, tuple[int, int, int]]:
        return _apply(_Polar, A.movedim(in_dims[0], 0)), (0, 0, 0)


class _CompiledPolar(torch.autograd.Function):
    """The same for graphs that are compiled, which take no rule for forward mode; differentiable once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _by_svd(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:  # noqa: ARG004 - torch's signature
        U, Q, S = output
        ctx.mark_non_differentiable(Q, S)
        ctx.save_for_backward(U, Q, S)

    @staticmethod
    def backward(ctx: Any, G: Tensor, *_: Tensor) -> Tensor:
        U, Q, S = ctx.saved_tensors
        return _first_derivative(U, Q, S, G)


def _condition(S: Tensor) -> float:
    ratios = S.amax(dim=-1) / S.amin(dim=-1)
    return float(ratios.max()) if ratios.numel() else math.nan


def _by_svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    P, S, Qh = torch.linalg.svd(A, full_matrices=False)
    U, Q = P @ Qh, Qh.mT.contiguous()
    # one step of refinement, for LAPACK splits clustered singular values at tens of rounding units: U'A must be
    # symmetric, and the turn U Omega makes it so to first order, with B Omega + Omega B = U'A - A'U; left alone
    # are pairs of small singular values, where rounding is all there is
    K = U.mT @ A
    sums = S[..., :, None] + S[..., None, :]
    inverse = _pseudo_inverse(torch.where(sums >= S[..., :1, None], sums, torch.zeros_like(sums)))
    return U + U @ (Q @ ((Qh @ (K - K.mT) @ Q) * inverse) @ Qh), Q, S


def _by_gram(A: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Take U = A (A'A)^(-1/2) from an eigendecomposition, or None where squaring the condition number costs digits.

    Forming A'A leaves U orthonormal to u kappa^2 and U'A symmetric to u kappa |A|; the tests hold both to what the
    SVD promises. Float32 matrices of worse condition, and those so small that it costs nothing, go through float64.
    """
    r, own = A.shape[-1], torch.finfo(A.dtype).eps
    if A.dtype == torch.float64 or r >= NARROW_FROM:
        found = _gram_factor(A, min(2 * r, own**-0.25), polish_from=r**0.5)
        if found or A.dtype == torch.float64:
            return found
    found = _gram_factor(A.double(), RESOLVED, polish_from=math.inf)
    return found and (found[0].to(A.dtype), found[1].to(A.dtype), found[2].to(A.dtype))


def _gram_factor(A: Tensor, limit: float, polish_from: float) -> tuple[Tensor, Tensor, Tensor] | None:
    try:
        squares, Q = torch.linalg.eigh(A.mT @ A)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type: LAPACK did not converge
        return None
    S = squares.clamp_(min=0).sqrt_()
    kappa = _condition(S)
    if not kappa <= limit:
        return None
    U = A @ ((Q / S[..., None, :]) @ Q.mT)
    if kappa > polish_from:  # below the root of r, U is orthonormal to half of the promised 10 r u already
        U = 1.5 * U - U @ (0.5 * (U.mT @ U))
    return U, Q, S


def _first_derivative(U: Tensor, Q: Tensor, S: Tensor, X: Tensor) -> Tensor:
    """Apply the derivative to X, without a graph for the next one."""
    with torch.autocast(X.device.type, enabled=False):
        K = U.mT @ X
        kappa = _condition(S) if visible(S) else math.inf
        r = S.shape[-1]
        if not kappa * r * torch.finfo(S.dtype).eps < 1:  # some direction may be null
            Omega, N = _resolve(K - K.mT, X - U @ K, Q, S)
            return U @ Omega + N
        Omega = Q @ ((Q.mT @ (K - K.mT) @ Q) / (S[..., :, None] + S[..., None, :])) @ Q.mT
        if r < GATHER_FROM or kappa > 2 * r:
            return U @ Omega + ((X - U @ K) @ Q / S[..., None, :]) @ Q.mT
        # with three products of the size of A in place of five: B^-1 may be formed, its entries being small
        inverse = (Q / S[..., None, :]) @ Q.mT
        return (X @ inverse).add_(U @ (Omega - K @ inverse))


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
        return _resolve(R, N, Q, S)

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


def _resolve(R: Tensor, N: Tensor, Q: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    null = S.shape[-1] * torch.finfo(S.dtype).eps * S.amax(dim=-1, keepdim=True) >= S
    S = S.masked_fill(null, 0)
    sums = S[..., :, None] + S[..., None, :]
    Omega = Q @ ((Q.mT @ R @ Q) * _pseudo_inverse(sums)) @ Q.mT
    return Omega, (N @ Q) * _pseudo_inverse(S)[..., None, :] @ Q.mT


def _pseudo_inverse(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, 1 / torch.where(positive, x, torch.ones_like(x)), torch.zeros_like(x))
