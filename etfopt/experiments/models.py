"""Backbones: networks from images to features."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

__all__ = ["mlp"]


def mlp(image_shape: Sequence[int], width: int, dim: int) -> nn.Sequential:
    """Return a perceptron with two hidden layers, from images (n, *image_shape) to features (n, dim).

    Batch normalisation without affine parameters and no biases before it, as in the paper's networks.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), width, bias=False),
        nn.BatchNorm1d(width, affine=False),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width, affine=False),
        nn.ReLU(),
        nn.Linear(width, dim, bias=False),
    )
