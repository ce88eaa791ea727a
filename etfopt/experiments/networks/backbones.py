"""Backbones: networks from images to features, by name, and any module of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from etfopt.errors import InputError
from etfopt.experiments.networks._convolutional import convnet, flat_convnet, resnet18, resnet34, resnet50, vgg13
from etfopt.experiments.networks._perceptron import FreeFeatures, mlp
from etfopt.experiments.networks.optimizers import orthogonal_

if TYPE_CHECKING:
    from etfopt.experiments.data import Images
    from etfopt.experiments.settings import BackboneConfig, TrainConfig

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "FreeFeatures",
    "build_backbone",
    "convnet",
    "flat_convnet",
    "mlp",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg13",
]


@dataclass(frozen=True)
class BackboneSpec:
    """A network that can be named.

    Attributes
    ----------
    build : callable
        From the data and the settings to a module with features of dimension `feature_dim`.
    width : int
        Of the network where none is given.
    multiple : int
        Features for each unit of width; 0 where they do not depend on it, and are `dim`.
    dim : int
    """

    build: Callable[[Images, BackboneConfig, int], nn.Module]
    width: int = 64
    multiple: int = 0
    dim: int = 64

    def feature_dim(self, width: int | None) -> int:
        """Return the network's own number of features.

        Parameters
        ----------
        width : int or None
            None is the network's own.

        Returns
        -------
        int
            Before any linear layer on top.
        """
        return self.multiple * (width or self.width) or self.dim


def _perceptron(images: Images, config: BackboneConfig, width: int) -> nn.Module:
    return mlp(images.shape, width, config.feature_dim, affine=config.affine)


def _free(images: Images, config: BackboneConfig, width: int) -> nn.Module:  # noqa: ARG001 - as every builder
    return FreeFeatures(len(images.train), config.feature_dim)


def _small(images: Images, config: BackboneConfig, width: int) -> nn.Module:
    return convnet(images.shape[0], width, affine=config.affine)


def _small_flat(images: Images, config: BackboneConfig, width: int) -> nn.Module:
    return flat_convnet(images.shape, width, config.feature_dim, affine=config.affine)


def _stemmed(
    make: Callable[..., nn.Sequential], reduction: int, images: Images, config: BackboneConfig, width: int
) -> nn.Module:
    channels, *sides = images.shape
    least = reduction * (4 if config.stem == "imagenet" else 1)
    if min(sides) < least:
        raise InputError(
            f"backbone.name = {config.name!r} with the {config.stem} stem needs images of {least} x {least} pixels and "
            f"more; got {sides[0]} x {sides[1]}: set data.size, or another stem"
        )
    return make(channels, width, stem=config.stem, affine=config.affine)


BACKBONES = {
    "mlp": BackboneSpec(_perceptron, width=128),
    "free": BackboneSpec(_free, dim=512),
    "convnet": BackboneSpec(_small, multiple=1),
    "convnet-flat": BackboneSpec(_small_flat, dim=256),
    # a residual network still works where its last stages see a single place
    "resnet18": BackboneSpec(partial(_stemmed, resnet18, 8), multiple=8),
    "resnet34": BackboneSpec(partial(_stemmed, resnet34, 8), multiple=8),
    "resnet50": BackboneSpec(partial(_stemmed, resnet50, 8), multiple=32),
    "vgg13": BackboneSpec(partial(_stemmed, vgg13, 32), multiple=8),
}
"""Networks by name; a module of one's own is "custom", and handed to `build_backbone`."""


def build_backbone(config: TrainConfig, images: Images, module: nn.Module | None = None) -> nn.Module:
    """Return the network that a configuration names, its weights drawn from the global generator.

    Parameters
    ----------
    config : TrainConfig
    images : Images
        The data: their shape and, for free features, their number.
    module : nn.Module, optional
        For the backbone "custom": any module from images ``(n, *shape)`` to features (n, backbone.dim).

    Returns
    -------
    nn.Module
        From images (n, channels, height, width) to features (n, d).

    Raises
    ------
    InputError
        If the images are too small for the network, or a module is missing, superfluous, or gives no such features.
    """
    settings = config.backbone
    if (settings.name == "custom") != (module is not None):
        raise InputError(
            f"backbone.name = {settings.name!r} {'needs' if module is None else 'does not go with'} a module: a module "
            "of one's own is handed over in Python, and goes with 'custom' and backbone.dim"
        )
    if module is not None:
        _check_features(module, images, settings.feature_dim)
    else:
        spec = BACKBONES[settings.name]
        module = spec.build(images, settings, settings.width or spec.width)
        own, wanted = spec.feature_dim(settings.width), settings.feature_dim
        if spec.multiple and own != wanted:
            module = nn.Sequential(module, nn.Linear(own, wanted, bias=False))
    if config.optimizer.name == "agd":
        orthogonal_(module)
    return module


@torch.no_grad()
def _check_features(module: nn.Module, images: Images, dim: int) -> None:
    mode = module.training
    features = module.eval()(images.train[0:2][0])
    module.train(mode)
    found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if found != (min(2, len(images.train)), dim):
        raise InputError(f"backbone: features of two images are {found}; (2, {dim}) by backbone.dim = {dim} is needed")
