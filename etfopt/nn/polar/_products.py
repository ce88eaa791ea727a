r"""The polar factor by matrix products alone, the method "newton-schulz" of the bridge.

It decomposes nothing and looks at no value, so it never waits for a device. (The core's method of the same name, in
`etfopt.polar`, looks at values and stops when it has converged; it is for matrices near collapse only.)

With the singular values scaled into :math:`(0, 1]`, odd polynomials :math:`xq(x^2)` are composed that take them to 1.
A *gain* takes :math:`[0.3, 1]` to :math:`[0.8, 1]` and multiplies what is far below by 3.14; when all lie in
:math:`[0.3, 1]`, the *closing* polynomial and Newton-Schulz steps of order three finish. They run on r x r matrices,

.. math:: R = X'X, \qquad R \leftarrow qRq, \quad V \leftarrow Vq, \quad q = aI + bR + cR^2, \qquad X \leftarrow XV,

and R is formed anew from X after two gains, before what it has lost to rounding is amplified. No polynomial sends a
large singular value below 0.3: each step is stable, and U'A is symmetric to rounding at every condition number served.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CLOSING", "GAIN", "ORDER_THREE", "Factors", "factor_by_products", "poisoned", "spectral_bound"]

GAIN = (3.137222078028445, -5.362951699082817, 3.2257296210543718)
"""Minimax approximation of 1 on [0.3, 1] among odd quintics, over its largest value, 1."""

CLOSING = (2.0923776354006196, -1.7215995775555162, 0.630023823189842)
"""Minimax approximation of 1 on [0.804, 1], which is where the gain leaves [0.3, 1]; off by 8e-4."""

ORDER_THREE = (1.875, -1.25, 0.375)
"""Newton-Schulz iteration of order three: 1 - e becomes 1 - 2.5 e^3."""

PHASES = {
    torch.float32: (*((GAIN, GAIN),) * 3, (GAIN, GAIN, CLOSING), (ORDER_THREE,)),
    torch.float64: (*((GAIN, GAIN),) * 5, (GAIN, CLOSING, ORDER_THREE), (ORDER_THREE,)),
}
"""Steps between one X'X and the next. They serve condition numbers up to 1e4 and 3e5, over the slack in the bound on
the largest singular value: a factor of at most r^(1/8)."""


class Factors(NamedTuple):
    """A = UB: the polar factor, B^-1, B (symmetric to rounding), and whether U keeps its promises, (..., 1, 1)."""

    U: Tensor
    inverse: Tensor
    B: Tensor
    good: Tensor


def factor_by_products(A: Tensor) -> Factors:
    r"""Return the polar decomposition of A, (..., d, r), of moderate size, float32 or float64.

    Every operation is differentiable, for graphs that differentiate through the steps. ``good`` holds what can go
    wrong: before the last step :math:`\|X'X - I\|_F^3 \le ru`, so that the step of order three leaves rounding alone
    (steps that were too few leave a singular value below 1), and afterwards
    :math:`\|U'A - A'U\|_F/2 \le 15\,ru\,\|A\|_2`. As A = UB up to rounding and B is a product of polynomials that are
    positive on (0, 1], nothing else is to be checked.

    Sources: Amsel, Persson, Musco and Gower (2025), The Polar Express. Nakatsukasa and Higham (2012), Backward
    stability of iterations for computing the polar decomposition.
    """
    r, u = A.shape[-1], torch.finfo(A.dtype).eps
    eye = torch.eye(r, dtype=A.dtype, device=A.device)
    X, inverse, first = A, eye, True
    for phase in PHASES[A.dtype]:
        R = X.mT @ X
        if first:
            # U does not depend on the size, so it is a constant to autograd; the slack is for rounding
            size = (1.0005 * spectral_bound(R.detach())).sqrt()
            R = R / size.square()
        residual = torch.linalg.matrix_norm((R - eye).detach(), keepdim=True)
        V = _composed(R, eye, phase)
        V, first = (V / size, False) if first else (V, False)
        X = X @ V
        inverse = inverse @ V
    B = X.mT @ A
    skew = torch.linalg.matrix_norm((B - B.mT).detach(), keepdim=True)
    good = (residual <= (r * u) ** (1 / 3)) & (skew <= 30 * r ** (7 / 8) * u * size)
    return Factors(X, inverse, B, good)


def poisoned(X: Tensor, good: Tensor) -> Tensor:
    """Return X, and NaN for each matrix that is not good. A product, so that the gradient is NaN too."""
    return X * torch.where(good, 1.0, torch.nan).to(X.dtype)


def spectral_bound(X: Tensor) -> Tensor:
    r"""Return :math:`\|X^2\|_F^{1/2}` of symmetric matrices: at least the spectral norm, at most r^(1/4) of it."""
    square: Tensor = torch.linalg.matrix_norm(X @ X, keepdim=True)
    return square.sqrt()


def _composed(R: Tensor, eye: Tensor, phase: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Return the product of the q of some steps, the first of which sees R."""
    V = eye
    for k, (a, b, c) in enumerate(phase):
        q = torch.add(c * (R @ R), R, alpha=b) + a * eye
        V = V @ q if k else q
        if k < len(phase) - 1:
            R = q @ R @ q
    return V
