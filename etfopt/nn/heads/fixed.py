r"""The fixed baseline: an ETF that does not follow the class means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from etfopt._torch import outside_graphs
from etfopt.nn._ranks import Ranks
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._state import refuse_trace, where_valid
from etfopt.nn.functional import frame_tensor
from etfopt.nn.heads._etf import ETFHead, FrameOptions
from etfopt.nn.pooling import counted_samples, one_class

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["FixedETFHead"]


@takes_old_options
class FixedETFHead(ETFHead):
    r"""The fixed baseline: the canonical simplex ETF :math:`W = \sqrt{C/(C-1)}\,(I - 11'/C)\,I_{C\times d}`.

    The bias is :math:`b = -W\mu_G` with the mean of the training batch, held constant; in evaluation the last one is
    used. It is kept in the buffer ``global_mean`` (d,). The frame is a part of the state too, see `NearestETFHead`.

    Parameters
    ----------
    dim, num_classes : int
        d and C; dim must be at least the frame's number of rows.
    generator : torch.Generator, optional
        Draws the ETF of a random rotation U, uniform on the Stiefel manifold, in place of the canonical one.
    synchronize : bool or ProcessGroup
        Whose batches count under torch.distributed, see `ClassMeans`.
    frame : Tensor, shape (r, C), or "simplex" or "reduced", optional
        The classifier's shape. None and "simplex" are ``etfopt.simplex_etf(C)``, r = C. "reduced" has r = C-1 rows and
        works with dim = C-1.
    reduced : bool
        True is ``frame="reduced"``.
    **options
        ``temperature``, ``ignore_index``, ``device`` and ``dtype``, see `Head`.

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

    global_mean: Tensor

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        generator: torch.Generator | None = None,
        synchronize: bool | ProcessGroup = True,
        **options: Unpack[FrameOptions],
    ) -> None:
        super().__init__(dim, num_classes, **options)
        self.register_buffer("global_mean", self.U.new_zeros(dim))
        self.ranks = Ranks(synchronize)
        self._drawn: tuple[torch.device, Tensor] | None = None  # the generator, as it was
        if generator is not None:
            self._drawn = generator.device, generator.get_state()
            self.U.copy_(_random_rotation(self.U.shape, generator))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: frame, rotation, and a bias of zero."""
        super().reset_parameters()
        self.global_mean.zero_()

    def _first_rotation(self) -> Tensor:
        if self._drawn is None:
            return super()._first_rotation()
        device, state = self._drawn
        return _random_rotation(self.U.shape, torch.Generator(device).set_state(state))

    def _center(self) -> Tensor:
        return self.global_mean

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        bias = state_dict.pop(prefix + "bias", None)
        if bias is not None:  # of release 0.1
            U, frame = state_dict.get(prefix + "U", self.U), state_dict.get(prefix + "frame", self.frame)
            state_dict[prefix + "global_mean"] = _mean_of(bias, U, frame)

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        refuse_trace(self)
        with self.ranks.sharing_refusals(self.U, self.dim + 1):
            f, labels = self._checked(features, labels)
        self._follow(f.detach(), labels)
        return self._classified(f)

    # not compiled, for the reason that ClassMeans gives
    @outside_graphs
    @torch.no_grad()
    def _follow(self, f: Tensor, labels: Tensor | None) -> None:
        """Set the mean that the bias centres by to that of the batch, over all ranks."""
        with torch.autocast(f.device.type, enabled=False):
            f = f.to(torch.promote_types(f.dtype, self.global_mean.dtype))
            known = labels is not None
            if labels is None:
                labels = torch.zeros(f.shape[0], dtype=torch.int64, device=f.device)
            counted, bad = counted_samples(f, labels, self.num_classes, self.ignore_index)
            if self.ranks.group() is None:
                self.note_one_class(one_class(labels, counted) if known else counted.sum() == 1)
            pooled = self.ranks.total([torch.where(counted[:, None], f, 0).sum(dim=0), counted.sum()], bad)
            total, number = pooled.sums
            mu = (total / number.clamp(min=1)).to(self.global_mean.dtype)
            valid = number > 0 if pooled.refused is None else (number > 0) & ~pooled.refused
            self.global_mean.copy_(where_valid(valid, mu, self.global_mean))
            self.count_rejected(pooled.refused)


def _random_rotation(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return the Q of a Gaussian matrix, R's diagonal positive: then Q is uniform on the Stiefel manifold."""
    Q, R = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device))
    rotation: Tensor = Q * R.diagonal().sign()
    return rotation


def _mean_of(bias: Tensor, U: Tensor, frame: Tensor | None) -> Tensor:
    """Return a mean with the bias b = -W mu for W = c F'U': mu = Uz with -c F'z = b."""
    dtype = torch.promote_types(bias.dtype, torch.float32)
    if bias.is_meta:
        return torch.empty(len(U), dtype=dtype, device="meta")
    wide = bias.to("cpu", torch.float64)
    F = frame_tensor(len(wide), wide) if frame is None else frame.to(wide)
    z = torch.linalg.pinv(F.mT) @ wide * (torch.linalg.matrix_norm(F) / -math.sqrt(len(wide)))
    mean: Tensor = U.to(wide) @ z
    return mean.to(bias.device, dtype)
