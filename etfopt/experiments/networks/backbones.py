"""Backbones: networks from images to features, built from settings; `settings.names` has their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from etfopt._registry import called
from etfopt.errors import InputError
from etfopt.experiments.networks._convolutional import convnet, flat_convnet, resnet18, resnet34, resnet50, vgg13
from etfopt.experiments.networks._perceptron import FreeFeatures, mlp
from etfopt.experiments.settings.names import BACKBONES, NETWORK_FACTS, is_own

if TYPE_CHECKING:
    from etfopt.experiments.settings import BackboneConfig

__all__ = [
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


def build_backbone(config: BackboneConfig, images: Tensor, samples: int, module: nn.Module | None = None) -> nn.Module:
    """Return the network that the settings name, its weights drawn from the global generator.

    A backbone of one's own, named by import path, is called with the keyword arguments ``backbone.options``, and with
    ``image_shape``, ``channels`` and ``dim`` where it has parameters of these names.

    Parameters
    ----------
    config : BackboneConfig
        What to build.
    images : Tensor, shape (n, channels, height, width)
        A few images of the data, for their shape; a network of one's own is tried on them.
    samples : int
        Size of the training split, for free features.
    module : nn.Module, optional
        For the backbone "custom": any module from images to features (n, backbone.dim).

    Returns
    -------
    nn.Module
        From images (n, channels, height, width) to features (n, d).

    Raises
    ------
    InputError
        If the images are too small for the network, or a module is missing, superfluous, or gives no such features.
    """
    if (config.name == "custom") != (module is not None):
        raise InputError(
            f"backbone.name = {config.name!r} {'needs' if module is None else 'does not go with'} a module: a module "
            "of one's own is handed over in Python, and goes with 'custom' and backbone.dim"
        )
    shape = images.shape[1:]
    facts = {"image_shape": tuple(shape), "channels": shape[0] if shape else 1, "dim": config.feature_dim}
    if module is None and is_own(config.name):
        made = called(BACKBONES.load(config.name), "backbone", offers=facts, options=config.options)
        if not isinstance(made, nn.Module):
            raise InputError(f"backbone.name = {config.name!r} makes no torch.nn.Module, but a {type(made).__name__}")
        module = made
    if module is not None:
        _check_features(module, images, config.feature_dim)
        return module
    network = NETWORK_FACTS[config.name]
    _check_sides(config, shape, network.least)
    width = config.width or network.width
    offers = {**facts, "samples": samples, "width": width, "stem": config.stem, "affine": config.affine}
    built: nn.Module = called(BACKBONES.load(config.name), "backbone", offers=offers, options={})
    # on a CPU a step of a narrow network is 1.2 to 1.6 times faster
    built.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch leaves it out of its types
    own = network.multiple * width
    if own and own != config.feature_dim:
        return nn.Sequential(built, nn.Linear(own, config.feature_dim, bias=False))
    return built


def _check_sides(config: BackboneConfig, shape: torch.Size, least: int) -> None:
    least *= 4 if config.stem == "imagenet" else 1
    if least and min(shape[1:]) < least:
        raise InputError(
            f"backbone.name = {config.name!r} with the {config.stem} stem needs images of {least} x {least} pixels and "
            f"more; got {shape[1]} x {shape[2]}: set data.size, or another stem"
        )


@torch.no_grad()
def _check_features(module: nn.Module, images: Tensor, dim: int) -> None:
    modes = {part: part.training for part in module.modules()}  # a part may be frozen
    features = module.eval()(images)
    for part, mode in modes.items():
        part.training = mode
    found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if found != (len(images), dim):
        raise InputError(
            f"backbone: features of {len(images)} images are {found}; ({len(images)}, {dim}) by backbone.dim = {dim} "
            "is needed"
        )
