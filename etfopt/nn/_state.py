"""What the modules do with their state: checked when loaded, never in low precision, safe from bad batches."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from etfopt._torch import in_backward, readable, tracing, visible
from etfopt.errors import InputError

ONE_CLASS = (
    "labels hold one class only in this batch. The mean of the batch is then the mean of that class: its centred class "
    "mean is exactly zero, and until the next batch the bias is centred by that class alone, so that an evaluation or "
    "a checkpoint in between predicts badly. Shuffle the training data, drop a last batch of one sample "
    "(drop_last=True), or stratify the batches. This warning comes once"
)


def state_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype of new state: the given or the default one, but at least float32."""
    return torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)


class Shown(nn.Module):
    """A module whose ``repr`` shows some of its attributes."""

    _shown: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        """Return the attributes that ``repr`` shows."""
        return ", ".join(f"{name}={_short(getattr(self, name))}" for name in self._shown)


def _short(value: object) -> str:
    return repr(float(f"{value:.4g}") if isinstance(value, float) else value)


class LoadChecked(Shown):
    """A module that refuses a checkpoint that does not fit by name, before any of its own tensors changes."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if dtype is not None and not dtype.is_floating_point:
            raise InputError(f"dtype must be a real floating-point dtype; got {dtype}: pass torch.float32")

    def _outer_dtype(self, X: Tensor) -> torch.dtype:
        """Return the dtype that the layers around this one are in, for a part X of the state."""
        return X.dtype

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        wrong = self._misfits(state_dict, prefix)
        if wrong:
            raise InputError(
                f"state_dict does not fit {type(self).__name__}({self.extra_repr()}): {'; '.join(wrong)}. Build the "
                "module with the sizes and the frame of the checkpoint, or leave these entries out and load with "
                "strict=False. Nothing of this module was changed"
            )
        self._translate(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        """Return what is wrong with a state for this module."""
        own = itertools.chain(self.named_parameters(), self.named_buffers())
        found = ((name, value, state_dict.get(prefix + name)) for name, value in own)
        return [
            f"{name} has shape {tuple(other.shape)} and not {tuple(value.shape)}"
            for name, value, other in found
            if isinstance(other, Tensor) and other.shape != value.shape
        ]

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Bring a state of an older release, or of another precision, to the form of this one."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        was_meta = self._holds_meta()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch leaves it untyped
        if was_meta and not self._holds_meta():
            self._reset_buffers()  # from the meta device there is nothing to copy: this is uninitialised memory
        return self

    def _holds_meta(self) -> bool:
        return any(value is not None and value.is_meta for value in self._buffers.values())

    def _reset_buffers(self) -> None:
        """Give buffers that hold uninitialised memory the values of construction."""


class Tracking(LoadChecked):
    """A module with running state in floating-point buffers, and without parameters.

    The buffers stay in float32 or better under ``.half()``, ``.bfloat16()``, ``.to(dtype)``, a default dtype and
    checkpoints of low precision: a running mean with the rate 1/t could not move in half precision. All of them may be
    averaged. On a GPU, errors and warnings about batches come at the next point that waits for the device anyway.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__(dtype)
        self._asked = dtype or torch.get_default_dtype()  # what the module was built in, or cast to
        self._rejected: Tensor | None = None
        self._lone: Tensor | None = None
        self._told = False

    def _outer_dtype(self, X: Tensor) -> torch.dtype:
        return self._asked if self._asked.itemsize < 4 else X.dtype

    def reset_parameters(self) -> None:
        """Restore the state of construction."""
        raise NotImplementedError

    def _reset_buffers(self) -> None:
        self.reset_parameters()

    def raise_rejected(self) -> None:
        """Raise `InputError` if batches were refused unseen since the last call. Waits for the device."""
        lone, self._lone = self._lone, None
        if lone is not None and not lone.is_meta and bool(lone):
            self._warn_of_one_class()
        rejected, self._rejected = self._rejected, None
        if rejected is not None and not rejected.is_meta and (count := int(rejected)):
            raise InputError(
                f"{count} batch(es) could not be used: features NaN or infinite, labels outside [0, num_classes), or "
                "class means too ill-conditioned for the head's method. The state is that of the last good batch. Look "
                "for what made the network diverge, check num_classes, or choose method='auto'"
            )

    def count_rejected(self, bad: Tensor | None) -> None:
        """Count a batch that was refused unseen; None is one that was looked at."""
        if bad is not None:
            self._rejected = bad.long() if self._rejected is None else self._rejected.to(bad.device) + bad

    def note_one_class(self, lone: Tensor) -> None:
        """Warn of a batch of one class, once; where that would wait for a device, with `raise_rejected`."""
        if self._told or not readable(lone):  # a transform changes no state, and raises when the step would
            return
        if not visible(lone):
            self._lone = lone if self._lone is None else self._lone.to(lone.device) | lone
        elif lone:
            self._warn_of_one_class()

    def _warn_of_one_class(self) -> None:
        told, self._told = self._told, True
        if not told:
            warnings.warn(f"{type(self).__name__}: {ONE_CLASS}", UserWarning, stacklevel=level_of_caller())

    def train(self, mode: bool = True) -> Self:
        """Set the mode, then raise what bad batches left to say."""
        super().train(mode)
        if not torch.compiler.is_compiling():
            self.raise_rejected()
        return self

    def _replicate_for_data_parallel(self) -> Self:
        if self.training:
            raise InputError(
                f"{type(self).__name__} is replicated by torch.nn.DataParallel in training, where each replica would "
                "update statistics of its own, which are then lost. Wrap the backbone only, or use "
                "DistributedDataParallel, which pools the statistics"
            )
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call] # as above
        return replica

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self.raise_rejected()
        super()._save_to_state_dict(*arguments)

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        for key in (prefix + name for name in self._buffers):
            if isinstance(value := state_dict.get(key), Tensor):  # bool and int64 in release 0.1
                state_dict[key] = value.to(torch.promote_types(value.dtype, torch.float32))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._rejected = self._lone = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keeping_digits(X: Tensor) -> Tensor:
            moved = fn(X)
            if moved.is_floating_point() and moved.dtype.itemsize < 4:
                return X.to(moved.device, torch.promote_types(moved.dtype, torch.float32))
            return moved

        self._asked = fn(torch.empty(0, dtype=self._asked)).dtype
        return super()._apply(keeping_digits, recurse)


def level_of_caller() -> int:
    """Return the stack level of the line outside this package and torch that led to the caller of this function."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("etfopt", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def refuse_trace(module: nn.Module) -> None:
    """Raise `InputError` where a training forward is traced: the trace would replay one state."""
    if tracing() or torch.compiler.is_exporting():
        raise InputError(
            f"{type(module).__name__} is traced or exported in training mode, where it changes its state: call eval() "
            "first, or export linear()"
        )


def refuse_second_run(module: nn.Module) -> None:
    """Raise `InputError` where a training forward runs inside a backward pass.

    Checkpointing runs the forward a second time there: the state has moved on by then, and the recomputed values
    would be others than those that the loss saw.
    """
    if not torch.compiler.is_compiling() and in_backward():
        raise InputError(
            f"{type(module).__name__} is run in training mode inside a backward pass, as torch.utils.checkpoint does: "
            "the second run would update its state again. Checkpoint the backbone only, and leave the head outside"
        )


def where_valid(valid: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """Return `new`, or `old` where a batch turned out to be no good; None says that it was looked at and is good."""
    return new if valid is None else torch.where(valid, new, old.to(new.dtype))
