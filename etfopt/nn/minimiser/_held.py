r"""Held classes: vertices U f_c that stay at U_0 f_c, and the smaller problem for the others.

With orthonormal bases :math:`Q_O` of the span of the held columns of F and :math:`Q_N` of its complement,
:math:`V = U_0Q_O`, and B a basis of the complement of V, every such U is :math:`VQ_O' + BU_sQ_N'`. So
:math:`\langle A, U\rangle` is a constant plus :math:`\langle B'AQ_N, U_s\rangle`: U_s is a polar factor again. B is
never formed. It is the last d - k columns of a block reflector :math:`P = I - WTW'` that takes V to the first k axes,

.. math:: W = V + \begin{bmatrix} G \\ 0 \end{bmatrix}, \quad V_1 = GS, \quad T = (I + S)^{-1},

with the polar factor G of the first k rows :math:`V_1` of V. The eigenvalues of T lie in [1/2, 1].

Source: Schreiber and Parlett (1988), Block reflectors: theory and computation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from etfopt._torch import visible
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn.minimiser._linear_term import lasting_product
from etfopt.nn.polar._node import polar
from etfopt.nn.polar._products import poisoned
from etfopt.nn.polar._svd import svd

DOUBTFUL = 1e-3
"""Smallest over largest diagonal entry of a triangular factor below which the SVD decides on the rank."""


class Held(NamedTuple):
    """What holding some classes fixes: constants to autograd."""

    Q_held: Tensor  # (r, k)
    Q_free: Tensor  # (r, r-k)
    V: Tensor  # (..., d, k)
    W: Tensor  # (..., d, k)
    T: Tensor  # (..., k, k)
    good: Tensor  # (..., 1, 1): whether U is right
    free: Tensor  # (C,), bool

    def without(self, H: Tensor) -> Tensor:
        """Return class means with zeros for held classes, of which B'AQ_free would keep rounding alone."""
        return torch.where(self.free, H, torch.zeros_like(H))

    def part(self, X: Tensor) -> Tensor:
        """Return B'X Q_free, (..., d-k, r-k), of an X of the shape of U."""
        k = self.V.shape[-1]
        Y = lasting_product(X, self.Q_free)
        return Y[..., k:, :] - lasting_product(self.V[..., k:, :] @ self.T, lasting_product(self.W.mT, Y))

    def assembled(self, U: Tensor) -> Tensor:
        """Return the point of the whole problem, (..., d, r), of one of the smaller problem."""
        k = self.V.shape[-1]
        inner = lasting_product(self.V[..., k:, :].mT, U)
        below = torch.cat([U.new_zeros(*U.shape[:-2], k, U.shape[-1]), U], dim=-2)
        spread = below - lasting_product(self.W @ self.T, inner)
        return poisoned(self.V @ self.Q_held.mT + lasting_product(spread, self.Q_free.mT), self.good)


def as_held(classes: tuple[int, ...], U0: Tensor, frame: Tensor | None, C: int, dtype: torch.dtype) -> Held:
    """Return what classes fix that are held at U_0, (..., d, r), or raise `InputError`.

    Where values may not be looked at, U is NaN if U_0 is off the manifold or held columns of a frame depend on each
    other.
    """
    Q_held, Q_free, good = _simplex_bases(classes, C, U0, dtype) if frame is None else _bases(classes, frame, dtype)
    start = U0.to(dtype)
    good = good & _on_manifold(start, max(torch.finfo(X).eps for X in (U0.dtype, dtype)))
    # a U_0 that cannot be used must not reach a decomposition
    V = torch.where(good, start, torch.eye(*start.shape[-2:], dtype=dtype, device=start.device)) @ Q_held
    if torch.finfo(U0.dtype).eps > torch.finfo(dtype).eps:
        V = polar(V, "svd")  # else U would be off the manifold by the rounding of U_0
    k = V.shape[-1]
    P, S, Qh = svd(V[..., :k, :])
    W = torch.cat([V[..., :k, :] + P @ Qh, V[..., k:, :]], dim=-2)
    free = torch.tensor([c not in classes for c in range(C)]).to(U0.device)
    return Held(Q_held, Q_free, V, W, (Qh.mT / (1 + S).unsqueeze(-2)) @ Qh, good, free)


def _on_manifold(U0: Tensor, unit: float) -> Tensor:
    """Return whether each U_0 is orthonormal, (..., 1, 1); raise `InputError` if that can be seen not to be so."""
    r = U0.shape[-1]
    eye = torch.eye(r, dtype=U0.dtype, device=U0.device)
    off, allowed = torch.linalg.matrix_norm(U0.mT @ U0 - eye, keepdim=True), min(100 * r * unit, 0.5)
    good: Tensor = off <= allowed
    if visible(good) and not good.all():
        worst = float(off.max())
        raise InputError(
            f"hold_at is off the manifold: ||U'U - I|| = {worst:.1e}, and {allowed:.1e} is allowed; "
            "pass etfopt.nn.functional.polar_factor(hold_at)"
        )
    return good


def _simplex_bases(classes: tuple[int, ...], C: int, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two bases for the simplex in C coordinates; the last of the second is 1, which no class sees."""
    held, m, n = list(classes), len(classes), C - len(classes)
    if n < 2:
        _refuse(classes)
    free = [c for c in range(C) if c not in classes]
    Q = np.zeros((C, C))
    if m > 1:
        Q[held, : m - 1] = np.sqrt(m - 1) * simplex_etf(m, reduced=True).T
    Q[held, m - 1], Q[free, m - 1] = np.sqrt(n / (m * C)), -np.sqrt(m / (n * C))
    Q[free, m : C - 1] = np.sqrt(n - 1) * simplex_etf(n, reduced=True).T
    Q[:, C - 1] = 1 / np.sqrt(C)
    whole = torch.from_numpy(Q).to(device=like.device, dtype=dtype)
    return whole[:, :m], whole[:, m:], torch.ones((), dtype=torch.bool, device=like.device)


def _bases(classes: tuple[int, ...], frame: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two bases for any frame, and whether the held columns are independent if nobody may look."""
    F = frame.to(torch.promote_types(frame.dtype, dtype))
    Y = torch.stack([F[:, c] for c in classes], dim=1)  # an index would be made on the host
    rounding = max(Y.shape) * torch.finfo(frame.dtype).eps
    Q, R = torch.linalg.qr(Y, mode="complete")
    k = min(Y.shape)
    diagonal = R.diagonal().abs()
    independent = diagonal.amin() > rounding * diagonal.amax()
    if visible(frame):
        if not diagonal.amin() > DOUBTFUL * diagonal.amax():
            Q, S, _ = svd(Y, full_matrices=True)
            k = int((rounding * S[0] < S).sum())
            independent = torch.ones_like(independent)
        others = [c for c in range(F.shape[1]) if c not in classes]
        seen = torch.linalg.matrix_norm(Q[:, k:].mT @ F[:, others]) > rounding * torch.linalg.matrix_norm(F)
        if k == 0:
            raise InputError(f"hold names classes {classes}, whose columns of the frame are zero; leave them out")
        if k == F.shape[0] or not seen:
            _refuse(classes)
    elif k == F.shape[0]:
        _refuse(classes)
    return Q[:, :k].to(dtype), Q[:, k:].to(dtype), independent


def _refuse(classes: tuple[int, ...]) -> None:
    raise InputError(
        f"the {len(classes)} classes of hold span what the frame spans, so that nothing is left free; hold fewer, or "
        "use hold_at itself"
    )
