r"""A baseline of class-incremental learning: learned rows while training, the nearest class mean in evaluation."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from etfopt.nn import ClassMeans
from etfopt.nn.heads import Head, LearnedHead
from etfopt.nn.heads._growth import columns
from etfopt.nn.heads.base import HeadOptions

__all__ = ["NearestMeanHead"]


class NearestMeanHead(Head):
    r"""Learned rows in training, and in evaluation the class whose running mean is nearest.

    The logits of evaluation are :math:`z_c = f'\mu_c - \frac\tau2\|\mu_c\|^2`, with features f of norm
    :math:`\tau` and the running means :math:`\mu_c` of :math:`f/\tau`: the largest belongs to the nearest mean. A class
    never seen has the mean 0.

    Parameters
    ----------
    dim, num_classes : int
        d and C.
    memory : float
        Samples of a class after which its mean forgets, see `etfopt.nn.ClassMeans`.
    **options
        Of `etfopt.nn.heads.Head`.

    Raises
    ------
    InputError
        If an argument is out of range.

    References
    ----------
    Mensink, Verbeek, Perronnin and Csurka (2013), Distance-based image classification: generalizing to new classes at
    near-zero cost.

    Examples
    --------
    >>> import torch
    >>> from etfopt.experiments.networks.nearest_mean import NearestMeanHead
    >>> head = NearestMeanHead(dim=4, num_classes=2)
    >>> logits = head(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> head.eval()(torch.eye(4)).argmax(dim=1)
    tensor([0, 0, 1, 1])
    """

    def __init__(self, dim: int, num_classes: int, *, memory: float = 64.0, **options: Unpack[HeadOptions]) -> None:
        super().__init__(dim, num_classes, **options)
        self.learned = LearnedHead(dim, num_classes, **options)
        self.means = ClassMeans(num_classes=num_classes, dim=dim, memory=memory, ignore_index=self.ignore_index)

    @torch.no_grad()
    def _reindex(self, index: list[int]) -> None:
        self.learned._reindex(index)
        self.means.take_columns(lambda X: columns(X, index), len(index))
        self._retemper(len(index))
        self.num_classes = len(index)

    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        logits: Tensor = self.learned(features, labels)
        with torch.no_grad():
            self.means(self.normalize(features) / self.temperature, labels)
        return logits

    @property
    def weight(self) -> Tensor:
        """The running class means, shape (C, d)."""
        return self.means.mean.mT

    @property
    def bias(self) -> Tensor:  # type: ignore[override] # it follows the means
        r""":math:`-\frac\tau2\|\mu_c\|^2`, shape (C,)."""
        return -self.temperature / 2 * self.weight.square().sum(dim=1)
