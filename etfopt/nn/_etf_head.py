r"""Heads whose classifier is a rotated frame, and the fixed baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from etfopt._inputs import room_hint
from etfopt._tensors import require_finite, require_floats
from etfopt.errors import InputError
from etfopt.geometry import simplex_etf
from etfopt.nn._batch import counted_samples
from etfopt.nn._head import Head
from etfopt.nn._ranks import Ranks
from etfopt.nn._state import Tracking, refuse_trace, where_valid
from etfopt.nn.functional import on_frame
from etfopt.nn.temperature import CONFIDENCE

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ETFHead", "FixedETFHead", "affine"]


class ETFHead(Head, Tracking):
    """A head whose classifier is the ETF of a rotation U: no parameters, and U and the bias as buffers."""

    frame: Tensor | None
    U: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        temperature: float | str,
        confidence: float,
        ignore_index: int,
        frame: Tensor | None,
    ) -> None:
        super().__init__(dim, num_classes, temperature=temperature, confidence=confidence, ignore_index=ignore_index)
        if frame is not None:
            self._check_frame(frame, automatic=isinstance(temperature, str))
            frame = frame.detach().clone()
        r = num_classes if frame is None else len(frame)
        self._check_room(r, simplex=frame is None)
        # rows of unit mean-square norm, whatever the frame's size
        size = 1.0 if frame is None else float(torch.linalg.matrix_norm(frame))
        self._row_scale = math.sqrt(num_classes) / size
        self.register_buffer("frame", frame, persistent=False)
        self.register_buffer("U", torch.eye(dim, r))  # the canonical rotation
        self.register_buffer("bias", torch.zeros(num_classes))

    @property
    def weight(self) -> Tensor:
        r"""Classifier weight :math:`W = \sqrt C (UF)'/\|F\|_F`, shape (C, d): for the simplex, rows of unit norm."""
        return self._weight(self.U)

    def _check_frame(self, frame: Tensor, *, automatic: bool) -> None:
        require_floats(frame, "frame", ("r", self.num_classes))
        require_finite(frame, "frame")
        if not frame.any():
            raise InputError(f"frame of shape {tuple(frame.shape)} is zero; pass one with a non-zero entry")
        gram = (frame.mT @ frame).detach().double().cpu()
        simplex = torch.from_numpy(simplex_etf(self.num_classes))
        wanted = simplex * (gram.trace() / simplex.trace())
        if automatic and not torch.allclose(gram, wanted, rtol=0, atol=1e-3 * float(gram.abs().max())):
            raise InputError("temperature='auto' is known for simplex frames only, and frame is another; pass a number")

    def _check_room(self, r: int, *, simplex: bool) -> None:
        if self.dim < r:
            reduced = f"torch.from_numpy(etfopt.simplex_etf({self.num_classes}, reduced=True))"
            hint = room_hint(self.dim, self.num_classes, simplex=simplex, reduced=reduced, name="dim")
            raise InputError(f"dim = {self.dim} is smaller than the r = {r} rows of the frame; {hint}")

    def _weight(self, U: Tensor) -> Tensor:
        return self._row_scale * on_frame(U, self.frame).mT


def affine(f: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return logits in the precision of the features."""
    return functional.linear(f, weight.to(f.dtype), bias.to(f.dtype))


def _random_rotation(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return the Q of a Gaussian matrix, R's diagonal positive: then Q is uniform on the Stiefel manifold."""
    Q, R = torch.linalg.qr(torch.randn(like.shape, generator=generator, dtype=torch.float64, device=generator.device))
    rotation: Tensor = Q * R.diagonal().sign()
    return rotation


class FixedETFHead(ETFHead):
    r"""The fixed baseline: the canonical simplex ETF :math:`W = \sqrt{C/(C-1)}\,(I - 11'/C)\,I_{C\times d}`.

    The bias is :math:`b = -W\mu_G` with the mean of the training batch, held constant; in evaluation the last one is
    used.

    Parameters
    ----------
    dim, num_classes : int
        d and C; dim must be at least the frame's number of rows.
    temperature : float or "auto"
        As in `Head`.
    confidence : float
        As in `Head`.
    ignore_index : int
        Where labels are given, samples with this one do not count in :math:`\mu_G`.
    frame : Tensor, shape (r, C), optional
        None is ``etfopt.simplex_etf(C)``, r = C; the reduced simplex, r = C-1, is enough for dim = C-1.
    generator : torch.Generator, optional
        If given, the ETF is that of a random rotation U, uniform on the Stiefel manifold, instead of the canonical one.
    process_group : ProcessGroup, optional
        As in `ClassMeans`: under torch.distributed the mean is that of all ranks' batches.
    synchronize : bool
        As in `ClassMeans`.

    Raises
    ------
    InputError
        If an argument is out of range, or the frame does not fit.

    References
    ----------
    Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features; Yang et al. (2022), Inducing
    neural collapse with a fixed ETF. What features a fixed W leads to: ``theory/unconstrained_features.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import FixedETFHead
    >>> head = FixedETFHead(dim=4, num_classes=3)
    >>> head(torch.randn(5, 4)).shape
    torch.Size([5, 3])
    >>> torch.allclose(head.weight @ head.weight.T, 1.5 * torch.eye(3) - 0.5, atol=1e-5)
    True
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        temperature: float | str = 5.0,
        confidence: float = CONFIDENCE,
        ignore_index: int = -100,
        frame: Tensor | None = None,
        generator: torch.Generator | None = None,
        process_group: ProcessGroup | None = None,
        synchronize: bool = True,
    ) -> None:
        super().__init__(
            dim,
            num_classes,
            temperature=temperature,
            confidence=confidence,
            ignore_index=ignore_index,
            frame=frame,
        )
        if generator is not None:
            self.U.copy_(_random_rotation(self.U, generator))
        self.ranks = Ranks(process_group, synchronize)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits; in training, set the bias to that of the batch first.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            Of any norm.
        labels : Tensor of integers, shape (n,), optional
            Checked; see `ignore_index`.

        Returns
        -------
        Tensor, shape (n, C)
            Logits.

        Raises
        ------
        InputError
            If features or labels do not fit.
        """
        if not self.training:
            f = self.normalize(features)
            self._check_labels(features, labels)
            return affine(f, self.weight, self.bias)
        refuse_trace(self)
        error = None
        f = self.bias.new_zeros(0, self.dim)
        try:
            f = self.normalize(features)
            labels = self._check_labels(features, labels)
        except InputError as found:
            error = found
            if self.ranks.group() is None:
                raise
        self._follow(f.detach(), None if error else labels, error)
        return affine(f, self.weight, self.bias)

    # not compiled, for the reason that ClassMeans gives
    @torch.compiler.disable  # type: ignore[untyped-decorator] # torch leaves it untyped
    @torch.no_grad()
    def _follow(self, f: Tensor, labels: Tensor | None, error: InputError | None) -> None:
        """Set the bias to that of the batch, over all ranks."""
        with torch.autocast(f.device.type, enabled=False):
            f = f.to(torch.promote_types(f.dtype, self.bias.dtype))
            if labels is None:
                labels = torch.zeros(f.shape[0], dtype=torch.int64, device=f.device)
            counted, bad = counted_samples(f, labels, self.num_classes, self.ignore_index)
            pooled = self.ranks.total([torch.where(counted[:, None], f, 0).sum(dim=0), counted.sum()], error, bad)
            total, number = pooled.sums
            mu = (total / number.clamp(min=1)).to(self.bias.dtype)
            valid = number > 0 if pooled.refused is None else (number > 0) & ~pooled.refused
            self.bias.copy_(where_valid(valid, -self.weight @ mu, self.bias))
            self.count_rejected(pooled.refused)
