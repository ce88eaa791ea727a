r"""The normalisation of features, alone and for the heads."""

from __future__ import annotations

import torch
from torch import Tensor

from etfopt._options import as_temperature
from etfopt.nn._state import Shown

__all__ = ["UnitFeatures", "scaled"]


class UnitFeatures(Shown):
    r"""The feature normalisation :math:`f = \tau h/\|h\|` alone, in tensor operations that every exporter takes.

    For deployment: ``nn.Sequential(backbone, UnitFeatures(head.temperature), head.linear())`` gives the logits of the
    network in evaluation mode.

    Parameters
    ----------
    temperature : float
        tau, the norm of the normalised features.

    Raises
    ------
    InputError
        If the temperature is not a positive number.

    References
    ----------
    Markou, Ajanthan and Gould (2024), whose scripts take tau = 5; ``theory/temperature.py`` says which tau suits C
    classes.

    Examples
    --------
    >>> import torch
    >>> from etfopt.nn import UnitFeatures
    >>> UnitFeatures(5.0)(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[3., 4.],
            [0., 0.]])
    """

    _shown = ("temperature",)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = as_temperature(temperature, 2)

    def forward(self, features: Tensor) -> Tensor:
        r"""Return :math:`\tau h/\|h\|` for each feature h, a vector along the last axis.

        Parameters
        ----------
        features : Tensor, shape (..., d)
            A feature of zeros stays zero.

        Returns
        -------
        Tensor, shape (..., d)
        """
        return scaled(features, self.temperature)


def scaled(features: Tensor, temperature: float) -> Tensor:
    # dividing by the largest entry first keeps squares in range; the derivative does not depend on the length
    largest = features.detach().abs().amax(dim=-1, keepdim=True)
    zero = largest == 0
    h = features / largest.masked_fill(zero, 1)
    # a zero row is divided by 1. The norm of ones stands in for its own: no derivative is taken where a norm has none
    norm: Tensor = torch.linalg.vector_norm(h.masked_fill(zero, 1), dim=-1, keepdim=True)
    return h * (temperature / norm.masked_fill(zero, 1))
