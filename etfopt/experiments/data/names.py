"""The data sets that can be named, and how many classes each has; nothing is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etfopt.errors import InputError

if TYPE_CHECKING:
    from etfopt.experiments.settings import DataConfig

__all__ = ["FOLDER", "TORCHVISION", "known_classes", "known_data"]

FOLDER = "imagefolder:"

TORCHVISION = {
    "cifar10": 10,
    "cifar100": 100,
    "stl10": 10,
    "mnist": 10,
    "fashion-mnist": 10,
    "svhn": 10,
    "emnist": 47,  # the balanced split
    "imagenet": 1000,
}
"""Data sets that torchvision reads, and their numbers of classes."""

CLASSES = {"digits": 10, "mnist5k": 10, "tiny-imagenet": 200, **TORCHVISION}


def known_data(value: Any, name: str) -> str:
    """Check the name of a data set.

    Parameters
    ----------
    value : object
        What was given.
    name : str
        Of the setting, for the message.

    Returns
    -------
    str
        The name.

    Raises
    ------
    InputError
        If there is no such data set; the known ones are listed.
    """
    known = [*CLASSES, "ufm", f"{FOLDER}PATH"]
    if isinstance(value, str) and (value in known[:-1] or (value.startswith(FOLDER) and len(value) > len(FOLDER))):
        return value
    raise InputError(f"{name} = {value!r} is not known; choose one of: {', '.join(known)}")


def known_classes(config: DataConfig) -> int | None:
    """Return the number of classes where it is known before any data are read.

    Parameters
    ----------
    config : DataConfig
        The data.

    Returns
    -------
    int or None
        C; None for a folder of images.
    """
    return config.classes if config.name == "ufm" else CLASSES.get(config.name)
