"""`NearestMeanMismatch`: how often the classifier disagrees with the nearest class mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from etfopt._torch import require_floats
from etfopt.errors import InputError
from etfopt.metrics._checks import EPS, Batch, predict, require_values
from etfopt.metrics._precise import centred
from etfopt.metrics._rows import KeepsRows

__all__ = ["NCCAgreement", "NearestMeanMismatch"]

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
        self._rule: tuple[Tensor, NearestRule] | None = None
        if class_means is not None:
            self.add_given("class_means", _checked(class_means, self.num_classes, self.dim))
            self.add_floats("mismatches", value=0.0, reduce="sum")
            self.add_floats("count", value=0.0, reduce="sum")
        else:
            self.add_rows("features", self.dim)
            self.add_rows("labels", dtype=torch.int64)
            self.add_rows("predicted", dtype=torch.int64)

    def _add(self, batch: Batch) -> None:
        predicted = predict(batch.features, self.classifier_of(batch).doubles())
        if self.streaming:
            self.mismatches = self.mismatches + (predicted != self._given_rule().nearest(batch.features)).sum()
            self.count = self.count + len(predicted)
        else:
            for name, rows in (("features", batch.doubles()), ("labels", batch.labels), ("predicted", predicted)):
                self.append(name, rows)

    def compute(self) -> Tensor:
        """Return the share; NaN before the first sample, and where the means cannot be told apart.

        Returns
        -------
        Tensor, shape (), float64
        """
        if self.streaming:
            share = self.mismatches / self.count
            least, largest = torch.aminmax(self.class_means.nan_to_num(0.0))
            floor = EPS * max(self.class_means.shape) * torch.maximum(-least, largest)
            return share if self._given_rule().tells_apart(floor) else share * torch.nan
        # an offset common to all features would cost digits, and takes no part in distances
        features, labels, predicted = centred(self.rows("features")), self.rows("labels"), self.rows("predicted")
        if not len(features):
            return features.new_full((), torch.nan)
        counts = torch.bincount(labels, minlength=self.num_classes).to(features)
        sums = features.new_zeros(self.num_classes, self.dim).index_add(0, labels, features)
        rule = _nearest_rule(sums / counts[:, None])
        if not rule.tells_apart(EPS * max(*features.shape, self.num_classes) * features.abs().max()):
            return features.new_full((), torch.nan)
        return (predicted != rule.nearest(features)).double().mean()

    def _given_rule(self) -> NearestRule:
        """Return the rule of the given means, made anew only when the state is another tensor."""
        if self._rule is None or self._rule[0] is not self.class_means:
            self._rule = self.class_means, _nearest_rule(self.class_means)
        return self._rule[1]


class NCCAgreement(NearestMeanMismatch):
    r"""Share of samples whose predicted class is that of the nearest class mean: NCC agreement (NC4).

    This is 1 - `NearestMeanMismatch`, with the same arguments and modes, under the name that the literature uses. It is
    1 at collapse, and NaN where `NearestMeanMismatch` is.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    class_means : Tensor, shape (C, d), optional
        :math:`\mu_c`, not centred, e.g. from a first pass over the training data (`NeuralCollapse.feature_means`).
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If a size is out of range, or `class_means` not of shape (C, d) with rows that are finite or all NaN.

    Notes
    -----
    ``neural-collapse`` (Wu) has it as ``clf_ncc_agreement``, without the bias of the classifier and with distances in
    float32 that are not centred.

    References
    ----------
    Papyan, Han, Donoho (2020), the property NC4.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NCCAgreement
    >>> metric = NCCAgreement(num_classes=2, dim=1)
    >>> features, labels = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    >>> metric.update(features, labels, torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5]))  # cuts at 0.5
    >>> float(metric.compute())
    0.75
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the share; NaN before the first sample, and where the means cannot be told apart.

        Returns
        -------
        Tensor, shape (), float64
        """
        return 1 - super().compute()


def _checked(class_means: Tensor, C: int, d: int) -> Tensor:
    """Return a copy of the given means in float64."""
    means = require_floats(class_means, "class_means", (C, d)).detach().to(torch.float64, copy=True)
    absent = means.isnan().all(dim=1)
    require_values(means.where(~absent[:, None], 0.0), "class_means (its rows that are not NaN)")
    if absent.all():
        raise InputError("class_means holds no mean: every row is NaN; give those of the classes that occurred")
    return means


class NearestRule(NamedTuple):
    """The class of the nearest of some means: the largest <f, mu> - |mu|^2/2, all centred and divided by `size`."""

    seen: Tensor  # (C,), bool
    centre: Tensor  # (d,)
    size: Tensor  # of the largest entry of a centred mean
    offsets: Tensor  # (C, d), zero where not seen
    halves: Tensor  # (C,), half the squared norms of the offsets

    def nearest(self, features: Tensor) -> Tensor:
        """Return a class for each row of features, without all distances at once."""
        scale = self.size.where(self.size > 0, 1.0)
        pieces = torch.split(features, max(1, CHUNK // len(self.seen)))
        scores = (((f - self.centre) / scale) @ self.offsets.T - self.halves for f in pieces)
        return torch.cat([score.masked_fill_(~self.seen, -torch.inf).argmax(dim=1) for score in scores])

    def tells_apart(self, floor: Tensor) -> bool:
        """Whether there is one mean, or means that differ by more than `floor`."""
        return int(self.seen.sum()) == 1 or bool(self.size > floor)


def _nearest_rule(means: Tensor) -> NearestRule:
    """Return the rule of these means, (C, d); rows of NaN are left out."""
    seen = means.isfinite().all(dim=1)
    centre = (means if seen.all() else means[seen]).mean(dim=0)
    offsets = (means - centre).nan_to_num_(0.0)
    size = torch.maximum(-offsets.min(), offsets.max())
    offsets /= size.where(size > 0, 1.0)  # squares of tiny entries do not underflow
    return NearestRule(seen, centre, size, offsets, torch.linalg.vector_norm(offsets, dim=1).square() / 2)
