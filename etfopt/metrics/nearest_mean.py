"""`NearestMeanMismatch`: how often the classifier disagrees with the nearest class mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt._torch import require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import EPS, Batch, predict, require_values
from etfopt.metrics._precise import centred
from etfopt.metrics._rows import KeepsRows

__all__ = ["NearestMeanMismatch"]

# Distances held at once in compute(): 32 MiB.
CHUNK = 2**22


class NearestMeanMismatch(KeepsRows):
    r"""Share of samples whose predicted class is not that of the nearest class mean (NC4).

    For features :math:`f_i` and a classifier (W, b): the share of i with

    .. math:: \arg\max_c (W f_i + b)_c \ne \arg\min_c \|f_i - \mu_c\|_2,

    over the classes c that occurred; of equal means, the one of the lowest class counts. It is 0 at collapse, and NaN
    before the first sample and where the means of several classes are all equal, as far as rounding can tell.

    The class means of the data are known only when all have been seen. There are two modes:

    - with `class_means`, samples are judged as the batches come and only counts are kept;
    - without them, features and predictions are kept, n (8 d + 16) bytes on each rank, all n gathered on every rank by
      ``compute()``.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    class_means : Tensor, shape (C, d), optional
        :math:`\mu_c`, not centred, e.g. from a first pass over the data (`NeuralCollapse.feature_means`). The row of a
        class that did not occur is NaN.
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If a size is out of range, or `class_means` not of shape (C, d) with rows that are finite or all NaN.

    References
    ----------
    Papyan, Han, Donoho (2020), the property NC4.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NearestMeanMismatch
    >>> metric = NearestMeanMismatch(num_classes=2, dim=1)
    >>> features, labels = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    >>> metric.update(features, labels, torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5]))  # cuts at 0.5
    >>> float(metric.compute())
    0.25
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    class_means: Tensor
    mismatches: Tensor
    count: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        class_means: Tensor | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self.streaming = class_means is not None
        if class_means is not None:
            self.add_given("class_means", _checked(class_means, self.num_classes, self.dim))
            self.add_floats("mismatches", value=0.0, reduce="sum")
            self.add_floats("count", value=0.0, reduce="sum")
        else:
            self.add_rows("features", self.dim)
            self.add_rows("labels", dtype=torch.int64)
            self.add_rows("predicted", dtype=torch.int64)

    def _add(self, batch: Batch) -> None:
        predicted = predict(batch.features, self.classifier_of(batch))
        if self.streaming:
            self.mismatches = self.mismatches + (predicted != _nearest(batch.features, self.class_means)).sum()
            self.count = self.count + len(predicted)
        else:
            for name, rows in (("features", batch.features), ("labels", batch.labels), ("predicted", predicted)):
                self.append(name, rows)

    def compute(self) -> Tensor:
        """Return the share; NaN before the first sample, and where the means cannot be told apart.

        Returns
        -------
        Tensor, shape (), float64
        """
        if self.streaming:
            share = self.mismatches / self.count
            floor = EPS * max(self.class_means.shape) * self.class_means.nan_to_num(0.0).abs().max()
            return share if _tell_apart(self.class_means, floor) else share * torch.nan
        # an offset common to all features would cost digits, and takes no part in distances
        features, labels, predicted = centred(self.rows("features")), self.rows("labels"), self.rows("predicted")
        if not len(features):
            return features.new_full((), torch.nan)
        counts = torch.bincount(labels, minlength=self.num_classes).to(features)
        sums = features.new_zeros(self.num_classes, self.dim).index_add(0, labels, features)
        means = sums / counts[:, None]
        if not _tell_apart(means, EPS * max(*features.shape, self.num_classes) * features.abs().max()):
            return features.new_full((), torch.nan)
        rows = max(1, CHUNK // self.num_classes)
        nearest = torch.cat([_nearest(f, means) for f in torch.split(features, rows)])
        return (predicted != nearest).double().mean()


def _checked(class_means: Tensor, C: int, d: int) -> Tensor:
    """Return a copy of the given means in float64."""
    means = require_floats(class_means, "class_means", (C, d)).detach().double().clone()
    absent = means.isnan().all(dim=1)
    require_values(means.where(~absent[:, None], 0.0), "class_means (its rows that are not NaN)")
    if absent.all():
        raise InputError("class_means holds no mean: every row is NaN; give those of the classes that occurred")
    return means


def _nearest(features: Tensor, means: Tensor) -> Tensor:
    """Class of the nearest row of `means`, rows of NaN left out: the largest <f, mu> - |mu|^2/2, all centred."""
    seen = means.isfinite().all(dim=1)
    centre = means[seen].mean(dim=0)
    offsets = (means - centre).nan_to_num(0.0)
    size = offsets.abs().max()
    offsets = offsets / size.where(size > 0, 1.0)  # squares of tiny entries do not underflow
    scores = (features - centre) / size.where(size > 0, 1.0) @ offsets.T - offsets.square().sum(dim=1) / 2
    return scores.masked_fill(~seen, -torch.inf).argmax(dim=1)


def _tell_apart(means: Tensor, floor: Tensor) -> bool:
    """Whether there is one mean, or means that differ by more than `floor`; rows of NaN are left out."""
    means = means[means.isfinite().all(dim=1)]
    return len(means) == 1 or bool(centred(means).abs().max() > floor)
