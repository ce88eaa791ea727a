r"""The learned baseline."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._options import as_ignored
from etfopt._torch import outside_graphs, sharded, transforms
from etfopt.errors import InputError
from etfopt.nn._renamed import takes_old_options
from etfopt.nn.heads._growth import columns
from etfopt.nn.heads.base import Head, HeadOptions

__all__ = ["LearnedHead"]


@takes_old_options
class LearnedHead(Head):
    r"""The learned baseline: a linear layer without bias whose rows have unit length.

    The first use of the layer after an optimiser step projects the rows back to the sphere, so the training loop needs
    no hook. The gradient is that of the unconstrained rows, as in the paper's release. ``rows`` (C, d) is the trainable
    parameter; ``weight`` is its normalised value. The rows have the dtype that you give them, like every parameter: in
    bfloat16 an optimiser step smaller than 1/256 of an entry is lost, as in `torch.nn.Linear`.

    Parameters
    ----------
    dim, num_classes : int
        d and C.
    **options
        ``temperature``, ``ignore_index``, ``device`` and ``dtype``, see `Head`.

    Raises
    ------
    InputError
        If an argument is out of range; in training if FSDP shards the rows.

    References
    ----------
    Markou, Ajanthan and Gould (2024), the released code's baseline.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import LearnedHead
    >>> head = LearnedHead(dim=4, num_classes=3)
    >>> head(torch.randn(5, 4)).shape
    torch.Size([5, 3])
    >>> torch.allclose(head.weight.norm(dim=1), torch.ones(3))
    True
    """

    def __init__(self, dim: int, num_classes: int, **options: Unpack[HeadOptions]) -> None:
        super().__init__(dim, num_classes, **options)
        device, dtype = options.get("device"), options.get("dtype")
        self.rows = nn.Parameter(torch.empty(num_classes, dim, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new rows from the global generator, as the constructor does."""
        if not self.rows.is_meta:
            self.rows.copy_(functional.normalize(nn.Linear(self.dim, self.num_classes, bias=False).weight, dim=1))

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        old, fresh = self.rows, type(self)(self.dim, len(index), temperature=self._temperature)
        rows = torch.where(
            torch.tensor(index)[:, None].to(old.device) >= 0, columns(old.mT, index).mT, fresh.rows.to(old)
        )
        self.ignore_index = as_ignored(self.ignore_index, len(index))
        self._retemper(len(index))
        self.num_classes = len(index)
        self.rows = nn.Parameter(rows.contiguous(), requires_grad=old.requires_grad)

    @property
    def weight(self) -> Tensor:
        """Rows of unit norm, shape (C, d), detached."""
        return functional.normalize(self.rows.detach(), dim=1)

    @property
    def bias(self) -> Tensor:  # type: ignore[override] # a constant, and no part of the state
        """Zeros, shape (C,)."""
        return self.rows.detach().new_zeros(self.num_classes)

    def _translate(self, state_dict: dict[str, Any], prefix: str) -> None:
        super()._translate(state_dict, prefix)
        state_dict.pop(prefix + "bias", None)  # earlier releases stored it; that of nn.Linear has no meaning here

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        if sharded(self):
            raise InputError(
                f"{type(self).__name__} is sharded by FSDP, which would undo the projection of its rows to unit length "
                "in every step. Apply FSDP to the backbone only, and DistributedDataParallel to this head"
            )
        f, _ = self._checked(features, labels)
        rows = self.rows  # looked up once: a parametrization computes them anew each time
        if torch.compiler.is_compiling() and "Jvp" in transforms():
            # PyTorch 2.13 fails in a graph while it writes its error, and what it leaves behind turns autograd off,
            # without a word, when Python collects it
            _project_uncompiled(rows)
        else:
            _project(rows)
        return functional.linear(f, rows.to(f.dtype))

    def _classified(self, f: Tensor) -> Tensor:
        return functional.linear(f, self.weight.to(f.dtype))


def _project(rows: Tensor) -> None:
    """Give the rows unit length."""
    # through .data: a second forward before the backward pass finds unit rows, so no saved value really changes, and
    # autograd's version counter must not think otherwise
    rows.data.copy_(functional.normalize(rows.detach(), dim=1))


_project_uncompiled = outside_graphs(_project)
