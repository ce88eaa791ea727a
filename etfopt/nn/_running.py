r"""What `etfopt.nn.ClassMeans` does with a batch: sums over the ranks, an update, and its commitment to the state."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from etfopt._torch import require_finite, require_floats, require_labels, visible
from etfopt.errors import InputError
from etfopt.nn._ranks import Ranks
from etfopt.nn._state import Tracking, refuse_second_run, where_valid
from etfopt.nn.averaging import rule_of
from etfopt.nn.pooling import class_sums

__all__ = ["MeansUpdate", "RunningMeans"]

LABELS_REQUIRED = (
    "labels are required in training: call head(features, labels), or head.eval() to predict; pass the backbone alone "
    "to what runs a network without labels, such as torch.optim.swa_utils.update_bn"
)

"""Smallest rate of the "paper" rule: the release stops shrinking its rate there."""


class MeansUpdate(NamedTuple):
    """What one batch makes of the running means, before it is committed."""

    mean: Tensor  # (d, C), with the gradient of the batch's part
    global_mean: Tensor  # (d,), of the batch, with its gradient
    seen: Tensor  # (C,), which classes have occurred so far
    # whether the batch counts, (), and whether it is refused. Where it does not count the fields above hold the old
    # state. None says that values were looked at: the batch counts, and is good
    valid: Tensor | None
    bad: Tensor | None


class RunningMeans(Tracking):
    """Running class means; subclasses set the sizes, the rule, the ranks and the buffers."""

    mean: Tensor
    global_mean: Tensor
    seen: Tensor
    steps: Tensor
    num_classes: int
    dim: int
    averaging: str | float
    ignore_index: int
    ranks: Ranks
    _known_count: int | None = None  # see `count`

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: no batch has been seen."""
        for value in self._buffers.values():
            if value is not None:
                value.zero_()
        self._known_count, self._rejected, self._lone, self._told = None, None, None, False

    def sharing_refusals(self) -> AbstractContextManager[None]:
        """Return a block around checks of a batch that tells the other ranks of an `InputError`."""
        return self.ranks.sharing_refusals(self.mean, self.mean.numel() + self.dim + self.num_classes)

    def updated(self, features: Tensor, labels: Tensor | None) -> MeansUpdate | None:
        """Return what a batch makes of the means, without changing them; None for a batch without samples."""
        refuse_second_run(self)
        with self.sharing_refusals():
            labels = self._checked(features, labels)
        if not features.shape[0] and self.ranks.group() is None:
            return None
        with torch.autocast(features.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(features.dtype, self.mean.dtype), torch.float32)
            return self._average(features.to(dtype), labels)

    def _checked(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return the labels as int64, or raise for what does not fit."""
        require_floats(features, "features", ("n", self.dim))
        if labels is None:
            raise InputError(LABELS_REQUIRED)
        index = require_labels(labels, len(features), self.num_classes, self.ignore_index)
        require_finite(features, "features")
        return index

    def _average(self, features: Tensor, labels: Tensor) -> MeansUpdate | None:
        own, bad = class_sums(features, labels, self.num_classes, self.ignore_index)
        pooled = self.ranks.total(own, bad)
        sums, total, counts = (part.to(features.dtype) for part in pooled.sums)
        number = counts.sum()
        valid = None
        if pooled.refused is not None:
            valid = (number > 0) & ~pooled.refused
        elif number == 0:
            return None
        mu = total / number.clamp(min=1)
        batch = (sums / counts.clamp(min=1)[:, None] - mu).mT

        present, before = counts > 0, self.seen > 0
        if not self._told:
            self.note_one_class(present.sum() == 1)
        seen = before | present
        past = torch.where(seen, self.mean.to(features.dtype), mu.detach()[:, None])
        # columns the batch says nothing of: the past where there is one, mu_G where there is none
        batch = torch.where(present, batch, torch.where(seen, past, mu[:, None]))
        # lerp is exact where both agree, so that absent classes keep their column to the bit, and at the rate 1
        mean = torch.lerp(past, batch, self._rate(features.dtype))
        old = (self.mean, self.global_mean, before)
        mean, mu, seen = (where_valid(valid, x, y) for x, y in zip((mean, mu, seen), old, strict=True))
        return MeansUpdate(mean, mu, seen, valid, pooled.refused)

    def _rate(self, dtype: torch.dtype) -> Tensor:
        return rule_of(self.averaging)(self.steps.to(dtype) + 1)

    def count(self) -> int:
        """Return the number of steps taken, for Python to steer by.

        On a GPU this is a remembered number, looked up after a start, a load, and every ``train()`` or ``eval()``. In
        between it also counts batches that turn out to be bad or all ignored.
        """
        if visible(self.steps):
            return math.ceil(self.steps)
        if self._known_count is None:
            self.raise_rejected()  # this waits for the device in any case
            self._known_count = math.ceil(self.steps)
        return self._known_count

    @torch.no_grad()
    def commit(self, update: MeansUpdate) -> None:
        """Make an update the state; where it is not valid nothing changes."""
        before = self.count()
        self.mean.copy_(update.mean)
        self.global_mean.copy_(update.global_mean)
        self.seen.copy_(update.seen)
        self.steps += 1 if update.valid is None else update.valid
        self.count_rejected(update.bad)
        # whether a first batch was a good one is looked up at the next
        self._known_count = before + 1 if update.valid is None or before > 0 else None

    def raise_rejected(self) -> None:
        """Raise `InputError` if batches were refused unseen since the last call. Waits for the device."""
        self._known_count = None
        super().raise_rejected()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._known_count = None
