r"""Running means of the classes' features, as the paper's layer keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from etfopt._options import ByKeyword, as_averaging, as_ignored
from etfopt._scalars import as_integer
from etfopt._torch import outside_graphs
from etfopt.nn._ranks import Ranks
from etfopt.nn._renamed import takes_old_options
from etfopt.nn._running import RunningMeans
from etfopt.nn._state import refuse_trace, state_dtype
from etfopt.nn.averaging import rule_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ClassMeans"]


@takes_old_options
class ClassMeans(ByKeyword, RunningMeans):
    r"""Running class means, centred by the mean of each batch.

    With :math:`H_t` the class means of batch t minus the batch's global mean :math:`\mu_G`, as columns,

    .. math:: \bar H_t = a_t H_t + (1 - a_t) \bar H_{t-1},

    the past held constant, so that only :math:`a_t H_t` carries a gradient. A class absent from the batch keeps its
    previous column; a class never seen has :math:`\mu_G` as its column (the paper's release does the same).

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
        Label of samples that count neither in the class means nor in :math:`\mu_G`, as in `torch.nn.CrossEntropyLoss`.
    synchronize : bool or ProcessGroup
        Under torch.distributed, the processes whose batches count as one in training: True for the default group,
        False for each process alone, or a group. The reduction is differentiable, and every process holds the same
        means; see `etfopt.nn._ranks` for the gradient.
    device, dtype : torch.device and torch.dtype, optional
        Of the buffers, which are at least float32.

    Raises
    ------
    InputError
        If an argument is out of range; in `forward` if features or labels do not fit, before any state changes, and
        on every rank if they do not on one. On a GPU a batch with NaN or a bad label leaves the state as it was, and
        the error comes with the next ``eval()``, ``train()``, ``state_dict()`` or `NearestETFHead.solution`.

    Notes
    -----
    All state is in buffers: ``mean`` (d, C), ``global_mean`` (d,), ``seen`` (C,), ``steps`` (). They are float32 or
    better however the module is built, moved or loaded, and all of them may be averaged (EMA, SWA): a class was seen
    where ``seen > 0``, and an average of ``steps`` is rounded up. In float32 ``steps`` counts to 2^24. The options of
    the constructor are not part of the state.

    A batch of one class is its own mean, and teaches nothing of the class. A `UserWarning` says so, once.

    References
    ----------
    Markou, Ajanthan and Gould (2024), section 3 and the released code. What a batch weighs in the mean after t steps,
    and what is left of its gradient: ``theory/fading.py``.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import ClassMeans
    >>> means = ClassMeans(num_classes=2, dim=3)
    >>> H = means(torch.eye(3)[:2], torch.tensor([0, 1]))
    >>> H
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    >>> int(means.steps), means.seen.tolist()
    (1, [1.0, 1.0])
    """

    _shown = ("num_classes", "dim", "averaging")

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        averaging: str | float = "paper",
        ignore_index: int = -100,
        synchronize: bool | ProcessGroup = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        self.num_classes = as_integer(num_classes, "num_classes", at_least=2)
        self.dim = as_integer(dim, "dim", at_least=1)
        self.averaging = as_averaging(averaging)
        rule_of(self.averaging)  # one that cannot be imported is refused now
        self.ignore_index = as_ignored(ignore_index, self.num_classes)
        self.ranks = Ranks(synchronize)
        # all of them floats, for averages of models: one of bool fails, and one of integers is cut to integers
        sizes = {"mean": (dim, num_classes), "global_mean": (dim,), "seen": (num_classes,), "steps": ()}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=state_dtype(dtype), device=device))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the centred class means, shape (d, C): updated by the batch in training, as they are in evaluation.

        Parameters
        ----------
        features, labels : Tensor, shape (n, d), and Tensor of integers, shape (n,)
            Labels are required in training. n = 0 changes nothing.

        Returns
        -------
        Tensor, shape (d, C)
            In training with the gradient of the batch's part.

        Raises
        ------
        InputError
            If features or labels do not fit, before any state changes.
        """
        if not self.training:
            return self.mean.clone()
        refuse_trace(self)
        mean: Tensor = self._train(features, labels)
        return mean

    # Not compiled: AOTAutograd (PyTorch 2.13) may save a buffer for the backward pass and write to it before that,
    # which gives another gradient and no error. Under fullgraph=True this is an error; else the rest is compiled.
    @outside_graphs
    def _train(self, features: Tensor, labels: Tensor | None) -> Tensor:
        update = self.updated(features, labels)
        if update is None:
            return self.mean.clone()
        self.commit(update)
        return update.mean
