r"""The frame of a head as state: buffers, checkpoints, digits, and the first value of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from etfopt._arrays import room_hint
from etfopt._options import as_temperature
from etfopt.errors import InputError
from etfopt.frames import FrameCertificate
from etfopt.nn._state import state_dtype
from etfopt.nn.heads._frames import AnyFrame, HeadFrame, alike, check_frame, cosine_of, order_of
from etfopt.nn.heads._rotation import Rotated
from etfopt.nn.heads.base import Head, HeadOptions

FRAMES = ("frame", "classifier_frame")
"""The buffers of the frame that the class means are fitted with, and of another one for the classifier."""


class FrameOptions(HeadOptions, total=False):
    """The options that the heads with a frame share; `etfopt.nn.FixedETFHead` says what they do."""

    statistics: str
    frame: AnyFrame | Sequence[AnyFrame] | str | None
    reduced: bool
    counts: ArrayLike | Tensor | None
    capacity: int | None


class Framed(Head, Rotated):
    """A head with a rotation U (d, r) and a frame (r, K) in buffers; no frame is the square simplex."""

    frame: Tensor | None
    classifier_frame: Tensor | None
    frame_name: str | None  # what names the frame for other numbers of classes
    certificate: FrameCertificate | None
    _optional: tuple[str, ...] = FRAMES  # buffers that a state may lack

    def _register(self, made: HeadFrame, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        """Make buffers of a frame, and the canonical rotation."""
        self._first_known = made._replace(means=None, rows=None)
        self._know(made)
        r = self.places if made.means is None else len(made.means)
        self._check_room(r, self.places)
        self.register_buffer("U", torch.eye(self.dim, r, dtype=state_dtype(dtype), device=device))
        # with all their digits, for the head may be moved to a wider dtype
        self._first_frames: dict[str, Tensor | None] = dict.fromkeys(FRAMES)
        for name, exact in zip(FRAMES, (made.means, made.rows), strict=True):
            self.register_buffer(name, None)
            self._set_frame(name, exact, dtype or (None if made.given else self.U.dtype))

    def _know(self, made: HeadFrame) -> None:
        """Take over what is known of a frame."""
        self.frame_name, self._known_as, self.certificate = made.name, made.known_as, made.certificate
        self._cosine = made.cosine

    def _set_frame(self, name: str, exact: Tensor | None, dtype: torch.dtype | None) -> None:
        """Make a frame the one of construction: in this dtype or else its own, and at least in float32."""
        self._first_frames[name] = None
        if exact is not None:
            frame = exact.detach().to(torch.promote_types(dtype or exact.dtype, torch.float32))
            self._first_frames[name] = frame if frame.is_meta else exact.detach().to("cpu", copy=True)
            exact = frame.to(self.U.device, copy=True)
        setattr(self, name, exact)

    @property
    def places(self) -> int:
        """K, the number of vertices: `capacity`, or as many as there are classes."""
        return self.capacity or self.num_classes

    @property
    def _rows_of(self) -> Tensor | None:
        """The frame that the classifier has."""
        return self.frame if self.classifier_frame is None else self.classifier_frame

    @property
    def _means_of(self) -> Tensor | None:
        """The frame that the class means are fitted with: the vertices of the present classes, (r, C)."""
        frame = self.frame
        return frame if frame is None or self.places == self.num_classes else frame[:, : self.num_classes]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: the frame and the first rotation."""
        for name, first in self._first_frames.items():
            frame = getattr(self, name)
            if frame is not None and first is not None:
                # a frame that was given on the meta device has no values: NaN until a state is loaded
                frame.fill_(torch.nan) if first.is_meta else frame.copy_(first)
        self._retemper_to(self._first_known)  # a state may have brought another frame
        self.U.copy_(self._first_rotation())
        self._forget_rotation()

    def _first_rotation(self) -> Tensor:
        return torch.eye(*self.U.shape, dtype=self.U.dtype, device=self.U.device)

    def _check_room(self, r: int, K: int) -> None:
        if self.dim < r:
            hint = room_hint(self.dim, K, simplex=self.frame_name == "simplex", reduced="'reduced'", name="dim")
            raise InputError(f"dim = {self.dim} is smaller than the r = {r} rows of the frame; {hint}")

    def extra_repr(self) -> str:
        """Return the attributes that ``repr`` shows; of a frame that is no simplex also what is known of it."""
        shown = [super().extra_repr()]
        if self._cosine is not None and self.certificate is not None:
            known = "" if self.certificate.proven else f", at most {self.certificate.gap:.2g} above the smallest"
            shown.append(f"frame={self._known_as!r} of largest cosine {self._cosine:.4g}{known}")
        if self.capacity is not None:
            shown.append(f"capacity={self.capacity}")
        return ", ".join(shown)

    # --- state ------------------------------------------------------------------------------------------------------

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        wrong = super()._misfits(state_dict, prefix)
        old = self._old_bias(state_dict, prefix)
        first = self._first_frames["frame"]
        whole = self._whole(state_dict, prefix)
        for name, here, plain in (
            (
                "frame",
                "the simplex: pass frame= to the constructor",
                "with the simplex, and this head has another frame",
            ),
            ("classifier_frame", "one frame: pass the pair as frame=", "with one frame, and this head has a pair"),
        ):
            frame, own = state_dict.get(prefix + name), getattr(self, name)
            if frame is not None and own is None:
                wrong.append(f"it holds a {name}, and this head has {here}")
            elif frame is None and own is not None and whole and old is None:
                wrong.append(
                    f"it is of a head {plain}: pass frame='simplex'" if name == "frame" else f"it is of a head {plain}"
                )
        if old is not None and first is not None and first.is_meta:
            wrong.append("it is of release 0.1, which stored no frame, and frame= was on the meta device: pass values")
        if old is not None and tuple(old.shape) != (self.num_classes,):
            wrong.append(f"bias has shape {tuple(old.shape)} and not ({self.num_classes},)")
        if not wrong and whole:
            self._check_state(state_dict, prefix)
        return wrong

    def _old_bias(self, state_dict: dict[str, Any], prefix: str) -> Tensor | None:
        """Return the bias that release 0.1 stored beside U. A bias without U is of another layer, such as nn.Linear."""
        bias: Tensor | None = state_dict.get(prefix + "bias") if prefix + "U" in state_dict else None
        return bias

    def _whole(self, state_dict: dict[str, Any], prefix: str) -> bool:
        """Return whether a state has all entries: those that come one by one, as some loaders bring them, say less."""
        return all(
            prefix + name in state_dict
            for name, X in self._buffers.items()
            if name not in self._optional and X is not None
        )

    def _check_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        frames = [state_dict.get(prefix + name) for name in FRAMES]
        for frame in frames:
            if frame is not None:
                check_frame(frame, self.places)
        means, rows = frames
        if self._temperature == "auto" and means is not None:  # refuse it before anything changes
            as_temperature("auto", self.places, cosine_of(means, rows))

    def _follow_order(self, frame: Tensor | None) -> None:
        """Give the vertices of construction the order that they have in a state: `keep` changes it."""
        first = self._first_frames["frame"]
        order = None if frame is None or first is None else order_of(first, frame)
        if order is not None and order != list(range(self.places)):
            for name, exact in self._first_frames.items():
                self._first_frames[name] = None if exact is None else exact[:, order]

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        self._follow_order(state_dict.get(prefix + "frame"))
        for name, first in self._first_frames.items():
            if first is None:
                continue
            if self._old_bias(state_dict, prefix) is not None:
                # release 0.1 stored no frame: a state of it is for heads that are built with its frame
                state_dict.setdefault(prefix + name, first.to(self.U.device, self.U.dtype, copy=True))
            frame = state_dict.get(prefix + name)
            if frame is not None and frame.dtype.itemsize < 4 and _is_rounded(frame, first):
                # a checkpoint of low precision: where it is the frame of this head, rounded, the exact frame is kept
                device = self.U.device if not self.U.is_meta else "cpu"
                state_dict[prefix + name] = first.to(device, self.U.dtype, copy=True)
        super()._translate(state_dict, prefix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if any(prefix + name in state_dict for name in FRAMES):
            self._look_at_frame()

    def _look_at_frame(self) -> None:
        """Know of the frame what was known at construction, if it is the same, else its largest cosine."""
        first, frame = self._first_known, self.frame
        if all(_is_rounded(getattr(self, name), exact) for name, exact in self._first_frames.items()):
            self._retemper_to(first)
        elif frame is not None and not frame.is_meta:
            cosine = cosine_of(frame, self.classifier_frame)
            # another frame has no name that gives it for other numbers of classes
            name = first.name if alike(frame, cosine, self._first_frames["frame"], first.cosine) else None
            self._retemper_to(first._replace(name=name, known_as="", certificate=None, cosine=cosine))

    def _retemper_to(self, known: HeadFrame) -> None:
        """Take over what is known of a frame, and its temperature."""
        if self._cosine != known.cosine:
            self._retemper(self.places, known.cosine)
        self._know(known)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        names = ("U", *FRAMES)
        before = [getattr(self, name) for name in names]
        super()._apply(fn, recurse)
        if not before[0].is_meta and before[0].dtype.itemsize < self.U.dtype.itemsize:
            firsts = (self._first_rotation(), *self._first_frames.values())
            for name, old, first in zip(names, before, firsts, strict=True):
                _restore_digits(old, getattr(self, name), first)
        return self


def _is_rounded(frame: Tensor | None, first: Tensor | None) -> bool:
    """Return whether a frame is the one of construction, in whatever precision."""
    if frame is None or first is None:
        return frame is first
    if first.is_meta or frame.is_meta:
        return False
    return torch.equal(first.to(frame.device, frame.dtype), frame)


@torch.no_grad()
def _restore_digits(old: Tensor | None, new: Tensor | None, first: Tensor | None) -> None:
    """In a wider dtype, give a buffer that still is what it was at first the digits that it had then."""
    if old is None or new is None or first is None or first.is_meta or new.is_meta:
        return
    if torch.equal(first.to(old), old):
        new.copy_(first)
