r"""Classes whose vertices stay while others are trained.

The vertices of the held classes are kept twice: as rows of the classifier, which are returned to the bit, and as the
rotation U_0 of the moment, at which every later step holds them. Holding at the last U instead would let them drift, by
one rounding a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from etfopt._torch import readable
from etfopt.errors import InputError
from etfopt.frames import simplex_etf
from etfopt.nn.heads._etf import ETFHead
from etfopt.nn.heads._framed import FRAMES
from etfopt.nn.heads._growth import DEPENDENT, columns, independent, named
from etfopt.nn.heads._rotation import is_rotation, nearest_rotation

HELD = ("held_rows", "held_at")
"""The buffers that are there while classes are held."""


class Holding(ETFHead):
    """A head with a rotation that follows the data, and classes whose vertices need not."""

    held_rows: Tensor | None  # (C, d), rows of zeros for classes that are free
    held_at: Tensor | None  # (d, r)
    _optional = (*FRAMES, *HELD)
    _held: tuple[int, ...] | None = None  # what `held_rows` says, once it was looked at
    _spanning: tuple[int, ...] | None = None

    def _register(self, *made: Any) -> None:
        super()._register(*made)
        for name in HELD:
            self.register_buffer(name, None)

    @property
    def held(self) -> tuple[int, ...]:
        """The classes that are held, in ascending order."""
        rows = self.held_rows
        if rows is None or rows.is_meta:
            return ()
        if self._held is None:
            self._held = tuple(rows.any(dim=1).nonzero().flatten().tolist())
        return self._held

    @torch.no_grad()
    def hold(self, classes: Sequence[int] | Tensor | None = None) -> None:
        r"""Keep the vertices of some classes where they are: training steps move the others only.

        The rows of the classifier that belong to held classes stay the same to the bit, until `release`. The other
        vertices go to the nearest places that are left: every step solves the problem with held classes,
        ``theory/held.py``. The means and the bias still follow the batches. So do rows with a ``shrinkage`` below 1,
        which are a mixture of the vertices and the means.

        Parameters
        ----------
        classes : sequence of int, or Tensor of shape (k,), optional
            Default: all present classes. Classes that are held already stay so.

        Raises
        ------
        InputError
            If they are no present classes, or the head has a pair of frames. Nothing has changed then.

        Notes
        -----
        The held vertices are part of the state: ``state_dict()`` has entries ``held_rows`` and ``held_at`` while
        classes are held, and a head that loads them holds the same classes. Buffers are replaced: build an average of
        the model and DistributedDataParallel after it. Where the held vertices determine all others (all but one of a
        simplex), U no longer changes.

        Examples
        --------
        >>> import torch
        >>> from etfopt.nn import NearestETFHead
        >>> head = NearestETFHead(8, 3, capacity=5)
        >>> logits = head(torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> before = head.weight
        >>> head.add_classes(2, hold=True)
        >>> head.held
        (0, 1, 2)
        >>> logits = head(torch.randn(6, 8), torch.tensor([3, 4, 3, 4, 3, 4]))
        >>> torch.equal(head.weight[:3], before)
        True
        """
        self._refuse_pair()
        index = range(self.num_classes) if classes is None else named(self.num_classes, classes, "the classes to hold")
        which = sorted({*self.held, *index})
        U = self.rotation()
        rows = torch.zeros(self.num_classes, self.dim, dtype=U.dtype, device=U.device)
        rows[which] = self._weight(U)[which]
        self._keep_held(rows, U.clone())

    @torch.no_grad()
    def release(self, classes: Sequence[int] | Tensor | None = None) -> None:
        """Let classes that are held move again, from the next training step on.

        Parameters
        ----------
        classes : sequence of int, or Tensor of shape (k,), optional
            Default: all.

        Raises
        ------
        InputError
            If they are no present classes.

        Notes
        -----
        Once no class is held, the buffers of `hold` are gone: build an average of the model and DistributedDataParallel
        after it.
        """
        index = (
            range(self.num_classes) if classes is None else named(self.num_classes, classes, "the classes to release")
        )
        if self.held_rows is None:
            return
        rows = self.held_rows.clone()
        rows[list(index)] = 0
        self._keep_held(rows, self.held_at)

    def _keep_held(self, rows: Tensor | None, at: Tensor | None) -> None:
        held = rows is not None and bool(rows.any())
        self.held_rows, self.held_at = (rows, at) if held else (None, None)
        self._held = self._spanning = None

    def _refuse_pair(self) -> None:
        if self.classifier_frame is not None:
            raise InputError(
                "hold is for heads with one frame: with a pair, the vertices that the class means are fitted with are "
                "not the rows of the classifier"
            )

    def _refuse_hold(self, C: int) -> None:
        super()._refuse_hold(C)
        self._refuse_pair()

    def _hold(self, classes: Sequence[int]) -> None:
        self.hold(classes)

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        if self.held and (self.capacity is None or self.capacity < len(index)):
            raise InputError(
                f"{len(self.held)} classes are held, and with another number of classes all vertices must move; call "
                "release() first, or build the head with a capacity that is large enough"
            )
        super()._reindex(index)
        if self.held_rows is not None:
            self._keep_held(columns(self.held_rows.mT, index).mT.contiguous(), self.held_at)

    def _weight(self, U: Tensor) -> Tensor:
        W, rows = super()._weight(U), self.held_rows
        return W if rows is None else torch.where(rows.any(dim=1, keepdim=True), rows.to(W.dtype), W)

    @property
    def spanning(self) -> tuple[int, ...]:
        """Held classes whose vertices are a basis of what the held vertices span; none if they span all there is.

        To hold these is to hold all, and their columns of the frame do not depend on each other.
        """
        if not self.held:
            return ()
        if self._spanning is None:
            C, frame = self.num_classes, self._means_of
            F = torch.from_numpy(simplex_etf(C)) if frame is None else frame
            found = independent(F, self.held)
            rank = int(torch.linalg.matrix_rank(F.detach().to("cpu", torch.float64), rtol=DEPENDENT))
            self._spanning = tuple(found) if len(found) < rank else ()
        return self._spanning

    @property
    def pinned(self) -> bool:
        """Whether the held vertices determine those of all present classes."""
        return bool(self.held) and not self.spanning

    # --- state ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Restore the state of construction: frame and rotation, and no class is held."""
        super().reset_parameters()
        self._keep_held(None, None)

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        sizes = dict(zip(HELD, ((self.num_classes, self.dim), tuple(self.U.shape)), strict=True))
        found = {name: state_dict[prefix + name].shape for name in HELD if prefix + name in state_dict}
        wrong = [
            f"{name} has shape {tuple(shape)} and not {sizes[name]}"
            for name, shape in found.items()
            if getattr(self, name) is None and tuple(shape) != sizes[name]
        ]
        if len(found) == 1 and self._whole(state_dict, prefix):
            wrong.append(f"it holds {', '.join(found)} alone; classes that are held need both of {', '.join(HELD)}")
        return wrong + super()._misfits(state_dict, prefix)

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        there = [name for name in HELD if prefix + name in state_dict]
        if not there and self._whole(state_dict, prefix):
            self._keep_held(None, None)  # of a head that held nothing
        for name in there:
            if getattr(self, name) is None:
                setattr(
                    self, name, torch.zeros_like(state_dict[prefix + name], dtype=self.U.dtype, device=self.U.device)
                )

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._settle()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._settle()
        return self

    @torch.no_grad()
    def _settle(self) -> None:
        """Make U_0 a rotation in the dtype that it has now; rows of low precision become those of it."""
        self._held = self._spanning = None
        at, rows = self.held_at, self.held_rows
        if at is None or rows is None or at.is_meta or rows.is_meta or not readable(at):
            return
        if not rows.any() or is_rotation(at):
            return
        at.copy_(nearest_rotation(at)[1])
        fresh = torch.where(rows.any(dim=1, keepdim=True), super()._weight(at), 0)
        if not torch.allclose(rows, fresh, rtol=0, atol=1e-5):
            rows.copy_(fresh)
