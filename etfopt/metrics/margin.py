"""`CosineMargin`: by how much the angle to the own class beats the best other one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt._inputs import as_integer
from etfopt._tensors import require_finite, require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import EPS, LARGEST, check_batch, last_set
from etfopt.metrics._rows import KeepsRows

__all__ = ["CosineMargin"]

# Cosines held at once in compute(): 32 MiB.
CHUNK = 2**22


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
    num_classes : int
        C, at least 2.
    dim : int
        d, the width of the features.
    global_mean : Tensor, shape (d,), optional
        :math:`\mu_G`, e.g. from a first pass over the data (`NeuralCollapse.global_mean`).
    keep_margins : bool
        Whether ``sorted()`` is wanted where `global_mean` is given; without it, it always can be had.
    **kwargs
        Passed to ``torchmetrics.Metric``, e.g. ``compute_on_cpu``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range, or `global_mean` not a finite tensor of shape (d,).

    References
    ----------
    Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features; Markou, Ajanthan, Gould
    (2024), arXiv 2411.01248, for mean and sorted margins.

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

    full_state_update = False
    higher_is_better = True

    weight: Tensor
    # streaming mode
    global_mean: Tensor
    total: Tensor
    count: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        global_mean: Tensor | None = None,
        *,
        keep_margins: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.streaming, self.keep_margins = global_mean is not None, bool(keep_margins)
        unset = torch.full((self.num_classes, self.dim), torch.nan, dtype=torch.float64)
        self.add_state("weight", unset, dist_reduce_fx=last_set)
        if global_mean is not None:
            require_floats(global_mean, "global_mean", (self.dim,))
            require_finite(global_mean, "global_mean", LARGEST)
            # a state and not a buffer: a cast of the whole model must not round it
            self.add_state("global_mean", global_mean.detach().double().clone(), dist_reduce_fx=last_set)
            self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        else:
            self.add_rows("features", self.dim)
            self.add_rows("labels", dtype=torch.int64)
        if self.streaming and self.keep_margins:
            self.add_rows("margins")

    def update(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Add a batch; one without samples changes nothing.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            What the classifier multiplies: after temperature and normalisation, where a head has them.
        labels : Tensor of integers in [0, C), shape (n,)
        weight : Tensor, shape (C, d)
            W, as in ``nn.Linear``. Without `global_mean`, the last one given serves all samples.
        bias : Tensor, shape (C,), optional
            Checked and not used: both metrics take the same arguments.

        Raises
        ------
        InputError
            If an argument has a wrong shape or dtype, or a value that cannot be used. No state has changed then.
        """
        batch = check_batch(features, labels, weight, bias, self.weight)
        if not len(batch.labels):
            return
        self.weight = batch.weight
        if self.streaming:
            margins = _margins(batch.features, batch.labels, batch.weight, self.global_mean)
            self.total = self.total + margins.sum()
            self.count = self.count + len(margins)
            if self.keep_margins:
                self.append("margins", margins)
        else:
            self.append("features", batch.features)
            self.append("labels", batch.labels)

    def compute(self) -> Tensor:
        """Return the mean margin of everything seen so far.

        Returns
        -------
        Tensor, shape (), float64
            The mean; NaN before the first sample, and where a margin has no value.
        """
        return self.total / self.count if self.streaming else self._stored_margins().mean()

    def sorted(self) -> Tensor:
        """Return all margins in ascending order: the curve P_CM.

        Returns
        -------
        Tensor, shape (n,), float64
            Over all ranks, NaN last.

        Raises
        ------
        InputError
            If the metric was built with `global_mean` and without `keep_margins`: the single margins were not kept.
        """
        if self.streaming and not self.keep_margins:
            raise InputError(
                "sorted() needs every margin, but a metric built with global_mean keeps only their sum; "
                "build it with keep_margins=True, or without global_mean"
            )
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return (self.rows("margins") if self.streaming else self._stored_margins()).sort().values

    def _stored_margins(self) -> Tensor:
        features, labels = self.rows("features"), self.rows("labels")
        if not len(features):
            return features.new_empty(0)
        weight = self.weight.to(features)
        mean = features.mean(dim=0)
        rows = max(1, CHUNK // self.num_classes)
        pieces = zip(torch.split(features, rows), torch.split(labels, rows), strict=True)
        return torch.cat([_margins(f, y, weight, mean, n=len(features)) for f, y in pieces])


def _margins(features: Tensor, labels: Tensor, weight: Tensor, mean: Tensor, n: int = 1) -> Tensor:
    """Margins, shape (n,), all in float64; `n` terms went into `mean`, which sets what rounding may have left."""
    C, d = weight.shape
    f = _directions(features - mean, EPS * max(n, d) * torch.linalg.norm(mean))
    w = _directions(weight - weight.mean(dim=0), EPS * max(C, d) * torch.linalg.norm(weight, dim=1).max())
    cosines = f @ w.T
    index = labels[:, None]
    own = cosines.gather(1, index).squeeze(1)
    return own - cosines.scatter(1, index, -torch.inf).amax(dim=1)


def _directions(X: Tensor, floor: Tensor) -> Tensor:
    """Rows over their norms, NaN for those not above `floor`."""
    norms = torch.linalg.norm(X, dim=1, keepdim=True)
    return X / torch.where(norms > floor, norms, torch.nan)
