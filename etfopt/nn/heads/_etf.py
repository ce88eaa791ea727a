r"""What the heads share whose classifier is a rotated frame."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Self, Unpack

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._options import as_ignored, as_statistics, warn_of_low_temperature
from etfopt._scalars import as_integer
from etfopt._torch import full_precision, readable
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn._state import level_of_caller
from etfopt.nn.functional import on_frame
from etfopt.nn.heads._framed import FRAMES, Framed
from etfopt.nn.heads._frames import AnyFrame, head_frame
from etfopt.nn.heads._growth import moved_least, places_of
from etfopt.nn.heads.base import HeadOptions

NON_NEGATIVE = (
    "the mean of the features has no negative entry, as behind a ReLU. With statistics='paper' some classes may never "
    "be learnt from such features: use the default statistics, or put a linear layer behind the ReLU."
)


class ETFHead(Framed):
    """A head whose classifier is the ETF of a rotation U: no parameters, and U and the frame as buffers.

    Subclasses have a buffer or a submodule with the mean that the bias centres by, see `_center`.
    """

    _looked = False  # whether the features were judged

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        statistics: str = "running",
        frame: AnyFrame | Sequence[AnyFrame] | str | None = None,
        reduced: bool = False,
        counts: ArrayLike | Tensor | None = None,
        capacity: int | None = None,
        **options: Unpack[HeadOptions],
    ) -> None:
        statistics = as_statistics(statistics)
        if statistics == "paper":
            options.setdefault("temperature", 5.0)  # of the paper's scripts
        frame = _asked(frame, reduced, "simplex" if statistics == "paper" else "best")
        dim, C = as_integer(dim, "dim", at_least=1), as_integer(num_classes, "num_classes", at_least=2)
        # before the temperature, which depends on them
        self.capacity = _capacity(capacity, C, frame, statistics)
        made = head_frame(frame, dim, self.capacity or C, counts=counts)
        self._cosine = made.cosine
        super().__init__(dim, C, **options)
        self.statistics = statistics
        self._register(made, options.get("dtype"), options.get("device"))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: the frame, the first rotation, and the mean that the bias centres by."""
        super().reset_parameters()
        self._rejected, self._lone, self._told = None, None, False

    def train(self, mode: bool = True) -> Self:
        """Set the mode. The first change to evaluation after training warns of features that no frame fits well."""
        super().train(mode)
        watched = not (mode or self._looked or torch.compiler.is_compiling() or self.U.is_meta)
        if watched and readable(self.U) and self._center().any():
            doubts = self._doubts()
            self._looked = bool(doubts) or self._judged()
            for doubt in doubts:
                said = f"{type(self).__name__}: {doubt} This warning comes once"
                warnings.warn(said, UserWarning, stacklevel=level_of_caller())
        return self

    def _judged(self) -> bool:
        """Whether the statistics say all that they will."""
        return True

    def _doubts(self) -> list[str]:
        """Return what the statistics say against the features."""
        mu = self._center()
        # all coordinates of a mean of few dimensions may be positive by chance
        return [NON_NEGATIVE] if self.statistics == "paper" and self.dim >= 8 and (mu >= 0).all() else []

    # --- classes that come and go -----------------------------------------------------------------------------------

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        if self.capacity is not None and len(index) <= self.capacity:
            self._reorder(index)
        else:
            self._regrow(index)
        self.num_classes = len(index)

    def _reorder(self, index: list[int]) -> None:
        """Give each class of an index its old vertex, and new ones the next free vertex: no vertex moves."""
        order = places_of(index, self.places)
        if order == list(range(self.places)):
            return
        for name in FRAMES:
            frame, first = getattr(self, name), self._first_frames[name]
            if frame is not None and first is not None:
                setattr(self, name, frame[:, order].clone())
                self._first_frames[name] = first[:, order].clone()

    def _regrow(self, index: list[int]) -> None:
        """Take the frame of another number of classes, turned so that the old vertices move as little as they can."""
        C = len(index)
        if self.frame_name is None:
            raise InputError(
                f"frame was given as a tensor, by counts or by a checkpoint, which do not say what it is for {C} "
                "classes; build a new head, or one with capacity="
            )
        made = head_frame(self.frame_name, self.dim, C)
        self._check_room(C if made.means is None else len(made.means), C)
        as_ignored(self.ignore_index, C)
        if self.statistics == "paper":  # means of features of the old norm
            warn_of_low_temperature(self.temperature, C, level_of_caller() + 1, made.cosine)
        else:
            self._retemper(C, made.cosine)
        with full_precision(self.U):
            vertices = on_frame(self.rotation(), self.frame)[:, : self.num_classes]
        frame = torch.from_numpy(simplex_etf(C)) if made.means is None else made.means
        self._first_known = made._replace(means=None, rows=None)
        self._know(made)
        self.capacity = None if self.capacity is None else C
        self.U = moved_least(vertices, index, frame.to(self.U.device))
        for name, exact in zip(FRAMES, (made.means, made.rows), strict=True):
            self._set_frame(name, exact, self.U.dtype)
        self._forget_rotation()

    def _refuse_hold(self, C: int) -> None:
        if self.capacity is None or self.capacity < C:
            room = "there is none" if self.capacity is None else f"it is {self.capacity}"
            raise InputError(
                f"hold=True needs a capacity of at least {C} classes, and {room}: without free vertices all vertices "
                "must move. Build the head with capacity=, the largest number of classes that may come"
            )

    # --- the classifier ---------------------------------------------------------------------------------------------

    @property
    def unit(self) -> float:
        """The norm of features that counts as 1 in the statistics: the temperature, and 1 for the paper's."""
        return 1.0 if self.statistics == "paper" else self.temperature

    @property
    def weight(self) -> Tensor:
        r"""Classifier weight :math:`W = \sqrt C (UF)'/\|F\|_F`, shape (C, d): for the simplex, rows of unit norm."""
        return self._weight(self.rotation())

    @property
    def bias(self) -> Tensor:  # type: ignore[override] # of averaged models too it must fit the weight
        r"""Bias :math:`b = -W\mu_G` that centres the features, shape (C,), detached."""
        return self.classifier()[1]

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias together, which costs less than one after the other."""
        weight = self.weight
        with full_precision(weight):
            return weight, -(weight @ self._center().to(weight.dtype))

    def _center(self) -> Tensor:
        r"""Return :math:`\mu_G`, shape (d,)."""
        raise NotImplementedError

    def _weight(self, U: Tensor) -> Tensor:
        K, frame = self.places, self._rows_of
        # rows of unit mean-square norm, whatever the frame's size
        scale = math.sqrt(K) if frame is None else math.sqrt(K) / torch.linalg.matrix_norm(frame)
        with full_precision(U):
            rows = scale * on_frame(U, frame).mT
        return rows if self.num_classes == K else rows[: self.num_classes]

    def _other_statistics(self, state_dict: dict[str, Any], key: str, old: str | None = None) -> list[str]:
        """Return what is wrong with the statistics of a state: `key` is stored by running ones, `old` by the others."""
        # entries that come one by one, as some loaders bring them, say nothing of what is missing
        if self.statistics == "paper" and key in state_dict:
            return ["it is of statistics='running': build the head with that"]
        if self.statistics == "running" and old in state_dict:
            return ["it is of statistics='paper' (release 0.1): build the head with statistics='paper'"]
        return []


def _asked(
    frame: AnyFrame | Sequence[AnyFrame] | str | None, reduced: bool, default: str
) -> AnyFrame | Sequence[AnyFrame] | str:
    if not reduced:
        return default if frame is None else frame
    if not (frame is None or isinstance(frame, str)):
        raise InputError(
            "reduced=True is for the simplex, and frame= is given too; pass one of the two", "reduced", True
        )
    return "reduced" if frame in (None, "simplex") else frame


def _capacity(capacity: int | None, C: int, frame: object, statistics: str) -> int | None:
    if capacity is None:
        return None
    K = as_integer(capacity, "capacity", at_least=2)
    if C > K:
        raise InputError(f"capacity = {K} is smaller than num_classes = {C}; pass the largest number that may come")
    if statistics == "paper":
        raise InputError("capacity is for statistics='running': with the paper's rules absent classes have means too")
    if isinstance(frame, str) and frame == "simplex":
        remedy = "pass frame='reduced'"
        raise InputError(
            f"capacity needs a frame in which every direction belongs to a class; {remedy}", "frame", frame
        )
    return K
