"""`CosineMargin`: by how much the angle to the own class beats the best other one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from etfopt._torch import require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import EPS, Batch, last_set, require_values
from etfopt.metrics._precise import centred, norm
from etfopt.metrics._rows import KeepsRows

__all__ = ["CosineMargin"]

# Cosines held at once in compute(): 32 MiB.
CHUNK = 2**22
# Of the size of a global mean that is given: what its own rounding may leave of a feature that equals it.
GIVEN = 4 * EPS


class CosineMargin(KeepsRows):
    r"""Cosine margin of features :math:`f_i` with labels :math:`y_i` under a classifier W with mean row :math:`\bar w`.

    .. math:: m_i = \cos(f_i - \mu_G, w_{y_i} - \bar w) - \max_{j \ne y_i} \cos(f_i - \mu_G, w_j - \bar w).

    It lies in [-2, 2] and is C/(C-1) for every sample at collapse. ``compute()`` returns the mean margin, a 0-d
    float64 tensor, NaN before the first sample; ``sorted()`` returns all margins.

    The global mean :math:`\mu_G` of the data is known only when all have been seen. There are two modes:

    - with `global_mean`, margins are taken as the batches come and only their sum and number are kept, and with
      `keep_margins` the margins themselves, 8 n bytes;
    - without it, the features are kept in float64, n (8 d + 8) bytes on each rank, all n gathered on every rank by
      ``compute()``.

    A margin is NaN where a cosine has no value: a feature equal to the global mean, or a row of W equal to the mean
    row, as rounding can tell. It then makes the mean NaN, too.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    global_mean : Tensor, shape (d,), optional
        :math:`\mu_G`, e.g. from a first pass over the data (`NeuralCollapse.global_mean`).
    keep_margins : bool
        Whether ``sorted()`` is wanted where `global_mean` is given; without it, it always can be had.
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range, or `global_mean` not a finite tensor of shape (d,).

    References
    ----------
    Zhu et al. (2021), A geometric analysis of neural collapse; Markou, Ajanthan, Gould (2024), arXiv 2411.01248.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import CosineMargin
    >>> metric = CosineMargin(num_classes=3, dim=3)
    >>> vertices = torch.eye(3) - 1 / 3
    >>> metric.update(vertices, torch.arange(3), weight=vertices)
    >>> metric.sorted()
    tensor([1.5000, 1.5000, 1.5000], dtype=torch.float64)
    """

    higher_is_better = True
    plot_lower_bound = -2.0
    plot_upper_bound = 2.0

    weight: Tensor
    # streaming mode
    global_mean: Tensor
    total: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        global_mean: Tensor | None = None,
        keep_margins: bool = False,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self.streaming, self.keep_margins = global_mean is not None, bool(keep_margins)
        if global_mean is not None:
            require_floats(global_mean, "global_mean", (self.dim,))
            require_values(global_mean, "global_mean")
            self.add_given("global_mean", global_mean.detach().double().clone())
            self.add_floats("total", value=0.0, reduce="sum")
            self.add_floats("count", value=0.0, reduce="sum")
        else:
            self.add_rows("features", self.dim)
            self.add_rows("labels", dtype=torch.int64)
        if self.streaming and self.keep_margins:
            self.add_rows("margins")
        self.add_floats("weight", self.num_classes, self.dim, value=torch.nan, reduce=last_set)

    def _add(self, batch: Batch) -> None:
        self.weight = self.classifier_of(batch).weight.to(torch.float64, copy=True)
        if self.streaming:
            floor = GIVEN * norm(self.global_mean)
            margins = _margins(batch.features - self.global_mean, batch.labels, self.weight, floor)
            self.total = self.total + margins.sum()
            self.count = self.count + len(margins)
            if self.keep_margins:
                self.append("margins", margins)
        else:
            self.append("features", batch.doubles())
            self.append("labels", batch.labels)

    def compute(self) -> Tensor:
        """Return the mean margin; NaN before the first sample, and where a margin has no value.

        Returns
        -------
        Tensor, shape (), float64
        """
        return self.total / self.count if self.streaming else self._stored_margins().mean()

    def sorted(self) -> Tensor:
        """Return all margins over all ranks in ascending order, NaN last: the curve P_CM.

        Returns
        -------
        Tensor, shape (n,), float64

        Raises
        ------
        InputError
            If the metric was built with `global_mean` and without `keep_margins`.
        """
        if self.streaming and not self.keep_margins:
            raise InputError(
                "sorted() needs every margin, but a metric built with global_mean keeps only their sum; "
                "build it with keep_margins=True, or without global_mean"
            )
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return (self.rows("margins") if self.streaming else self._stored_margins()).sort().values

    def _curve(self, val: Any) -> Tensor | None:
        if isinstance(val, Sequence) and any(isinstance(x, Tensor) and x.numel() > 1 for x in val):
            raise InputError("val holds several curves; draw one at a time: plot(margins, ax) on the same axes")
        return val.detach().cpu() if isinstance(val, Tensor) and val.numel() > 1 else None

    def _stored_margins(self) -> Tensor:
        features, labels = self.rows("features"), self.rows("labels")
        if not len(features):
            return features.new_empty(0)
        weight = self.weight.to(features)
        rows = max(1, CHUNK // max(self.num_classes, self.dim))
        pieces = list(zip(torch.split(features, rows), torch.split(labels, rows), strict=True))
        # the second mean mends the first: an offset common to all features costs no digits
        near = features.mean(dim=0)
        rest = torch.stack([(f - near).sum(dim=0) for f, _ in pieces]).sum(dim=0) / len(features)
        largest = torch.stack([(f - near).abs().max() for f, _ in pieces]).max()
        floor = EPS * max(features.shape) * largest
        return torch.cat([_margins(f - near - rest, y, weight, floor) for f, y in pieces])


def _margins(centred_features: Tensor, labels: Tensor, weight: Tensor, floor: Tensor) -> Tensor:
    """Margins, shape (n,), all in float64; rounding may have left features of norm `floor`."""
    C, d = weight.shape
    f = _directions(centred_features, floor)
    rows = centred(weight)
    w = _directions(rows, EPS * max(C, d) * rows.abs().max())
    cosines = f @ w.T
    index = labels[:, None]
    own = cosines.gather(1, index).squeeze(1)
    return own - cosines.scatter(1, index, -torch.inf).amax(dim=1)


def _directions(X: Tensor, floor: Tensor) -> Tensor:
    """Rows over their norms, NaN for those not above `floor`."""
    norms = norm(X)
    unit = X / X.abs().amax(dim=1, keepdim=True)  # squares of tiny entries do not underflow
    return torch.where(norms > floor, unit / norm(unit), torch.nan)
