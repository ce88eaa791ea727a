"""Networks without convolutions: the perceptron of the demonstration, and free features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(image_shape: Sequence[int], width: int, dim: int, *, affine: bool = False) -> nn.Sequential:
    r"""Return a perceptron with two hidden layers, from images ``(n, *image_shape)`` to features (n, dim).

    Batch normalisation without affine parameters and no biases before it, as in the paper's networks.

    Parameters
    ----------
    image_shape : sequence of int
        Of one image.
    width : int
        Hidden units of each layer.
    dim : int
        Features.
    affine : bool
        Whether batch normalisation has a scale and a shift.

    Returns
    -------
    nn.Sequential
        From images ``(n, *image_shape)`` to features (n, dim).
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), width, bias=False),
        nn.BatchNorm1d(width, affine=affine),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width, affine=affine),
        nn.ReLU(),
        nn.Linear(width, dim, bias=False),
    )


class FreeFeatures(nn.Module):
    """The unconstrained-features model: a table of parameters, one row the features of one sample.

    Rows start with normal entries of variance 1/d, so that their expected squared length is 1. A row's gradient is
    that of its own sample over the size of the batch: a learning rate that suits a network is small here by about
    that factor.

    Parameters
    ----------
    samples, dim : int
    """

    def __init__(self, samples: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(samples, dim) / math.sqrt(dim))

    def forward(self, index: Tensor) -> Tensor:
        """Return the features of the samples of an index."""
        return self.table[index]
