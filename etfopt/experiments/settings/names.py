"""What a run can name: heads, backbones, data sets, losses and optimisers, each stated once. Nothing is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

import etfopt
from etfopt._registry import Registry, modules_of
from etfopt.errors import InputError

__all__ = [
    "BACKBONES",
    "DATA",
    "FOLDER",
    "FRAMES",
    "HEADS",
    "LOGGERS",
    "LOSSES",
    "OPTIMIZERS",
    "BackboneName",
    "DataName",
    "FrameName",
    "HeadName",
    "LossName",
    "OptimizerName",
    "is_own",
    "known_classes",
    "known_dim",
]

NETWORKS = "etfopt.experiments.networks"
SETS = "etfopt.experiments.data"

PACKAGE = Path(etfopt.__file__).parent

HEADS = Registry("head.name", modules_of("etfopt.nn.heads", PACKAGE / "nn" / "heads"))
FRAMES = Registry("head.frame", {**modules_of("etfopt.frames", PACKAGE / "frames"), "seli": "etfopt.frames:seli"})
"""The heads take these names; seli depends on the numbers of samples, and is a pair of frames."""

LOSSES = Registry(
    "loss.name",
    {
        "cross-entropy": "torch.nn.functional:cross_entropy",
        "dot-regression": f"{NETWORKS}.losses:dot_regression",
        "logit-adjustment": f"{NETWORKS}.losses:LogitAdjustment",
    },
)

OPTIMIZERS = Registry(
    "optimizer.name",
    {
        "sgd": "torch.optim:SGD",
        "adam": "torch.optim:Adam",
        "adamw": "torch.optim:AdamW",
        "agd": f"{NETWORKS}.optimizers:AGD",
    },
)


LIGHTNING = "pytorch_lightning.loggers"
LOGGERS = Registry(
    "logger",
    {
        "none": "",
        "csv": f"{LIGHTNING}:CSVLogger",
        "tensorboard": f"{LIGHTNING}:TensorBoardLogger",
        "wandb": f"{LIGHTNING}:WandbLogger",
        "mlflow": f"{LIGHTNING}:MLFlowLogger",
    },
)
"""Of a run; the logger is no setting, since it changes no result."""


class _Network(NamedTuple):
    """How a backbone is built, and what settings need to know of it.

    Its features are a multiple of the width, or `dim`. Images have `least` pixels to a side, or more.
    """

    path: str
    width: int = 64
    multiple: int = 0
    dim: int = 64
    least: int = 0


NETWORK_FACTS = {
    "mlp": _Network(f"{NETWORKS}.backbones:mlp", width=128),
    "free": _Network(f"{NETWORKS}.backbones:FreeFeatures", dim=512),
    "convnet": _Network(f"{NETWORKS}.backbones:convnet", multiple=1),
    "convnet-flat": _Network(f"{NETWORKS}.backbones:flat_convnet", dim=256),
    # a residual network still works where its last stages see a single place
    "resnet18": _Network(f"{NETWORKS}.backbones:resnet18", multiple=8, least=8),
    "resnet34": _Network(f"{NETWORKS}.backbones:resnet34", multiple=8, least=8),
    "resnet50": _Network(f"{NETWORKS}.backbones:resnet50", multiple=32, least=8),
    "vgg13": _Network(f"{NETWORKS}.backbones:vgg13", multiple=8, least=32),
}
BACKBONES = Registry("backbone.name", {name: network.path for name, network in NETWORK_FACTS.items()})


class _DataSet(NamedTuple):
    """How a data set is read, and its number of classes, where that is known before."""

    path: str
    classes: int | None


SET_FACTS = {
    "digits": _DataSet(f"{SETS}.packaged:load_digits", 10),
    "mnist5k": _DataSet(f"{SETS}.packaged:load_mnist5k", 10),
    "ufm": _DataSet(f"{SETS}.packaged:load_ufm", None),
    "cifar10": _DataSet(f"{SETS}.torchvision:load_torchvision", 10),
    "cifar100": _DataSet(f"{SETS}.torchvision:load_torchvision", 100),
    "stl10": _DataSet(f"{SETS}.torchvision:load_torchvision", 10),
    "mnist": _DataSet(f"{SETS}.torchvision:load_torchvision", 10),
    "fashion-mnist": _DataSet(f"{SETS}.torchvision:load_torchvision", 10),
    "svhn": _DataSet(f"{SETS}.torchvision:load_torchvision", 10),
    "emnist": _DataSet(f"{SETS}.torchvision:load_torchvision", 47),  # the balanced split
    "tiny-imagenet": _DataSet(f"{SETS}.image_folders:load_tiny_imagenet", 200),
    "imagenet": _DataSet(f"{SETS}.torchvision:load_imagenet", 1000),
}
FOLDER = "imagefolder:"
DATA = Registry("data.name", {name: facts.path for name, facts in SET_FACTS.items()})


def _data_name(value: object) -> str:
    if isinstance(value, str) and value.startswith(FOLDER):
        if value == FOLDER:
            raise InputError(f"data.name = {value!r} names no folder; write it as in {FOLDER}PATH")
        return value
    try:
        return DATA.checked(value)
    except InputError as error:
        raise InputError(f"{error}; or {FOLDER}PATH, a folder of images") from None


BackboneName = Annotated[str, BeforeValidator(lambda value: value if value == "custom" else BACKBONES.checked(value))]
DataName = Annotated[str, BeforeValidator(_data_name)]
FrameName = Annotated[str, BeforeValidator(FRAMES.checked)]
HeadName = Annotated[str, BeforeValidator(HEADS.checked)]
LossName = Annotated[str, BeforeValidator(LOSSES.checked)]
OptimizerName = Annotated[str, BeforeValidator(OPTIMIZERS.checked)]


def is_own(name: str) -> bool:
    """Return whether a name is the import path of something of the user's own.

    Parameters
    ----------
    name : str
        Of a backbone, a data set, ...
    """
    return ":" in name and not name.startswith(FOLDER)


def known_classes(name: str, classes: int) -> int | None:
    """Return the number of classes of a data set where it is known before any data are read.

    Parameters
    ----------
    name : str
        Name of the data set.
    classes : int
        Number of classes of the unconstrained-features model.

    Returns
    -------
    int or None
        C. None for a folder of images, and for data of one's own.
    """
    if name == "ufm":
        return classes
    return SET_FACTS[name].classes if name in SET_FACTS else None


def known_dim(name: str, width: int | None) -> int:
    """Return a backbone's own number of features.

    Parameters
    ----------
    name : str
        Of a backbone that is built in.
    width : int or None
        None is the network's own.

    Returns
    -------
    int
        Before any linear layer on top.
    """
    network = NETWORK_FACTS[name]
    return network.multiple * (width or network.width) or network.dim
