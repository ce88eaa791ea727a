"""Convolutional networks from images (n, channels, h, w) to features; most end in an average over places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional


def _conv(inside: int, outside: int, size: int, stride: int, *, affine: bool) -> list[nn.Module]:
    """Return a convolution without bias, which the normalisation behind it would take away, and the normalisation."""
    conv = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return [conv, nn.BatchNorm2d(outside, affine=affine)]


def _stem(channels: int, width: int, kind: str, *, affine: bool) -> list[nn.Module]:
    """Return the first layers: 3 x 3 as for CIFAR, or 7 x 7 with stride 2 and a pooling, as for ImageNet."""
    if kind == "cifar":
        return [*_conv(channels, width, 3, 1, affine=affine), nn.ReLU()]
    return [*_conv(channels, width, 7, 2, affine=affine), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def _pooled(layers: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Block(nn.Module):
    """A branch of convolutions and a shortcut, which is a 1 x 1 convolution where size or width change."""

    def __init__(self, inside: int, outside: int, stride: int, branch: Sequence[nn.Module], *, affine: bool) -> None:
        super().__init__()
        same = stride == 1 and inside == outside
        self.branch = nn.Sequential(*branch)
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inside, outside, 1, stride, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of half the size where the stride is 2."""
        return functional.relu(self.branch(x) + self.shortcut(x))


def _basic(inside: int, width: int, stride: int, *, affine: bool) -> _Block:
    branch = [*_conv(inside, width, 3, stride, affine=affine), nn.ReLU(), *_conv(width, width, 3, 1, affine=affine)]
    return _Block(inside, width, stride, branch, affine=affine)


def _bottleneck(inside: int, width: int, stride: int, *, affine: bool) -> _Block:
    branch = [
        *(*_conv(inside, width, 1, 1, affine=affine), nn.ReLU()),
        *(*_conv(width, width, 3, stride, affine=affine), nn.ReLU()),
        *_conv(width, 4 * width, 1, 1, affine=affine),
    ]
    return _Block(inside, 4 * width, stride, branch, affine=affine)


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet(
    depth: Literal[18, 34, 50], channels: int = 3, width: int = 64, *, stem: str = "cifar", affine: bool = True
) -> nn.Sequential:
    """Return a residual network (He et al., 2016). The CIFAR stem takes images of 8 x 8 and more.

    Parameters
    ----------
    depth : 18, 34 or 50
        Its layers. That of 50 has bottlenecks, with their strides at the 3 x 3 convolutions, as is usual.
    channels : int
        Of the images.
    width : int
        Channels of the first stage.
    stem : "cifar" or "imagenet"
        A 3 x 3 convolution, or a 7 x 7 one with stride 2 and a pooling.
    affine : bool
        Whether batch normalisation has a scale and a shift.

    Returns
    -------
    nn.Sequential
        From images (n, channels, height, width) to features (n, 8 width); (n, 32 width) at depth 50.
    """
    make, expansion = (_bottleneck, 4) if depth == 50 else (_basic, 1)
    layers, inside = _stem(channels, width, stem, affine=affine), width
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            layers.append(make(inside, width << stage, 2 if stage and not block else 1, affine=affine))
            inside = expansion * (width << stage)
    return _pooled(layers)


resnet18, resnet34, resnet50 = partial(resnet, 18), partial(resnet, 34), partial(resnet, 50)


def vgg13(channels: int = 3, width: int = 64, *, stem: str = "cifar", affine: bool = True) -> nn.Sequential:
    """Return the convolutions of a VGG-13 with batch normalisation (Simonyan and Zisserman, 2015): (n, 8 width).

    The stem is its first convolution. Images of 32 x 32 and more, 128 x 128 with the ImageNet stem.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Channels of the first stage.
    stem : "cifar" or "imagenet"
        The latter takes strides of 2 and a pooling first.
    affine : bool
        Whether batch normalisation has a scale and a shift.

    Returns
    -------
    nn.Sequential
        From images (n, channels, height, width) to features (n, 8 width).
    """
    layers, inside = _stem(channels, width, stem, affine=affine), width
    for stage, multiple in enumerate((1, 2, 4, 8, 8)):
        for conv in range(2):
            if stage or conv:  # the first is the stem
                layers += [*_conv(inside, multiple * width, 3, 1, affine=affine), nn.ReLU()]
            inside = multiple * width
        layers.append(nn.MaxPool2d(2))
    return _pooled(layers)


def convnet(channels: int = 3, width: int = 64, *, affine: bool = True) -> nn.Sequential:
    """Return a small network: four times a 3 x 3 convolution, normalisation, ReLU and pooling. Features (n, width).

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Channels of every stage.
    affine : bool
        Whether batch normalisation has a scale and a shift.

    Returns
    -------
    nn.Sequential
        From images (n, channels, height, width) to features (n, width).
    """
    return _pooled(_small_layers(channels, width, 4, affine=affine))


def flat_convnet(image_shape: Sequence[int], width: int, dim: int, *, affine: bool = True) -> nn.Sequential:
    """Return three such layers, and a linear layer from all places in place of their average: features (n, dim).

    An average over places leaves features of rank `width` at most; with C - 1 above it, no simplex of C means fits.
    """
    channels, *sides = image_shape
    places = math.prod(math.ceil(side / 2**3) for side in sides)
    layers = _small_layers(channels, width, 3, affine=affine)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * places, dim, bias=False))


def _small_layers(channels: int, width: int, stages: int, *, affine: bool) -> list[nn.Module]:
    """Return convolutions with poolings that round up, so that images of any size pass."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise((channels, *(width,) * stages)):
        layers += [*_conv(inside, outside, 3, 1, affine=affine), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    return layers
