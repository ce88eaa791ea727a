"""Labels for a head inside a network that is called with its inputs only, and forwards that do not count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from etfopt._torch import version
from etfopt.errors import InputError


class Given:
    """The labels of a block, and how many training forwards took them. Copies and pickles of a head have none."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.taken = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Return None: a copy of a head is outside the block."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class TakesLabels(nn.Module):
    """A head that may be given its labels by a block around the call of the network."""

    # an attribute and no context variable: compiled code reads it, and so do the threads that run a part of a network
    _given: Given | None = None

    @contextmanager
    def labels(self, labels: Tensor | None) -> Iterator[None]:
        """Give the labels of the one training forward inside the block, for code that calls ``model(x)`` only.

        ``with head.labels(y): logits = model(x)`` is ``head(backbone(x), y)``. The block may be left before the
        backward pass. In evaluation the labels are not used. The labels are no part of the state, of copies or of
        pickles. Two threads must not train one head at a time.

        Parameters
        ----------
        labels : Tensor, optional
            What `forward` takes as labels, and checks. None passes none: for code that runs with and without labels.

        Returns
        -------
        ContextManager

        Raises
        ------
        InputError
            On entry if the labels are no tensor, or the head is inside such a block already. In `forward` if labels
            are passed to it too, or if a second training forward would count the same samples twice. On exit if the
            head is in training mode and no forward took the labels.

        Examples
        --------
        >>> import torch
        >>> from etfopt.nn import NearestETFHead
        >>> head = NearestETFHead(8, 3)
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 8), head)
        >>> with head.labels(torch.tensor([0, 1, 2, 0])):
        ...     logits = model(torch.randn(4, 5))
        """
        if labels is None:
            yield
            return
        if not isinstance(labels, Tensor):
            raise InputError(
                f"labels must be a torch tensor; got {type(labels).__name__}: pass torch.as_tensor(labels)"
            )
        if self._given is not None:
            raise InputError("labels() is called inside a labels() block of the same head; leave that block first")
        given = self._given = Given(labels)
        try:
            yield
        finally:
            self._given = None
        if self.training and not given.taken:
            raise InputError(
                "labels() gave labels that no training forward of the head took; call the network that holds this "
                "head inside the block, and not a copy of it"
            )

    def _labels_or_given(self, labels: Tensor | None) -> Tensor | None:
        """Return the labels of a training forward: those that it was passed, or else those of the block."""
        given = self._given
        if given is None:
            return labels
        if labels is not None:
            raise InputError("labels were passed to the head, and labels() gives some too; do one of the two")
        if given.taken:
            raise InputError(
                "labels() gave labels to one training forward, and this is a second one: the batch would count twice. "
                "Open a block for each batch; run the forwards that should not count inside uncounted()"
            )
        given.taken += 1
        return given.labels

    def _replicate_for_data_parallel(self) -> Self:
        if self._given is not None:
            raise InputError(
                "labels() gives the labels of a whole batch, and torch.nn.DataParallel splits the batch: wrap the "
                "backbone only, or use DistributedDataParallel"
            )
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call] # torch leaves it so
        return replica

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Restore the state of the head after the block: its training forwards give logits, and count nowhere.

        For optimisers that need two forwards a step on one batch (SAM): run the first one in this block, and both see
        the head as the step found it. Copies all buffers; on a GPU it waits for the device at the end.

        Returns
        -------
        ContextManager

        Raises
        ------
        InputError
            On exit if a batch inside was refused unseen, see `ClassMeans`.

        Examples
        --------
        >>> import torch
        >>> from etfopt.nn import NearestETFHead
        >>> head = NearestETFHead(8, 3)
        >>> with head.uncounted():
        ...     logits = head(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
        >>> int(head.means.steps)
        0
        """
        buffers = list(self.buffers())
        before, given = [(X, version(X), X.clone()) for X in buffers], self._given
        taken = 0 if given is None else given.taken
        try:
            yield
        finally:
            with torch.no_grad():
                for X, was, old in before:
                    if version(X) != was:  # a write would break a backward pass that needs the buffer
                        X.copy_(old)
            if given is not None:
                given.taken = taken
            self.train(self.training)  # what is remembered of the buffers is no longer so
