"""`NearestMeanMismatch`: how often the classifier disagrees with the nearest class mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt._inputs import as_integer
from etfopt._tensors import require_finite, require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import EPS, LARGEST, check_batch
from etfopt.metrics._rows import KeepsRows

__all__ = ["NearestMeanMismatch"]

# Distances held at once in compute(): 32 MiB.
CHUNK = 2**22


class NearestMeanMismatch(KeepsRows):
    r"""Share of samples whose predicted class is not that of the nearest class mean (NC4).

    For features :math:`f_i` and a classifier (W, b): the share of i with

    .. math:: \arg\max_c (W f_i + b)_c \ne \arg\min_c \|f_i - \mu_c\|_2,

    over the classes c that occurred; of equal means, the one of the lowest class counts. It is 0 at
    collapse. ``compute()`` returns a 0-d float64 tensor, NaN before the first sample, and where the means of several
    classes are all equal, as far as rounding can tell.

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
    **kwargs
        Passed to ``torchmetrics.Metric``, e.g. ``process_group``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range, or `class_means` not a tensor of shape (C, d) whose rows
        are finite or all NaN, with at least one finite.

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

    full_state_update = False
    higher_is_better = False

    class_means: Tensor
    mismatches: Tensor
    count: Tensor

    def __init__(self, num_classes: int, dim: int, class_means: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = C = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = d = as_integer(dim, "dim", at_least=1)
        self.streaming = class_means is not None
        if class_means is not None:
            self.add_state("class_means", _checked(class_means, C, d), dist_reduce_fx=_last_given)
            self.add_state("mismatches", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        else:
            self.add_rows("features", d)
            self.add_rows("labels", dtype=torch.int64)
            self.add_rows("predicted", dtype=torch.int64)

    def update(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Add a batch; one without samples changes nothing.

        Parameters
        ----------
        features : Tensor, shape (n, d)
            What the classifier multiplies: after temperature and normalisation, where a head has them.
        labels : Tensor of integers in [0, C), shape (n,)
            Of use only where the class means are not given.
        weight : Tensor, shape (C, d)
            W, as in ``nn.Linear``, that predicts for this batch.
        bias : Tensor, shape (C,), or None for zero

        Raises
        ------
        InputError
            If an argument has a wrong shape or dtype, or a value that cannot be used. No state has changed then.
        """
        unset = torch.empty(self.num_classes, self.dim, dtype=torch.float64, device=self.device)
        batch = check_batch(features, labels, weight, bias, unset)
        if not len(batch.labels):
            return
        predicted = (batch.features @ batch.weight.T + batch.bias).argmax(dim=1)
        if self.streaming:
            self.mismatches = self.mismatches + (predicted != _nearest(batch.features, self.class_means)).sum()
            self.count = self.count + len(predicted)
        else:
            rows = {"features": batch.features, "labels": batch.labels, "predicted": predicted}
            for name, value in rows.items():
                self.append(name, value)

    def compute(self) -> Tensor:
        """Return the share of everything seen so far.

        Returns
        -------
        Tensor, shape (), float64
            Between 0 and 1; NaN before the first sample, and where the means cannot be told apart.
        """
        if self.streaming:
            share = self.mismatches / self.count
            return share if _tell_apart(self.class_means, int(self.count)) else share * torch.nan
        features, labels, predicted = self.rows("features"), self.rows("labels"), self.rows("predicted")
        counts = torch.bincount(labels, minlength=self.num_classes).to(features)
        sums = features.new_zeros(self.num_classes, self.dim).index_add(0, labels, features)
        means = sums / counts[:, None]
        if not _tell_apart(means, len(features)):
            return features.new_full((), torch.nan)
        rows = max(1, CHUNK // self.num_classes)
        nearest = torch.cat([_nearest(f, means) for f in torch.split(features, rows)])
        return (predicted != nearest).double().mean()


def _checked(class_means: Tensor, C: int, d: int) -> Tensor:
    """Return a copy of the given means in float64."""
    means = require_floats(class_means, "class_means", (C, d)).detach().double().clone()
    absent = means.isnan().all(dim=1)
    if absent.all():
        raise InputError("class_means holds no mean: every row is NaN; give those of the classes that occurred")
    require_finite(means[~absent], "class_means (its rows that are not NaN)", LARGEST)
    return means


def _last_given(stacked: Tensor) -> Tensor:
    """All ranks were given the same means; unlike other states, these may hold rows of NaN."""
    return stacked[-1]


def _nearest(features: Tensor, means: Tensor) -> Tensor:
    """Class of the nearest row of `means`, rows of NaN left out: the largest <f, mu> - |mu|^2/2, all centred."""
    seen = means.isfinite().all(dim=1)
    centre = means[seen].mean(dim=0)
    centred = (means - centre).nan_to_num(0.0)
    scores = (features - centre) @ centred.T - centred.square().sum(dim=1) / 2
    return scores.masked_fill(~seen, -torch.inf).argmax(dim=1)


def _tell_apart(means: Tensor, n: int) -> bool:
    """Whether there is one mean, or means that differ by more than the rounding of sums of n terms."""
    if not n:
        return False
    means = means[means.isfinite().all(dim=1)]
    floor = EPS * max(n, *means.shape) * torch.linalg.norm(means)
    return len(means) == 1 or bool((means - means.mean(dim=0)).abs().max() > floor)
