"""Data sets by name, in memory or on the disk, what can be done to them, and batches in a repeatable order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etfopt.experiments.data.decoding import ImageFiles, decoded
from etfopt.experiments.data.image_folders import load_folder, load_tiny_imagenet
from etfopt.experiments.data.images import Images, Split, require_classes, standardized
from etfopt.experiments.data.names import FOLDER, TORCHVISION, known_classes
from etfopt.experiments.data.packaged import load_digits, load_mnist5k, load_ufm
from etfopt.experiments.data.sampling import EpochBatches, batches
from etfopt.experiments.data.selection import for_testing, selected
from etfopt.experiments.data.torchvision import load_imagenet, load_torchvision

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["EpochBatches", "Images", "Split", "batches", "load_images"]

IN_MEMORY = {"digits": load_digits, "mnist5k": load_mnist5k, **dict.fromkeys(TORCHVISION, load_torchvision)}
IN_FILES = {"imagenet": load_imagenet, "tiny-imagenet": load_tiny_imagenet}


def load_images(config: DataConfig) -> Images:
    """Read the data that a configuration names, and do to them what it says.

    Parameters
    ----------
    config : DataConfig
        Name, subset, imbalance, label noise, cache.

    Returns
    -------
    Images
        Both splits, standardised.

    Raises
    ------
    InputError
        If the data are not there, cannot be read, need too much memory, or a class has no samples; if a file of the
        cache is damaged or cannot be written.
    """
    if config.name == "ufm":
        return load_ufm(config)
    if config.name.startswith(FOLDER):
        return _from_files(load_folder(config), config)
    if config.name in IN_FILES:
        return _from_files(IN_FILES[config.name](config), config)
    train, test = IN_MEMORY[config.name](config)
    C = known_classes(config) or 0
    return standardized(selected(train.labels, C, config).of(train), for_testing(test.labels, C, config).of(test), C)


def _from_files(source: tuple[ImageFiles, ImageFiles, int], config: DataConfig) -> Images:
    """Choose by the labels alone, then decode what is kept."""
    train, test, C = source
    kept = selected(train.labels, C, config), for_testing(test.labels, C, config)
    require_classes(kept[0].labels, kept[1].labels, C)  # before hours of decoding
    return standardized(*decoded((train, test), kept, config), C)
