r"""Running means of the classes' features, as the paper's layer keeps them."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from etfopt._options import as_averaging
from etfopt.nn._running import MeansOptions, Merged, RunningMeans, Sums
from etfopt.nn.averaging import rule_of

__all__ = ["PaperClassMeans"]


class PaperClassMeans(RunningMeans):
    r"""Running class means by the rules of the paper's release: centred by the mean of each batch.

    With :math:`H_t` the class means of batch t minus the batch's global mean :math:`\mu_G`, as columns,

    .. math:: \bar H_t = a_t H_t + (1 - a_t) \bar H_{t-1},

    the past held constant, so that only :math:`a_t H_t` carries a gradient. A class absent from the batch keeps its
    previous column; a class never seen has :math:`\mu_G` as its column. One counter t serves all classes, and
    :math:`\mu_G` is that of the last batch. `ClassMeans` does without both, and is the better choice in a training loop
    whose last batch is small, or whose batches do not hold all classes.

    Parameters
    ----------
    num_classes, dim : int
        C, at least 2, and d, the width of the features.
    averaging : "paper", "cumulative", float or str
        The rate :math:`a_t`, t = 1 at the first batch: "paper" is :math:`\max(2/(t+1), 10^{-4})`, the rule of the
        paper's release; "cumulative" is :math:`1/t`, the plain mean over batches; a number in (0, 1] is a constant
        rate after :math:`a_1 = 1`; any other string is the import path of your own, see `etfopt.nn.averaging`. The
        smaller the last rates, the less of the gradient is left.
    ignore_index : int
        Label of samples that do not count, as in `torch.nn.CrossEntropyLoss`.
    synchronize : bool or ProcessGroup
        Whose batches count as one under torch.distributed: True for the default group, False for each process alone.
    device, dtype : torch.device and torch.dtype, optional
        Where the buffers live, and their dtype, which is float32 at least.

    Raises
    ------
    InputError
        If an argument is out of range; in `forward` if features or labels do not fit, before any state changes.

    Notes
    -----
    All state is in buffers: ``mean`` (d, C), ``global_mean`` (d,), ``seen`` (C,), ``steps`` (). All of them may be
    averaged (EMA, SWA): a class was seen where ``seen > 0``, and an average of ``steps`` is rounded up.

    A batch of one class is its own mean, and teaches nothing of the class. A `UserWarning` says so, once.

    References
    ----------
    Markou, Ajanthan and Gould (2024), section 3 and the released code. What a batch weighs in the mean after t steps,
    and what is left of its gradient: ``theory/fading.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import PaperClassMeans
    >>> means = PaperClassMeans(num_classes=2, dim=3)
    >>> H = means(torch.eye(3)[:2], torch.tensor([0, 1]))
    >>> H
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    >>> int(means.steps), means.seen.tolist()
    (1, [1.0, 1.0])
    """

    _shown = ("num_classes", "dim", "averaging")
    _by_class = ("mean", "seen")
    mean: Tensor
    global_mean: Tensor
    seen: Tensor

    def __init__(self, *, averaging: str | float = "paper", **options: Unpack[MeansOptions]) -> None:
        super().__init__(**options)
        self.averaging = as_averaging(averaging)
        rule_of(self.averaging)  # one that cannot be imported is refused now

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (self.dim, self.num_classes), "global_mean": (self.dim,), "seen": (self.num_classes,)}

    @property
    def occurred(self) -> Tensor:
        """Which classes have occurred so far, bool of shape (C,)."""
        return self.seen > 0

    @torch.no_grad()
    def start_from(self, mean: Tensor) -> None:
        """Take centred columns (d, C) from elsewhere for the class means of a first step."""
        self.mean.copy_(mean)
        self.seen.fill_(1)
        self.steps.fill_(1)

    def centred(self) -> Tensor:
        """Return the running means of the centred class means.

        Returns
        -------
        Tensor, shape (d, C)
        """
        return self.mean

    def center(self) -> Tensor:
        """Return the mean of the last batch.

        Returns
        -------
        Tensor, shape (d,)
        """
        return self.global_mean

    def _merged(self, batch: Sums) -> Merged:
        mu = batch.mean()
        present = batch.counts > 0
        if not self._told:
            self.note_one_class(present.sum() == 1)
        seen = self.occurred | present
        past = torch.where(seen, self.mean.to(mu.dtype), mu.detach()[:, None])
        # columns the batch says nothing of: the past where there is one, mu_G where there is none
        means = torch.where(present, batch.means() - mu[:, None], torch.where(seen, past, mu[:, None]))
        # lerp is exact where both agree, so that absent classes keep their column to the bit, and at the rate 1
        rate = rule_of(self.averaging)(self.steps.to(mu.dtype) + 1)
        mean = torch.lerp(past, means, rate)
        return Merged(mean, mu, mu, seen, {"mean": mean, "global_mean": mu, "seen": seen.to(mu.dtype)})
