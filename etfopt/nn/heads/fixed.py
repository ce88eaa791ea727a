r"""The fixed baseline: an ETF that does not follow the class means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from etfopt._torch import outside_graphs
from etfopt.nn._ranks import Ranks
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._state import refuse_second_run, refuse_trace, where_valid
from etfopt.nn.class_means import MEMORY, share
from etfopt.nn.functional import frame_tensor
from etfopt.nn.heads._etf import ETFHead
from etfopt.nn.heads._framed import FrameOptions
from etfopt.nn.pooling import counted_samples, one_class

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["FixedETFHead"]


@takes_old_options
class FixedETFHead(ETFHead):
    r"""The fixed baseline: the frame of a rotation that does not change, :math:`W = \sqrt C\,(UF)'/\|F\|_F`.

    The bias is :math:`b = -W\mu_G` with the running mean of the training features, held constant. The buffer
    ``global_mean`` (d,) has it for features of norm 1, and ``samples`` counts them. The frame is part of the state too.

    Parameters
    ----------
    dim, num_classes : int
        d and C; dim must be at least the frame's number of rows.
    generator : torch.Generator, optional
        Draws the rotation U, uniform on the Stiefel manifold. By default it is a draw with the seed 0. The canonical
        rotation of ``statistics="paper"`` lies along the axes: each class then needs a feature of its own, and
        features that are not negative (behind a ReLU) may never learn some.
    statistics : "running" or "paper"
        "running" centres by a mean over batches, which forgets as `ClassMeans` does, with a memory of 64 samples a
        class. "paper" takes the mean of the last batch, the canonical rotation, the square frame and tau = 5.
    synchronize : bool or ProcessGroup
        Whose batches count under torch.distributed, see `ClassMeans`.
    frame : Frame, Tensor or ndarray of shape (r, C), str, or a pair of frames, optional
        The classifier's shape. The default is the best known one, `etfopt.frames.best_frame`: the simplex with r = C-1
        rows if C <= dim + 1. By name: "reduced" is that simplex, "simplex" the one with r = C rows, "polygon",
        "orthoplex", "code" and "best" are in `etfopt.frames`; any other name is the import path of a function of C, or
        of d and C. A pair (F_H, F_W) of frames with r rows each is for imbalanced classes: the class means belong to
        F_H, and the classifier has F_W. "seli" is the pair of `etfopt.frames.seli`, and needs `counts`.
    reduced : bool
        Short for ``frame="reduced"``.
    counts : Tensor or array_like, shape (C,), optional
        Number of training samples of each class, for ``frame="seli"`` and ``frame="best"``.
    capacity : int, optional
        The largest number of classes that may come. The frame then has this many vertices, and the present classes have
        the first ones: `add_classes` moves no vertex and keeps the temperature.
    **options
        ``temperature``, ``ignore_index``, ``device`` and ``dtype``, see `Head`.

    Raises
    ------
    InputError
        If an argument is out of range, or the frame does not fit; in training if a batch does not fit, or a forward is
        traced, exported or run inside a backward pass (activation checkpointing).

    Notes
    -----
    With C > dim + 1 classes there is no simplex. Up to C = 2 dim the best frame has a closed form. Beyond, a search
    finds it, which takes seconds to minutes the first time and is cached on disk; ``etfopt frame --dim D --classes C``
    does it beforehand and shows its progress. The attribute ``certificate`` says how good the frame is, an
    `etfopt.frames.FrameCertificate`; it is None for a matrix of your own and after a state brought another frame.

    Class c has column c of the frame. The vertices of a simplex are all alike, so that it does not matter which class
    has which. Those of other frames are not: no rotation exchanges them.

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
    samples: Tensor | None

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
        self.register_buffer("samples", self.U.new_zeros(()) if self.statistics == "running" else None)
        if generator is None and self.statistics == "running":
            generator = torch.Generator().manual_seed(0)
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
        if self.samples is not None:
            self.samples.zero_()

    def _first_rotation(self) -> Tensor:
        if self._drawn is None:
            return super()._first_rotation()
        device, state = self._drawn
        return _random_rotation(self.U.shape, torch.Generator(device).set_state(state))

    def _center(self) -> Tensor:
        return self.global_mean * self.unit

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        mean, samples = f"{prefix}global_mean", f"{prefix}samples"
        # release 0.1 stored a bias; later heads of its statistics store a mean, and U, without a number of samples
        later = mean if samples not in state_dict and f"{prefix}U" in state_dict else None
        old = later if self._old_bias(state_dict, prefix) is None else f"{prefix}bias"
        wrong = self._other_statistics(state_dict, samples, old)
        return wrong or super()._misfits(state_dict, prefix)

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        bias = self._old_bias(state_dict, prefix)
        if bias is not None:
            del state_dict[prefix + "bias"]
            U, frame = state_dict[prefix + "U"], state_dict.get(prefix + "frame", self.frame)
            state_dict[prefix + "global_mean"] = _mean_of(bias, U, frame)

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        refuse_trace(self)
        if self.samples is not None:  # the mean of the last batch alone is the same in a second run
            refuse_second_run(self)
        with self.ranks.sharing_refusals(self.U, self.dim + 1):
            f, target = self._checked(features, labels)
        self._follow(f.detach(), target)
        return self._classified(f)

    # not compiled, for the reason that ClassMeans gives
    @outside_graphs
    @torch.no_grad()
    def _follow(self, f: Tensor, target: Tensor | None) -> None:
        """Take the batch, over all ranks, into the mean that the bias centres by."""
        with torch.autocast(f.device.type, enabled=False):
            f = f.to(torch.promote_types(f.dtype, self.global_mean.dtype)) / self.unit
            labelled = target is not None
            if target is None:
                target = torch.zeros(len(f), dtype=torch.int64, device=f.device)
            counted, bad = counted_samples(f, target, self.num_classes, self.ignore_index)
            if self.samples is None and self.ranks.group() is None and not target.is_floating_point():
                self.note_one_class(one_class(target, counted) if labelled else counted.sum() == 1)
            pooled = self.ranks.total([torch.where(counted[:, None], f, 0).sum(dim=0), counted.sum()], bad)
            total, number = pooled.sums
            valid = number > 0 if pooled.refused is None else (number > 0) & ~pooled.refused
            mu = (total / number.clamp(min=1)).to(self.global_mean.dtype)
            if self.samples is not None:
                new = number.to(self.samples.dtype)
                mu = torch.lerp(self.global_mean, mu, share(self.samples, new, MEMORY * self.num_classes))
                self.samples += torch.where(valid, new, 0)
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
