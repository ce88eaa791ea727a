"""Data sets by name, as tensors in memory, what can be done to them, and batches in a repeatable order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from etfopt.experiments.data.folder import load_folder, load_tiny_imagenet
from etfopt.experiments.data.images import Images, Split, standardized
from etfopt.experiments.data.names import FOLDER, TORCHVISION, known_classes
from etfopt.experiments.data.packaged import load_digits, load_mnist5k, load_ufm
from etfopt.experiments.data.sampling import EpochBatches, batches
from etfopt.experiments.data.selection import for_testing, selected
from etfopt.experiments.data.torchvision_sets import load_torchvision

if TYPE_CHECKING:
    from etfopt.experiments.config import DataConfig

__all__ = ["EpochBatches", "Images", "Split", "batches", "load_images"]

LOADERS = {"digits": load_digits, "mnist5k": load_mnist5k, **dict.fromkeys(TORCHVISION, load_torchvision)}


def load_images(config: DataConfig) -> Images:
    """Read the data that a configuration names, and do to them what it says.

    Parameters
    ----------
    config : DataConfig
        Name, subset, imbalance, label noise.

    Returns
    -------
    Images
        Both splits, standardised.

    Raises
    ------
    InputError
        If the data are not there, cannot be read, or a class has no samples.
    """
    if config.name == "ufm":
        return load_ufm(config)
    if config.name.startswith(FOLDER):
        train, test, classes = load_folder(Path(config.name.removeprefix(FOLDER)).expanduser(), config)
        C = len(classes)
    elif config.name == "tiny-imagenet":
        train, test, classes = load_tiny_imagenet(Path(config.root) / "tiny-imagenet-200", config)
        C = len(classes)
    else:
        train, test = LOADERS[config.name](config)
        C = known_classes(config) or 0
    return standardized(selected(train, C, config), for_testing(test, C, config), C)
