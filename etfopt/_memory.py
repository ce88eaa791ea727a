"""The memory that tensors take while a piece of code runs."""

from __future__ import annotations

import weakref
from typing import Any, Self

from etfopt.errors import require_extra

require_extra("torch", "torch")

import torch

from etfopt._torch import TorchDispatchMode, storage_key, tree_leaves

__all__ = ["Allocations"]


class Allocations:
    """A block whose tensors are counted: ``peak`` is the most bytes that they took at a time.

    What was there before does not count, nor, on the CPU, what LAPACK takes for itself. Results are not changed.
    CUDA has a counter of its own; on the CPU every operation is watched, which takes time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0
        self._before = 0
        self._held = _Held()

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            self._held.__enter__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._held.__exit__(*error)  # type: ignore[no-untyped-call] # as above
            self.peak = self._held.peak


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves the class untyped
    """Counts the bytes of tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {storage_key(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and storage_key(x.untyped_storage()) not in known | self.live.keys():
                self._note(x.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        self.live[storage_key(storage)] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage_key(storage))

    def _gone(self, key: int) -> None:
        self.now -= self.live.pop(key)
