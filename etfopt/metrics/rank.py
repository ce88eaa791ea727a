"""`NumericalRank`: over how many directions the features of a class spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etfopt.metrics._checks import Batch
from etfopt.metrics._rows import KeepsRows

__all__ = ["NumericalRank"]


class NumericalRank(KeepsRows):
    r"""Mean over the classes of the numerical rank of the class's features.

    With :math:`X_c` of shape (n_c, d) the features of class c, one a row and not centred, of singular values s,

    .. math:: r_c = \left(\frac{\|X_c\|_*}{\|X_c\|_F}\right)^2 = \frac{(\sum_i s_i)^2}{\sum_i s_i^2}

    lies between 1 and the rank of :math:`X_c`, and is 1 where all features of the class are multiples of one: at
    collapse. ``compute()`` returns the mean of :math:`r_c` over the classes that occurred, a 0-d float64 tensor, NaN
    before the first sample and where all features of a class are zero. No classifier is needed.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    ignore_index : int
        Label of samples that count nowhere, outside [0, C): by default -100, as in PyTorch's cross-entropy.
    **kwargs
        For ``torchmetrics.Metric``.

    Raises
    ------
    InputError
        If `num_classes` or `dim` is not an integer in range.

    Notes
    -----
    Singular values need the features themselves: those of a Gram matrix have lost half their digits. What is kept is
    at most 2 C d rows: beyond that, the rows of a class are replaced by the triangular factor of their QR
    decomposition, which has the same singular values, and so has every stack of such factors. Batches and ranks do
    not matter, therefore, but for rounding. ``compute()`` takes C singular value decompositions, on the host.

    References
    ----------
    Markou, Ajanthan, Gould (2024), arXiv 2411.01248.

    Examples
    --------
    >>> import torch
    >>> from etfopt.metrics import NumericalRank
    >>> metric = NumericalRank(num_classes=2, dim=3)
    >>> metric.update(torch.eye(3), torch.tensor([0, 0, 1]))
    >>> round(float(metric.compute()), 4)  # two equal singular values, and one
    1.5
    """

    higher_is_better = False
    plot_lower_bound = 1.0

    def __init__(self, *, num_classes: int, dim: int, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(num_classes=num_classes, dim=dim, ignore_index=ignore_index, **kwargs)
        self.add_rows("features", self.dim)
        self.add_rows("labels", dtype=torch.int64)

    def _add(self, batch: Batch) -> None:
        self.append("features", batch.doubles())
        self.append("labels", batch.labels)
        if len(held := self.rows("labels")) > 2 * self.num_classes * self.dim:
            for name, rows in zip(("features", "labels"), _compact(self.rows("features"), held), strict=True):
                setattr(self, name, [rows])

    def compute(self) -> Tensor:
        """Return the mean over the classes that occurred; NaN before the first sample, and where one has only zeros.

        Returns
        -------
        Tensor, shape (), float64
        """
        features, labels = self.rows("features").cpu(), self.rows("labels").cpu()
        ranks = [_numerical_rank(features[labels == c]) for c in torch.unique(labels)]
        mean = torch.stack(ranks).mean() if ranks else features.new_full((), torch.nan)
        return mean.to(self.device)


def _compact(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the rows of every class by at most d rows with the same singular values."""
    factors = {int(c): _factor(features[labels == c]) for c in torch.unique(labels)}
    kept = [torch.full((len(R),), c, device=labels.device) for c, R in factors.items()]
    return torch.cat(list(factors.values())), torch.cat(kept)


def _factor(X: Tensor) -> Tensor:
    return torch.linalg.qr(X, mode="r").R if len(X) > X.shape[1] else X


def _numerical_rank(X: Tensor) -> Tensor:
    """(||X||_* / ||X||_F)^2; NaN for X = 0. The division keeps the squares in range."""
    largest = X.abs().max()
    if not largest:
        return X.new_full((), torch.nan)
    s = torch.linalg.svdvals(X / largest)
    rank: Tensor = (s.sum() / torch.linalg.vector_norm(s)).square()
    return rank
