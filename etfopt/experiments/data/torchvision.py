"""Data sets that torchvision reads, by name. torchvision is imported here only, and when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from etfopt.errors import InputError
from etfopt.experiments.data.decoding import ImageFiles
from etfopt.experiments.data.images import Labelled
from etfopt.experiments.settings.names import SET_FACTS

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["load_imagenet", "load_torchvision"]

Make = Callable[[Any, str, bool, bool], Any]
"""From torchvision.datasets, the root, whether the training split is wanted, and whether to download, to a data set."""

MAKERS: dict[str, Make] = {
    "cifar10": lambda tv, root, train, download: tv.CIFAR10(root, train=train, download=download),
    "cifar100": lambda tv, root, train, download: tv.CIFAR100(root, train=train, download=download),
    "mnist": lambda tv, root, train, download: tv.MNIST(root, train=train, download=download),
    "fashion-mnist": lambda tv, root, train, download: tv.FashionMNIST(root, train=train, download=download),
    "emnist": lambda tv, root, train, download: tv.EMNIST(root, split="balanced", train=train, download=download),
    "svhn": lambda tv, root, train, download: tv.SVHN(root, split="train" if train else "test", download=download),
    "stl10": lambda tv, root, train, download: tv.STL10(root, split="train" if train else "test", download=download),
    # cannot be downloaded by a program
    "imagenet": lambda tv, root, train, _: tv.ImageNet(root, split="train" if train else "val"),
}


def load_torchvision(config: DataConfig) -> tuple[Labelled, Labelled, int]:
    """Return both splits of a data set that torchvision reads into memory from the folder `config.root`."""
    train, test = _read(config)
    return _labelled(train), _labelled(test), SET_FACTS[config.name].classes or 0


def load_imagenet(config: DataConfig) -> tuple[ImageFiles, ImageFiles, int]:
    """Return the files of both splits of ImageNet, as torchvision finds them in the folder `config.root`."""
    train, test = (
        ImageFiles([Path(path) for path, _ in data.samples], torch.tensor([int(label) for _, label in data.samples]))
        for data in _read(config)
    )
    return train, test, SET_FACTS["imagenet"].classes or 0


def _read(config: DataConfig) -> tuple[Any, Any]:
    """Return torchvision's objects of both splits."""
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise InputError(
            f"data.name = {config.name!r} is read by torchvision, which cannot be imported ({error}); run: "
            "pip install torchvision, in the version made for the installed torch, or use imagefolder:PATH"
        ) from error
    make = MAKERS[config.name]
    try:
        return make(datasets, config.root, True, config.download), make(datasets, config.root, False, config.download)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{config.name}: cannot be read from data.root = {config.root!r}: {error}; "
            "set data.download = true, or name the folder that holds it"
        ) from error


def _labelled(data: Any) -> Labelled:
    """Return the images of a torchvision data set; they are (n, h, w), (n, h, w, 3) or (n, 3, h, w) there."""
    pixels = torch.as_tensor(data.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
    labels = data.targets if hasattr(data, "targets") else data.labels
    return Labelled(pixels, torch.as_tensor(labels, dtype=torch.int64))
