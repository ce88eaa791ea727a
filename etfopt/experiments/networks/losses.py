r"""The losses: functions of the logits :math:`z = W f + b`, which all heads give alike, with :math:`f = \tau h/\|h\|`.

Cross-entropy is PyTorch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from etfopt._registry import called
from etfopt.errors import InputError
from etfopt.experiments.settings.names import LOSSES

if TYPE_CHECKING:
    from etfopt.experiments.settings import LossConfig

__all__ = ["build_loss", "dot_regression"]


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


def build_loss(config: LossConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss that the settings name, with ``loss.options`` as keyword arguments.

    Parameters
    ----------
    config : LossConfig
        A loss of one's own, named by import path, is a function of logits (n, C) and labels (n,), or a module class
        whose instances are.

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
        made = called(loss, "loss", offers={}, options=config.options)
    else:
        try:
            made = partial(loss, **config.options)
            inspect.signature(loss).bind(None, None, **config.options)
        except TypeError as error:
            raise InputError(f"loss.name = {config.name!r} does not fit: {error}; see loss.options") from error
        except ValueError:  # of some that are written in C, which have no signature
            pass
    return made
