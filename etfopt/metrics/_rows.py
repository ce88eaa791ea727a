"""`KeepsRows`: a metric some of whose states are rows, one or more a sample, that are kept until they are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from etfopt.metrics._base import Float64Metric


class KeepsRows(Float64Metric):
    """Adds states that are lists of tensors, concatenated over batches and ranks; a rank may have none."""

    def __init__(self, *, num_classes: int, dim: int, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self._no_rows: dict[str, Tensor] = {}

    def add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Register a state of rows of this shape."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._no_rows[name] = torch.empty(0, *shape, dtype=dtype, device="cpu")

    def append(self, name: str, rows: Tensor) -> None:
        """Add rows to a state."""
        held = getattr(self, name)
        held.append(rows.to(held[0].device) if held else rows)  # with compute_on_cpu those held are on the CPU

    def rows(self, name: str) -> Tensor:
        """Return all rows of a state, as one tensor."""
        held = getattr(self, name)
        # one tensor after a gather, and a list before
        return dim_zero_cat(held) if len(held) else self._no_rows[name].to(self.device)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all ranks; see ``torchmetrics.Metric.sync``.

        For a rank without samples torchmetrics would send a one-dimensional float32 placeholder, which a gather of
        matrices in float64 cannot take.
        """
        for name in self._no_rows:
            if isinstance(held := getattr(self, name), list) and not held:
                device = torch.device("cpu") if self.compute_on_cpu else self.device
                held.append(self._no_rows[name].to(device))
        super().sync(*args, **kwargs)
