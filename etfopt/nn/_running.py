r"""What the running class means do with a batch: sums over the ranks, an update, and its commitment to the state."""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Required, TypedDict

import torch
from torch import Tensor

from etfopt._options import ByKeyword, as_ignored
from etfopt._scalars import as_integer
from etfopt._torch import full_precision, outside_graphs, require_finite, visible
from etfopt.nn._ranks import Ranks
from etfopt.nn._signature import whole_signature
from etfopt.nn._state import Tracking, refuse_second_run, refuse_trace, state_dtype, where_valid
from etfopt.nn._targets import rows, targets
from etfopt.nn.pooling import class_sums

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


OTHERS = {"samples", "seen", "global_mean"}
"""Entries that tell states of running and of the paper's class means apart."""


class MeansOptions(TypedDict, total=False):
    """The arguments that all running class means share."""

    num_classes: Required[int]
    dim: Required[int]
    ignore_index: int
    synchronize: bool | ProcessGroup
    device: torch.device | str | None
    dtype: torch.dtype | None


class Sums(NamedTuple):
    """What the samples of a batch add up to, over all ranks."""

    classes: Tensor  # (C, d)
    total: Tensor  # (d,)
    counts: Tensor  # (C,)

    @property
    def number(self) -> Tensor:
        """How many samples count, ()."""
        return self.counts.sum()

    def means(self) -> Tensor:
        """Return the class means of the batch, (d, C); 0 for an absent class."""
        return (self.classes / torch.where(self.counts > 0, self.counts, 1)[:, None]).mT

    def mean(self) -> Tensor:
        """Return the mean of the batch, (d,); 0 for an empty one."""
        return self.total / torch.where(self.number > 0, self.number, 1)


class Merged(NamedTuple):
    """The running means with a batch in them, before it is known whether the batch counts."""

    mean: Tensor  # (d, C), centred, with the gradient of the batch's part
    center: Tensor  # (d,), what the bias of a training step centres by, with its gradient
    unlabelled: Tensor  # (d,), the same without a look at the labels of the batch
    seen: Tensor  # (C,), which classes have occurred so far
    state: dict[str, Tensor]  # the buffers, but for the number of steps


class MeansUpdate(NamedTuple):
    """What one batch makes of the running means, before it is committed."""

    mean: Tensor
    center: Tensor
    unlabelled: Tensor
    seen: Tensor
    state: dict[str, Tensor]
    # whether the batch counts, (), and whether it is refused. Where it does not count the fields above hold the old
    # state. None says that values were looked at: the batch counts, and is good
    valid: Tensor | None
    bad: Tensor | None


class RunningMeans(ByKeyword, Tracking, abc.ABC):
    """Running class means of features; a subclass says which buffers there are, and what a batch makes of them."""

    steps: Tensor
    _shown: tuple[str, ...] = ("num_classes", "dim")
    _by_class: tuple[str, ...]  # the buffers that have a column for each class
    _known_count: int | None = None  # see `count`

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__signature__ = whole_signature(cls)

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        ignore_index: int = -100,
        synchronize: bool | ProcessGroup = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.ignore_index = as_ignored(ignore_index, self.num_classes)
        self.ranks = Ranks(synchronize)
        # all of them floats, for averages of models: one of bool fails, and one of integers is cut to integers
        for name, size in (self._sizes() | {"steps": ()}).items():
            self.register_buffer(name, torch.zeros(size, dtype=state_dtype(dtype), device=device))

    @abc.abstractmethod
    def _sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the buffers, but for the number of steps."""

    @abc.abstractmethod
    def _merged(self, batch: Sums) -> Merged:
        """Return what a batch with samples makes of the state."""

    @abc.abstractmethod
    def start_from(self, mean: Tensor) -> None:
        """Take columns (d, C) from elsewhere for the class means."""

    @abc.abstractmethod
    def centred(self) -> Tensor:
        """Return the centred class means as they are, (d, C): what H is made of."""

    @abc.abstractmethod
    def center(self) -> Tensor:
        """Return the mean that the bias centres by in evaluation, (d,)."""

    @property
    @abc.abstractmethod
    def occurred(self) -> Tensor:
        """Which classes have occurred so far, (C,) of bool."""

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the centred class means, shape (d, C): updated by the batch in training, as they are in evaluation.

        Parameters
        ----------
        features : Tensor, shape (..., d)
        labels : Tensor of integers, shape (...), or of probabilities, shape (..., C)
            Required in training. A batch without samples changes nothing.

        Returns
        -------
        Tensor, shape (d, C)
            In training with the gradient of the batch's part.

        Raises
        ------
        InputError
            If features or labels do not fit, before any state changes.
        """
        if not self.training:
            return self.centred().clone()
        refuse_trace(self)
        mean: Tensor = self._train(features, labels)
        return mean

    # Not compiled: AOTAutograd (PyTorch 2.13) may save a buffer for the backward pass and write to it before that,
    # which gives another gradient and no error. Under fullgraph=True this is an error; else the rest is compiled.
    @outside_graphs
    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        with self.sharing_refusals():
            lead, features = features.shape[:-1], rows(features, self.dim)
            target = targets(labels, lead, self.num_classes, self.ignore_index)
        update = self.updated(features, target)
        if update is None:
            return self.centred().clone()
        self.commit(update)
        return update.mean

    @torch.no_grad()
    def take_columns(self, take: Callable[[Tensor], Tensor], num_classes: int) -> None:
        """Replace what the buffers hold for each class by other columns, for another number of classes."""
        for name in self._by_class:
            setattr(self, name, take(getattr(self, name)))
        self.num_classes = num_classes

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: no batch has been seen."""
        for value in self._buffers.values():
            if value is not None:
                value.zero_()
        self._known_count, self._rejected, self._lone, self._told = None, None, None, False

    def sharing_refusals(self) -> AbstractContextManager[None]:
        """Return a block around checks of a batch that tells the other ranks of an `InputError`."""
        return self.ranks.sharing_refusals(self.steps, self.dim * self.num_classes + self.dim + self.num_classes)

    def updated(self, features: Tensor, target: Tensor, unit: float = 1.0) -> MeansUpdate | None:
        """Return what a batch makes of the means, without changing them; None for a batch without samples.

        Features are (n, d), and the means are those of features over `unit`. Targets are as
        `etfopt.nn._targets.targets` returns them.
        """
        refuse_second_run(self)
        with self.sharing_refusals():
            require_finite(features, "features")
        if not features.shape[0] and self.ranks.group() is None:
            return None
        with full_precision(features):
            dtype = torch.promote_types(torch.promote_types(features.dtype, self.steps.dtype), torch.float32)
            return self._average(features.to(dtype), target, unit)

    def _average(self, features: Tensor, target: Tensor, unit: float) -> MeansUpdate | None:
        own, bad = class_sums(features, target, self.num_classes, self.ignore_index)
        pooled = self.ranks.total(own, bad)
        sums, total, counts = (part.to(features.dtype) for part in pooled.sums)
        # over ranks the counts carry a gradient of zero, for which autograd would save the state that commit writes to
        batch = Sums(sums / unit, total / unit, counts.detach())
        if pooled.refused is None:
            return None if batch.number == 0 else MeansUpdate(*self._merged(batch), None, None)
        valid = (batch.number > 0) & ~pooled.refused
        new, center = self._merged(batch), self.center()
        old = (self.centred(), center, center, self.occurred)
        mean, center, unlabelled, seen = (where_valid(valid, x, y) for x, y in zip(new[:4], old, strict=True))
        state = {name: where_valid(valid, X, getattr(self, name)) for name, X in new.state.items()}
        return MeansUpdate(mean, center, unlabelled, seen, state, valid, pooled.refused)

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
        for name, value in update.state.items():
            getattr(self, name).copy_(value)
        self.steps += 1 if update.valid is None else update.valid
        self.count_rejected(update.bad)
        # whether a first batch was a good one is looked up at the next
        self._known_count = before + 1 if update.valid is None or before > 0 else None

    def raise_rejected(self) -> None:
        """Raise `InputError` if batches were refused unseen since the last call. Waits for the device."""
        self._known_count = None
        super().raise_rejected()

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        foreign = [name for name in OTHERS - self._buffers.keys() if prefix + name in state_dict]
        other = "PaperClassMeans" if "samples" in self._buffers else "ClassMeans"
        wrong = [f"it is of {other}, with {', '.join(sorted(foreign))}: load it into that"] if foreign else []
        return wrong + super()._misfits(state_dict, prefix)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._known_count = None
