"""What the modules do with their state: checked when loaded, never in low precision, safe from bad batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from etfopt._tensors import tracing
from etfopt.errors import InputError

__all__ = ["LoadChecked", "Tracking", "refuse_second_run", "refuse_trace", "where_valid"]


class LoadChecked(nn.Module):
    """A module that refuses a checkpoint of another size by name, before any of its own tensors changes."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        own = itertools.chain(self.named_parameters(), self.named_buffers())
        found = ((name, value, state_dict.get(prefix + name)) for name, value in own)
        wrong = [
            f"{name} has shape {tuple(other.shape)} and not {tuple(value.shape)}"
            for name, value, other in found
            if isinstance(other, Tensor) and other.shape != value.shape
        ]
        if wrong:
            raise InputError(
                f"state_dict does not fit {type(self).__name__}({self.extra_repr()}): {'; '.join(wrong)}. Build the "
                "module with the sizes of the checkpoint, or leave these entries out and load with strict=False. "
                "Nothing of this module was changed"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Tracking(LoadChecked):
    """A module with running state in buffers, and without parameters.

    The buffers stay in float32 or better under ``.half()``, ``.bfloat16()`` and ``.to(dtype)``: a running mean with
    the rate 1/t could not move in half precision. ``rejected`` counts batches that were refused where values cannot
    be looked at without a wait for the device; the error comes at the next point that waits in any case.
    """

    rejected: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rejected", torch.zeros((), dtype=torch.int64), persistent=False)

    def raise_rejected(self) -> None:
        """Raise `InputError` if batches were refused unseen since the last call. Waits for the device."""
        if not self.rejected.is_meta and (count := int(self.rejected)):
            self.rejected.zero_()
            raise InputError(
                f"{count} batch(es) could not be used: features NaN or infinite, labels outside [0, num_classes), or "
                "class means too ill-conditioned for the head's method. The state is that of the last good batch. Look "
                "for what made the network diverge, check num_classes, or choose method='auto'"
            )

    def count_rejected(self, bad: Tensor | None) -> None:
        """Count a batch that was refused unseen; None is one that was looked at."""
        if bad is not None:
            self.rejected += bad

    def train(self, mode: bool = True) -> Self:
        """Set the mode, then raise what bad batches left to say."""
        super().train(mode)
        if not torch.compiler.is_compiling():
            self.raise_rejected()
        return self

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self.raise_rejected()
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.rejected.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keeping_digits(X: Tensor) -> Tensor:
            moved = fn(X)
            if moved.is_floating_point() and moved.dtype.itemsize < 4:
                return X.to(moved.device, torch.promote_types(moved.dtype, torch.float32))
            return moved

        super()._apply(keeping_digits, recurse)  # type: ignore[no-untyped-call] # torch leaves it untyped
        return self


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
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise InputError(
            f"{type(module).__name__} is run in training mode inside a backward pass, as torch.utils.checkpoint does: "
            "the second run would update its state again. Checkpoint the backbone only, and leave the head outside"
        )


def where_valid(valid: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """Return `new`, or `old` where a batch turned out to be no good; None says that it was looked at and is good."""
    return new if valid is None else torch.where(valid, new, old.to(new.dtype))
