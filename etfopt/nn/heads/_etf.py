r"""What the heads share whose classifier is a rotated frame."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from etfopt._arrays import room_hint
from etfopt._options import as_ignored, as_statistics, warn_of_low_temperature
from etfopt._torch import full_precision, readable, require_finite, require_floats
from etfopt.errors import InputError
from etfopt.frames import frame_matrix, simplex_etf
from etfopt.nn._state import level_of_caller, state_dtype
from etfopt.nn.functional import on_frame
from etfopt.nn.heads._growth import moved_least
from etfopt.nn.heads._rotation import Rotated
from etfopt.nn.heads.base import Head, HeadOptions

NON_NEGATIVE = (
    "the mean of the features has no negative entry, as behind a ReLU. With statistics='paper' some classes may never "
    "be learnt from such features: use the default statistics, or put a linear layer behind the ReLU."
)


class FrameOptions(HeadOptions, total=False):
    """The options that the heads with a frame share; `etfopt.nn.FixedETFHead` says what they do."""

    statistics: str
    frame: Tensor | str | None
    reduced: bool


class ETFHead(Head, Rotated):
    """A head whose classifier is the ETF of a rotation U: no parameters, and U and the frame as buffers.

    Subclasses have a buffer or a submodule with the mean that the bias centres by, see `_center`.
    """

    frame: Tensor | None
    _looked = False  # whether the features were judged

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        statistics: str = "running",
        frame: Tensor | str | None = None,
        reduced: bool = False,
        **options: Unpack[HeadOptions],
    ) -> None:
        statistics = as_statistics(statistics)
        if statistics == "paper":
            options.setdefault("temperature", 5.0)  # of the paper's scripts
        elif frame is None:
            frame = "reduced"
        super().__init__(dim, num_classes, **options)
        self.statistics = statistics
        self._automatic = isinstance(options.get("temperature"), str)
        dtype, device = state_dtype(options.get("dtype")), options.get("device")
        exact, self.frame_name = _named(frame, reduced, self.num_classes)
        frame = exact if exact is frame or exact is None else exact.to(dtype)
        if frame is not None:
            self._check_frame(frame)
        r = num_classes if frame is None else len(frame)
        self._check_room(r, num_classes)
        self.register_buffer("U", torch.eye(dim, r, dtype=dtype, device=device))  # the canonical rotation
        self._first_frame = None  # with all its digits, for the head may be moved to a wider dtype
        if frame is not None and exact is not None:
            frame = frame.detach().to(torch.promote_types(options.get("dtype") or frame.dtype, torch.float32))
            self._first_frame = frame if frame.is_meta else exact.detach().to("cpu", copy=True)
            frame = frame.to(self.U.device, copy=True)
        self.register_buffer("frame", frame)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: the frame, the first rotation, and the mean that the bias centres by."""
        if self.frame is not None and self._first_frame is not None:
            # a frame that was given on the meta device has no values: NaN until a state is loaded
            self.frame.fill_(torch.nan) if self._first_frame.is_meta else self.frame.copy_(self._first_frame)
        self.U.copy_(self._first_rotation())
        self._forget_rotation()
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

    def _first_rotation(self) -> Tensor:
        return torch.eye(*self.U.shape, dtype=self.U.dtype, device=self.U.device)

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        if self.frame_name is None:
            raise InputError(
                "frame was given as a tensor, which does not say what it is for another number of classes; build a new "
                "head"
            )
        C = len(index)
        frame = torch.from_numpy(frame_matrix(self.frame_name, C).copy())
        self._check_room(len(frame), C)
        as_ignored(self.ignore_index, C)
        if self.statistics == "paper":  # means of features of the old norm
            warn_of_low_temperature(self.temperature, C, level_of_caller() + 1)
        else:
            self._retemper(C)
        U = moved_least(on_frame(self.rotation(), self.frame), index, frame.to(self.U.device))
        self.num_classes, self.U = C, U
        if self.frame is not None:
            self._first_frame = frame
            self.frame = frame.to(self.frame.device, self.frame.dtype, copy=True)
        self._forget_rotation()

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

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        wrong = super()._misfits(state_dict, prefix)
        frame, old = state_dict.get(prefix + "frame"), state_dict.get(prefix + "bias")
        # entries that come one by one, as some loaders bring them, say nothing of the frame
        whole = all(
            prefix + name in state_dict for name, X in self._buffers.items() if name != "frame" and X is not None
        )
        if frame is not None and self.frame is None:
            wrong.append("it holds a frame, and this head has the simplex: pass frame= to the constructor")
        elif frame is None and self.frame is not None and whole and old is None:
            wrong.append("it is of a head with the simplex, and this head has another frame: pass frame='simplex'")
        elif old is not None and self._first_frame is not None and self._first_frame.is_meta:
            wrong.append("it is of release 0.1, which stored no frame, and frame= was on the meta device: pass values")
        if old is not None and tuple(old.shape) != (self.num_classes,):
            wrong.append(f"bias has shape {tuple(old.shape)} and not ({self.num_classes},)")
        if not wrong and whole and frame is not None:
            self._check_frame(frame)
        return wrong

    def _other_statistics(self, state_dict: dict[str, Any], key: str, old: str | None = None) -> list[str]:
        """Return what is wrong with the statistics of a state: `key` is stored by running ones, `old` by the others."""
        # entries that come one by one, as some loaders bring them, say nothing of what is missing
        if self.statistics == "paper" and key in state_dict:
            return ["it is of statistics='running': build the head with that"]
        if self.statistics == "running" and old in state_dict:
            return ["it is of statistics='paper' (release 0.1): build the head with statistics='paper'"]
        return []

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        if self._first_frame is not None and prefix + "bias" in state_dict:
            # release 0.1 stored no frame: a state of it is for heads that are built with its frame
            state_dict.setdefault(prefix + "frame", self._first_frame.to(self.U.device, self.U.dtype, copy=True))
        frame, first = state_dict.get(prefix + "frame"), self._first_frame
        if frame is not None and first is not None and frame.dtype.itemsize < 4:
            # a checkpoint of low precision: where it is the frame of this head, rounded, the exact frame is kept
            rounded = first.to(frame.device, frame.dtype)
            if not (first.is_meta or frame.is_meta) and torch.equal(rounded, frame):
                device = self.U.device if not self.U.is_meta else "cpu"
                state_dict[prefix + "frame"] = first.to(device, self.U.dtype, copy=True)
        super()._translate(state_dict, prefix)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.U, self.frame
        super()._apply(fn, recurse)
        if not before[0].is_meta and before[0].dtype.itemsize < self.U.dtype.itemsize:
            for old, new, first in zip(before, (self.U, self.frame), self._first(), strict=True):
                _restore_digits(old, new, first)
        return self

    def _first(self) -> tuple[Tensor, Tensor | None]:
        """Return the rotation and the frame of construction, with all their digits."""
        return self._first_rotation(), self._first_frame

    def _check_frame(self, frame: Tensor) -> None:
        require_floats(frame, "frame", ("r", self.num_classes))
        if frame.is_meta:
            return
        require_finite(frame, "frame")
        if not frame.any():
            raise InputError(f"frame of shape {tuple(frame.shape)} is zero; pass one with a non-zero entry")
        wide = frame.detach().to("cpu", torch.float64)
        gram = wide.mT @ wide
        simplex = torch.from_numpy(simplex_etf(self.num_classes))
        wanted = simplex * (gram.trace() / simplex.trace())
        rounding = max(1e-3, 4 * torch.finfo(frame.dtype).eps) * float(gram.abs().max())
        if self._automatic and not torch.allclose(gram, wanted, rtol=0, atol=rounding):
            raise InputError("temperature='auto' is known for simplex frames only, and frame is another; pass a number")

    def _check_room(self, r: int, C: int) -> None:
        if self.dim < r:
            hint = room_hint(self.dim, C, simplex=self.frame_name == "simplex", reduced="'reduced'", name="dim")
            raise InputError(f"dim = {self.dim} is smaller than the r = {r} rows of the frame; {hint}")

    def _weight(self, U: Tensor) -> Tensor:
        C, frame = self.num_classes, self.frame
        # rows of unit mean-square norm, whatever the frame's size
        scale = math.sqrt(C) if frame is None else math.sqrt(C) / torch.linalg.matrix_norm(frame)
        with full_precision(U):
            return scale * on_frame(U, frame).mT


@torch.no_grad()
def _restore_digits(old: Tensor | None, new: Tensor | None, first: Tensor | None) -> None:
    """In a wider dtype, give a buffer that still is what it was at first the digits that it had then."""
    if old is None or new is None or first is None or first.is_meta or new.is_meta:
        return
    if torch.equal(first.to(old), old):
        new.copy_(first)


def _named(frame: Tensor | str | None, reduced: bool, C: int) -> tuple[Tensor | None, str | None]:
    """Return the frame that is asked for by name or by `reduced`, in float64, and its name; None is M itself."""
    if reduced and not (frame is None or isinstance(frame, str)):
        raise InputError(
            "reduced=True is for the simplex, and frame= is given too; pass one of the two", "reduced", True
        )
    name = "reduced" if reduced and frame in (None, "simplex") else "simplex" if frame is None else frame
    if not isinstance(name, str):
        return name, None
    return (None if name == "simplex" else torch.from_numpy(frame_matrix(name, C).copy())), name
