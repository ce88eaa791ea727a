"""Backbones: networks from images to features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["mlp", "resnet18"]


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


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        same = stride == 1 and inside == outside
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of half the size where the stride is 2."""
        return functional.relu(self.branch(x) + self.shortcut(x))


def resnet18(channels: int = 3) -> nn.Sequential:
    """Return a ResNet-18 for small images, (n, channels, h, w) with h, w >= 8, to features (n, 512).

    The stem is a 3 x 3 convolution without pooling, as is usual for 32 x 32 pixels (He et al., 2016, section 4.2).
    """
    widths = (64, 64, 128, 256, 512)
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]
    for stage, (inside, outside) in enumerate(pairwise(widths)):
        layers += [_Block(inside, outside, 1 if stage == 0 else 2), _Block(outside, outside, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
