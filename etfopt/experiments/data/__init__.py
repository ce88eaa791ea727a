"""Data sets by name, in memory or on the disk, what can be done to them, and batches in a repeatable order."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from etfopt.experiments.data.decoding import ImageFiles, decoded
from etfopt.experiments.data.image_folders import load_folder
from etfopt.experiments.data.images import Images, Split, require_classes, standardized
from etfopt.experiments.data.own import load_own
from etfopt.experiments.data.sampling import EpochBatches, batches
from etfopt.experiments.data.selection import for_testing, for_validation, selected
from etfopt.experiments.settings.names import DATA, FOLDER, is_own

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["EpochBatches", "Images", "Split", "batches", "load_images"]

LOG = logging.getLogger(__name__)


def load_images(config: DataConfig) -> Images:
    """Read the data that the settings name, and do to them what they say.

    Parameters
    ----------
    config : DataConfig
        Name, subset, imbalance, label noise, cache.

    Returns
    -------
    Images
        Both splits, standardised. With ``data.validation`` the test split is a part of the training split.

    Raises
    ------
    InputError
        If the data are not there, cannot be read, need too much memory, or a class has no samples; if a file of the
        cache is damaged or cannot be written.
    """
    found: Any
    if config.name.startswith(FOLDER):
        found = load_folder(config)
    elif is_own(config.name):
        found = load_own(config)
    else:
        found = DATA.load(config.name)(config)
    if isinstance(found, Images):  # of the unconstrained-features model, which has none
        return found
    train, test, C = found
    if config.validation is None:
        held = for_testing(test.labels, C, config)
    else:
        test, held = train, for_validation(train.labels, C, config)
    kept = selected(train.labels, C, config), held
    if isinstance(train, ImageFiles):
        require_classes(kept[0].labels, kept[1].labels, C)  # before hours of decoding
        train, test = decoded((train, test), kept, config)
    else:
        train, test = kept[0].of(train), kept[1].of(test)
    LOG.info("%s: %d training and %d test samples of %d classes", config.name, len(train.labels), len(test.labels), C)
    return standardized(train, test, C)
