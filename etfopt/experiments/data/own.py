"""Data of the user's own, named by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from etfopt._registry import called
from etfopt.errors import InputError
from etfopt.experiments.data.images import Labelled, require_classes
from etfopt.experiments.settings.names import DATA

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["load_own"]


def load_own(config: DataConfig) -> tuple[Labelled, Labelled, int]:
    """Return what a function of the user's returns: training split and test split.

    It is called with the keyword arguments ``data.options``, and with ``root``, ``download`` and ``seed`` where it has
    parameters of these names. Each split is a pair (images, labels) of arrays or tensors, or a map-style PyTorch data
    set of such pairs. Images are (n, channels, height, width) or (n, height, width), bytes or floats; rows of features
    (n, p) are images of p channels and one pixel. Labels are whole numbers from 0 to C - 1, and C is the largest
    training label plus 1.

    Parameters
    ----------
    config : DataConfig
        Name and options.

    Returns
    -------
    train, test, num_classes : Labelled, Labelled, int
        As they are, before any subset.

    Raises
    ------
    InputError
        If the splits are not of this form.
    """
    offers = {"root": config.root, "download": config.download, "seed": config.seed}
    names = ("train", "test")
    splits = called(DATA.load(config.name), "data", offers=offers, options=config.options)
    if not isinstance(splits, (tuple, list)) or len(splits) != 2:
        raise InputError(f"data.name = {config.name!r} must return (train, test); got a {type(splits).__name__}")
    train, test = (_split(f"data.name = {config.name!r}, {name}", x) for name, x in zip(names, splits, strict=True))
    if train.pixels[:1].dtype.is_floating_point != test.pixels[:1].dtype.is_floating_point:
        raise InputError(f"data.name = {config.name!r}: images of one split are bytes, and of the other floats")
    C = int(train.labels.max()) + 1
    if C < 2 or len(train.labels) < C:
        raise InputError(f"data.name = {config.name!r}: labels must be 0 to C - 1, C >= 2; the largest is {C - 1}")
    require_classes(train.labels, test.labels, C)
    if config.augmentation != "none" and max(train.pixels.shape[2:]) < 2:
        raise InputError(f"data.augmentation = {config.augmentation!r}: rows of features are no images; use 'none'")
    return train, test, C


def _split(name: str, split: Any) -> Labelled:
    if not isinstance(split, (tuple, list)):
        if not hasattr(split, "__getitem__") or not hasattr(split, "__len__"):
            raise InputError(f"{name}: a pair (images, labels) or a map-style data set is needed; got {type(split)}")
        samples = [split[i] for i in range(len(split))]
        split = [x for x, _ in samples], [y for _, y in samples]
    if len(split) != 2:
        raise InputError(f"{name}: a pair (images, labels) is needed; got {len(split)} parts")
    images, labels = (_tensor(f"{name}, {what}", part) for what, part in zip(("images", "labels"), split, strict=True))
    if images.ndim not in (2, 3, 4) or labels.shape != images.shape[:1] or not len(labels):
        raise InputError(
            f"{name}: images are {tuple(images.shape)} and labels {tuple(labels.shape)}; (n, channels, height, width), "
            "(n, height, width) or (n, p), and (n,), are needed"
        )
    if labels.is_floating_point() or labels.is_complex() or images.is_complex() or int(labels.long().min()) < 0:
        raise InputError(
            f"{name}: images must be real, and labels whole numbers from 0 to C - 1; got {images.dtype}, {labels.dtype}"
        )
    if images.dtype != torch.uint8:
        images = images.float()
        if not images.isfinite().all():
            raise InputError(f"{name}: images hold NaN or infinity")
    images = images[:, None] if images.ndim == 3 else images.reshape(*images.shape, *(1,) * (4 - images.ndim))
    return Labelled(images, labels.long())


def _tensor(name: str, part: Any) -> Tensor:
    """Return an array, a tensor, or a list of these, as one tensor."""
    try:
        if isinstance(part, list) and isinstance(part[0], Tensor):
            return torch.stack(part)
        return torch.as_tensor(part if isinstance(part, Tensor) else np.asarray(part))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        remedy = "give numbers of one shape: encode names as 0 to C - 1, and turn images into arrays (ToTensor)"
        raise InputError(f"{name} cannot be read as numbers: {error}; {remedy}") from error
