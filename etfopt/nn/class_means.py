r"""Running means of the classes' features, as the paper's layer keeps them."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from etfopt._options import as_averaging
from etfopt._scalars import as_integer
from etfopt._torch import (
    ByKeyword,
    outside_graphs,
    require_finite,
    require_floats,
    require_labels,
    visible,
)
from etfopt.errors import InputError
from etfopt.nn._ranks import Ranks
from etfopt.nn._state import Tracking, refuse_second_run, refuse_trace, state_dtype, where_valid
from etfopt.nn.pooling import as_ignored, class_sums

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ClassMeans", "MeansUpdate"]

LABELS_REQUIRED = (
    "labels are required in training: call head(features, labels), or head.eval() to predict; pass the backbone alone "
    "to what runs a network without labels, such as torch.optim.swa_utils.update_bn"
)

RATE_FLOOR = 1e-4
"""Smallest rate of the "paper" rule: the release stops shrinking its rate there."""


class MeansUpdate(NamedTuple):
    """What one batch makes of the running means, before it is committed.

    Attributes
    ----------
    mean : Tensor, shape (d, C)
        The new running means, with the gradient of the batch's part.
    global_mean : Tensor, shape (d,)
        Mean of the batch.
    seen : Tensor, shape (C,)
        Which classes have occurred so far.
    valid, bad : Tensor, shape (), or None
        Whether the batch counts, and whether it is refused. Where it does not count the fields above hold the old
        state. None says that values were looked at: the batch counts, and is good.
    """

    mean: Tensor
    global_mean: Tensor
    seen: Tensor
    valid: Tensor | None
    bad: Tensor | None


class ClassMeans(ByKeyword, Tracking):
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
        The rate :math:`a_t`, t = 1 at the first batch: "paper" is :math:`\max(2/(t+1), 10^{-4})`, the rule of the
        paper's release; "cumulative" is :math:`1/t`, the plain mean over batches; a number in (0, 1] is a constant
        rate after :math:`a_1 = 1`. The smaller the last rates, the less of the gradient is left.
    ignore_index : int
        Label of samples that count neither in the class means nor in :math:`\mu_G`, as in `torch.nn.CrossEntropyLoss`.
    synchronize : bool or ProcessGroup
        Under torch.distributed, the processes whose batches count as one in training: True for the default group,
        False for each process alone, or a group. The reduction is differentiable, and every process holds the same
        means; see `etfopt.nn._ranks` for the gradient.
    device, dtype : torch.device and torch.dtype, optional
        Of the buffers, which are at least float32.

    Raises
    ------
    InputError
        If an argument is out of range; in `forward` if features or labels do not fit, before any state changes, and
        on every rank if they do not on one. Where looking at values would wait for a device, a batch with NaN or a
        bad label leaves the state as it was, and the error comes with the next ``eval()``, ``train()``,
        ``state_dict()`` or `NearestETFHead.solution`.

    Notes
    -----
    All state is in buffers: ``mean`` (d, C), ``global_mean`` (d,), ``seen`` (C,), ``steps`` (). They are float32 or
    better however the module is built, moved or loaded, and all of them may be averaged (EMA, SWA): a class was seen
    where ``seen > 0``, and an average of ``steps`` is rounded up. In float32 ``steps`` counts to 2^24. The options of
    the constructor are not part of the state.

    A batch of one class is its own mean, and teaches nothing of the class. A `UserWarning` says so, once.

    References
    ----------
    Markou, Ajanthan and Gould (2024), section 3 and the released code. What a batch weighs in the mean after t steps,
    and what is left of its gradient: ``theory/fading.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import ClassMeans
    >>> means = ClassMeans(num_classes=2, dim=3)
    >>> H = means(torch.eye(3)[:2], torch.tensor([0, 1]))
    >>> H
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    >>> int(means.steps), means.seen.tolist()
    (1, [1.0, 1.0])
    """

    mean: Tensor
    global_mean: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        averaging: str | float = "paper",
        ignore_index: int = -100,
        synchronize: bool | ProcessGroup = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.averaging = as_averaging(averaging)
        self.ignore_index = as_ignored(ignore_index, self.num_classes)
        self.ranks = Ranks(synchronize)
        self._known_count: int | None = None  # see `count`
        # all of them floats, for averages of models: one of bool fails, and one of integers is cut to integers
        sizes = {"mean": (dim, num_classes), "global_mean": (dim,), "seen": (num_classes,), "steps": ()}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=state_dtype(dtype), device=device))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: no batch has been seen."""
        for value in self._buffers.values():
            if value is not None:
                value.zero_()
        self._known_count, self._rejected, self._lone, self._told = None, None, None, False

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the centred class means, shape (d, C): updated by the batch in training, as they are in evaluation.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            n = 0 is allowed and changes nothing.
        labels : Tensor of integers, shape (n,)
            Required in training.

        Returns
        -------
        Tensor, shape (d, C)
            The running means, one column a class; in training with the gradient of the batch's part.

        Raises
        ------
        InputError
            If features or labels do not fit, before any state changes.
        """
        if not self.training:
            return self.mean.clone()
        refuse_trace(self)
        mean: Tensor = self._train(features, labels)
        return mean

    # Not compiled: AOTAutograd (PyTorch 2.13) may save a buffer for the backward pass and write to it before that,
    # which gives another gradient and no error. Under fullgraph=True this is an error; else the rest is compiled.
    @outside_graphs
    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        update = self.updated(features, labels)
        if update is None:
            return self.mean.clone()
        self.commit(update)
        return update.mean

    def sharing_refusals(self) -> AbstractContextManager[None]:
        """Return a block that tells the other ranks of an `InputError` that is raised in it.

        Returns
        -------
        context manager
            For what is checked before `updated`.
        """
        return self.ranks.sharing_refusals(self.mean, self.mean.numel() + self.dim + self.num_classes)

    def updated(self, features: Tensor, labels: Tensor | None) -> MeansUpdate | None:
        """Return what a batch makes of the means, without changing them.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            Of the batch.
        labels : Tensor of integers, shape (n,)
            Required.

        Returns
        -------
        MeansUpdate or None
            None for a batch without samples.

        Raises
        ------
        InputError
            If features or labels do not fit, here or on another rank.
        """
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
        t = self.steps.to(dtype) + 1
        if self.averaging == "paper":
            return (2 / (t + 1)).clamp(min=RATE_FLOOR)
        if self.averaging == "cumulative":
            return 1 / t
        return torch.where(t > 1, torch.full_like(t, float(self.averaging)), torch.ones_like(t))

    def count(self) -> int:
        """Return the number of steps taken, for Python to steer by.

        Where looking at ``steps`` is not free this is a remembered number, looked up after a start, a load, and every
        ``train()`` or ``eval()``. In between it also counts batches that turn out to be bad or all ignored.

        Returns
        -------
        int
            Steps taken.
        """
        if visible(self.steps):
            return math.ceil(self.steps)
        if self._known_count is None:
            self.raise_rejected()  # this waits for the device in any case
            self._known_count = math.ceil(self.steps)
        return self._known_count

    @torch.no_grad()
    def commit(self, update: MeansUpdate) -> None:
        """Make an update from `updated` the state.

        Parameters
        ----------
        update : MeansUpdate
            Where its `valid` is false nothing changes.
        """
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

    def extra_repr(self) -> str:
        """Return the constructor's arguments.

        Returns
        -------
        str
            What ``repr`` shows between the brackets.
        """
        return f"num_classes={self.num_classes}, dim={self.dim}, averaging={self.averaging!r}"
