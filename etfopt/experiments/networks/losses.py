r"""The losses: functions of the logits :math:`z = W f + b`, which all heads give alike, with :math:`f = \tau h/\|h\|`.

Cross-entropy is PyTorch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from etfopt._registry import called
from etfopt._scalars import as_nonnegative
from etfopt.errors import InputError
from etfopt.experiments.settings.names import LOSSES

if TYPE_CHECKING:
    from etfopt.experiments.settings import LossConfig

__all__ = ["LogitAdjustment", "build_loss", "dot_regression"]


def dot_regression(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the dot-regression loss :math:`\frac{1}{2n}\sum_i (w_{y_i}'f_i + b_{y_i} - 1)^2`.

    Only the logit of the right class counts: the loss pulls each feature towards its class's row and pushes it away
    from none. The rows have unit length, so with features of length :math:`\tau` and no bias the logit is
    :math:`\tau\cos(f, w_y)`. For :math:`\tau = 1` the loss is zero exactly where all features of a class are the
    class's row, which is collapse to the ETF; **that is the temperature to use**. For :math:`\tau > 1` it is zero on a
    whole cone around the row, :math:`\cos = 1/\tau`, and collapse is no minimiser; for :math:`\tau < 1` it is
    smallest at the row, and never zero. A learned head can make the loss small with all rows equal: this loss is
    meant for heads whose rows are an ETF.

    Parameters
    ----------
    logits : Tensor, shape (n, C)
    labels : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape ()
        The mean over the batch.

    References
    ----------
    Yang et al. (2022), Inducing neural collapse in imbalanced learning; here without their factors for unequal
    lengths, as in Markou, Ajanthan and Gould (2024).

    Examples
    --------
    >>> import torch
    >>> from etfopt.experiments.networks.losses import dot_regression
    >>> float(dot_regression(torch.tensor([[1.0, -0.5], [0.0, 0.0]]), torch.tensor([0, 1])))
    0.25
    """
    right = logits.gather(1, labels[:, None])
    return torch.mean((right - 1) ** 2) / 2


class LogitAdjustment(nn.Module):
    r"""Cross-entropy for imbalanced classes: of the logits plus :math:`\tau` times the log of the class shares.

    .. math:: -\frac1n \sum_i \log \frac{\pi_{y_i}^\tau e^{z_{iy_i}}}{\sum_c \pi_c^\tau e^{z_{ic}}}, \qquad
              \pi_c = n_c/\textstyle\sum_k n_k

    Training with the frequent classes ahead lets the network bring out what the shares do not say. Predict by the plain
    logits: they then suit a test split in which all classes are equally frequent. With :math:`\tau = 1` the loss is the
    *balanced softmax*; with other values it is the loss called *logit adjustment*. Equal counts, or
    :math:`\tau = 0`, give cross-entropy. A run records this loss for both splits.

    Parameters
    ----------
    counts : Tensor, shape (C,)
        Training samples of each class, all above 0.
    tau : float
        At least 0. The default 1 is the consistent one; above 1 favours rare classes more.

    Raises
    ------
    InputError
        If a class has no sample, or tau is negative.

    References
    ----------
    Ren et al. (2020), Balanced meta-softmax for long-tailed visual recognition, arXiv 2007.10740. Menon et al. (2021),
    Long-tail learning via logit adjustment, arXiv 2007.07314.

    Examples
    --------
    >>> import torch
    >>> from etfopt.experiments.networks.losses import LogitAdjustment
    >>> loss = LogitAdjustment(torch.tensor([30, 10]))
    >>> round(float(loss(torch.zeros(1, 2), torch.tensor([1]))), 4)  # log 4
    1.3863
    """

    offset: Tensor

    def __init__(self, counts: Tensor, tau: float = 1.0) -> None:
        super().__init__()
        if not (counts > 0).all():
            raise InputError(f"counts must be above 0; got {counts.tolist()}: leave classes without samples out")
        offset = as_nonnegative(tau, "loss.options.tau") * (counts.double() / counts.sum()).log()
        self.register_buffer("offset", offset.float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch.

        Parameters
        ----------
        logits : Tensor, shape (n, C)
        labels : Tensor, shape (n,)

        Returns
        -------
        Tensor, shape ()
            The loss.
        """
        return functional.cross_entropy(logits + self.offset, labels)


def build_loss(config: LossConfig, counts: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss that the settings name, with ``loss.options`` as keyword arguments.

    Parameters
    ----------
    config : LossConfig
        A loss of one's own, named by import path, is a function of logits (n, C) and labels (n,), or a module class
        whose instances are.
    counts : Tensor, shape (C,), optional
        Training samples of each class, for a class with a parameter of this name.

    Returns
    -------
    callable
        From logits and labels to the mean over the batch, a scalar.

    Raises
    ------
    InputError
        If there is no such loss, or the options do not fit it.
    """
    loss = LOSSES.load(config.name)
    made: Callable[[Tensor, Tensor], Tensor]
    if isinstance(loss, type):
        offers = {} if counts is None else {"counts": counts}
        made = called(loss, "loss", offers=offers, options=config.options)
    else:
        try:
            made = partial(loss, **config.options)
            inspect.signature(loss).bind(None, None, **config.options)
        except TypeError as error:
            raise InputError(f"loss.name = {config.name!r} does not fit: {error}; see loss.options") from error
        except ValueError:  # of some that are written in C, which have no signature
            pass
    return made
