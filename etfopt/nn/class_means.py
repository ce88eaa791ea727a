r"""Running means of the classes' features, as the paper's layer keeps them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from etfopt._inputs import as_integer
from etfopt._tensors import require_finite, require_floats, require_labels
from etfopt.errors import InputError

__all__ = ["ClassMeans", "MeansUpdate"]

RATE_FLOOR = 1e-4
"""Smallest rate of the "paper" rule: the release stops shrinking its rate there."""


class MeansUpdate(NamedTuple):
    """What one batch makes of the running means, before it is committed."""

    mean: Tensor  # (d, C), differentiable through the batch
    global_mean: Tensor  # (d,), mean of the batch, differentiable
    seen: Tensor  # (C,) bool


class ClassMeans(nn.Module):
    r"""Running class means, centred by the mean of each batch.

    With :math:`H_t` the class means of batch t minus the batch's global mean :math:`\mu_G`, as columns,

    .. math:: \bar H_t = a_t H_t + (1 - a_t) \bar H_{t-1},

    the past held constant, so that only :math:`a_t H_t` carries a gradient. A class absent from the batch keeps its
    previous column; a class never seen has :math:`\mu_G` as its column (the paper's release does the same).

    Parameters
    ----------
    num_classes : int
        C, at least 2.
    dim : int
        d, the width of the features.
    averaging : "paper", "cumulative" or float
        The rate :math:`a_t`, t = 1 at the first batch: ``"paper"`` is :math:`\max(2/(t+1), 10^{-4})`, the rule of the
        paper's release; ``"cumulative"`` is :math:`1/t`, the plain mean over batches; a number in (0, 1] is a constant
        rate (with :math:`a_1 = 1`, so that nothing is averaged with the empty past).

    Raises
    ------
    InputError
        If an argument is out of range; in `forward` if features or labels do not fit, before any state changes.

    Notes
    -----
    All state is in buffers: ``mean`` (d, C), ``global_mean`` (d,), ``seen`` (C,), ``steps`` ().

    References
    ----------
    Markou, Ajanthan and Gould (2024), section 3 and the released code.
    """

    mean: Tensor
    global_mean: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, dim: int, averaging: str | float = "paper") -> None:
        super().__init__()
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.averaging = _known_rule(averaging)
        self.register_buffer("mean", torch.zeros(dim, num_classes))
        self.register_buffer("global_mean", torch.zeros(dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the centred class means, shape (d, C): updated by the batch in training, as they are in evaluation.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            n = 0 is allowed and changes nothing.
        labels : Tensor of integers, shape (n,)
            Required in training.
        """
        update = self.updated(features, labels) if self.training else None
        if update is None:
            return self.mean.clone()
        self.commit(update)
        return update.mean

    def updated(self, features: Tensor, labels: Tensor | None) -> MeansUpdate | None:
        """Return what a batch makes of the means, without changing them; None for a batch without samples."""
        require_floats(features, "features", ("n", self.dim))
        if labels is None:
            raise InputError("labels are required in training: call head(features, labels), or head.eval() to predict")
        require_labels(labels, len(features), self.num_classes)
        require_finite(features, "features")
        if len(features) == 0:
            return None
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(features.dtype, self.mean.dtype), torch.float32)
            return self._average(features.to(dtype), labels.long())

    def _average(self, features: Tensor, labels: Tensor) -> MeansUpdate:
        mu = features.mean(dim=0)
        counts = torch.bincount(labels, minlength=self.num_classes)
        sums = features.new_zeros(self.num_classes, self.dim).index_add(0, labels, features)
        batch = (sums / counts.clamp(min=1)[:, None] - mu).mT

        present = counts > 0
        seen = self.seen | present
        past = torch.where(seen, self.mean.to(features.dtype), mu.detach()[:, None])
        # columns the batch says nothing of: the past where there is one, mu_G where there is none
        batch = torch.where(present, batch, torch.where(seen, past, mu[:, None]))
        # lerp is exact where both agree, so that absent classes keep their column to the bit, and at the rate 1
        return MeansUpdate(torch.lerp(past, batch, self._rate(features.dtype)), mu, seen)

    def _rate(self, dtype: torch.dtype) -> Tensor:
        t = self.steps.to(dtype) + 1
        if self.averaging == "paper":
            return (2 / (t + 1)).clamp(min=RATE_FLOOR)
        if self.averaging == "cumulative":
            return 1 / t
        return torch.where(t > 1, torch.full_like(t, float(self.averaging)), torch.ones_like(t))

    @torch.no_grad()
    def commit(self, update: MeansUpdate) -> None:
        """Make an update from `updated` the state."""
        self.mean.copy_(update.mean)
        self.global_mean.copy_(update.global_mean)
        self.seen.copy_(update.seen)
        self.steps += 1

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"num_classes={self.num_classes}, dim={self.dim}, averaging={self.averaging!r}"


def _known_rule(averaging: str | float) -> str | float:
    if averaging in ("paper", "cumulative"):
        return averaging
    if isinstance(averaging, (int, float)) and not isinstance(averaging, bool) and 0 < averaging <= 1:
        return float(averaging)
    raise InputError(f"averaging must be 'paper', 'cumulative' or a rate in (0, 1]; got {averaging!r}")
