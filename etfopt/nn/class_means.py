r"""Running means of the classes' features: one counter for each class, centred only when they are used."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from etfopt._options import as_memory
from etfopt._torch import full_precision
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._running import MeansOptions, Merged, RunningMeans, Sums

__all__ = ["ClassMeans"]

MEMORY = 64.0
"""Samples of a class after which an old one has a weight of 1/e."""

PRIOR = 4.0
"""Samples that the running means are worth when a batch tells by how much all features have moved."""


@takes_old_options
class ClassMeans(RunningMeans):
    r"""Running class means with a sample counter for each class.

    A batch with n samples of class c, whose mean is :math:`\hat\mu_c`, moves the running mean :math:`\mu_c` of N
    samples by

    .. math:: \mu_c \leftarrow \mu_c + a\,(\hat\mu_c - \mu_c), \qquad
       a = 1 - \min\Bigl\{\Bigl(\frac{N}{N+n}\Bigr)^2,\ e^{-n/m}\Bigr\}, \qquad N \leftarrow N + n.

    The past is held constant, so that only :math:`a\,\hat\mu_c` carries a gradient. Absent classes keep their mean to
    the bit. Both factors multiply: one batch, or the same samples in many small ones, forget the past equally.
    The class means are centred by the mean of the columns seen so far; a class never seen has a centred mean of zero.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    memory : float
        m, the number of samples of a class after which an old sample's weight has fallen to 1/e. ``math.inf`` forgets
        as the paper's rule does, :math:`a \approx 2n/N`.
    ignore_index : int
        Label of samples that do not count, as in `torch.nn.CrossEntropyLoss`.
    synchronize : bool or ProcessGroup
        Under torch.distributed, the processes whose batches count as one in training: True for the default group,
        False for each process alone, or a group. The reduction is differentiable, and every process holds the same
        means; see `etfopt.nn._ranks` for the gradient.
    device, dtype : torch.device and torch.dtype, optional
        Where the buffers live, and their dtype, which is float32 at least.

    Raises
    ------
    InputError
        If an argument is out of range; in `forward` if features or labels do not fit, before any state changes, and
        on every rank if they do not on one. On a GPU a batch with NaN or a bad label leaves the state as it was, and
        the error comes with the next ``eval()``, ``train()``, ``state_dict()`` or `NearestETFHead.solution`.

    Notes
    -----
    All state is in buffers: ``mean`` (d, C), not centred, ``samples`` (C,) and ``steps`` (). They are float32 or better
    however the module is built, moved or loaded, and all of them may be averaged (EMA, SWA). In float32 ``samples``
    counts to 2^24, when the memory alone decides. The options of the constructor are not part of the state.

    The bias of `NearestETFHead` is centred by the global mean :math:`\mu_G = \sum_c N_c\mu_c/\sum_c N_c`. In training
    the :math:`\mu_c` are those before the batch and the :math:`N_c` those after it, and :math:`n/(n+4)` times the mean
    residual :math:`f_i - \mu_{y_i}` of the n samples of the batch is added: an estimate of how far all features have
    moved since the means were taken, for which it does not matter which classes the batch holds.

    What was tried is in ``docs/explanation/statistics.md``, with figures.

    References
    ----------
    The rule with one counter for all classes, and means centred batch by batch, is `PaperClassMeans`.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import ClassMeans
    >>> means = ClassMeans(num_classes=2, dim=3)
    >>> for feature, label in zip(torch.eye(3)[:2], (0, 1)):  # one sample a batch
    ...     H = means(feature[None], torch.tensor([label]))
    >>> H
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    >>> int(means.steps), means.samples.tolist()
    (2, [1.0, 1.0])
    """

    _shown = ("num_classes", "dim", "memory")
    _by_class = ("mean", "samples")
    mean: Tensor
    samples: Tensor

    def __init__(self, *, memory: float = MEMORY, **options: Unpack[MeansOptions]) -> None:
        super().__init__(**options)
        self.memory = as_memory(memory)

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.dim, self.num_classes), "samples": (self.num_classes,)}

    @property
    def occurred(self) -> Tensor:
        """Which classes have occurred so far, bool of shape (C,)."""
        return self.samples > 0

    @torch.no_grad()
    def start_from(self, mean: Tensor) -> None:
        """Take columns (d, C) from elsewhere for the class means, each worth as much as one sample."""
        self.mean.copy_(mean)
        self.samples.fill_(1)

    def centred(self) -> Tensor:
        """Return the class means minus their balanced mean; 0 for a class never seen.

        Returns
        -------
        Tensor, shape (d, C)
        """
        return _centred(self.mean, self.occurred)

    def center(self) -> Tensor:
        """Return the mean of all samples by the running class means.

        Returns
        -------
        Tensor, shape (d,)
        """
        return _weighted(self.mean, self.samples)

    def _merged(self, batch: Sums) -> Merged:
        counts, means = batch.counts, batch.means()
        old, samples = self.mean.to(means.dtype), self.samples.to(means.dtype)
        before, seen = samples > 0, (samples > 0) | (counts > 0)
        a = share(samples, counts, self.memory)
        # lerp is exact at the rates 0 and 1: absent classes keep their column to the bit
        mean = torch.lerp(old, means, a)
        # a class that is new here says nothing of how far the others have moved
        past = torch.where(before, old, means.detach())
        weight = batch.number + PRIOR
        center = _weighted(past, samples + counts) + (batch.total - past @ counts) / weight
        unlabelled = torch.lerp(_weighted(old, samples), batch.mean(), batch.number / weight)
        samples = samples + counts
        return Merged(_centred(mean, seen), center, unlabelled, seen, {"mean": mean, "samples": samples})


def share(past: Tensor, new: Tensor, memory: float) -> Tensor:
    r"""Return the weight of n new samples among N past ones, :math:`1 - \min\{(N/(N+n))^2, e^{-n/m}\}`; 0 for none.

    Each term is written so that a small weight keeps its digits, and no product of tiny probabilities becomes 0.
    """
    both = past + new
    x = new / torch.where(both > 0, both, 1)
    return torch.maximum(x * (2 - x), -torch.expm1(-new / memory))


def _weighted(mean: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the columns by these weights, which may all be 0."""
    total = weights.sum()
    with full_precision(mean):
        return mean @ (weights / torch.where(total > 0, total, 1))


def _centred(mean: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen, mean - _weighted(mean, seen.to(mean.dtype))[:, None], 0)
