r"""The rotation that a head classifies by, whatever was written to its buffer.

Averages of models (EMA, SWA) average U, and an average of rotations is none: the classifier is then that of the nearest
rotation, the polar factor. An average has :math:`U'U \le I`, so that its columns tell how far it is from a rotation:

.. math:: \|I - U'U\|_F \le \mathrm{tr}(I - U'U) = \sum_j (1 - \|u_j\|^2).

On a CPU every evaluation checks this sum, because a write through ``.data`` leaves no trace. On a GPU the check would
wait: it runs after ``train()`` and ``eval()``, and in evaluation after each write that leaves a trace. Graphs cannot
check values. A U that is no rotation, and that nobody has checked, gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from etfopt._torch import readable, version, visible
from etfopt.errors import InputError
from etfopt.nn._state import Tracking
from etfopt.nn.functional import polar_factor
from etfopt.nn.polar._products import poisoned
from etfopt.nn.polar._svd import svd

LEAST, LARGEST = 1e-3, 1.1
"""Singular values of what can be an average of rotations that still says which is meant, though rounded."""


class Mended(NamedTuple):
    """A U that is no rotation, as it was found, and the nearest rotation."""

    source: Tensor
    rotation: Tensor


class Rotated(Tracking):
    """A module with a rotation U (d, r) in a buffer that others may average or write to."""

    U: Tensor

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__(dtype)
        self._known: tuple[Tensor, int] | None = None  # the buffer that was looked at, and its version then
        self._mended: Mended | None = None

    def rotation(self) -> Tensor:
        """Return U where it is a rotation, to the bit, and otherwise the rotation nearest to it."""
        U = self.U
        if visible(U):
            return self._looked_up(U)
        if U.is_meta:
            return U
        if not readable(U) or self._is_known(U):
            return _unseen(U, self._mended)
        found = self._looked_up(U)
        self.know_rotation()
        return found

    def _is_known(self, U: Tensor) -> bool:
        # in training DistributedDataParallel writes to every buffer in every step, and nobody should wait for that
        known = self._known
        return known is not None and known[0] is U and (self.training or known[1] == version(U))

    def know_rotation(self) -> None:
        """Note that what is in the buffer now was looked at, or made here."""
        self._known = None if self.U.is_inference() else (self.U, version(self.U))

    def _looked_up(self, U: Tensor) -> Tensor:
        if is_rotation(U):
            if self._mended is not None:
                self._mended = None
            return U
        if self._mended is None or not torch.equal(self._mended.source, U):
            self._mended = Mended(*nearest_rotation(U))
        return self._mended.rotation

    def _forget_rotation(self) -> None:
        self._known = self._mended = None

    def train(self, mode: bool = True) -> Self:
        """Set the mode. The rotation is looked at again: for graphs now, and at the next use."""
        super().train(mode)
        self._look_for_graphs()
        self._known = None
        return self

    def _look_for_graphs(self) -> None:
        """In evaluation, find the rotation where values can be looked at: graphs cannot."""
        if not self.training and readable(self.U) and not self.U.is_meta:
            try:
                self._looked_up(self.U)
            except InputError:
                self._mended = None  # whoever uses it is told

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._forget_rotation()
        self._look_for_graphs()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._forget_rotation()
        super()._apply(fn, recurse)
        self._look_for_graphs()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: not what is known of another buffer."""
        return {**self.__dict__, "_known": None, "_mended": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over, and look at its rotation."""
        super().__setstate__(state)  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._look_for_graphs()


def is_rotation(U: Tensor) -> Tensor:
    """Return whether the columns of U (d, r) have unit length, up to twice what the solvers promise."""
    off = (U.square().sum(dim=-2) - 1).abs().sum(dim=-1)
    return off <= 20 * U.shape[-1] * torch.finfo(U.dtype).eps


def _unseen(U: Tensor, mended: Mended | None) -> Tensor:
    good = is_rotation(U)
    if mended is None:
        return poisoned(U, good)
    same = (mended.source == U).all()
    return torch.where(good, U, poisoned(mended.rotation, same))


def nearest_rotation(U: Tensor) -> tuple[Tensor, Tensor]:
    """Return a copy of U and its polar factor, or raise `InputError` where U can be no average of rotations.

    Found in float64 on the CPU.
    """
    # outside inference mode: what is kept may have to be saved for a backward pass
    with torch.inference_mode(mode=False), torch.no_grad():
        wide = U.detach().to("cpu", torch.float64, copy=True)
        squares = torch.linalg.eigvalsh(wide.mT @ wide) if wide.isfinite().all() else wide.new_full((1,), torch.nan)
        if not (squares[0] >= LEAST**2 and squares[-1] <= LARGEST**2):
            low, high = (float(x) for x in squares[[0, -1]].clamp(min=0).sqrt())
            raise InputError(
                f"U is not near any rotation: its singular values lie between {low:.3g} and {high:.3g}, and should be "
                "1. After to_empty() call reset_parameters() or load a state; if models were averaged, average later "
                "ones, whose classifiers differ less"
            )
        return wide.to(U), polar_factor(wide).to(U)


@torch.no_grad()
def nearest_minimiser(A: Tensor, start: Tensor) -> Tensor:
    r"""Return, of all maximisers of :math:`\langle A, U\rangle` over St(d, r), the one nearest to the point `start`.

    With A = P S Q' and the columns of P and Q split at the rank, they are P1 Q1' + P2 W Q2' for any W with orthonormal
    columns, P2 spanning all that P1 leaves: ``theory/closed_form.py``.
    """
    P, S, Qh = svd(A)
    rounding = 10 * A.shape[-1] * torch.finfo(A.dtype).eps * S[..., :1]
    kept = rounding < S
    P1, Q1h = P * kept[..., None, :], Qh * kept[..., :, None]
    free = start - P1 @ (P1.mT @ start)
    free = free - (free @ Q1h.mT) @ Q1h
    return polar_factor(P1 @ Q1h + free)
